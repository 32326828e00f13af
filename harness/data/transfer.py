"""One file over HTTP, continued after an interruption."""

import hashlib
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import Any, BinaryIO

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

    The part file is all that an interrupted transfer leaves (a killed one that began anew beside an
    earlier part also ``.<name>.fresh``, for the next to write over); the target appears whole.
    """

    def __init__(self, target: Path, md5: str) -> None:
        self._target, self._md5 = target, md5
        self._part = target.with_name(f".{target.name}.part")
        self._fresh = target.with_name(f".{target.name}.fresh")
        self._resumed = False  # whether the last transfer began with bytes of an earlier one

    def is_there(self) -> bool:
        """Return True where the target is whole, or the part is, which then becomes the target."""
        if _has(self._target, self._md5):
            return True
        return self._moved(self._part)

    def __call__(self, url: str) -> None:
        """Download ``url`` to the target.

        Raises:
            TransferError: the server is not reached, refuses, stops before the end, or gives
                another content; where that went on from earlier bytes, they are gone with it.
        """
        try:
            filled = self._receive(url)
        except urllib.error.HTTPError as error:
            if error.code == _RANGE_REFUSED:
                self._part.unlink(missing_ok=True)  # longer than the file: not ours
            again = error.code == _RANGE_REFUSED or error.code >= 500
            raise TransferError(f"HTTP {error.code} {error.reason}", again) from error
        except urllib.error.URLError as error:
            raise TransferError(f"not reached ({error.reason})", again=True) from error
        except HTTPException as error:
            raise TransferError(f"interrupted ({error!r})", again=True) from error
        if not self._moved(filled):
            filled.unlink()
            raise TransferError("its content is not the publisher's: another md5", self._resumed)

    def _moved(self, path: Path) -> bool:
        if not _has(path, self._md5):
            return False
        path.replace(self._target)
        for rest in (self._part, self._fresh):
            rest.unlink(missing_ok=True)
        return True

    def _receive(self, url: str) -> Path:
        """Download to the end; return the file that was filled."""
        have = self._part.stat().st_size if self._part.exists() else 0
        with _answer(url, have) as response:
            self._resumed = response.status == _PARTIAL and _starts_at(response) == have
            start = have if self._resumed else 0
            length = response.headers.get("Content-Length") or ""
            total = start + int(length) if length.isdigit() else None
            # A server that begins anew may send a page: what came before stays until that is known.
            path = self._part if self._resumed or not have else self._fresh
            try:
                with open(path, "ab" if self._resumed else "wb") as file:
                    received = start + _copy(response, file, start, total, self._part.name)
                if total is not None and received < total:
                    why = f"stopped after {received:,} of {total:,} bytes"
                    raise TransferError(why, again=True)
            except BaseException:
                self._keep_longer(have)
                raise
        return path

    def _keep_longer(self, have: int) -> None:
        """Let what an interrupted transfer that began anew has be the part, if it is more."""
        if not self._fresh.exists():
            return
        if self._fresh.stat().st_size > have:
            self._fresh.replace(self._part)
        else:
            self._fresh.unlink()


def _has(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5


def _answer(url: str, have: int) -> Any:
    try:
        headers = {"Range": f"bytes={have}-"} if have else {}
        request = urllib.request.Request(url, headers=headers)
        return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except (InvalidURL, ValueError) as error:
        raise TransferError(f"no valid URL ({error})", again=False) from error
    except urllib.error.URLError:  # it has a reason of its own
        raise
    except OSError as error:  # of the network, while the head of the answer is read
        raise TransferError(f"interrupted ({error!r})", again=True) from error


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
