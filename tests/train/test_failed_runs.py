"""A run that leaves the finite range ends as failed, with all of its files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from train_helpers import TINY, command, read_metrics, read_run, train_here

from harness.methods.backprop import Backprop
from harness.train import loop
from harness.train.checkpoint import read_weights
from harness.train.steps import EagerSteps

Bnn = Callable[..., tuple[int, str]]


def nan_loss_from(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, step, begun = EagerSteps.begin, EagerSteps.learn, 0

    def counting(self: EagerSteps, *state: Any) -> None:
        nonlocal begun
        begun += 1
        begin(self, *state)

    def broken(self: EagerSteps, x: torch.Tensor, labels: torch.Tensor) -> Any:
        loss, wrong = step(self, x, labels)
        return (loss * float("nan") if begun >= epoch else loss), wrong

    monkeypatch.setattr(EagerSteps, "begin", counting)
    monkeypatch.setattr(EagerSteps, "learn", broken)


def test_nan_loss_ends_the_run_as_failed_with_exit_code_3(
    bnn: Bnn, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan_loss_from(2, monkeypatch)
    arguments = command(tmp_path, data_root, **{**TINY, "epochs": 3})
    code, errors = bnn(arguments)
    assert code == 3
    assert "the run failed: training loss nan in epoch 2" in errors
    run = read_run(tmp_path)
    assert run["status"] == "failed"
    assert run["failure"] == {"epoch": 2, "reason": "training loss nan in epoch 2"}
    assert (run["epochs_done"], run["best_epoch"], run["test_error_pct"]) == (1, 1, None)
    assert [line["epoch"] for line in read_metrics(tmp_path)] == [1]
    assert read_weights(tmp_path / "best.safetensors")[1]
    assert not (tmp_path / "checkpoint.pt").exists()
    monkeypatch.setattr(EagerSteps, "learn", lambda *_: pytest.fail("it trains again"))
    code, errors = bnn(arguments)
    assert code == 3
    assert "training loss nan in epoch 2" in errors


def test_failure_in_the_first_epoch_leaves_every_file(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan_loss_from(1, monkeypatch)
    run = train_here(tmp_path, data_root, **TINY)
    assert run["failure"]["epoch"] == 1
    assert (run["best_epoch"], run["valid_error_pct"], run["images_per_s"]) == (None, None, None)
    assert read_metrics(tmp_path) == []
    assert read_weights(tmp_path / "best.safetensors")[1]


def test_a_rate_that_blows_up_a_float_network_fails_the_run(
    data_root: Path, tmp_path: Path
) -> None:
    rates = {"schedule.start": 1e30, "schedule.end": 1e29}
    run = train_here(tmp_path, data_root, mode="float", **TINY, **rates)
    assert run["status"] == "failed"
    assert run["failure"]["epoch"] == 1


@pytest.mark.parametrize("name", ["blocks.0.layer.weight", "blocks.0.norm.running_mean"])
def test_nan_behind_a_sign_fails_the_run_though_the_loss_is_finite(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    step = Backprop.step

    def poison(self: Backprop, x: torch.Tensor, labels: torch.Tensor) -> Any:
        result = step(self, x, labels)
        self.network.state_dict()[name].view(-1)[0] = float("nan")
        return result

    monkeypatch.setattr(Backprop, "step", poison)
    run = train_here(tmp_path, data_root, **TINY)
    assert run["status"] == "failed"
    assert run["failure"]["epoch"] == 1


def test_validation_loss_that_is_not_finite_fails_the_run(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "evaluate", lambda network, images: (float("inf"), 90.0))
    run = train_here(tmp_path, data_root, **TINY)
    assert run["failure"] == {"epoch": 1, "reason": "validation loss inf in epoch 1"}
