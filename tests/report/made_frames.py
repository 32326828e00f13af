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
    "preset": "made", "dataset": "mnist", "source": "official", "recipe": "theano", "label": "",
    "mode": "bnn-det", "seed": 0, "changes": "", "kernel": "naive", "device": "cpu",
    "first_layer": "int8", "status": "done", "images": 10000, "agree": 10000, "test_error_pct": 1.0,
}  # fmt: skip
KERNEL: dict[str, Any] = {
    "machine": "gpu", "case": "square-8192", "group": "square", "device": "cuda", "m": 8192,
    "n": 8192, "k": 8192, "includes": "gemm", "status": "ok", "samples": 5,
}  # fmt: skip
GPU_TIMES = {
    "naive": 1188.0, "naive-shared": 138.0, "naive-xnor": 37.1, "vendor-fp32": 21.4,
    "naive-shared-xnor": 4.53, "xnor-popc": 4.24, "xnor-csa": 2.64, "xnor-csa7": 2.54,
    "vendor-tf32": 2.5, "vendor-fp16": 1.54, "vendor-bf16": 1.44, "vendor-int8": 1.17,
    "triton-int8": 0.979, "vendor-fp8-fast": 0.777, "vendor-fp8": 0.762, "xnor-tensor": 0.183,
    "xnor-tensor-tma": 0.182,
}  # fmt: skip
LAYER: dict[str, Any] = {
    "preset": "made", "dataset": "cifar10", "source": "official", "recipe": "theano", "label": "",
    "mode": "bnn-det", "seed": 0, "changes": "", "layer": 1, "kind": "conv", "binary": True,
    "weights": 900, "filters": 100, "distinct": 80, "distinct_up_to_sign": 60, "per_input": 50,
    "per_input_up_to_sign": 40,
}  # fmt: skip


def made_frames(folder: Path, **rows: list[dict[str, Any]]) -> Frames:
    """Return frames with ``rows`` a frame; what a row leaves out is empty."""
    for name in COLUMNS:
        write_frame(folder / f"{name}.csv", name, rows.get(name, []))
    return read_frames(folder)


def gpu_bench() -> list[dict[str, Any]]:
    """Return ceilings, two squares and an MLP of a GPU: as many kernels as one has.

    The larger square has neither a baseline nor a result in bits.
    """
    ceiling = KERNEL | {
        "group": "ceiling",
        "case": "ceilings",
        "includes": "ceiling",
        "threads": 16,
    }
    rows = [ceiling | {"kernel": "copy", "bytes": 2**29, "median_ms": 0.128}]
    peaks = {"1-bit-tensor": 15519, "fp8-product": 1421, "xor": 1044, "int8-product": 927,
             "bf16-product": 763, "xor+popcount": 254, "fp32-product": 51}  # fmt: skip
    rows += [ceiling | {"kernel": name, "tops": tops} for name, tops in peaks.items()]
    for kernel, time in GPU_TIMES.items():
        facts = KERNEL | {"kernel": kernel, "threads": 16, "baseline": kernel == "naive"}
        mlp = {
            "case": "mnist-mlp-4096",
            "group": "mlp",
            "m": 10000,
            "n": 4096,
            "includes": "network",
        }
        rows += [facts | mlp | _timed(time, 1)]
        rows += [facts | _timed(time, 2**29)]
        if "xnor" in kernel:
            rows += [facts | {"includes": "pack+gemm"} | _timed(1.4 * time, 2**29)]
            rows += [facts | {"includes": "gemm+bits"} | _timed(0.8 * time, 2**25)]
        if "naive" not in kernel:
            size = {"case": "square-16384", "m": 16384, "n": 16384, "k": 16384}
            rows += [facts | size | _timed(8 * time, 2**31, 8)]
    return rows


def _timed(time: float, size: int, times: int = 1) -> dict[str, Any]:
    spread = {"median_ms": time, "p20_ms": 0.99 * time, "p80_ms": 1.01 * time}
    return {**spread, "bytes": size, "tops": times * 2 * 8192**3 / time / 1e9}


def runs(*errors: float, **facts: Any) -> list[dict[str, Any]]:
    """Return one run a test error, of seeds 0, 1, and so on."""
    return [{**RUN, **facts, "seed": s, "test_error_pct": e} for s, e in enumerate(errors)]
