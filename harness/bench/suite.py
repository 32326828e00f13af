"""The pytest-benchmark module that ``bnn bench`` runs: a benchmark a kernel and thing clocked."""

import sys
from typing import Any

import pytest

from harness.bench.ceilings import Ceiling
from harness.bench.measure import measure, measure_ceiling
from harness.bench.plugin import Record
from harness.bench.subject import Problem
from kernels.base import Kernel


def test_ceiling(
    ceiling: Ceiling, seconds: float, record: Record, benchmark: Any, pytestconfig: pytest.Config
) -> None:
    """Clock what the machine can do at most."""
    record.ceiling(ceiling, benchmark)
    on_gpu = pytestconfig.getoption("--bnn-device") == "cuda"
    measure_ceiling(ceiling, benchmark, seconds, on_gpu)


def test_kernel(
    problem: Problem,
    kernel: Kernel,
    includes: str,
    seconds: float,
    limit: float,
    record: Record,
    benchmark: Any,
) -> None:
    """Gate, then clock."""
    print(f"{problem.case.name}: {kernel.name}, {includes}", file=sys.stderr, flush=True)
    with record.row(kernel, includes, benchmark) as info:
        found = measure(problem, kernel, includes, benchmark, seconds, limit)
        if found is not None:
            info.update(found)
    if found is None:
        pytest.skip(f"{kernel.name} has no {includes} of its own")
