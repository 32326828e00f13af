"""How long the rest of a preset takes, from the runs that trained here."""

from collections.abc import Iterable

from harness.plan.calibrate import image_macs
from harness.run.setup import Setup

_ALIKE = ("dataset", "recipe", "mode")  # the more of these agree in turn, the more alike two runs


class Estimate:
    """Seconds of runs: multiply-accumulates, by the speed of the runs that are most alike."""

    def __init__(self, setup: Setup) -> None:
        self._jobs = setup.jobs
        self._macs: dict[str, int] = {}  # of an epoch, forward
        self._epochs: dict[str, int] = {}
        for name, job in setup.jobs.items():
            recipe = job.resolved_recipe()
            images = setup.manifests[job.dataset]["counts"]["train"]
            self._macs[name] = images * image_macs(recipe, job.mode)
            self._epochs[name] = recipe.epochs
        self._seconds: dict[str, float] = {}  # of a multiply-accumulate

    def learn(self, name: str, seconds: float, epochs: int) -> None:
        """Take in that ``epochs`` of a run took ``seconds``."""
        if epochs:
            self._seconds[name] = seconds / epochs / self._macs[name]

    def left(self, names: Iterable[str]) -> float | None:
        """Return the seconds that whole runs take; None before anything is known."""
        if not self._seconds:
            return None
        return sum(self._pace(name) * self._macs[name] * self._epochs[name] for name in names)

    def _pace(self, name: str) -> float:
        job = self._jobs[name]

        def likeness(other: str) -> int:
            agrees = [getattr(self._jobs[other], key) == getattr(job, key) for key in _ALIKE]
            return [*agrees, False].index(False)

        best = max(map(likeness, self._seconds))
        alike = [pace for other, pace in self._seconds.items() if likeness(other) == best]
        return sum(alike) / len(alike)
