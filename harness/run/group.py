"""Runs that train together: which of a preset do, and what they share while they take turns."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from harness.preset import Job
from harness.run.estimate import Estimate

# On a GPU, unless another number is asked for: more at once would only come later, all of them.
GPU_TOGETHER = 4


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
    """The clock of runs that take turns: what their epochs' ends need, and the time left.

    ``closing(seconds)`` hears for how long all of them need, at most, to close an epoch;
    ``others`` are the runs that come after.
    """

    def __init__(
        self,
        names: Sequence[str],
        estimate: Estimate,
        others: Sequence[str],
        closing: Callable[[float], None],
    ) -> None:
        self._estimate, self._others, self._closing = estimate, others, closing
        self._stepped = time.monotonic()  # the last step of any: the next one's turn began then
        self._longest = dict.fromkeys(names, 0.0)
        self._ends: dict[str, float] = {}

    def step(self) -> None:
        """Note when the last step was."""
        self._stepped = time.monotonic()

    def closed(self, name: str) -> None:
        """Note how long a run took from its turn's begin to the end of its validation."""
        self._longest[name] = max(self._longest[name], time.monotonic() - self._stepped)
        self._closing(sum(self._longest.values()))

    def left(self, name: str, seconds: float, epochs: int, own: float) -> float | None:
        """Return the seconds until all of them are done, and the runs that come after."""
        self._estimate.learn(name, seconds / len(self._longest), epochs)
        now, rest = time.monotonic(), self._estimate.left(self._others)
        self._ends[name] = now + own
        return None if rest is None else max(self._ends.values()) - now + rest
