"""Files appear whole or not at all: write beside the target, fsync, rename."""

import fcntl
import glob
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

SETTLED_SECONDS = 5.0  # from the making of a file to its lock, far more than it takes


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success.

    Whatever goes wrong inside the block (an exception, a full disk), ``path`` keeps its old
    content and the temporary file is removed.

    Raises:
        HarnessError: the folder cannot be written or the disk is full; the message names it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise HarnessError(f"cannot write {path}: {error.strerror or error}") from error
    temporary = Path(name)
    try:
        with suppress(OSError):  # a file system without locks keeps leftovers
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise HarnessError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
        os.close(fd)


def remove_leftovers(path: Path, settled_s: float = SETTLED_SECONDS) -> None:
    """Remove what killed processes left half-written beside ``path``: nobody holds its lock.

    Files younger than ``settled_s`` stay, as another process may be about to lock one: 0 where no
    other process can write here.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), open(leftover, "rb") as handle:  # it may be gone, or be written now
            age_s = time.time() - os.fstat(handle.fileno()).st_mtime
            if not settled_s or age_s > settled_s:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()


def _sync(path: Path) -> None:
    # mkstemp makes the file private; results are meant to be read by others on the machine.
    umask = os.umask(0)
    os.umask(umask)
    with open(path, "rb+") as handle:
        os.fchmod(handle.fileno(), 0o666 & ~umask)
        os.fsync(handle.fileno())


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as JSON, atomically. NaN and infinity are refused with a ValueError."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        HarnessError: the file is missing or is not JSON; the message names it.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        writer = "`bnn train` writes it" if path.name == "run.json" else "its stage has not run"
        raise HarnessError(f"{path} does not exist; {writer}") from error
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise HarnessError(
            f"{path} is not valid JSON ({error}); delete it and run again"
        ) from error


def read_record(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON record and check that it is a mapping with ``keys``.

    Raises:
        HarnessError: not JSON, not a mapping, or a key is missing; the message names the file.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise HarnessError(f"{path}: expected a JSON object, found {type(value).__name__}")
    for key in keys:
        if key not in value:
            raise HarnessError(f"{path}: key {key!r} is missing; delete the file and run again")
    return value


def sha256_file(path: Path | str) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
