"""Kernels that bring their process or the device down, or never end: the others go on."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.bench import record as record_module
from harness.bench import session
from harness.bench.gate import NoTimeError
from harness.bench.record import Record
from harness.bench.work import CRASHED, MARK, Entry, Work
from harness.errors import HarnessError
from harness.report.frames import read_frames
from tests.bench.small_preset import CASES, bench


@pytest.mark.usefixtures("odd")
def test_a_kernel_that_ends_the_process_is_a_failed_one_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    found = bench(tmp_path, monkeypatch, ("aborts", "naive"), "--strict")
    assert found.exit_code == 1, found.output
    kernels = read_frames(tmp_path).kernels.set_index(["case", "kernel"])
    assert kernels.loc[(CASES[0], "aborts"), "status"] == "ok"
    for case in CASES[1:]:
        row = kernels.loc[(case, "aborts")]
        assert row["status"] == "failed"
        reason = f"brought the process down in {CASES[1]} (signal {signal.SIGABRT})"
        assert row["reason"] == reason
    assert set(kernels.xs("naive", level="kernel")["status"]) == {"ok"}


@pytest.mark.usefixtures("odd")
def test_a_kernel_that_no_later_one_survives_is_left_to_die_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others have their times, in a process that the bad one never ran in."""
    found = bench(tmp_path, monkeypatch, ("spoils", "victim"))
    assert found.exit_code == 0, found.output
    kernels = read_frames(tmp_path).kernels.set_index(["case", "kernel"])
    assert kernels.loc[(CASES[0], "spoils"), "status"] == "ok"
    for case in CASES[1:]:
        row = kernels.loc[(case, "spoils")]
        assert row["status"] == "failed"
        assert row["reason"].startswith("brought the device down: RuntimeError: CUDA error: an il")
    assert set(kernels.xs("victim", level="kernel")["status"]) == {"ok"}
    again = bench(tmp_path, monkeypatch, ("spoils", "victim"))
    assert "layer-" not in again.output, "what failed is not tried again"


def test_a_kernel_that_hangs_is_a_failed_one_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(session.STEP_S, "cuda", 0.01)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        heard = session._Watched()
        session._hear(
            f'{MARK}{{"event": "step", "kernel": "tma", "case": "a", "includes": ""}}', heard, print
        )
        session._watch(process, heard, Work("cuda", 1, ()), threading.Event())
    reason = "hangs: a still ran after 0 s"
    assert session._culprit(process.returncode, heard) == ("tma", "failed", reason)


