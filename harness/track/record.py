"""What a run folder becomes in MLflow: names, tags, parameters and metrics, as plain data."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

FINGERPRINT_TAG = "bnn.fingerprint"
IDENTITY = ("dataset", "recipe", "mode", "seed")

# A slash makes a section of charts in MLflow's page.
EPOCH_METRICS = {
    "lr": "lr",
    "train_loss": "train/loss",
    "train_error_pct": "train/error_pct",
    "valid_loss": "valid/loss",
    "valid_error_pct": "valid/error_pct",
    "test_error_pct": "test/error_pct",
    "other_valid_error_pct": "valid/other_error_pct",
    "other_test_error_pct": "test/other_error_pct",
    "flip_pct": "train/flip_pct",
    "seconds": "speed/epoch_seconds",
    "images_per_s": "speed/images_per_s",
}
FINAL_METRICS = {
    "best_epoch": "best/epoch",
    "valid_error_pct": "best/valid_error_pct",
    "test_error_pct": "best/test_error_pct",
    "other_valid_error_pct": "best/other_valid_error_pct",
    "other_test_error_pct": "best/other_test_error_pct",
    "train_seconds": "speed/train_seconds",
}


def experiment_name(preset: str) -> str:
    """Return the name of the one experiment that holds a preset's runs."""
    return f"bnn-{preset}"


def run_name(run: Mapping[str, Any]) -> str:
    """Return ``dataset/recipe/mode/seed``; a label follows the recipe, ``theano+no-clip``."""
    label = {"recipe": f"{run['recipe']}+{run['label']}"} if run.get("label") else {}
    return "/".join(str({**run, **label}[key]) for key in IDENTITY)


def fingerprint(run: Mapping[str, Any]) -> str:
    """Return the digest by which a run is found again: identity, resolved recipe and start time."""
    keys = ("preset", *IDENTITY, "resolved", "started")
    parts = [run.get(key) for key in (*keys, "label")[: None if run.get("label") else len(keys)]]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def tags(run: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags to filter runs by; unknown ones are left out."""
    provenance = run.get("provenance") or {}
    failure = run.get("failure") or {}
    found = {key: run.get(key) for key in (*IDENTITY, "source", "variant", "preset")}
    found["label"] = run.get("label") or None
    found |= {
        "machine": (provenance.get("machine") or {}).get("name"),
        "commit": provenance.get("commit"),
        "dirty": provenance.get("dirty"),
        "failure": failure.get("reason"),
        FINGERPRINT_TAG: fingerprint(run),
    }
    return {key: str(value) for key, value in found.items() if value is not None}


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as dotted keys: ``{"a": {"b": [1, 2]}}`` -> ``{"a.b": "[1, 2]"}``."""
    flat: dict[str, str] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            flat |= flatten(item, f"{name}.")
        else:
            flat[name] = item if isinstance(item, str) else json.dumps(item)
    return flat


def parameters(run: Mapping[str, Any]) -> dict[str, str]:
    """Return the flattened resolved recipe with what the machine adds to it."""
    flat = flatten(run.get("resolved") or {})
    flat |= flatten(run.get("parameters") or {}, "parameters.")
    flat |= {key: str(run[key]) for key in ("device", "threads") if run.get(key) is not None}
    return flat


def numbers(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, float]:
    """Return the finite numbers of ``row`` under their MLflow names."""
    found = {}
    for key, name in names.items():
        value = row.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            found[name] = float(value)
    return found


def milliseconds(iso: str | None) -> int | None:
    """Return an ISO time as milliseconds since 1970, or None for None.

    Raises:
        ValueError: ``iso`` is not an ISO 8601 time.
    """
    return None if iso is None else int(datetime.fromisoformat(iso).timestamp() * 1000)


def epoch_times(run: Mapping[str, Any], epochs: Iterable[Mapping[str, Any]]) -> list[int]:
    """Return the time at which each epoch ended, in milliseconds: start plus elapsed seconds."""
    now = float(milliseconds(run.get("started")) or 0)
    times = []
    for row in epochs:
        now += 1000 * float(row.get("seconds") or 0.0)
        times.append(int(now))
    return times
