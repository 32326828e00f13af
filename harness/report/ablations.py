"""The ablations' tables: error by cell, and each level against its factor's first, paired."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.ablations import Group, load_groups
from harness.report.frames import Frames
from harness.report.intervals import student
from harness.report.table import Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Cell:
    """One combination of levels with its test errors in %, by block (seed)."""

    levels: tuple[str, ...]
    errors: dict[int, float]
    lost: int  # runs without a result


@dataclass(frozen=True)
class Effect:
    """What a level adds to the test error, in points, against the first level of its factor.

    ``differences`` are paired: same seed, same levels of the other factors. ``interval`` bounds
    their mean with 95 % confidence by Student's t (NaN for a single pair).
    """

    factor: str
    level: str
    differences: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Return the mean difference in points; NaN without a pair."""
        return sum(self.differences) / len(self.differences) if self.differences else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the mean: ``mean ± t(n - 1) sd / sqrt(n)``."""
        return student(self.differences) if len(self.differences) > 1 else (math.nan, math.nan)


@dataclass(frozen=True)
class Ablation:
    """A group's results from one source of data on one scale."""

    group: Group
    source: str
    scale: str
    cells: tuple[Cell, ...]
    effects: tuple[Effect, ...]

    @property
    def name(self) -> str:
        """Return ``ablation-clipping``, the name of its table and figure."""
        return f"ablation-{self.group.name}"


def ablations(frames: Frames) -> list[Ablation]:
    """Return every group of which the frames have two cells, one of them by a label.

    One preset, source and network a group: official data before a stand-in, more runs before fewer.
    """
    found = []
    for group in load_groups().values():
        runs = _runs_of(group, frames)
        known = runs[runs["network"] != ""]
        if not (known["label"] != "").any():  # modes alone are what Table 1 shows
            continue
        of_scale = (known["source"], known["preset"], known["network"])
        scales = sorted(set(zip(*of_scale, strict=True)))
        measured = [_measured(group, *scale, runs) for scale in scales]
        measured = [one for one in measured if sum(bool(c.errors) for c in one.cells) > 1]
        measured.sort(key=lambda one: (one.source == "standin", -_count(one)))
        found += measured[:1]
    return found


def _count(one: Ablation) -> int:
    return sum(len(cell.errors) for cell in one.cells)


def _runs_of(group: Group, frames: Frames) -> "pd.DataFrame":
    runs = frames.runs
    cells = {(cell.label, cell.mode) for cell in group.cells()}
    same = (runs["dataset"] == group.dataset) & (runs["recipe"] == group.recipe)
    named = [pair in cells for pair in zip(runs["label"], runs["mode"], strict=True)]
    return runs.loc[runs.index[same & np.array(named, bool)]]


def _measured(
    group: Group, source: str, preset: str, network: str, runs: "pd.DataFrame"
) -> Ablation:
    # A run without a record has neither source nor network: it is lost here as everywhere.
    same = runs["source"].eq(source) & runs["preset"].eq(preset) & runs["network"].eq(network)
    runs = runs[same | (runs["source"].eq("") & runs["network"].eq(""))]
    cells = []
    for wanted in group.cells():
        rows = runs[(runs["label"] == wanted.label) & (runs["mode"] == wanted.mode)]
        done = rows[rows["status"] == "done"]
        errors = dict(zip(done["seed"].astype(int), done["test_error_pct"], strict=True))
        cells.append(Cell(wanted.levels, errors, len(rows) - len(done)))
    scale = f"{network}, {int(runs['epochs'].max())} epochs"  # the failed ones had fewer
    return Ablation(group, source, scale, tuple(cells), tuple(_effects(group, cells)))


