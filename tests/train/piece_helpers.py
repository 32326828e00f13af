"""A preset that takes a second, run here or through the command line, and what it left."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from train_helpers import read_metrics, read_run

from harness.run.clock import Clock
from harness.run.piece import Piece
from harness.run.setup import make_setup
from harness.train.steps import EagerSteps

SMALL = {"network.hidden": [16], "network.input_dropout": 0.0, "epochs": 2}
DET, FLOAT, WILD = (
    f"mnist/theano-{run}" for run in ("bnn-det/seed0", "float/seed0", "float/seed1")
)
RUNS = (DET, FLOAT, WILD)
NEVER = 1e9  # seconds between checkpoints


def small_preset(folder: Path, **changes: Any) -> Path:
    """Write a preset of a binary, a real and a diverging run on MNIST's stand-in."""
    run = {"dataset": "mnist", "recipe": "theano", "seeds": [0], "threads": 1}
    wild = {**SMALL, "schedule.start": 1.0e30, "schedule.end": 1.0e30}
    values = {
        "name": "small",
        "source": "standin",
        "runs": [
            {**run, "modes": ["bnn-det", "float"], "set": SMALL},
            {**run, "modes": ["float"], "seeds": [1], "set": wild},
        ],
        "kernels": ["vendor-fp32"],
        "bench": {"cases": [], "kernels": ["naive"], "seconds": 0.1},
        **changes,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def words(folder: Path, data: Path, *more: str, **changes: Any) -> list[str]:
    """Return the arguments of ``bnn`` that run the small preset below ``folder``."""
    preset = small_preset(folder, **changes)
    found = ["run", "--preset", str(preset), "--data", str(data), "--device", "cpu"]
    found += ["--work", str(folder / "work"), "--out", str(folder / "out"), "--threads", "1"]
    return [*found, *more]


def run_here(
    folder: Path,
    data: Path,
    clock: Clock | None = None,
    only: tuple[str, ...] = (),
    together: int = 0,
    mixed: bool = False,
    **changes: Any,
) -> int:
    """Run a piece of the small preset in this process and return its exit status."""
    preset, cpu = small_preset(folder, **changes), torch.device("cpu")
    setup = make_setup(str(preset), data, folder / "out", folder / "work", only, cpu)
    return Piece(setup, clock or Clock(), 1, NEVER, together, mixed).run()


def assert_same_preset(folder: Path, reference: Path) -> None:
    """Assert the same weights and packed network bit for bit, the same epochs and results."""
    for name in RUNS:
        for file in ("best.safetensors", "model.bnn"):
            ours, theirs = (root / "work" / "runs" / name / file for root in (folder, reference))
            assert ours.exists() == theirs.exists() == (file[0] == "b" or name == DET)
            assert not ours.exists() or ours.read_bytes() == theirs.read_bytes(), (name, file)
        for place in ("work", "out"):
            ours, theirs = (root / place / "runs" / name for root in (folder, reference))
            assert read_metrics(ours) == read_metrics(theirs)
            for key in ("status", "failure", "best_epoch", "test_error_pct", "fingerprint"):
                assert read_run(ours)[key] == read_run(theirs)[key], key
    ours, theirs = (root / "out" / "runs" / DET / "model.bnn" for root in (folder, reference))
    assert ours.read_bytes() == theirs.read_bytes()


def stop_after(
    step: Callable[..., object], count: int, number: int = signal.SIGTERM
) -> Callable[..., object]:
    """Return ``step`` with a signal before its ``count``-th call."""
    left = [count]

    def stopping(self: EagerSteps, x: torch.Tensor, labels: torch.Tensor) -> object:
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(number)
        return step(self, x, labels)

    return stopping


def not_again(step: Callable[..., object], most: int) -> Callable[..., object]:
    """Return ``step`` for ``most`` calls; a further one fails."""
    steps = [0]

    def counted(self: EagerSteps, x: torch.Tensor, labels: torch.Tensor) -> object:
        steps[0] += 1
        assert steps[0] <= most, "a run that ended is trained again"
        return step(self, x, labels)

    return counted
