"""Frames of a fresh clone, where records stayed elsewhere, lose nothing when others join them."""

import json
import shutil
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.report.collect import collect
from harness.report.frames import COLUMNS, read_frames

ONE = "mnist/theano-bnn-det/seed0"


@pytest.fixture
def parted(full_results: Path, tmp_path: Path) -> Path:
    """Return a folder with all frames, and the records of one run alone."""
    folder = tmp_path / full_results.name
    collect(full_results, folder)
    shutil.copytree(full_results / "runs" / ONE, folder / "runs" / ONE)
    return folder


def test_rows_without_records_stay_and_the_run_at_hand_replaces_its_own(parted: Path) -> None:
    before = read_frames(parted)
    record = parted / "runs" / ONE / "run.json"
    run = json.loads(record.read_text())
    record.write_text(json.dumps({**run, "test_error_pct": 0.875}))
    collect(parted, keep=True)
    after = read_frames(parted)
    for name in COLUMNS:
        assert len(getattr(after, name)) == len(getattr(before, name)) > 0, name
    changed = after.runs[after.runs["test_error_pct"] == 0.875]
    assert list(changed["mode"]) == ["bnn-det"]
    kept = (frame.runs[frame.runs["mode"] != "bnn-det"] for frame in (before, after))
    first, second = (frame.sort_values(list(frame.columns[:9])).to_csv() for frame in kept)
    strip = [line.split(",", 1)[1] for line in first.splitlines()]
    assert [line.split(",", 1)[1] for line in second.splitlines()] == strip


def test_keeping_twice_gives_the_same_bytes(parted: Path) -> None:
    frames = {}
    for turn in range(2):
        collect(parted, keep=True)
        frames[turn] = {name: (parted / f"{name}.csv").read_bytes() for name in COLUMNS}
    assert frames[0] == frames[1]


@pytest.mark.parametrize("name", ["runs", "epochs", "kernels"])
@pytest.mark.parametrize("damage", ["empty", "half", "half-a-row", "bytes", "nulls"])
def test_damaged_frames_are_not_written_over(parted: Path, name: str, damage: str) -> None:
    path = parted / f"{name}.csv"
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "half": content[: len(content) // 2],
            "half-a-row": content + b"adhoc,mnist\n",
            "bytes": b"\xff" * 99 + b"\n",
            "nulls": bytes(len(content)) + b"\n",
        }[damage]
    )
    damaged = {frame: (parted / f"{frame}.csv").read_bytes() for frame in COLUMNS}
    with pytest.raises(HarnessError, match=rf"{name}\.csv is damaged"):
        collect(parted, keep=True)
    assert {frame: (parted / f"{frame}.csv").read_bytes() for frame in COLUMNS} == damaged
    with pytest.raises(HarnessError, match=rf"{name}\.csv (is|lacks)"):
        read_frames(parted)


def test_without_keep_frames_hold_the_records_alone(parted: Path) -> None:
    collect(parted)
    after = read_frames(parted)
    assert list(after.runs["mode"]) == ["bnn-det"]
    assert after.kernels.empty


def test_counts_of_an_origin_never_fall(parted: Path) -> None:
    before = read_frames(parted).provenance
    collect(parted, keep=True)
    after = read_frames(parted).provenance
    assert sorted(after["records"]) == sorted(before["records"])
    assert list(after["first"]).count("") <= list(before["first"]).count("")


def test_a_run_that_was_missing_once_is_not_beside_itself(parted: Path) -> None:
    before = read_frames(parted).runs
    record = parted / "runs" / ONE / "run.json"
    content = record.read_bytes()
    record.unlink()
    collect(parted, keep=True)
    assert len(read_frames(parted).runs) == len(before) + 1, "the row before may be another's"
    collect(parted, keep=True)
    assert len(read_frames(parted).runs) == len(before) + 1
    record.write_bytes(content)
    collect(parted, keep=True)
    assert sorted(read_frames(parted).runs["status"]) == sorted(before["status"])
