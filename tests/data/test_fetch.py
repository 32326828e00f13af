"""Downloads over the loopback interface: interrupted, missing, wrong, unreachable."""

import errno
import hashlib
import shutil
import socket
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from harness.data import digests
from harness.data.dataset import load_dataset
from harness.data.fetch import OFFERS, Offer, fetch
from harness.data.names import DATASETS
from harness.errors import HarnessError

IMAGES = "train-images-idx3-ubyte.gz"


@pytest.fixture
def published(
    server: Any, standin_root: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> dict[str, bytes]:
    """Serve the stand-in of MNIST under /good as if it were the official dataset."""
    folder = standin_root("mnist") / "mnist"
    files = {name: (folder / name).read_bytes() for name in OFFERS["mnist"].files}
    server.files = {f"/good/{name}": content for name, content in files.items()}
    md5s = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setitem(OFFERS, "mnist", Offer(md5s, ("http://127.0.0.1:9/unused",)))
    monkeypatch.setitem(digests.OFFICIAL, "mnist", digests.STANDIN["mnist"])
    return files


def _get(server: Any, root: Path, *mirrors: str) -> Path:
    urls = [f"{server.url}/{mirror}" for mirror in mirrors]
    return fetch("mnist", root, urls, wait_seconds=0.0)


def _leave_part(root: Path, content: bytes) -> Path:
    """Leave bytes of the images as an earlier transfer would."""
    part = root / "mnist" / f".{IMAGES}.part"
    part.parent.mkdir()
    part.write_bytes(content)
    return part


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetch_verifies_and_does_nothing_the_second_time(
    server: Any, published: dict[str, bytes], tmp_path: Path
) -> None:
    folder = _get(server, tmp_path, "good/")
    assert _names(folder) == sorted(published)
    assert load_dataset("mnist", tmp_path).source == "official"
    asked = len(server.asked)
    assert asked == len(published)
    _get(server, tmp_path, "good")
    assert len(server.asked) == asked


def test_truncated_transfer_is_resumed(
    server: Any, published: dict[str, bytes], tmp_path: Path
) -> None:
    server.stop_after = [100_000, 50_000]
    folder = _get(server, tmp_path, "good")
    ranges = [wanted for path, wanted in server.asked if path.endswith(IMAGES)]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert (folder / IMAGES).read_bytes() == published[IMAGES]
    assert _names(folder) == sorted(published)


def test_a_later_command_resumes_an_earlier_one(
    server: Any, published: dict[str, bytes], tmp_path: Path
) -> None:
    _leave_part(tmp_path, published[IMAGES][:70_000])
    _get(server, tmp_path, "good")
    assert (f"/good/{IMAGES}", "bytes=70000-") in server.asked


def test_what_a_kill_left_whole_is_not_asked_for_again(
    server: Any, published: dict[str, bytes], tmp_path: Path
) -> None:
    folder = _leave_part(tmp_path, published[IMAGES]).parent
    _get(server, tmp_path, "good")
    assert _names(folder) == sorted(published)
    assert IMAGES not in {path.split("/")[-1] for path, _ in server.asked}


def test_a_network_that_fails_while_reading_is_tried_again(
    server: Any, published: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, failures = HTTPResponse.read, [OSError(errno.EHOSTUNREACH, "no route to host")]

    def failing(response: HTTPResponse, *size: int) -> bytes:
        if failures:
            raise failures.pop()
        return read(response, *size)

    monkeypatch.setattr(HTTPResponse, "read", failing)
    assert _names(_get(server, tmp_path, "good")) == sorted(published)


def test_a_page_instead_of_the_file_takes_nothing_away(
    server: Any, published: dict[str, bytes], tmp_path: Path
) -> None:
    part = _leave_part(tmp_path, published[IMAGES][:70_000])
    server.ranges = False
    server.files |= {f"/portal/{name}": b"<html>log in first</html>" for name in published}
    with pytest.raises(HarnessError, match="its content is not the publisher's"):
        _get(server, tmp_path, "portal")
    assert part.read_bytes() == published[IMAGES][:70_000]
    server.files |= {f"/portal/{name}": 90_000 * b"x" for name in published}
    with pytest.raises(HarnessError, match="its content is not the publisher's"):
        _get(server, tmp_path, "portal")
    assert _names(part.parent) == [part.name]
    server.stop_after = [80_000, 80_000, 75_000]
    with pytest.raises(HarnessError, match="stopped after 75,000"):
        _get(server, tmp_path, "good")
    assert part.read_bytes() == published[IMAGES][:80_000]
    assert _names(_get(server, tmp_path, "good")) == sorted(published)


def test_a_network_that_fails_before_the_answer_is_tried_again(
    server: Any, published: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, failures = HTTPResponse.begin, [OSError(errno.EHOSTUNREACH, "no route to host")]

    def failing(response: HTTPResponse) -> None:
        if failures:
            raise failures.pop()
        begin(response)

    monkeypatch.setattr(HTTPResponse, "begin", failing)
    assert _names(_get(server, tmp_path, "good")) == sorted(published)


@pytest.mark.parametrize(
    "mirror",
    ["http://[bad", "http://127.0.0.1:9/café", "http://localhost:abc", "http://127.0.0.1:9/a b"],
)
def test_a_malformed_url_is_named(published: dict[str, bytes], tmp_path: Path, mirror: str) -> None:
    with pytest.raises(HarnessError, match="no valid URL"):
        fetch("mnist", tmp_path, [mirror], wait_seconds=0.0)


def test_server_without_ranges_starts_anew(
    server: Any, published: dict[str, bytes], tmp_path: Path
) -> None:
    server.ranges = False
    server.stop_after = [1000]
    folder = _get(server, tmp_path, "good")
    assert (folder / IMAGES).read_bytes() == published[IMAGES]


def test_foreign_part_file_is_dropped(
    server: Any, published: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    labels = "t10k-labels-idx1-ubyte.gz"
    (folder / f".{IMAGES}.part").write_bytes(b"x" * 500)
    (folder / f".{labels}.part").write_bytes(b"y" * (len(published[labels]) + 10))
    _get(server, tmp_path, "good")
    assert _names(folder) == sorted(published)


def test_next_mirror_after_404_and_after_wrong_content(
    server: Any, published: dict[str, bytes], tmp_path: Path
) -> None:
    server.files |= {f"/wrong/{name}": b"<html>log in first</html>" for name in published}
    folder = _get(server, tmp_path, "missing", "wrong", "good")
    assert _names(folder) == sorted(published)
    tried = [path.split("/")[1] for path, _ in server.asked]
    assert tried == ["missing", "wrong", "good"] * len(published)


def test_wrong_content_everywhere_is_refused_and_leaves_nothing(
    server: Any, published: dict[str, bytes], tmp_path: Path
) -> None:
    server.files = {f"/wrong/{name}": b"<html>log in first</html>" for name in published}
    with pytest.raises(HarnessError, match="content is not the publisher's") as caught:
        _get(server, tmp_path, "wrong")
    assert "--mirror URL" in str(caught.value) and "yourself" in str(caught.value)
    assert _names(tmp_path / "mnist") == []


def test_no_server_names_each_mirror_tried(published: dict[str, bytes], tmp_path: Path) -> None:
    with socket.socket() as reserved:  # bound, not listening: connections are refused
        reserved.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(HarnessError) as caught:
            fetch("mnist", tmp_path, [f"{dead}/a", f"{dead}/b"], wait_seconds=0.0)
    message = str(caught.value)
    assert f"{dead}/a" in message and f"{dead}/b" in message and "not reached" in message
    assert _names(tmp_path / "mnist") == []


def test_standin_is_not_overwritten(standin_root: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(standin_root("mnist") / "mnist", tmp_path / "mnist")
    with pytest.raises(HarnessError, match="holds a stand-in"):
        fetch("mnist", tmp_path)


@pytest.mark.parametrize("mirror", ["ftp://example.org/", "data"])
def test_mirror_must_be_http(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=f"mirror '{mirror}': expected a URL"):
        fetch("mnist", tmp_path, [mirror])


def test_every_offered_file_is_one_that_is_read() -> None:
    assert set(OFFERS) == set(DATASETS)
    assert {name.removesuffix(".gz") for name in OFFERS["mnist"].files} == set(
        digests.OFFICIAL["mnist"]
    )
    assert all(len(offer.mirrors) > 1 for offer in OFFERS.values())
