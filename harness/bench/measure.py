"""One kernel on one case: the gate, then the clock."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.bench.ceilings import Ceiling
from harness.bench.gpu import capture, copies_for, keep_samples, replay_seconds
from harness.bench.positions import first_wrong_position
from harness.bench.subject import Problem, Subject, nbytes
from kernels.base import Kernel

MIN_ROUNDS = 3
MAX_ROUNDS = 1000  # samples in a file
WARM_UP = 0.1  # of the time a kernel has
SAMPLE_CALLS = 3  # on the sampled rows, to foresee how long a whole call takes
LONG_SAMPLE = 2.0  # seconds of the first call, beyond which one more must do
FORESIGHT = 4  # a small product is less efficient than the whole by up to this


class NoTimeError(Exception):
    """A kernel that gets no time: ``status`` is "unavailable" or "wrong", ``reason`` says why."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def check_available(kernel: Kernel, problem: Problem) -> None:
    """Raise ``NoTimeError`` where the kernel cannot run here, or not one of the products.

    A packed kernel that is wrong on a one-hot bit somewhere along K is wrong.
    """
    case = problem.case
    for n, k in case.shapes:
        reason = kernel.why_not(case.m, n, k)
        if reason is not None:
            raise NoTimeError("unavailable", reason)
    wrong = first_wrong_position(kernel) if kernel.packed else None
    if wrong is not None:
        raise NoTimeError("wrong", wrong)


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


def _measure_on_gpu(
    subject: Subject, problem: Problem, expected: Tensor, benchmark: Any, seconds: float
) -> dict[str, int]:
    operand = subject.prepare(None)
    size = nbytes([operand, subject.weights])
    operands = [operand, *(subject.prepare(None) for _ in range(copies_for(size) - 1))]
    calls = [partial(subject.run, one) for one in operands]
    graph, results = capture(calls, torch.cuda)
    (first,) = replay_seconds(graph, len(calls), 1, torch.cuda)
    check_dots(subject.dots(results[0])[problem.rows], expected)
    rounds = rounds_for(first * len(calls), seconds)
    keep_samples(benchmark, replay_seconds(graph, len(calls), rounds, torch.cuda))
    check_dots(subject.dots(results[-1])[problem.rows], expected)
    return {"bytes": nbytes([operand, subject.weights, results[-1]])}


def measure_ceiling(ceiling: Ceiling, benchmark: Any, seconds: float, on_gpu: bool) -> None:
    """Clock a bound of the machine."""
    _warm_up(ceiling.run, 0)  # compiles: no call to foresee others by
    warm_s, _ = _warm_up(ceiling.run, WARM_UP * seconds)
    if on_gpu:
        graph, _ = capture([ceiling.run], torch.cuda)
        (warm_s,) = replay_seconds(graph, 1, 1, torch.cuda)
        rounds = rounds_for(warm_s, seconds)
        keep_samples(benchmark, replay_seconds(graph, 1, rounds, torch.cuda))
    else:
        benchmark.pedantic(ceiling.run, rounds=rounds_for(warm_s, seconds))


def measure(
    problem: Problem,
    kernel: Kernel,
    includes: str,
    benchmark: Any,
    seconds: float,
    limit: float = math.inf,
) -> dict[str, int] | None:
    """Check ``kernel`` on the case, then clock it with pytest-benchmark's fixture.

    The kernel first multiplies the sampled rows alone; the result must equal the reference. A call
    foreseen to take longer than ``FORESIGHT * seconds`` is clocked once, without warm-up. The last
    clocked result is checked again; if it is wrong, its times are void. Operands are made outside
    the clock; on a CPU they stay in the caches as far as they fit, on a GPU copies rotate past the
    L2 (``harness.bench.gpu``). A call foreseen to take longer than ``limit`` seconds has no time.

    Returns:
        {"bytes": of operands and result}, or None where there is nothing to clock.

    Raises:
        NoTimeError: the kernel cannot run here, is wrong, or takes too long.
    """
    check_available(kernel, problem)
    subject = problem.subject(kernel, includes)
    if subject is None:
        return None
    expected = problem.expected if subject.expected is None else subject.expected
    sample = subject.prepare(problem.rows)
    began = time.perf_counter()
    result = subject.run(sample)  # compiles, too
    first_s = time.perf_counter() - began
    check_dots(subject.dots(result), expected)
    again = 1 if first_s > LONG_SAMPLE else SAMPLE_CALLS  # the first compiles, too
    calls_s = [_warm_up(lambda: subject.run(sample), 0)[0] for _ in range(again)]
    call_s = min(first_s, *calls_s) * problem.case.m / len(problem.rows)
    if call_s > limit:
        raise NoTimeError("skipped", f"foreseen to take {call_s:.0f} s a call, over {limit:g} s")
    operand = subject.prepare(None)
    if kernel.device == "cuda":
        return _measure_on_gpu(subject, problem, expected, benchmark, seconds)
    if call_s <= FORESIGHT * seconds:
        warm_s, dots = _warm_up(lambda: subject.run(operand), WARM_UP * seconds)
        call_s = min(call_s, warm_s)  # another process may have held up the only warm-up call
        check_dots(subject.dots(dots)[problem.rows], expected)
    rounds = rounds_for(call_s, seconds)
    dots = benchmark.pedantic(subject.run, args=(operand,), rounds=rounds)
    check_dots(subject.dots(dots)[problem.rows], expected)
    return {"bytes": nbytes([operand, subject.weights, dots])}