def test_a_slow_host_is_no_hanging_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the start, before any step, nor what comes after the last counts as one."""
    monkeypatch.setitem(session.STEP_S, "cuda", 0.01)
    monkeypatch.setattr(session, "WATCH_S", 0.02)
    heard, ends = session._Watched(), threading.Event()
    session._hear(
        f'{MARK}{{"event": "step", "kernel": "tma", "case": "a", "includes": ""}}', heard, print
    )
    session._hear(f'{MARK}{{"event": "done", "path": "a.json"}}', heard, print)
    threading.Timer(0.2, ends.set).start()
    session._watch(SimpleNamespace(kill=None), heard, Work("cuda", 1, ()), ends)
    assert heard.hung_s is None


@pytest.mark.parametrize(
    ("includes", "lost"),
    [
        ("gemm+bits", {"gemm", "pack+gemm", "gemm+bits", "conv", "conv+bits", "network"}),
        ("conv", {"conv", "conv+bits"}),
        ("network", {"network"}),
    ],
)
def test_what_the_checks_have_not_tried_takes_none_of_a_kernels_other_benchmarks(
    includes: str, lost: set[str]
) -> None:
    step = {"kernel": "naive", "case": "a", "includes": includes}
    culprit = session._culprit(-signal.SIGSEGV, session._Watched(step=step))
    assert culprit is not None
    record = Record(Work("cpu", 1, (), excluded={culprit[0]: culprit[1:]}), print)
    excluded = set()
    for name in ("gemm", "pack+gemm", "gemm+bits", "conv", "conv+bits", "network"):
        try:
            record._check_not_excluded("naive", name)
        except NoTimeError as error:
            assert (error.status, error.over_budget) == ("failed", False)
            excluded.add(name)
        record._check_not_excluded("xnor-cpu", name)
    assert excluded == lost


@pytest.mark.usefixtures("odd")
def test_what_no_graph_takes_ends_its_process_and_leaves_the_kernel_its_other_benchmarks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = bench(tmp_path, monkeypatch, ("uncaptured", "victim"))
    assert found.exit_code == 0, found.output
    assert "uncaptured, gemm: failed, no graph takes it" in found.output
    kernels = read_frames(tmp_path).kernels.set_index(["case", "kernel"])
    assert kernels.loc[(CASES[2], "uncaptured"), "status"] == "failed"
    assert set(kernels.xs("victim", level="kernel")["status"]) == {"ok"}


def test_a_device_that_answers_nothing_more_names_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead() -> None:
        raise RuntimeError("an illegal memory access was encountered")

    events: list[tuple[str, dict[str, Any]]] = []
    entry = Entry("square-8", ("xnor-popc", "naive"), 0.1, str(tmp_path / "a.json"))
    work = Work("cuda", 1, (entry,))
    record = Record(work, lambda event, **facts: events.append((event, facts)))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(record_module, "free_device", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    benchmark = SimpleNamespace(extra_info={})
    with pytest.raises(ValueError, match="no room"), record.row(work.steps()[0], benchmark):
        raise ValueError("no room")
    assert record.crash is None, "the device goes on"
    monkeypatch.setattr(torch.cuda, "synchronize", dead)
    with pytest.raises(ValueError, match="no room"), record.row(work.steps()[0], benchmark):
        raise ValueError("no room")
    reason = "brought the device down: ValueError: no room"
    assert record.crash == {"kernel": "xnor-popc", "reason": reason}
    heard = session._Watched(crash=record.crash)
    assert session._culprit(CRASHED, heard) == ("xnor-popc", "failed", reason)
    left = session._left(work, heard, {"xnor-popc": ("failed", reason)})
    assert left.entries == work.entries
    assert left.excluded == {"xnor-popc": ("failed", reason)}


def test_a_process_that_hangs_beyond_the_budget_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "GRACE_S", 0.01)
    entry = Entry("square-8", ("naive",), 0.1, str(tmp_path / "a.json"))
    work = Work("cpu", 1, (entry,), deadline=time.monotonic() + 0.05, total_s=1.0)
    with pytest.raises(HarnessError, match=f"square-8 ended with status -{signal.SIGKILL}"):
        session.run_work(work, lambda event, path: None)


def test_a_kernel_that_was_killed_for_time_is_tried_again_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        step = {"kernel": "naive", "case": "square-8", "includes": "gemm"}
        heard = session._Watched(step=step)
        monkeypatch.setattr(session, "GRACE_S", 0.01)
        late = Work("cuda", 1, (), deadline=time.monotonic(), total_s=60.0)
        session._watch(process, heard, late, threading.Event())
        monkeypatch.undo()
    reason = "square-8 still ran 60 s after the time was over"
    assert session._culprit(process.returncode, heard) == ("naive", "skipped", reason)
    excluded = {"naive": ("skipped", reason)}
    work = Work("cpu", 1, (Entry("square-8", ("naive",), 0.1, "a.json"),), excluded=excluded)
    record = Record(work, lambda event, **facts: None)
    benchmark = SimpleNamespace(extra_info={})
    with pytest.raises(pytest.skip.Exception), record.row(work.steps()[0], benchmark):
        raise AssertionError("it gets no time")
    assert record._rows[0]["extra_info"]["over_budget"]
