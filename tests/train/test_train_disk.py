"""Disks that fill up: the old file stays, the error names the new one."""

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from train_helpers import read_run, train_here

from harness.errors import HarnessError
from harness.train.checkpoint import (
    load_checkpoint,
    read_weights,
    save_checkpoint,
    save_weights,
)
from harness.train.session import locked

LIMIT = 8192  # bytes; the small states below take less, the large ones more
SMALL, LARGE = torch.arange(10.0), torch.zeros(100_000)


@contextmanager
def small_files_only() -> Iterator[None]:
    """Let the system refuse to write past LIMIT bytes into any file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_checkpoint_that_does_not_fit_leaves_the_last_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"fingerprint": "a", "w": SMALL})
    with small_files_only(), pytest.raises(HarnessError, match=r"cannot write .*checkpoint\.pt"):
        save_checkpoint(tmp_path, {"fingerprint": "a", "w": LARGE})
    state = load_checkpoint(tmp_path, "a")
    assert state is not None
    assert torch.equal(state["w"], SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_weights_that_do_not_fit_leave_the_last_ones(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_weights(path, {"w": SMALL})
    with small_files_only(), pytest.raises(HarnessError, match=r"cannot write .*best\.safetens"):
        save_weights(path, {"w": LARGE})
    assert torch.equal(read_weights(path)[1]["w"], SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["best.safetensors"]


@pytest.mark.parametrize("free", [0, 1 << 30], ids=["full", "not-full"])
def test_a_full_disk_is_called_one_where_the_library_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    says = "No space left on device" if free == 0 else "inline_container|unexpected pos"
    with small_files_only(), pytest.raises(HarnessError, match=rf"checkpoint\.pt: .*({says})"):
        save_checkpoint(tmp_path, {"fingerprint": "a", "w": LARGE})


def test_run_on_a_full_disk_ends_with_an_error_and_goes_on_later(
    data_root: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, left = os.fsync, [150]

    def full(handle: int) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(HarnessError, match=r"cannot write .*: No space left on device"):
            train_here(tmp_path, data_root, every=0)
    assert not list(tmp_path.glob(".*.tmp"))
    assert read_run(tmp_path)["status"] == "running"
    run: dict[str, Any] = train_here(tmp_path, data_root)
    assert run["status"] == "done"
    ours, theirs = ((f / "best.safetensors").read_bytes() for f in (tmp_path, uninterrupted))
    assert ours == theirs


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".checkpoint.pt.x1.tmp", ".best.safetensors.y2.tmp", ".run.json.y3.tmp"):
        (tmp_path / name).write_bytes(b"half")
    kept = {"checkpoint.pt", "train.log", ".model.bnn.z3.tmp"}
    for name in kept:
        (tmp_path / name).write_bytes(b"whole")
    with locked(tmp_path):
        pass
    (tmp_path / "lock").unlink()
    assert {p.name for p in tmp_path.iterdir()} == kept
