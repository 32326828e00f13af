"""A figure an ablation: the error of each cell, and what each level adds with its interval."""

import math
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.report.ablations import Ablation, Cell, mean_and_sd
from harness.report.inside import log_ticks
from harness.report.style import FULL_WIDTH, MUTED

_LOG_SPAN = 4.0  # errors further apart than this are drawn on a logarithmic axis
_POINT, _AGAINST = "#0072B2", "#D55E00"
CAPTION = (
    "Left: test error of each run (rings), mean (dot) and mean ± sample standard deviation (bar). "
    "Right: what a level adds to the test error, in points, against the first level of its factor; "
    "the bar is the 95 % interval of the mean of paired differences, and where it crosses 0 the "
    "runs do not tell the levels apart."
)


def draw_ablation(one: Ablation) -> Figure:
    """Return the two panels of a group's figure."""
    rows, effects = len(one.cells), len(one.effects)
    height = 1.15 + 0.245 * max(rows, effects + 1, 3)
    figure = Figure(figsize=(FULL_WIDTH, height))
    factors = " / ".join(factor.factor for factor in one.group.factors)
    names = _width([factors, *map(_name, one.cells)]), _width(_effect_names(one))
    room = 0.98 - sum(names)  # what the two panels share
    bottom, tall = 0.5 / height, 1 - 1.0 / height
    left = figure.add_axes((names[0], bottom, 0.55 * room, tall))
    right = figure.add_axes((0.98 - 0.41 * room, bottom, 0.41 * room, tall))
    label = "  [stand-in data]" if one.source == "standin" else ""
    left.set_title(f"{one.group.dataset}, {one.scale}{label}")
    _draw_cells(left, one)
    single = len(one.group.factors) == 1
    first = one.group.factors[0].levels[0].level if single else "the first level"
    right.set_title(f"against {first}")
    _draw_effects(right, one)
    return figure


def _width(names: Iterable[str]) -> float:
    """Return the share of the figure's width that the longest of ``names`` takes."""
    return 0.02 + 0.0068 * max(map(len, names))


def _effect_names(one: Ablation) -> list[str]:
    several = len(one.group.factors) > 1
    return [f"{e.factor}: {e.level}" if several else e.level for e in one.effects]


def _name(cell: Cell) -> str:
    return " / ".join(cell.levels)


def _draw_cells(axes: Axes, one: Ablation) -> None:
    for row, cell in enumerate(one.cells):
        values = list(cell.errors.values())
        mean, sd = mean_and_sd(cell)
        axes.plot(values, [row] * len(values), "o", color=_POINT, mfc="none", ms=4.5, alpha=0.6)
        if not math.isnan(sd):
            axes.plot([mean - sd, mean + sd], [row, row], color=_POINT, linewidth=1.4)
        if values:
            axes.plot(mean, row, "o", color=_POINT, ms=4.5)
        else:
            axes.text(
                0.02, row, "no result", va="center", color=MUTED, fontsize=7.5, style="italic",
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
    _rows(axes, [_name(cell) for cell in one.cells])
    axes.text(
        -0.012, 1.01, " / ".join(factor.factor for factor in one.group.factors), ha="right",
        va="bottom", color=MUTED, fontsize=7.5, style="italic", transform=axes.transAxes,
    )  # fmt: skip
    axes.set_xlabel("test error, %")
    errors = [error for cell in one.cells for error in cell.errors.values()]
    if 0 < _LOG_SPAN * min(errors) < max(errors):
        log_ticks(axes, errors, "x")
        axes.set_xlabel("test error, %, log axis")


def _draw_effects(axes: Axes, one: Ablation) -> None:
    axes.axvline(0, color=MUTED, linewidth=0.9)
    for row, effect in enumerate(one.effects):
        low, high = effect.interval
        if not math.isnan(low):
            axes.plot([low, high], [row, row], color=_AGAINST, linewidth=1.6)
        if effect.differences:
            axes.plot(effect.mean, row, "o", color=_AGAINST, ms=5)
            axes.annotate(
                f"{effect.mean:+.2f}".replace("-", "−"), (effect.mean, row), xytext=(0, 6),
                fontsize=7.5, textcoords="offset points", ha="center", color=_AGAINST,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
    _rows(axes, _effect_names(one))
    axes.set_xlabel("difference of test error, points")
    axes.margins(x=0.15)


def _rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.7)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
