import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.files import atomic_path, read_json, sha256_file, write_json, write_text


def test_json_comes_back_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    value = {"x": [1, 2.5, None], "é": "text"}
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_text().endswith("}\n")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    for place, why in (("file/run.json", "does not exist"), ("folder", "cannot read .*folder: ")):
        with pytest.raises(HarnessError, match=why):
            read_json(tmp_path / place)


def test_file_appears_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    old, fresh, other = (tmp_path / name for name in (".f.a1.tmp", ".f.b2.tmp", ".g.c3.tmp"))
    for path in (old, fresh, other):
        path.write_text("half")
    for path in (old, other):
        os.utime(path, (1.0, 1.0))
    with atomic_path(tmp_path / "f") as temporary:
        temporary.write_text("new")
        os.utime(temporary, (1.0, 1.0))
        write_text(tmp_path / "f", "of another process")
        assert temporary.exists(), "what is being written stays"
    assert (tmp_path / "f").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"f", ".f.b2.tmp", ".g.c3.tmp"}


def test_others_may_read_it_as_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "f", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_exception_inside_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_text(path, "old")

    def interrupted() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyError("x")

    with pytest.raises(KeyError):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_full_disk_keeps_the_old_content_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "f"
    write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(HarnessError, match=r"cannot write .*/f: No space left on device"):
            write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HarnessError, match=r"cannot write .*file/sub/f"):
        write_text(tmp_path / "file" / "sub" / "f", "text")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_json_cannot_hold(tmp_path: Path, value: float) -> None:
    path = tmp_path / "f.json"
    write_json(path, 1)
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"x": value})
    assert read_json(path) == 1


def test_missing_and_damaged_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"none\.json does not exist"):
        read_json(tmp_path / "none.json")
    for content in (b'{"a": ', b"\xff\xfe"):
        path = tmp_path / "bad.json"
        path.write_bytes(content)
        with pytest.raises(HarnessError, match=r"bad\.json is not valid JSON.*delete it"):
            read_json(path)


def test_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "f"
    content = json.dumps(list(range(100_000))).encode()
    path.write_bytes(content)
    assert sha256_file(path) == hashlib.sha256(content).hexdigest()
