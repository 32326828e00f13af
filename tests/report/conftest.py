"""A results folder with made-up runs, evaluations and bench files."""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.preset import run_name
from harness.report.collect import collect
from harness.report.frames import Frames, read_frames
from harness.spec import as_mapping, load_recipe

sys.path.insert(0, str(Path(__file__).parent))

from made_bench import PROVENANCE, benchmark, write_bench, write_benches
from made_inspect import write_inspect

BNN_MODES = ("bnn-det", "bnn-stoch", "bnn-stoch-w")
KERNELS = ("naive", "vendor-bf16", "vendor-fp32", "vendor-int8", "xnor-cpu")
# End of the validation error in %, and how fast it gets there.
SHAPES = {
    "float": (1.2, 0.5),
    "bc-det": (1.3, 0.4),
    "bc-stoch": (1.35, 0.35),
    "bnn-det": (1.7, 0.25),
    "bnn-stoch": (1.9, 0.22),
    "bnn-stoch-w": (2.4, 0.2),
}


def metrics(mode: str, epochs: int, seed: int, scale: float = 1.0) -> list[dict[str, Any]]:
    end, rate = SHAPES[mode]
    rows = []
    for epoch in range(1, epochs + 1):
        fall = math.exp(-rate * epoch)
        error = scale * (end + 8 * fall + 0.1 * math.sin(epoch * (seed + 1.3)))
        rows.append(
            {
                "epoch": epoch,
                "lr": 0.003 * 0.8**epoch,
                "train_loss": 0.002 * scale * end + 0.3 * fall,
                "train_error_pct": error / 2,
                "valid_loss": 0.01 + 0.3 * fall,
                "valid_error_pct": error,
                "test_error_pct": error + 0.05,
                "flip_pct": None if mode == "float" else 20 * fall,
                "best": True,
                "seconds": 2.5,
                "images_per_s": 20000.0,
            }
        )
    return rows


def write_run(
    results: Path,
    dataset: str = "mnist",
    recipe: str = "theano",
    mode: str = "bnn-det",
    seed: int = 0,
    *,
    source: str = "official",
    status: str = "done",
    failure: dict[str, Any] | None = None,
    epochs: int = 20,
    scale: float = 1.0,
    reduce: bool = True,
    label: str = "",
) -> Path:
    """Write run.json and metrics.jsonl of one run."""
    folder = results / "runs" / dataset / run_name(recipe, label, mode) / f"seed{seed}"
    folder.mkdir(parents=True)
    full = load_recipe(recipe, dataset)
    settings: dict[str, Any] = {"epochs": epochs}
    if full.network.kind == "mlp":
        settings["network"] = replace(full.network, hidden=(256, 256, 256))
    else:
        settings["network"] = replace(full.network, width=32)
    used = replace(full, **settings) if reduce else full
    rows = metrics(mode, epochs, seed, scale)
    ended = status == "done"
    run = {
        "schema": 1,
        "status": status,
        "failure": failure,
        "preset": results.name,
        "dataset": dataset,
        "source": source,
        "recipe": recipe,
        "variant": "paper",
        "label": label,
        "mode": mode,
        "seed": seed,
        "resolved": as_mapping(used),
        "data": {
            "dataset": dataset,
            "source": source,
            "variant": "full",
            "digest": "d1" * 32,
            "counts": {"train": 50000, "valid": 10000, "test": 10000},
        },
        "device": "cpu",
        "threads": 2,
        "parameters": {"binary_weights": 1000, "total": 1100},
        "provenance": PROVENANCE,
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T04:04:05+00:00" if status != "running" else None,
        "train_seconds": 50.0,
        "images_per_s": 20000.0,
        "epochs_done": epochs if status != "running" else 0,
        "best_epoch": epochs if ended else None,
        "valid_error_pct": rows[-1]["valid_error_pct"] if ended else None,
        "test_error_pct": rows[-1]["test_error_pct"] if ended else None,
    }
    (folder / "run.json").write_text(json.dumps(run))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines)
    return folder


def write_packed(folder: Path, kernels: Sequence[str] = KERNELS, lost: int = 0) -> None:
    """Write export.json and the evaluations beside a run; ``lost`` images disagree."""
    run = json.loads((folder / "run.json").read_text())
    identity = {k: run[k] for k in ("preset", "dataset", "source", "recipe", "mode", "seed")}
    export = {"schema": 1, "status": "done", "reason": None, **identity}
    sizes = {"bytes_packed": 130, "bytes_float32": 4000}
    (folder / "export.json").write_text(json.dumps(export | sizes))
    error = run["test_error_pct"]
    for kernel in kernels:
        figures = {
            "agree": 10000 - lost,
            "disagreeing": list(range(lost)),
            "test_error_pct": error,
            "seconds": 0.25,
            "images_per_s": 40000.0,
        }
        record = {
            "schema": 1,
            "status": "done",
            "reason": None,
            "kernel": kernel,
            "first_layer": "int8",
            "images": 10000,
            "training_network_error_pct": error,
            **figures,
            "first_layers": {"int8": figures, "bitplanes": figures},
            **identity,
            "provenance": PROVENANCE,
        }
        (folder / f"evaluate-{kernel}.json").write_text(json.dumps(record))


@pytest.fixture(scope="session")
def full_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return results with every mode, three seeds of one, failures, stand-ins and a bench."""
    results = tmp_path_factory.mktemp("results") / "demo"
    for recipe in ("theano", "torch7"):
        for mode in SHAPES:
            if (recipe, mode) == ("torch7", "bc-stoch"):
                failure = {"epoch": 6, "reason": "the training loss is nan"}
                write_run(results, "mnist", recipe, mode, status="failed", failure=failure,
                          epochs=5)  # fmt: skip
                continue
            for seed in range(3 if mode == "bnn-det" else 1):
                folder = write_run(results, "mnist", recipe, mode, seed)
                write_inspect(folder)
                if mode in BNN_MODES:
                    write_packed(folder)
    for mode in ("float", "bnn-det"):
        write_run(results, "cifar10", "theano", mode, epochs=12, scale=9,
                  status="running" if mode == "bnn-det" else "done")  # fmt: skip
        stand_in = write_run(results, "svhn", "theano", mode, source="standin", epochs=1, scale=4)
        write_inspect(stand_in)
    (results / "runs" / "cifar10" / "torch7-released-bnn-stoch" / "seed4").mkdir(parents=True)
    write_benches(results)
    return results


@pytest.fixture(scope="session")
def frames(full_results: Path) -> Frames:
    collect(full_results)
    return read_frames(full_results)


# The makers, for tests that build a folder of their own.
@pytest.fixture(name="write_run", scope="session")
def _write_run() -> Callable[..., Path]:
    return write_run


@pytest.fixture(name="write_packed")
def _write_packed() -> Callable[..., None]:
    return write_packed


@pytest.fixture(name="write_inspect")
def _write_inspect() -> Callable[..., None]:
    return write_inspect


@pytest.fixture(name="write_bench")
def _write_bench() -> Callable[..., Path]:
    return write_bench


@pytest.fixture(name="benchmark_entry")
def _benchmark_entry() -> Callable[..., Any]:
    return benchmark
