"""What counts as a gain of a piece that the time cuts: a step, or a record of a later stage."""

import signal
from pathlib import Path

import pytest
from piece_helpers import DET, run_here, stop_after

from harness.deploy import evaluate
from harness.errors import HarnessError
from harness.run import stages
from harness.run.clock import Clock
from harness.train.steps import EagerSteps

GO_ON = 75


def test_a_single_step_is_a_gain(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EagerSteps, "learn", stop_after(EagerSteps.learn, 1, signal.SIGALRM))
    assert run_here(tmp_path, data_root, Clock(60)) == GO_ON


def test_a_time_that_is_too_short_for_a_step_is_an_error(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="give more --minutes"):
        run_here(tmp_path, data_root, Clock(1e-6))


def test_a_record_is_a_gain(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def over(*_: object) -> None:
        signal.raise_signal(signal.SIGALRM)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate._Check, "compare", over)
        assert run_here(tmp_path, data_root, Clock(60), (DET,)) == GO_ON, "it has trained"
        with pytest.raises(HarnessError, match="before a step or a record"):
            run_here(tmp_path, data_root, Clock(60), (DET,))
    monkeypatch.setattr(stages, "inspect_run", over)
    assert run_here(tmp_path, data_root, Clock(60), (DET,)) == GO_ON, "it has evaluated"
    with pytest.raises(HarnessError, match="give more --minutes"):
        run_here(tmp_path, data_root, Clock(60), (DET,))
