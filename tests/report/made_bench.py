"""Made-up bench files, shaped as ``bnn bench`` writes them."""

import json
from pathlib import Path
from typing import Any

PROVENANCE = {
    "commit": "c0ffee" * 6,
    "dirty": False,
    "versions": {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6", "numba": "0.68.1"},
    "machine": {
        "name": "box-2c",
        "cpu": "Some CPU",
        "cores": 2,
        "memory_gb": 16.0,
        "gpu": None,
        "os": "Linux",
    },
}


def benchmark(kernel: str, milliseconds: float, includes: str = "gemm", **info: Any) -> Any:
    """Return one entry of a bench file, five samples around its time."""
    size = info.get("m", 512)
    facts = {
        "case": f"square-{size}",
        "group": "square",
        "kernel": kernel,
        "device": "cpu",
        "m": size,
        "n": size,
        "k": size,
        "baseline": kernel.startswith("naive"),
        "ops": 2 * size**3,
        "bytes": size**2 * 4,
        "threads": 2,
        "includes": includes,
        "caches": "warm",
        "status": "ok",
        "reason": None,
    }
    samples = [milliseconds * spread / 1000 for spread in (0.9, 0.95, 1.0, 1.1, 1.3)]
    return {"extra_info": facts | info, "stats": {"data": samples}}


def without_time(kernel: str, status: str, reason: str, **info: Any) -> Any:
    """Return the entry of a kernel that has no time."""
    found = benchmark(kernel, 1.0, status=status, reason=reason, **info)
    return found | {"stats": None}


def write_bench(results: Path, case: str, benchmarks: list[Any], machine: str = "box-2c") -> Path:
    return write_machine_file(results, case, {"benchmarks": benchmarks}, machine)


def write_machine_file(results: Path, stem: str, body: dict[str, Any], machine: str) -> Path:
    path = results / "bench" / machine / f"{stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {"machine": {**PROVENANCE["machine"], "name": machine}}  # type: ignore[dict-item]
    document = {
        "machine_info": {"provenance": {**PROVENANCE, **named}},
        "commit_info": {"id": PROVENANCE["commit"], "dirty": False},
        "datetime": "2026-01-02T05:00:00+00:00",
    }
    path.write_text(json.dumps(document | body))
    return path


def write_benches(results: Path) -> None:
    """Write a sweep of squares and an MLP on one machine, with holes."""
    for size in (256, 512, 1024, 2048):
        unit = (size / 1024) ** 3
        info = {"m": size}
        rows = [
            benchmark("naive", 900 * unit, **info),
            benchmark("xnor-cpu", 4 * unit, **info),
            benchmark("xnor-cpu", 4.4 * unit, "pack+gemm", **info),
            benchmark("vendor-fp32", 21 * unit, **info),
            benchmark("vendor-bf16", 7 * unit, **info),
            benchmark("vendor-bf16", 7.5 * unit, "pack+gemm", **info),
            without_time("vendor-int8", "unavailable", "the CPU has no VNNI", **info),
        ]
        rows += [benchmark("xnor-cpu", 7 * unit, threads=1, **info)]
        write_bench(results, f"square-{size}", rows)
    rows = [benchmark("copy", 20.0, "ceiling"), benchmark("xor+popcount", 2.0, "ceiling")]
    for row, size, ops in zip(rows, (2**29, 0), (0, 2 * 10**9), strict=True):
        none = {"group": "ceiling", "case": "ceilings", "m": None, "n": None, "k": None}
        row["extra_info"] |= {**none, "bytes": size, "ops": ops}
    write_bench(results, "ceilings", rows)
    mlp: dict[str, Any] = {
        "case": "mnist-mlp-1024",
        "group": "mlp",
        "m": 10000,
        "n": 1024,
        "k": 1024,
        "ops": 58 * 10**9,
    }
    rows = [benchmark(k, t, "network", **mlp) for k, t in (("naive", 16000), ("xnor-cpu", 260))]
    rows += [benchmark("vendor-fp32", 700, "network", **mlp)]
    rows += [without_time("vendor-bf16", "wrong", "3 of 100,000 outputs differ", **mlp)]
    write_bench(results, "mnist-mlp-1024", rows)
    gpu: dict[str, Any] = {"m": 8192, "device": "cuda"}
    rows = [benchmark("naive-cuda", 1700, **gpu), benchmark("xnor-cuda", 3.1, **gpu)]
    write_bench(results, "square-8192", rows, machine="gpu-box")
    verdict = {"device": "cuda", "status": "ok", "reason": None, "products": 45, "seconds": 0.5}
    checked = [verdict | {"kernel": name, "positions": 1152} for name in ("naive", "xnor-tensor")]
    write_machine_file(results, "correctness-cuda", {"kernels": checked}, "gpu-box")
