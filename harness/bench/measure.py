"""One kernel on one case: the gate, then the clock."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.bench.budget import CEILING_S, Budget
from harness.bench.ceilings import Bound
from harness.bench.gate import NoTimeError, check_available, check_dots
from harness.bench.gpu import (
    L2_BYTES,
    WARM_REPLAYS,
    capture,
    copies_for,
    keep_samples,
    replay_seconds,
)
from harness.bench.subject import Problem, Subject, nbytes, spoil
from kernels.base import Kernel

MIN_ROUNDS = 3
MAX_ROUNDS = 1000  # samples in a file
WARM_UP = 0.1  # of the time a kernel has
SAMPLE_CALLS = 3  # on the sampled rows, to foresee how long a whole call takes
LONG_SAMPLE = 2.0  # seconds of the first call, beyond which one more must do
FORESIGHT = 4  # a small product is less efficient than the whole by up to this
LEAST_COPIES = 2  # of a GPU's operand, however long a call takes
WARM_S = 0.02  # of replays before those that count
LONG_S = 4.0  # that a GPU's kernel may take beyond its time, to be clocked more than once
BOUND_CALLS = 4  # of a bound in a replay, whose own launch takes some microseconds


def rounds_for(call_s: float, seconds: float) -> int:
    """Return how many rounds of ``call_s`` to clock in ``seconds``: 3..1000, or a single long one.

    >>> rounds_for(0.1, 1.0), rounds_for(0.9, 1.0), rounds_for(8.0, 1.0)
    (10, 3, 1)
    """
    if call_s > seconds:
        return 1
    return max(MIN_ROUNDS, min(MAX_ROUNDS, int(seconds / max(call_s, 1e-9))))


def _warm_up(call: Callable[[], Any], budget_s: float) -> tuple[float, Any]:
    """Call until ``budget_s`` has gone, at least once; return the fastest call and a result."""
    fastest, began = float("inf"), time.perf_counter()
    while True:
        start = time.perf_counter()
        result = call()
        end = time.perf_counter()
        fastest = min(fastest, end - start)
        if end - began >= budget_s:
            return fastest, result


def _check_limit(call_s: float, limit: float) -> None:
    if call_s > limit:
        raise NoTimeError("skipped", f"foreseen to take {call_s:.0f} s a call, over {limit:g} s")


def _replays(
    calls: Sequence[Callable[[], Any]], benchmark: Any, seconds: float, budget: Budget
) -> Any:
    """Clock replays of ``calls``; return their results and the seconds of a call."""
    count = len(calls)
    graph, results = capture(calls, torch.cuda)
    (first,) = replay_seconds(graph, count, 1, torch.cuda, warm=0)  # warms up, too
    replay_s = first * count
    budget.check_seconds(replay_s)
    spoil(results)
    if MIN_ROUNDS * replay_s <= LONG_S:
        seconds = max(seconds, MIN_ROUNDS * replay_s)
    rounds = rounds_for(replay_s, budget.seconds(seconds))
    samples = replay_seconds(graph, count, rounds, torch.cuda, warm_replays(replay_s, rounds))
    keep_samples(benchmark, samples)
    return results, min(samples)


def warm_replays(replay_s: float, rounds: int) -> int:
    """Return how many replays to let go by before ``rounds`` of them: ``WARM_S``, or a few long.

    The device's clock rises within that; a call longer than it was warmed up by the first replay.

    >>> warm_replays(1e-4, 1000), warm_replays(0.01, 10), warm_replays(0.4, 3), warm_replays(9, 1)
    (200, 3, 2, 0)
    """
    if replay_s >= WARM_S:
        return min(WARM_REPLAYS, rounds - 1)
    return min(MAX_ROUNDS, max(WARM_REPLAYS, round(WARM_S / max(replay_s, 1e-9))))


def copies_in(seconds: float, call_s: float, size: int) -> int:
    """Return how many copies of an operand of ``size`` bytes a replay takes.

    As many as pass the L2 cache, but no more than ``seconds`` hold: a call that takes long for its
    bytes does not wait for them.

    >>> copies_in(0.1, 1e-5, 1 << 20), copies_in(0.1, 0.02, 1 << 20), copies_in(0.1, 3, 1 << 20)
    (64, 5, 2)
    """
    held = max(LEAST_COPIES, round(seconds / max(call_s, 1e-9)))
    return min(copies_for(size), held)


def _measure_on_gpu(
    make: Callable[[], Subject | None],
    problem: Problem,
    kernel: Kernel,
    benchmark: Any,
    seconds: float,
    budget: Budget,
) -> dict[str, Any] | None:
    """Check a whole call, then clock replays; the sampled rows alone would compile once more.

    ``make`` makes the case ready: each copy has weights of its own, which leave the L2 too.
    """
    case, subject = problem.case, make()
    if subject is None:
        return None
    expected = problem.expected if subject.expected is None else subject.expected
    operand = subject.prepare(None)
    result = subject.run(operand)
    check_dots(subject.dots(result)[problem.rows], expected)
    del result
    call_s = budget.foreseen_s(kernel.name, kernel.device, case.ops)
    size = nbytes([operand, subject.weights])
    count = copies_in(seconds, call_s, size)
    copies = [one for _ in range(count - 1) if (one := make()) is not None]
    calls = [partial(subject.run, operand)]
    calls += [partial(one.run, one.prepare(None)) for one in copies]
    results, call_s = _replays(calls, benchmark, seconds, budget)
    budget.saw(kernel.name, kernel.device, case.ops, call_s)
    for result in (results[0], results[-1]):
        check_dots(subject.dots(result)[problem.rows], expected)
    found = {"bytes": nbytes([operand, subject.weights, results[-1]]), "copies": count}
    return found | {"caches": "rotated" if count * size > L2_BYTES else "warm"}


def measure_ceiling(
    bound: Bound, benchmark: Any, seconds: float, on_gpu: bool, budget: Budget | None = None
) -> None:
    """Clock a bound of the machine.

    Raises:
        NoTimeError: its result is wrong, or there is no time for it.
    """
    budget = budget or Budget()
    budget.check_seconds(CEILING_S)
    _warm_up(bound.run, 0)  # compiles: no call to foresee others by
    if bound.check is not None:
        bound.check()
    if on_gpu:
        _replays([bound.run] * BOUND_CALLS, benchmark, seconds, budget)
        return
    warm_s, _ = _warm_up(bound.run, WARM_UP * seconds)
    benchmark.pedantic(bound.run, rounds=rounds_for(warm_s, budget.seconds(seconds)))


def measure(
    problem: Problem,
    kernel: Kernel,
    includes: str,
    benchmark: Any,
    seconds: float,
    limit: float = math.inf,
    budget: Budget | None = None,
) -> dict[str, Any] | None:
    """Check ``kernel`` on the case, then clock it with pytest-benchmark's fixture.

    On a CPU the kernel first multiplies the sampled rows alone, on a GPU the whole; the result must
    equal the reference. A call foreseen to take longer than ``FORESIGHT * seconds`` is clocked
    once, without warm-up. The last clocked result is checked again; if it is wrong, its times are
    void. Operands are made outside the clock; on a CPU they stay in the caches as far as they fit,
    on a GPU copies of them rotate past the L2 (``harness.bench.gpu``). A call foreseen to take
    longer than ``limit`` seconds, or than ``budget`` has left, has no time.

    Returns:
        {"bytes": of operands and result}, on a GPU also ``copies`` and where these lie,
        ``caches``; or None where there is nothing to clock.

    Raises:
        NoTimeError: the kernel cannot run here, is wrong, or takes too long.
    """
    budget, ops = budget or Budget(), problem.case.ops
    check_available(kernel, problem)
    budget.check(kernel.name, kernel.device, ops)
    if kernel.device == "cuda":
        _check_limit(budget.foreseen_s(kernel.name, kernel.device, ops), limit)
        make = partial(problem.subject, kernel, includes)
        return _measure_on_gpu(make, problem, kernel, benchmark, seconds, budget)
    subject = problem.subject(kernel, includes)
    if subject is None:
        return None
    return _measure_on_cpu(subject, problem, kernel, benchmark, seconds, limit, budget)


def _measure_on_cpu(
    subject: Subject,
    problem: Problem,
    kernel: Kernel,
    benchmark: Any,
    seconds: float,
    limit: float,
    budget: Budget,
) -> dict[str, int]:
    expected = problem.expected if subject.expected is None else subject.expected
    call_s = _foreseen(subject, problem, expected)
    _check_limit(call_s, limit)
    budget.check_seconds(call_s)
    operand = subject.prepare(None)
    if call_s <= FORESIGHT * seconds:
        warm_s, dots = _warm_up(lambda: subject.run(operand), WARM_UP * seconds)
        call_s = min(call_s, warm_s)  # another process may have held up the only warm-up call
        check_dots(subject.dots(dots)[problem.rows], expected)
        del dots
    budget.check_seconds(call_s)
    rounds = rounds_for(call_s, budget.seconds(seconds))
    held: list[Any] = []  # one result at a time: memory of the last may serve the next
    benchmark.pedantic(lambda: held.append(subject.run(operand)), setup=held.clear, rounds=rounds)
    budget.saw(kernel.name, kernel.device, problem.case.ops, call_s)
    check_dots(subject.dots(held[0])[problem.rows], expected)
    return {"bytes": nbytes([operand, subject.weights, *held])}


def _foreseen(subject: Subject, problem: Problem, expected: Tensor) -> float:
    """Check the sampled rows; return the seconds that a whole call is foreseen to take."""
    sample = subject.prepare(problem.rows)
    began = time.perf_counter()
    result = subject.run(sample)  # compiles, too
    first_s = time.perf_counter() - began
    check_dots(subject.dots(result), expected)
    again = 1 if first_s > LONG_SAMPLE else SAMPLE_CALLS
    calls_s = [_warm_up(lambda: subject.run(sample), 0)[0] for _ in range(again)]
    return min(first_s, *calls_s) * problem.case.m / len(problem.rows)
