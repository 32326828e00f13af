"""One file over HTTP, continued after an interruption."""

import hashlib
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = 30.0
_RANGE_REFUSED = 416
_PARTIAL = 206


class TransferError(Exception):
    """A transfer that failed; ``again`` says whether the same mirror may do better next time."""

    def __init__(self, reason: str, again: bool) -> None:
        super().__init__(reason)
        self.again = again


class Transfer:
    """Downloads a file of known md5 to ``.<name>.part`` beside the target, and resumes that.

    The part file is all that an interrupted transfer leaves; the target appears whole.
    """

    def __init__(self, target: Path, md5: str) -> None:
        self._target, self._md5 = target, md5
        self._part = target.with_name(f".{target.name}.part")

    def is_there(self) -> bool:
        """Return True where the target is whole, or the part is, which then becomes the target."""
        if _has(self._target, self._md5):
            return True
        if not _has(self._part, self._md5):
            return False
        self._part.replace(self._target)
        return True

    def __call__(self, url: str) -> None:
        """Download ``url`` to the target.

        Raises:
            TransferError: the server is not reached, refuses, stops before the end, or gives
                another content; earlier bytes of a transfer may be at fault, so these are gone.
        """
        try:
            resumed = self._receive(url)
        except urllib.error.HTTPError as error:
            if error.code == _RANGE_REFUSED:
                self._part.unlink(missing_ok=True)  # longer than the file: not ours
            again = error.code == _RANGE_REFUSED or error.code >= 500
            raise TransferError(f"HTTP {error.code} {error.reason}", again) from error
        except urllib.error.URLError as error:
            raise TransferError(f"not reached ({error.reason})", again=True) from error
        except (HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            raise TransferError(f"interrupted ({error!r})", again=True) from error
        except ValueError as error:
            raise TransferError(f"no valid URL ({error})", again=False) from error
        if not self.is_there():
            self._part.unlink()
            raise TransferError("its content is not the publisher's: another md5", again=resumed)

    def _receive(self, url: str) -> bool:
        """Fill the part; return whether it began with bytes of an earlier transfer."""
        have = self._part.stat().st_size if self._part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            resumed = response.status == _PARTIAL and _starts_at(response) == have
            start = have if resumed else 0
            length = response.headers.get("Content-Length")
            total = start + int(length) if length else None
            with open(self._part, "ab" if resumed else "wb") as part:
                received = start + _copy(response, part, start, total, self._part.name)
        if total is not None and received < total:
            raise TransferError(f"stopped after {received:,} of {total:,} bytes", again=True)
        return resumed


def _has(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5


def _starts_at(response: HTTPResponse) -> int:
    # Content-Range: bytes 1000-1999/2000
    given = (response.headers.get("Content-Range") or "").removeprefix("bytes ").split("-")[0]
    return int(given) if given.isdigit() else -1


def _copy(response: HTTPResponse, part: BinaryIO, start: int, total: int | None, name: str) -> int:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn(name.removeprefix(".").removesuffix(".part")),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    copied = 0
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("download", total=total, completed=start)
        while chunk := _read(response):
            copied += part.write(chunk)
            progress.update(task, advance=len(chunk))
    return copied


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except OSError as error:  # of the network: the disk has errors of its own
        raise TransferError(f"interrupted ({error!r})", again=True) from error
