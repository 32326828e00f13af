"""One small run, trained here or through the command line, and what makes two runs the same."""

import json
from pathlib import Path
from typing import Any

import torch

from harness.spec import get_mode, load_recipe
from harness.train.record import RunSpec
from harness.train.run import run_training

NEVER = 1e9  # seconds between checkpoints
TIMES = ("seconds", "images_per_s")
# What two runs of the same settings may differ in.
UNLIKE = (
    "started",
    "finished",
    "train_seconds",
    "images_per_s",
    "together",
    "provenance",
    "earlier_code",
)
SETTINGS = {"network.hidden": [32], "epochs": 3}
TINY: dict[str, Any] = {"network.hidden": [4], "epochs": 2}


def train_here(folder: Path, data: Path, **changes: Any) -> dict[str, Any]:
    """Train in this process; ``changes``: mode, recipe, seed, every, or keys of the recipe."""
    mode, recipe = changes.pop("mode", "bnn-det"), changes.pop("recipe", "theano")
    seed, every = changes.pop("seed", 0), changes.pop("every", NEVER)
    chosen = load_recipe(recipe, "mnist", {**SETTINGS, **changes})
    spec = RunSpec(chosen, get_mode(mode), seed, "test", folder)
    return run_training(spec, data, torch.device("cpu"), every)


def command(folder: Path, data: Path, **changes: Any) -> list[str]:
    """Return the arguments of ``bnn`` that train the same as :func:`train_here`."""
    mode, recipe = changes.pop("mode", "bnn-det"), changes.pop("recipe", "theano")
    words = ["train", "--dataset", "mnist", "--recipe", recipe, "--mode", mode]
    words += ["--data", str(data), "--out", str(folder), "--preset", "test"]
    words += ["--threads", "1", "--device", "cpu"]
    words += ["--checkpoint-seconds", str(changes.pop("every", 0))]
    for key, value in {**SETTINGS, **changes}.items():
        words += ["--set", f"{key}={value}"]
    return words


def read_run(folder: Path) -> dict[str, Any]:
    """Return run.json."""
    return dict(json.loads((folder / "run.json").read_text()))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return metrics.jsonl without its times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def assert_same_results(folder: Path, reference: Path) -> None:
    """Assert the same weights bit for bit, the same metrics and record but for times."""
    ours, theirs = ((f / "best.safetensors").read_bytes() for f in (folder, reference))
    assert ours == theirs
    assert read_metrics(folder) == read_metrics(reference)
    first, second = (
        {k: v for k, v in read_run(f).items() if k not in UNLIKE} for f in (folder, reference)
    )
    assert first == second
