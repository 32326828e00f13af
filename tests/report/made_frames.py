"""Frames of made-up rows, through the files that ``bnn collect`` writes."""

from pathlib import Path
from typing import Any

from harness.report.frames import COLUMNS, Frames, read_frames, write_frame

RUN: dict[str, Any] = {
    "preset": "made", "dataset": "mnist", "source": "official", "recipe": "theano", "label": "",
    "mode": "bnn-det", "seed": 0, "status": "done", "epochs": 1000, "network": "MLP 3 × 4096",
    "changes": "", "test_images": 10000, "images_per_s": 1000.0, "machine": "box", "device": "cpu",
    "threads": 2, "test_error_pct": 1.0,
}  # fmt: skip
EVALUATION: dict[str, Any] = {
    "dataset": "mnist", "source": "official", "recipe": "theano", "label": "", "mode": "bnn-det",
    "seed": 0, "changes": "", "kernel": "naive", "device": "cpu", "first_layer": "int8",
    "status": "done", "images": 10000, "agree": 10000, "test_error_pct": 1.0,
}  # fmt: skip
KERNEL: dict[str, Any] = {
    "machine": "gpu", "case": "square-8192", "group": "square", "device": "cuda", "m": 8192,
    "n": 8192, "k": 8192, "includes": "gemm", "status": "ok", "samples": 5,
}  # fmt: skip
LAYER: dict[str, Any] = {
    "dataset": "cifar10", "source": "official", "recipe": "theano", "label": "",
    "mode": "bnn-det", "seed": 0, "changes": "", "layer": 1, "kind": "conv", "binary": True,
    "weights": 900, "filters": 100, "distinct": 80, "distinct_up_to_sign": 60, "per_input": 50,
    "per_input_up_to_sign": 40,
}  # fmt: skip


def made_frames(folder: Path, **rows: list[dict[str, Any]]) -> Frames:
    """Return frames with ``rows`` a frame; what a row leaves out is empty."""
    for name in COLUMNS:
        write_frame(folder / f"{name}.csv", name, rows.get(name, []))
    return read_frames(folder)


def runs(*errors: float, **facts: Any) -> list[dict[str, Any]]:
    """Return one run a test error, of seeds 0, 1, and so on."""
    return [{**RUN, **facts, "seed": s, "test_error_pct": e} for s, e in enumerate(errors)]
