"""Runs that train together: which of a preset do, and what they share while they take turns."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from harness.preset import Job
from harness.run.estimate import Estimate

# On a GPU, unless another number is asked for: more at once would only come later, all of them.
GPU_TOGETHER = 4
# Set aside of the time: the validation of an epoch, half as long again as the longest seen, and as
# much of checkpoints; of each run two, as the alarm may come just when one begins.
CLOSING_SHARE = 1.5
CHECKPOINTS = 2
SURE_EPOCHS = 5  # of each run, before the time that it needs is relied upon


def rows(
    jobs: Mapping[str, Job], names: Iterable[str], most: int, mixed: bool = False
) -> list[list[str]]:
    """Return the names in order, in rows of up to ``most`` neighbours that differ in seed alone.

    Neighbours only: the order of a preset says what comes first. ``mixed``: of any kind, but of
    one precision and number of threads, which are settings of the process.
    """

    def kind(name: str) -> Any:
        job = jobs[name]
        if mixed:
            return job.resolved_recipe().precision, job.threads
        return replace(job, seed=0)

    alike = [list(found) for _, found in groupby(names, key=kind)]
    return [row[at : at + most] for row in alike for at in range(0, len(row), most)]


class Group:
    """The time of runs that take turns: what their ends need, and who of them comes to an end.

    ``saving``: for how long each may write a checkpoint, until one is seen. ``closing(seconds)``
    hears for how long all of them need, at most, to close an epoch and to be put away;
    ``time_left()`` is the time until then. ``others`` are the runs that come after.
    """

    def __init__(
        self,
        saving: Mapping[str, float],
        estimate: Estimate,
        others: Sequence[str],
        closing: Callable[[float], None],
        time_left: Callable[[], float],
    ) -> None:
        self._estimate, self._others = estimate, others
        self._closing, self._time_left = closing, time_left
        self._stepped = time.monotonic()  # the last step of any: the next one's turn began then
        self._saving = dict(saving)
        self._longest = dict.fromkeys(saving, 0.0)
        self._ends: dict[str, float] = {}  # when each will be done
        self._sure: set[str] = set()  # of whose end enough epochs tell
        self.alone: str | None = None  # the run that is to go on while the others are put away
        self._reserve()

    def step(self, name: str, saved_s: float) -> None:
        """Note when the last step was, and how long the slowest checkpoint took, if any did."""
        self._stepped = time.monotonic()
        if saved_s:
            self._saving[name] = CLOSING_SHARE * saved_s

    def closed(self, name: str) -> None:
        """Note how long a run took from its turn's begin to the end of its validation."""
        self._longest[name] = max(self._longest[name], time.monotonic() - self._stepped)
        self._reserve()

    def _reserve(self) -> None:
        self._closing(
            sum(
                CHECKPOINTS * self._saving[name] + CLOSING_SHARE * self._longest[name]
                for name in self._training()
            )
        )

    def _training(self) -> list[str]:
        return [self.alone] if self.alone else list(self._saving)

    def left(self, name: str, seconds: float, epochs: int, own: float) -> float | None:
        """Return the seconds until all of them are done, and the runs that come after.

        ``own``: until ``name`` is, by ``epochs`` that took it ``seconds``.
        """
        self._estimate.learn(name, seconds / len(self._training()), epochs)
        now, rest = time.monotonic(), self._estimate.left(self._others)
        self._ends[name] = now + own
        if epochs >= SURE_EPOCHS:
            self._sure.add(name)
        return None if rest is None else max(self._ends.values()) - now + rest

    def choose(self) -> str | None:
        """Return the run that is to go on alone, None while they go on in turns.

        Where none of them would end in time, the one that is nearest to its end does, if its share
        of the machine is all that keeps it: a run that has ended is kept, also where the machine is
        lost then, and a checkpoint is large. What it needs alone shows only once it is.
        """
        runs = len(self._training())
        if runs > 1 and len(self._sure) == runs:
            first = min(self._ends, key=lambda name: self._ends[name])
            needs = self._ends[first] - time.monotonic()
            if needs > self._time_left() >= needs / runs:
                self.alone = first
                # Until its next step the others are put away, which no other epoch has to wait for.
                self._stepped = math.inf
                self._reserve()
        return self.alone
