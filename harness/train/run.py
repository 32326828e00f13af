"""Training runs from data to record, alone or in turns, resumable at every moment."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from harness.errors import HarnessError
from harness.track import Tracking
from harness.train.inputs import Source
from harness.train.loop import stopping
from harness.train.progress import ProgressBar
from harness.train.record import RunSpec
from harness.train.session import MakeShow, Session, locked, open_session
from harness.train.together import check_count, take_turns

NOT_TRACKED = Tracking()


def run_training(
    spec: RunSpec, data: Path, device: torch.device, checkpoint_seconds: float
) -> dict[str, Any]:
    """Train ``spec`` and return its run.json; goes on from a checkpoint where there is one.

    Raises:
        HarnessError: bad data, or a folder that cannot be written.
        Interrupted: a signal stopped the run after a checkpoint.
    """
    return train_together([spec], data, device, checkpoint_seconds)[0]


def train_together(
    specs: Sequence[RunSpec],
    data: Path,
    device: torch.device,
    checkpoint_seconds: float,
    tracking: Tracking = NOT_TRACKED,
    shows: Sequence[MakeShow] | None = None,
) -> list[dict[str, Any]]:
    """Train several runs in one process, a step of each in turn, and return their run.json.

    On a GPU each run has a stream of its own, so that small networks fill it together; the numbers
    of a run are those that it has alone. One that diverges leaves the others to go on.

    Raises:
        HarnessError: bad data, a folder that cannot be written, one folder for two runs, or too
            many runs for a GPU. What meets one run stops the others too, each after a checkpoint.
        Interrupted: a signal stopped the runs, each after a checkpoint.
    """
    made = shows or [ProgressBar] * len(specs)
    found = train_in_turns(specs, data, device, checkpoint_seconds, tracking, made)
    return [found[at] for at in range(len(specs))]


def train_in_turns(
    specs: Sequence[RunSpec],
    data: Path,
    device: torch.device,
    checkpoint_seconds: float,
    tracking: Tracking,
    shows: Sequence[MakeShow],
    until_one_ends: bool = False,
    on_stop: Callable[[int], None] = lambda number: None,
    alone: Callable[[], int | None] = lambda: None,
) -> dict[int, dict[str, Any]]:
    """Train as :func:`train_together`, and return the run.json of those that ended, by index.

    With ``until_one_ends`` the others are put away then, each with a checkpoint to go on from, and
    so they are once ``alone``, asked before each round, names the run that is to go on.
    ``on_stop`` is told the number of a signal at once: runs past their last step end all the same.
    """
    check_count(len(specs), device)
    if len({spec.folder for spec in specs}) < len(specs):
        raise HarnessError(
            f"runs need folders of their own, found {', '.join(str(s.folder) for s in specs)}"
        )
    with ExitStack() as stack:
        for spec in specs:
            stack.enter_context(locked(spec.folder))
        source = Source(data, device)
        opened = [open_session(spec, source, checkpoint_seconds, tracking) for spec in specs]
        del source  # what no run trains on is in its memory no longer
        found = {at: run for at, run in enumerate(opened) if not isinstance(run, Session)}
        if found and until_one_ends:
            return found
        sessions = {at: run for at, run in enumerate(opened) if isinstance(run, Session)}
        shown = {at: shows[at] for at in sessions}
        return {**found, **_advance(sessions, shown, device, until_one_ends, on_stop, alone)}


def _advance(
    sessions: Mapping[int, Session],
    shows: Mapping[int, MakeShow],
    device: torch.device,
    until_one_ends: bool,
    on_stop: Callable[[int], None],
    alone: Callable[[], int | None],
) -> dict[int, dict[str, Any]]:
    trainers = {at: session.trainer for at, session in sessions.items()}

    def stop(number: int) -> None:
        on_stop(number)
        for trainer in trainers.values():
            trainer.request_stop(number)

    def pause(but: int | None) -> None:
        for at, trainer in trainers.items():
            if at != but:
                trainer.request_pause()

    def counted(at: int) -> Generator[None, None, dict[str, Any]]:
        try:
            return (yield from sessions[at].advance(shows[at]))
        finally:
            for trainer in trainers.values():
                trainer.share_time(trainer.turns - 1)

    kinds = [(session.spec.recipe, session.spec.mode) for session in sessions.values()]
    mixed = any(kind != kinds[0] for kind in kinds)
    for session in sessions.values():
        session.takes_turns(len(sessions), mixed)
    with stopping(stop):
        runs = {at: counted(at) for at in sessions}
        return take_turns(runs, device, pause, until_one_ends, alone)
