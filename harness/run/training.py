"""The training of a group of runs within a piece's time."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.nn.costs import layer_costs
from harness.run.clock import Clock
from harness.run.estimate import Estimate
from harness.run.group import Group
from harness.run.setup import Setup
from harness.run.show import Lines, say
from harness.spec import get_mode
from harness.train.checkpoint import CHECKPOINT
from harness.train.record import finished_run
from harness.train.run import NOT_TRACKED, train_in_turns
from kernels.cpu.threads import available_threads, set_threads

# Set aside of the time: frames at the end, with pandas' import, and what the group asks for. Until
# a run's checkpoint is seen, the disk is a slow one (weights, two moments and the best weights in
# float32, a byte of sign).
FRAMES_SECONDS = 5.0
STATE_BYTES, DISK_BYTES_PER_S = 17, 100e6
# The first step compiles kernels, and no stop ends it: a run is not begun just before the end.
START_SECONDS = 40.0


class Training:
    """Trains runs of a setup in turns; ``gained`` says whether anything came of it so far."""

    def __init__(
        self, setup: Setup, clock: Clock, estimate: Estimate, threads: int, seconds: float
    ) -> None:
        self.setup, self.clock, self.estimate = setup, clock, estimate
        self.threads, self.checkpoint_seconds = threads, seconds
        self.gained = False

    def run(self, titles: dict[str, str], others: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Train the runs named, and return the run.json of those that ended; one does, at least.

        ``titles`` begin their lines on stdout; the runs ``others`` come after them. Those that did
        not end have a checkpoint. A run that ended before is returned without any training.
        """
        setup, names = self.setup, list(titles)
        folders = [setup.work_folder(name) for name in names]
        ended = self._ended_before(names)
        if ended:
            return ended
        saving = {name: self._checkpoint_seconds(name) for name in names}
        group = Group(saving, self.estimate, others, self._reserve, self.clock.until_alarm)
        if self.gained and self.clock.until_alarm() < START_SECONDS:
            self.clock.end()
        before = [_written(folder / CHECKPOINT) for folder in folders]
        self._set_threads(names[0])
        try:
            found = train_in_turns(
                [setup.spec(name) for name in names],
                setup.data,
                setup.device,
                self.checkpoint_seconds,
                NOT_TRACKED,
                [partial(_lines, title, name, group) for name, title in titles.items()],
                until_one_ends=True,
                on_stop=self.clock.note,
                alone=partial(_alone, group, titles),
            )
        finally:  # a checkpoint is written after a step alone
            after = [_written(folder / CHECKPOINT) for folder in folders]
            self.gained = self.gained or before != after
        self.gained = self.gained or bool(found)
        return {names[at]: run for at, run in sorted(found.items())}

    def _reserve(self, seconds: float) -> None:
        self.clock.reserve(FRAMES_SECONDS + seconds)

    def _ended_before(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        setup = self.setup
        found = {
            name: finished_run(setup.work_folder(name), setup.fingerprint(name)) for name in names
        }
        return {name: run for name, run in found.items() if run is not None}

    def _checkpoint_seconds(self, name: str) -> float:
        job = self.setup.jobs[name]
        network = job.resolved_recipe().network
        layers = layer_costs(network, get_mode(job.mode), job.dataset)
        state = STATE_BYTES * sum(layer.weights for layer in layers)
        return state / DISK_BYTES_PER_S

    def _set_threads(self, name: str) -> None:
        # On the CPU the preset's threads, as the workflow takes them: sums differ by their number.
        cpu = self.setup.device.type == "cpu"
        set_threads(self.threads or (self.setup.jobs[name].threads if cpu else available_threads()))


def _lines(title: str, name: str, group: Group, epochs: int, steps: int, batch: int) -> Lines:
    return Lines(title, name, epochs, group)


def _alone(group: Group, titles: dict[str, str]) -> int | None:
    """Return which run is to go on alone, if one is; say so once."""
    before, name = group.alone, group.choose()
    if name is None:
        return None
    if name != before:
        say(f"{titles[name]} goes on alone: in turns none would end in time")
    return list(titles).index(name)


def _written(path: Path) -> int | None:
    """Return when a file was written, in ns; None where it is not there."""
    return path.stat().st_mtime_ns if path.exists() else None
