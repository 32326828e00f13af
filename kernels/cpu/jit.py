"""``numba.njit`` with an on-disk cache wherever a folder for it can be written."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

_FOLDER = Path(__file__).resolve().parent


def sources_digest(folder: Path) -> str:
    """Return 12 hexadecimal digits of SHA-256 over the names and contents of a folder's sources."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        found.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def _choose_cache() -> None:
    """Give each state of this package's sources a cache of its own.

    numba compiles a function anew when its own file has changed. Compiled code also holds what it
    calls from the other files, which would go stale.
    """
    config: Any = numba.config
    base = Path(config.CACHE_DIR or _FOLDER / "__pycache__")
    if os.access(base if base.exists() else base.parent, os.W_OK):
        config.CACHE_DIR = str(base / f"numba-{sources_digest(_FOLDER)}")


_choose_cache()


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return ``numba.njit(nogil=True, cache=True, **options)`` as a decorator.

    The cache spares each worker process the compilation (1-4 s a kernel). It lies in
    ``NUMBA_CACHE_DIR`` if set, else beside the source, in a folder for each state of the sources,
    else in the user's cache folder; where none can be written numba refuses to decorate at all, and
    the function is compiled in memory instead.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache function" not in str(error):
                raise
            return numba.njit(nogil=True, **options)(function)

    return decorate
