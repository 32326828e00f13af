"""How long the rest of a preset takes, from the runs that trained here."""

from collections.abc import Iterable

from harness.nn.costs import layer_costs
from harness.run.setup import Setup
from harness.spec import get_mode

_ALIKE = ("dataset", "recipe", "mode")  # the more of these agree, the more alike two runs are


class Estimate:
    """Seconds of runs: multiply-accumulates, by the speed of the runs that are most alike."""

    def __init__(self, setup: Setup) -> None:
        self._jobs = setup.jobs
        self._macs: dict[str, int] = {}
        for name, job in setup.jobs.items():
            recipe = job.resolved_recipe()
            layers = layer_costs(recipe.network, get_mode(job.mode), job.dataset)
            images = setup.manifests[job.dataset]["counts"]["train"]
            self._macs[name] = images * sum(layer.macs for layer in layers)  # an epoch's, forward
        self._epochs = {name: job.resolved_recipe().epochs for name, job in setup.jobs.items()}
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
            there = self._jobs[other]
            same = (
                there.dataset == job.dataset,
                there.recipe == job.recipe,
                there.mode == job.mode,
            )
            return same.index(False) if False in same else len(same)

        best = max(map(likeness, self._seconds))
        alike = [pace for other, pace in self._seconds.items() if likeness(other) == best]
        return sum(alike) / len(alike)
