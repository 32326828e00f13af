"""Several runs in one process: a step of each in turn, on a GPU each on a stream of its own."""

from collections.abc import Generator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

import torch

from harness.errors import HarnessError
from harness.train.loop import Interrupted

Result = TypeVar("Result")
# On a GPU. torch has 32 streams of a priority, then gives the first again; graphs captured on one
# stream share the scratch memory of their products, which their replays on two would spoil.
MOST_RUNS = 32


def check_count(runs: int, device: torch.device) -> None:
    """Raise ``HarnessError`` where more runs are to take turns than can on ``device``."""
    if device.type == "cuda" and runs > MOST_RUNS:
        raise HarnessError(f"at most {MOST_RUNS} runs train together on a GPU, found {runs}")


def take_turns(runs: Sequence[Generator[None, None, Result]], device: torch.device) -> list[Result]:
    """Advance the runs one step after the other until all have returned; return their results.

    The host waits for one run at the end of its epochs alone; the others' steps, a graph's replay
    each, are queued by then and go on.

    Raises:
        Interrupted: a run was stopped; raised once every other has stopped too, or has ended.
    """
    streams = [_stream(device, len(runs)) for _ in runs]
    results: dict[int, Result] = {}
    interrupted: Interrupted | None = None
    left = list(range(len(runs)))
    while left:
        for at in list(left):
            try:
                with streams[at]():
                    next(runs[at])
            except StopIteration as end:
                results[at] = end.value
                left.remove(at)
            except Interrupted as stop:
                interrupted = stop
                left.remove(at)
    if interrupted is not None:
        raise interrupted
    return [results[at] for at in range(len(runs))]


def _stream(device: torch.device, runs: int) -> Any:
    """Return what makes the context of a run's steps."""
    if device.type != "cuda" or runs == 1:
        return nullcontext
    cuda: Any = torch.cuda
    stream = cuda.Stream()
    stream.wait_stream(cuda.current_stream())  # the run's data were copied on that one
    return partial(cuda.stream, stream)
