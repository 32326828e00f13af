"""Several runs in one process: a step of each in turn, on a GPU a graph, each on its own stream."""

from collections.abc import Callable, Generator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

import torch

from harness.errors import HarnessError
from harness.train.loop import Interrupted, Paused

Result = TypeVar("Result")
Run = Generator[None, None, Result]
# Runs that were stopped together are a few turns apart: so near to their end they go on to it, for
# opening them again takes longer.
LAST_ROUNDS = 100
# On a GPU. torch has 32 streams of a priority, then gives the first again; graphs captured on one
# stream share the scratch memory of their products, which their replays on two would spoil.
MOST_RUNS = 32


def check_count(runs: int, device: torch.device) -> None:
    """Raise ``HarnessError`` where more runs are to take turns than can on ``device``."""
    if device.type == "cuda" and runs > MOST_RUNS:
        raise HarnessError(f"at most {MOST_RUNS} runs train together on a GPU, found {runs}")


def take_turns(
    runs: Mapping[int, Run[Result]],
    device: torch.device,
    pause: Callable[[int | None], None],
    until_one_ends: bool = False,
    alone: Callable[[], int | None] = lambda: None,
) -> dict[int, Result]:
    """Advance the runs one step, or graph, after the other; return the results of those that ended.

    The host waits for one run at the end of its epochs alone; the others' steps, a graph's replay
    each, are queued by then and go on. ``pause(but)`` asks all runs but one to stop by
    :class:`Paused`: all after an error, and with ``until_one_ends`` :data:`LAST_ROUNDS` after the
    first one has ended; all but the one that ``alone`` returns, which is asked before each round.

    Raises:
        Interrupted: a run was stopped; raised once every other has stopped too, or has ended.
        Exception: a run met it; raised once every other has stopped too, or has ended.
    """
    streams = {at: _stream(device, len(runs)) for at in runs}
    results: dict[int, Result] = {}
    interrupted: Interrupted | None = None
    failure: Exception | None = None
    left, rounds = list(runs), LAST_ROUNDS
    while left:
        chosen = alone()
        if chosen is not None:
            pause(chosen)
        for at in list(left):
            try:
                with streams[at]():
                    next(runs[at])
                continue
            except StopIteration as end:
                results[at] = end.value
            except Interrupted as stop:
                interrupted = stop
            except Paused:
                pass  # its checkpoint is written
            except Exception as error:
                failure = failure or error
            left.remove(at)
        rounds -= bool(results)
        if failure is not None or (until_one_ends and rounds < 0):
            pause(None)
    if interrupted is not None:
        raise interrupted
    if failure is not None:
        raise failure
    return results


def _stream(device: torch.device, runs: int) -> Any:
    """Return what makes the context of a run's steps."""
    if device.type != "cuda" or runs == 1:
        return nullcontext
    cuda: Any = torch.cuda
    stream = cuda.Stream()
    stream.wait_stream(cuda.current_stream())  # the run's data were copied on that one
    return partial(cuda.stream, stream)
