"""Error against bits and against operations, and the spread over seeds."""

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, NullFormatter

from harness.modes import in_order
from harness.report.evidence import over_seeds
from harness.report.frames import Frames
from harness.report.inside import log_ticks, mode_legend, steps_between
from harness.report.style import FULL_WIDTH, MUTED, mode_colour

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

TRADE = (
    "Test error (mean over seeds) against the memory of the weights, thresholds and scales, and "
    "against the 32-bit operations of one image: a float multiply-add counts two, a float add of a "
    "±1 weight one, and an XNOR-popcount step of six does 32 multiply-accumulates. Log axes. One "
    "colour a mode, one mark a recipe; the sizes of marks mean nothing."
)
SEEDS = (
    "Test error of each seed (dots), mean (bar) and its 95 % t interval (line). Two seeds give an "
    "interval that says little."
)
# Modes that cost alike and may err alike lie within one another, so that each is seen.
_SIZES = {"float": 9.0, "bc-stoch": 5.0, "bnn-stoch-w": 9.0, "bnn-w-stoch": 5.0}
_LOG_SPAN = 5.0  # errors further apart than this are drawn on a logarithmic axis
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")


def draw_trade(frames: Frames, names: dict[str, str]) -> Figure | None:
    """Return error against bits (left) and operations (right), a row a dataset; None if empty."""
    done = frames.runs[(frames.runs["status"] == "done") & (frames.runs["weight_bits"] > 0)]
    if done.empty:
        return None
    panels = list(done.groupby(["dataset", "source"], sort=True))
    recipes = sorted(set(done["recipe"]))
    size = (FULL_WIDTH, 0.7 + 2.5 * len(panels))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(hspace=0.06))
    grid = figure.subplots(len(panels), 2, squeeze=False)
    for line, ((dataset, source), panel) in zip(grid, panels, strict=True):
        label = " [stand-in]" if source == "standin" else ""
        line[0].set_title(f"{names.get(dataset, dataset)}{label}")
        line[0].set_ylabel("test error, %")
        memory = panel["weight_bits"] / 8
        _scatter(line[0], panel, memory, recipes, "memory of the weights", "B")
        _scatter(line[1], panel, panel["operations"], recipes, "32-bit operations an image")
    marks = [
        Line2D(
            [],
            [],
            color=MUTED,
            marker=_MARKS[i % len(_MARKS)],
            fillstyle="none",
            linestyle="",
            label=recipe,
        )
        for i, recipe in enumerate(recipes)
    ]
    figure.legend(handles=marks, loc="outside upper right", ncols=len(marks))
    mode_legend(figure, set(done["mode"]))
    return figure


def _scatter(
    axes: "Axes",
    rows: "pd.DataFrame",
    x: "pd.Series[float]",
    recipes: list[str],
    label: str,
    unit: str = "",
) -> None:
    placed = rows.assign(x=x)
    keys = ["recipe", "mode", "network", "changes", "preset"]
    for (recipe, mode, *_), here in placed.groupby(keys):
        axes.plot(
            here["x"].iloc[0], here["test_error_pct"].mean(), color=mode_colour(str(mode)),
            marker=_MARKS[recipes.index(str(recipe)) % len(_MARKS)],
            markersize=_SIZES.get(str(mode), 7.0), fillstyle="none", markeredgewidth=1.4,
            linestyle="",
        )  # fmt: skip
    if placed["test_error_pct"].min() > 0:  # a run without a mistake has no place on a log axis
        log_ticks(axes, placed["test_error_pct"])
    low, high = float(placed["x"].min()) / 2, float(placed["x"].max()) * 2
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(steps_between(low, high)))
    axes.xaxis.set_major_formatter(EngFormatter(unit))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label)


def draw_seeds(frames: Frames, names: dict[str, str]) -> Figure | None:
    """Return each system's test errors by seed; None where no system has two seeds."""
    done = frames.runs[frames.runs["status"] == "done"]
    keys = ["dataset", "source", "recipe", "mode", "changes", "preset"]
    several = done[done.groupby(keys)["seed"].transform("nunique") > 1]
    if several.empty:
        return None
    panels = list(several.groupby(["dataset", "source"], sort=True))
    counts = [len(panel.drop_duplicates(keys)) for _, panel in panels]
    size = (FULL_WIDTH, 0.4 + sum(0.75 + 0.3 * n for n in counts))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(
        len(panels), 1, squeeze=False, height_ratios=[0.75 + 0.3 * n for n in counts]
    )[:, 0]
    for axes, ((dataset, source), panel) in zip(grid, panels, strict=True):
        label = " [stand-in]" if source == "standin" else ""
        axes.set_title(f"{names.get(dataset, dataset)}{label}")
        _strips(axes, panel)
    return figure


def _strips(axes: "Axes", panel: "pd.DataFrame") -> None:
    order = in_order(panel["mode"])
    groups = sorted(
        panel.groupby(["recipe", "mode", "changes", "preset"]),
        key=lambda pair: (pair[0][0], order.index(pair[0][1]), *pair[0][2:]),
    )
    labels, reach = [], []
    least = float(panel["test_error_pct"].min())
    for y, ((recipe, mode, *_), runs) in enumerate(groups):
        errors = [float(error) for error in runs["test_error_pct"]]
        interval, colour = over_seeds(errors), mode_colour(str(mode))
        # An interval of two seeds may go below 0; on a log axis it ends at the axis.
        reach += [*errors, max(interval["low"], least / 2), interval["high"]]
        mean = math.fsum(errors) / len(errors)
        axes.plot([interval["low"], interval["high"]], [y, y], color=colour, linewidth=1.2)
        axes.plot(mean, y, color=colour, marker="|", markersize=12, markeredgewidth=2)
        axes.plot(errors, [y] * len(errors), color=colour, marker="o", markersize=4, linestyle="",
                  alpha=0.7)  # fmt: skip
        labels.append(f"{recipe} / {mode}, {runs['network'].iloc[0]}, n = {len(errors)}")
    axes.set_yticks(range(len(groups)), labels, color="black")
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("test error, %")
    if 0 < _LOG_SPAN * least < float(panel["test_error_pct"].max()):
        log_ticks(axes, reach, "x")
        axes.set_xlabel("test error, %, log axis")
