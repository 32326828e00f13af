"""One kernel on one case: the gate, then the clock."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.bench.problems import Problem, nbytes
from kernels.base import Kernel

MIN_ROUNDS = 3
MAX_ROUNDS = 1000  # samples in a file
WARM_UP = 0.1  # of the time a kernel has
SAMPLE_CALLS = 3  # on the sampled rows, to foresee how long a whole call takes
FORESIGHT = 4  # a small product is less efficient than the whole by up to this


class NoTimeError(Exception):
    """A kernel that gets no time: ``status`` is "unavailable" or "wrong", ``reason`` says why."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def check_available(kernel: Kernel, problem: Problem) -> None:
    """Raise ``NoTimeError`` where the kernel cannot run here, or not one of the products."""
    case = problem.case
    for n, k in case.shapes:
        reason = kernel.why_not(case.m, n, k)
        if reason is not None:
            raise NoTimeError("unavailable", reason)


def check_dots(dots: Tensor, expected: Tensor) -> None:
    """Raise ``NoTimeError`` where the dots differ from the expected ones anywhere.

    Compared in float64, which holds every int32 and every float32: a fraction shows too.
    """
    if dots.shape != expected.shape:
        wanted, found = list(expected.shape), list(dots.shape)
        raise NoTimeError("wrong", f"the result has shape {found}, the reference {wanted}")
    differing = (dots.to("cpu", torch.float64) != expected.to(torch.float64)).nonzero()
    if len(differing):
        row, column = (int(at) for at in differing[0])
        raise NoTimeError(
            "wrong",
            f"{len(differing)} of {expected.numel()} sampled results differ from the reference; "
            f"the first, [{row}, {column}], is {dots[row, column].item()}, "
            f"expected {expected[row, column].item()}",
        )


def rounds_for(call_s: float, seconds: float) -> int:
    """Return how many rounds of ``call_s`` to clock in ``seconds``: 3..1000, or a single long one.

    >>> rounds_for(0.1, 1.0), rounds_for(0.9, 1.0), rounds_for(8.0, 1.0)
    (10, 3, 1)
    """
    if call_s > seconds:
        return 1
    return max(MIN_ROUNDS, min(MAX_ROUNDS, int(seconds / max(call_s, 1e-9))))


def _warm_up(call: Callable[[], Tensor], budget_s: float) -> tuple[float, Tensor]:
    """Call until ``budget_s`` has gone, at least once; return the fastest call and a result."""
    fastest, began = float("inf"), time.perf_counter()
    while True:
        start = time.perf_counter()
        result = call()
        end = time.perf_counter()
        fastest = min(fastest, end - start)
        if end - began >= budget_s:
            return fastest, result


def measure(
    problem: Problem, kernel: Kernel, includes: str, benchmark: Any, seconds: float
) -> dict[str, int] | None:
    """Check ``kernel`` on the case, then clock it with pytest-benchmark's fixture.

    The kernel first multiplies the sampled rows alone; the result must equal the reference. A call
    foreseen to take longer than ``FORESIGHT * seconds`` is clocked once, without warm-up. The last
    clocked result is checked again; if it is wrong, its times are void. Operands are made outside
    the clock and stay in the caches as far as they fit.

    Returns:
        {"bytes": of operands and result}, or None where there is nothing to clock.

    Raises:
        NoTimeError: the kernel cannot run here, or is wrong.
    """
    check_available(kernel, problem)
    subject = problem.subject(kernel, includes)
    if subject is None:
        return None
    sample = subject.prepare(problem.rows)
    check_dots(subject.run(sample), problem.expected)  # compiles, too
    calls_s = [_warm_up(lambda: subject.run(sample), 0)[0] for _ in range(SAMPLE_CALLS)]
    call_s = min(calls_s) * problem.case.m / len(problem.rows)
    operand = subject.prepare(None)
    if call_s <= FORESIGHT * seconds:
        warm_s, dots = _warm_up(lambda: subject.run(operand), WARM_UP * seconds)
        call_s = min(call_s, warm_s)  # another process may have held up the only warm-up call
        check_dots(dots[problem.rows], problem.expected)
    rounds = rounds_for(call_s, seconds)
    dots = benchmark.pedantic(subject.run, args=(operand,), rounds=rounds)
    check_dots(dots[problem.rows], problem.expected)
    return {"bytes": nbytes([operand, subject.weights, dots])}
