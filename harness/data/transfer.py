"""One file over HTTP, continued after an interruption. pooch alone begins anew each time."""

import shutil
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
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
    """A downloader for pooch that keeps ``.<name>.part`` beside the target and resumes it.

    The part file is all that an interrupted transfer leaves; the target appears whole.
    """

    def __init__(self, target: Path) -> None:
        self._part = target.with_name(f".{target.name}.part")
        self.resumed = False  # whether the last transfer began with bytes of an earlier one

    def __call__(self, url: str, output_file: str | Path, pooch: Any) -> None:
        """Download ``url`` into ``output_file``.

        Raises:
            TransferError: the server is not reached, refuses, or stops before the end.
        """
        try:
            self._receive(url)
        except urllib.error.HTTPError as error:
            if error.code == _RANGE_REFUSED:
                self._part.unlink(missing_ok=True)  # longer than the file: not ours
            again = error.code == _RANGE_REFUSED or error.code >= 500
            raise TransferError(f"HTTP {error.code} {error.reason}", again) from error
        except urllib.error.URLError as error:
            raise TransferError(f"not reached ({error.reason})", again=True) from error
        except (HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            raise TransferError(f"interrupted ({error!r})", again=True) from error
        shutil.move(self._part, output_file)

    def _receive(self, url: str) -> None:
        have = self._part.stat().st_size if self._part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            resumed = response.status == _PARTIAL and _starts_at(response) == have
            start, self.resumed = (have if resumed else 0), resumed
            length = response.headers.get("Content-Length")
            total = start + int(length) if length else None
            with open(self._part, "ab" if resumed else "wb") as part:
                received = start + _copy(response, part, start, total, self._part.name)
        if total is not None and received < total:
            raise TransferError(f"stopped after {received:,} of {total:,} bytes", again=True)


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
        while chunk := response.read(_CHUNK_BYTES):
            copied += part.write(chunk)
            progress.update(task, advance=len(chunk))
    return copied
