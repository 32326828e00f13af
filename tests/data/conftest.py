"""Stand-ins made once a session, and an unreliable file server on the loopback interface."""

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.data.standin import write_standin

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def standin_root(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives a data folder holding the stand-in of a dataset."""
    root = tmp_path_factory.mktemp("standin")

    def make(dataset: str) -> Path:
        write_standin(dataset, root)
        return root

    return make


@pytest.fixture(scope="session")
def real_root() -> Path:
    """Return the folder of official datasets, or skip."""
    folder = os.environ.get("BNN_DATA")
    if not folder:
        pytest.skip("BNN_DATA is not set: no official datasets to test with")
    return Path(folder)


@dataclass
class Server:
    """What the loopback server does, and what it was asked."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)  # path -> content
    stop_after: list[int] = field(default_factory=list)  # bytes to send of the next answers
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range


@pytest.fixture
def server() -> Iterator[Server]:
    """Yield a file server that can stop early, refuse ranges and miss files."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    state = Server(f"http://127.0.0.1:{httpd.server_address[1]}")
    httpd.state = state  # type: ignore[attr-defined]
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        state: Server = self.server.state  # type: ignore[attr-defined]
        wanted = self.headers.get("Range")
        state.asked.append((self.path, wanted))
        content = state.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if wanted and state.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + state.stop_after.pop(0) if state.stop_after else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""
