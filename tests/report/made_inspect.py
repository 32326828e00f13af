"""Made-up ``inspect.json`` records, shaped as ``bnn inspect`` writes them."""

import json
import math
from pathlib import Path
from typing import Any

from harness.nn.costs import LayerCost, layer_costs
from harness.spec import MODES, NetworkSpec, from_mapping

BINS = 40


def write_inspect(folder: Path, shared: float = 0.4) -> None:
    """Write inspect.json beside a run; ``shared`` is the share of filters that are not alike."""
    run = json.loads((folder / "run.json").read_text())
    identity = {k: run[k] for k in ("preset", "dataset", "source", "recipe", "mode", "seed")}
    record: dict[str, Any] = {"schema": 1, "status": "done", "reason": None, **identity}
    if run["status"] != "done":
        record |= {"status": "skipped", "reason": "the run failed"}
    else:
        record |= _predictions(run["test_error_pct"]) | {"layers": _layers(run, shared)}
    (folder / "inspect.json").write_text(json.dumps(record))


def _predictions(error_pct: float) -> dict[str, Any]:
    wrong_each = round(error_pct * 10)  # of 1,000 images a class
    counts = [[0] * 10 for _ in range(10)]
    for true in range(10):
        counts[true][true] = 1000 - wrong_each
        counts[true][(true + 3) % 10] = wrong_each
    bins = [2, 5, 8, 20, 65, 100, 200, 400, 1200, 8000]
    confidence = [n * (i + 0.5) / 10 for i, n in enumerate(bins)]
    correct = [round(n * min(1, (i + 1) / 10)) for i, n in enumerate(bins)]
    return {
        "images": 10000,
        "test_errors": 10 * wrong_each,
        "test_error_pct": wrong_each / 10,
        "test_loss": 0.01,
        "confusion": counts,
        "calibration": {
            "counts": bins, "confidence": confidence, "correct": correct, "ece_pct": 3.25,
        },
    }  # fmt: skip


def _layers(run: dict[str, Any], shared: float) -> list[dict[str, Any]]:
    spec = from_mapping(NetworkSpec, run["resolved"]["network"], "network")
    mode = MODES[run["mode"]]
    costs = layer_costs(spec, mode, run["dataset"])
    return [_layer(i, cost, mode.weights != "real", shared) for i, cost in enumerate(costs)]


def _layer(i: int, cost: LayerCost, binary: bool, shared: float) -> dict[str, Any]:
    bound = 1.0 if binary else 0.2
    heights = [abs(b - 19.5) if binary else math.exp(-(((b - 19.5) / 8) ** 2)) for b in range(BINS)]
    unit = cost.weights / sum(heights)
    found: dict[str, Any] = {
        "layer": i + 1,
        "kind": cost.kind,
        "binary": binary,
        "outputs": cost.outputs,
        "fan_in": cost.fan_in,
        "weights": cost.weights,
        "plus_pct": 50.5,
        "clipped_pct": 12.5 if binary else None,
        "bound": bound,
        "histogram": [round(unit * height) for height in heights],
    }
    if cost.kind == "conv":
        total = cost.outputs * cost.fan_in // 9
        found["filters"] = {
            "total": total,
            "distinct": min(total, 500),
            "distinct_up_to_sign": min(total, 250),
            "per_input": round(1.2 * shared * total),
            "per_input_up_to_sign": round(shared * total),
        }
        if i == 0:
            maps = cost.fan_in // 9
            found["patterns"] = [
                [(97 * n + 31 * c) % 512 for c in range(maps)] for n in range(cost.outputs)
            ]
    return found