def _effects(group: Group, cells: Sequence[Cell]) -> Iterator[Effect]:
    by_levels = {cell.levels: cell for cell in cells}
    for i, factor in enumerate(group.factors):
        first = factor.levels[0].level
        for level in factor.levels[1:]:
            differences = []
            for levels, cell in by_levels.items():
                if levels[i] != level.level:
                    continue
                plain = by_levels[(*levels[:i], first, *levels[i + 1 :])]
                shared = sorted(set(cell.errors) & set(plain.errors))
                differences += [cell.errors[seed] - plain.errors[seed] for seed in shared]
            yield Effect(factor.factor, level.level, tuple(differences))


def ablation_tables(found: Sequence[Ablation]) -> list[Table]:
    """Return a table a group: error by cell, then each level's effect with its interval."""
    return [_table(one) for one in found]


def _table(one: Ablation) -> Table:
    header = ("Factor", "Level", "Test error, %", "n", "Difference, points", "95 % interval")
    crossed = len(one.group.factors) > 1
    rows: list[tuple[str, ...]] = []
    data: list[dict[str, Any]] = []
    if crossed:
        rows.append(("Each combination",))
        for cell in one.cells:
            rows.append(("", " / ".join(cell.levels), *_error(cell), "", ""))
            data.append({"factor": "combination", "level": " / ".join(cell.levels), **_facts(cell)})
        rows.append(("Each factor, over all levels of the others",))
    effects = {(e.factor, e.level): e for e in one.effects}
    for i, factor in enumerate(one.group.factors):
        for level in factor.levels:
            pooled = _pooled(one, i, level.level)
            effect = effects.get((factor.factor, level.level))
            difference = ("baseline", "") if effect is None else _difference(effect)
            rows.append((factor.factor, level.level, *_error(pooled), *difference))
            facts = _facts(pooled) | ({} if effect is None else _effect_facts(effect))
            data.append({"factor": factor.factor, "level": level.level, **facts})
    names = " × ".join(factor.factor for factor in one.group.factors)
    label = "[stand-in] " if one.source == "standin" else ""
    return Table(
        name=one.name,
        title=f"Ablation: {one.group.title}",
        header=header,
        rows=rows,
        data=[{"group": one.group.name, "source": one.source, **row} for row in data],
        caption=f"{label}{one.group.question} {names}, around {one.group.recipe} / "
        f"{one.group.mode} on {one.group.dataset}, {one.scale}. Mean ± sample standard deviation "
        "over n runs; differences are paired by seed and by the other factors' levels.",
        numeric=frozenset({2, 3, 4, 5}),
    )


def _pooled(one: Ablation, factor: int, level: str) -> Cell:
    same = [cell for cell in one.cells if cell.levels[factor] == level]
    errors = [error for cell in same for error in cell.errors.values()]
    return Cell((level,), dict(enumerate(errors)), sum(cell.lost for cell in same))


def mean_and_sd(cell: Cell) -> tuple[float, float]:
    """Return the mean and sample deviation of a cell's errors; NaN where there are too few."""
    import statistics

    values = list(cell.errors.values())
    mean = statistics.fmean(values) if values else math.nan
    return mean, statistics.stdev(values) if len(values) > 1 else math.nan


def _error(cell: Cell) -> tuple[str, str]:
    mean, sd = mean_and_sd(cell)
    text = "–" if math.isnan(mean) else f"{mean:.2f}"
    text += "" if math.isnan(sd) else f" ± {sd:.2f}"
    return text + (f" [{cell.lost} without a result]" if cell.lost else ""), f"{len(cell.errors)}"


def _facts(cell: Cell) -> dict[str, Any]:
    mean, sd = mean_and_sd(cell)
    return {"mean_pct": mean, "sd_pct": sd, "n": len(cell.errors), "lost": cell.lost}


def _difference(effect: Effect) -> tuple[str, str]:
    if not effect.differences:
        return "–", ""
    low, high = effect.interval
    interval = "" if math.isnan(low) else f"{low:+.2f} to {high:+.2f}"
    return f"{effect.mean:+.2f}", interval


def _effect_facts(effect: Effect) -> dict[str, Any]:
    low, high = effect.interval
    pairs = len(effect.differences)
    return {"difference": effect.mean, "low": low, "high": high, "pairs": pairs}
