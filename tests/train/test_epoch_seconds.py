"""An epoch's seconds are its steps': with the device's part, without checkpoints."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.methods.backprop import Backprop
from harness.nn.networks import build_network
from harness.nn.streams import Streams
from harness.spec import get_mode, load_recipe
from harness.train import loop
from harness.train.inputs import Resident
from harness.train.loop import Interrupted, Trainer

BATCH, STEPS = 5, 20
HOST, DEVICE, FILE = 0.01, 1.0, 100.0  # seconds of a step here and there, and of a checkpoint
EPOCH = STEPS * (HOST + DEVICE)


class Steps:
    """Steps that a device takes behind the host's back."""

    def __init__(self, clock: SimpleNamespace) -> None:
        self.clock, self.queued = clock, 0.0

    def begin(self, *_: object) -> None: ...

    def step(self) -> int:
        self.clock.now += HOST
        self.queued += DEVICE
        return 1

    def totals(self) -> tuple[float, int]:
        self.clock.now += self.queued
        self.queued = 0.0
        return 0.0, 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0, files=0)

    def save(*_: object) -> None:
        clock.now += FILE
        clock.files += 1

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(loop, "save_checkpoint", save)
    monkeypatch.setattr(loop, "steps_of", lambda *_: Steps(clock))
    return clock


def trainer(folder: Path, checkpoint_seconds: float) -> Trainer:
    recipe = load_recipe("theano", "mnist", {"network.hidden": [4], "epochs": 1, "batch": BATCH})
    streams = Streams(0)
    shape = (1, 28, 28)
    network = build_network(recipe.network, get_mode("float"), streams, shape, (1 / 255, 0.0))

    def images(count: int) -> Resident:
        pixels = torch.zeros(count, *shape, dtype=torch.uint8)
        return Resident(pixels, torch.zeros(count, dtype=torch.long))

    splits = {"train": images(BATCH * STEPS), "valid": images(BATCH), "test": images(BATCH)}
    method = Backprop(recipe, network, streams)
    return Trainer(recipe, method, splits, folder, "", checkpoint_seconds)


def train(run: Trainer, stop_after: int = 0) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    for progress in run.advance(lambda metrics, best: found.append(metrics)):
        if progress.step == stop_after:
            run.request_stop(15)
    (metrics,) = found
    return metrics


def test_checkpoints_are_no_part_of_an_epochs_seconds(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    metrics = train(trainer(tmp_path, 5 * HOST))
    assert clock.files > 2
    assert metrics["seconds"] == pytest.approx(EPOCH)
    assert metrics["images_per_s"] == pytest.approx(BATCH * STEPS / EPOCH, abs=0.1)


def test_an_epoch_has_its_share_of_the_time_that_runs_took_in_turn(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    run, metrics = trainer(tmp_path, 1e9), []
    run.share_time(4)
    for progress in run.advance(lambda found, best: metrics.append(found)):
        clock.now += 3 * HOST if run.turns == 4 else 0.0  # the others' steps
        if progress.step == 5:
            run.share_time(1)
    assert metrics[0]["seconds"] == pytest.approx(STEPS * (HOST + DEVICE))
    clock.now += 5.0
    run.share_time(2)
    assert run.progress.epoch_seconds == 0.0, "no epoch is under way"


def test_the_longest_checkpoint_is_noted_and_forgotten_elsewhere(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    run = trainer(tmp_path, 5 * HOST)
    train(run)
    assert run.progress.saving_s == FILE
    other = trainer(tmp_path, 1e9)
    other.resume(run.state())
    assert other.progress.saving_s == 0.0


def test_a_stopped_epoch_keeps_the_devices_seconds(tmp_path: Path, clock: SimpleNamespace) -> None:
    first, second = trainer(tmp_path, 1e9), trainer(tmp_path, 1e9)
    with pytest.raises(Interrupted):
        train(first, stop_after=7)
    assert first.progress.epoch_seconds == pytest.approx(8 * (HOST + DEVICE))
    second.resume(first.state())
    assert train(second)["seconds"] == pytest.approx(EPOCH)
