"""The pytest-benchmark module that ``bnn bench`` runs: checks, bounds, then a test a benchmark."""

from typing import Any

import pytest

from harness.bench.ceilings import Ceiling
from harness.bench.measure import measure, measure_ceiling
from harness.bench.record import Record
from harness.bench.work import Step


def test_correct(checked: str, record: Record) -> None:
    """Hold a kernel against the reference; a red one gets no time below."""
    verdict = record.check(checked)
    if verdict.status == "unavailable":
        pytest.skip(str(verdict.reason))
    assert verdict.status == "ok", verdict.reason


def test_ceiling(place: int, ceiling: Ceiling, record: Record, benchmark: Any) -> None:
    """Clock what the machine can do at most."""
    seconds = record.work.entries[place].seconds
    with record.ceiling(place, ceiling, benchmark) as info:
        bound = ceiling.prepare()
        info.update(ops=bound.ops, bytes=bound.bytes)
        on_gpu = record.work.device == "cuda"
        measure_ceiling(bound, benchmark, seconds, on_gpu, record.budget)


def test_kernel(step: Step, record: Record, benchmark: Any) -> None:
    """Gate, then clock."""
    seconds, limit = record.work.entries[step.place].seconds, record.work.call_limit
    with record.row(step, benchmark) as info:
        kernel, problem = record.kernel(step), record.problem(step)
        found = measure(problem, kernel, step.includes, benchmark, seconds, limit, record.budget)
        assert found is not None, f"{step.kernel} has no {step.includes} of its own"
        info.update(found)
