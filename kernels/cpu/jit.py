"""``numba.njit`` with an on-disk cache wherever a folder for it can be written."""

from collections.abc import Callable
from typing import Any

import numba


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return ``numba.njit(nogil=True, cache=True, **options)`` as a decorator.

    The cache spares each worker process the compilation (1-4 s a kernel). numba keeps it in
    ``NUMBA_CACHE_DIR`` if set, else beside the source, else in the user's cache folder; where none
    can be written it refuses to decorate at all, and the function is compiled in memory instead.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache function" not in str(error):
                raise
            return numba.njit(nogil=True, **options)(function)

    return decorate
