"""The record of a run: run.json and metrics.jsonl, whole at every moment."""

import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.dataset import Dataset
from harness.errors import HarnessError
from harness.files import read_record, write_json, write_text
from harness.nn.networks import BinaryNetwork
from harness.provenance import provenance
from harness.spec import Mode, Recipe, as_mapping
from harness.train.checkpoint import BEST

RUN_SCHEMA = 1
RUN, METRICS = "run.json", "metrics.jsonl"
LATER_STAGES = ("export.json", "model.bnn", "inspect.json", "evaluate-*.json")


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides a run's numbers, and where they go."""

    recipe: Recipe
    mode: Mode
    seed: int
    preset: str
    folder: Path
    label: str = ""  # sets a variation of the recipe apart; decides no number

    def __post_init__(self) -> None:
        self.recipe.check_mode(self.mode)


def utc_now() -> str:
    """Return the time now, ISO 8601, UTC, in seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def fingerprint(spec: RunSpec, data_digest: str, device: str) -> str:
    """Return a digest of what decides the weights: recipe, mode, seed, data, kind of device."""
    parts = [as_mapping(spec.recipe), spec.mode.name, spec.seed, data_digest, device]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def new_run(
    spec: RunSpec, dataset: Dataset, network: BinaryNetwork, device: str, threads: int
) -> dict[str, Any]:
    """Return the run.json of a run that begins now."""
    recipe = spec.recipe
    return {
        "schema": RUN_SCHEMA,
        "status": "running",
        "failure": None,
        "preset": spec.preset,
        "dataset": recipe.dataset,
        "source": dataset.source,
        "recipe": recipe.name,
        "variant": recipe.variant,
        "label": spec.label,
        "mode": spec.mode.name,
        "seed": spec.seed,
        "fingerprint": fingerprint(spec, dataset.manifest["digest"], device),
        "resolved": as_mapping(recipe),
        "data": dataset.manifest,
        "device": device,
        "threads": threads,
        "together": 1,
        "mixed": False,
        "parameters": {
            "binary_weights": sum(layer.weight.numel() for layer in network.binary_layers()),
            "total": sum(p.numel() for p in network.parameters()),
        },
        "provenance": provenance(),
        "earlier_code": [],  # the provenance of other code that trained it before
        "started": utc_now(),
        "finished": None,
        "train_seconds": 0.0,
        "images_per_s": None,
        "epochs_done": 0,
        "best_epoch": None,
        "best_sha256": None,  # of best.safetensors, once the run has ended
        "valid_error_pct": None,
        "test_error_pct": None,
        "other_weights": "",
        "other_best_epoch": None,
        "other_valid_error_pct": None,
        "other_test_error_pct": None,
    }


def write_run(folder: Path, run: dict[str, Any]) -> None:
    """Write run.json, atomically."""
    write_json(folder / RUN, run)


def finished_run(
    folder: Path, wanted: str, files: Sequence[str] = (RUN, METRICS, BEST)
) -> dict[str, Any] | None:
    """Return the run.json of a run that already ended with these very settings, else None.

    A run that lacks one of its ``files`` has not ended: training again makes them all.
    """
    if not all((folder / name).exists() for name in files):
        return None
    try:
        run = read_record(folder / RUN, "status", "fingerprint")
    except HarnessError:  # damaged: training again rewrites it
        return None
    ended = run["status"] in ("done", "failed") and run["fingerprint"] == wanted
    return run if ended else None


def write_metrics(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Rewrite metrics.jsonl, one object an epoch, atomically: at most some kilobytes."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    write_text(folder / METRICS, text)


def stages_files(folder: Path) -> list[Path]:
    """Return what the stages after training have written in a run's folder."""
    return [path for pattern in LATER_STAGES for path in sorted(folder.glob(pattern))]


def forget_later_stages(folder: Path) -> None:
    """Remove what the stages after training wrote of other weights: they do not name them all."""
    for path in stages_files(folder):
        path.unlink(missing_ok=True)


def fingerprint_of(folder: Path) -> str | None:
    """Return the fingerprint of the run in a folder, ended or not; None where no record tells."""
    try:
        return str(read_record(folder / RUN, "status", "fingerprint")["fingerprint"])
    except HarnessError:  # missing, or damaged: training again rewrites it
        return None
