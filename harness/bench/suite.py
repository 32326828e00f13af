"""The pytest-benchmark module that ``bnn bench`` runs: a benchmark a kernel and thing clocked."""

import sys
from typing import Any

import pytest

from harness.bench.measure import measure
from harness.bench.plugin import Record
from harness.bench.problems import Problem
from kernels.base import Kernel


def test_kernel(
    problem: Problem,
    kernel: Kernel,
    includes: str,
    seconds: float,
    record: Record,
    benchmark: Any,
) -> None:
    """Gate, then clock."""
    print(f"{problem.case.name}: {kernel.name}, {includes}", file=sys.stderr, flush=True)
    with record.row(kernel, includes, benchmark) as info:
        found = measure(problem, kernel, includes, benchmark, seconds)
        if found is not None:
            info.update(found)
    if found is None:
        pytest.skip(f"{kernel.name} takes float32 activations as they are: {includes} is gemm")
