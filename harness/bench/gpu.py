"""The clock on a GPU: device events around replays of a graph, over operands that leave the L2.

A call is captured once for each copy of its operands, the weights among them, into one graph, so
that launches cost nothing of the host, and a replay meets each copy once: together they are larger
than the L2 cache, or as many as ``MOST_COPIES`` of a small product. A sample
is the time of a replay by the device's own events, divided by the copies in it.
"""

import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from harness.text import said

ROTATED_BYTES = 1 << 28  # of operand copies: over four times the L2 of an H200
MOST_COPIES = 64
L2_BYTES = 1 << 26  # no smaller than that of an H200
WARM_REPLAYS = 3
_QUERIES = (
    "clocks.sm", "clocks.mem", "clocks.max.sm", "temperature.gpu", "power.draw", "power.limit",
    "utilization.gpu",
)  # fmt: skip


class CaptureError(RuntimeError):
    """No graph takes the calls. torch then frees no memory until the process ends."""


def copies_for(operand_bytes: int) -> int:
    """Return how many copies of an operand pass :data:`ROTATED_BYTES`: 1 to 64.

    >>> copies_for(1 << 20), copies_for(1 << 27), copies_for(1 << 30)
    (64, 2, 1)
    """
    return max(1, min(MOST_COPIES, -(-ROTATED_BYTES // max(operand_bytes, 1))))


def capture(calls: Sequence[Callable[[], Any]], cuda: Any) -> tuple[Any, list[Any]]:
    """Return a graph of all calls in turn, and their results, which each replay writes anew.

    ``cuda`` is ``torch.cuda``, or a stand-in that has its ``Stream``, ``stream``, ``CUDAGraph`` and
    ``graph``. The first call runs once before, on a side stream, as a capture demands: the others
    are the same on other operands.

    Raises:
        CaptureError: a call does what a graph cannot hold.
    """
    side = cuda.Stream()
    side.wait_stream(cuda.current_stream())
    with cuda.stream(side):
        calls[0]()
    cuda.current_stream().wait_stream(side)
    graph = cuda.CUDAGraph()
    try:
        with cuda.graph(graph):
            results = [call() for call in calls]
    except Exception as error:
        raise CaptureError(f"no graph takes it: {said(error)}") from error
    return graph, results


def replay_seconds(
    graph: Any, copies: int, rounds: int, cuda: Any, warm: int = WARM_REPLAYS
) -> list[float]:
    """Return the seconds a call of ``rounds`` replays, by the device's events, after ``warm``."""
    for _ in range(warm):
        graph.replay()
    pairs = [
        (cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)) for _ in range(rounds)
    ]
    for begin, end in pairs:
        begin.record()
        graph.replay()
        end.record()
    cuda.synchronize()
    return [begin.elapsed_time(end) / 1000 / copies for begin, end in pairs]


def keep_samples(benchmark: Any, samples: Sequence[float]) -> None:
    """Put seconds measured elsewhere into pytest-benchmark's record, as its own raw samples."""
    benchmark._mode = "device events"  # or it warns that it clocked nothing
    stats = benchmark._make_stats(1)
    for sample in samples:
        stats.update(sample)


def gpu_state(run: Callable[..., Any] = subprocess.run) -> dict[str, str] | None:
    """Return clocks (MHz), temperature (°C) and power (W) as nvidia-smi reads them; never set.

    None where there is no nvidia-smi, or it fails, or says something else.
    """
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERIES)}", "--format=csv,noheader,nounits"]
    try:
        done = run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    values = [value.strip() for value in done.stdout.partition("\n")[0].split(",")]
    return dict(zip(_QUERIES, values, strict=True)) if len(values) == len(_QUERIES) else None
