"""The pytest-benchmark module that ``bnn bench`` runs: a benchmark a kernel and thing clocked."""

import sys
from typing import Any

import pytest

from harness.bench.measure import measure
from harness.bench.plugin import Record
from harness.bench.problems import Problem
from kernels import registry


def test_kernel(
    problem: Problem,
    kernel_name: str,
    includes: str,
    seconds: float,
    record: Record,
    benchmark: Any,
) -> None:
    """Gate, then clock."""
    print(f"{problem.case.name}: {kernel_name}, {includes}", file=sys.stderr, flush=True)
    with record.row(kernel_name, includes, benchmark) as info:
        found = measure(problem, registry.get(kernel_name), includes, benchmark, seconds)
        if found is not None:
            info.update(found)
    if found is None:
        pytest.skip(f"{kernel_name} takes float32 activations as they are: {includes} is gemm")
