"""Figure 1: training curves, dotted square hinge loss and solid validation error."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from harness.modes import in_order
from harness.report.frames import Frames
from harness.report.style import (
    FULL_WIDTH,
    MUTED,
    end_labels,
    house_style,
    mode_colour,
    round_steps,
    save,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_RUN = ["preset", "dataset", "source", "recipe", "mode", "seed", "changes"]
_PANEL = ["recipe", "source", "network"]
_DECADES_ONLY = 300.0  # over a wider range 2 and 5 of each decade would crowd the axis
_LOG_SPAN = 6.0  # an error that falls by more than this is drawn on a logarithmic axis


def draw_curves(frames: Frames, dataset: str) -> Figure | None:
    """Return Figure 1 for a dataset: a row of panels for each recipe; None without an epoch.

    Left: validation error in %, solid. Right: mean square hinge loss of training, dotted. One
    colour a mode; over several seeds the mean, with a band from the least to the greatest.
    """
    runs = frames.runs[frames.runs["dataset"] == dataset]
    epochs = frames.epochs[frames.epochs["dataset"] == dataset]
    columns = [*_RUN, "network", "status", "failure"]
    merged = epochs.merge(runs[columns], on=_RUN, how="inner")
    if merged.empty:
        return None
    panels = list(merged.groupby(_PANEL, sort=True))
    figure = Figure(figsize=(FULL_WIDTH, 0.55 + 2.75 * len(panels)))
    grid = figure.add_gridspec(
        len(panels), 2, width_ratios=(1.25, 1), wspace=0.62, hspace=0.52,
        left=0.06, right=0.985, top=1 - 0.42 / figure.get_figheight(),
        bottom=0.5 / figure.get_figheight(),
    )  # fmt: skip
    for row, ((recipe, source, network), panel) in enumerate(panels):
        left, right = figure.add_subplot(grid[row, 0]), figure.add_subplot(grid[row, 1])
        label = "  [stand-in data]" if source == "standin" else ""
        left.set_title(f"{recipe} recipe, {network}{label}", pad=19)
        _draw_panel(left, right, panel)
        lost = _without_curve(runs, str(recipe), str(source), panel)
        if lost:
            left.text(0, -0.29, lost, transform=left.transAxes, color=MUTED, fontsize=7.5)
    return figure


def _draw_panel(left: "Axes", right: "Axes", panel: "pd.DataFrame") -> None:
    labels = []
    for name, colour, curve in _curves(panel):
        error = _plot(left, curve, "valid_error_pct", colour, "solid")
        _plot(right, curve, "train_loss", colour, "dotted")
        if error is None:
            continue
        state = _state(curve)
        labels.append((float(error.iloc[-1]), f"{name}  {error.min():.2f}{state}", colour))
        _mark_failures(left, curve, colour)
    _finish(left, "validation error, %", panel["valid_error_pct"])
    _finish(right, "square hinge loss, training", panel["train_loss"])
    end_labels(left, labels)


def _curves(panel: "pd.DataFrame") -> "list[tuple[str, str, pd.DataFrame]]":
    """Return (label, colour, epochs) for each mode, variation of its recipe, and preset."""
    found = []
    for mode in in_order(panel["mode"]):
        rows = panel[panel["mode"] == mode]
        variations = dict(list(rows.groupby(["changes", "preset"], sort=True)))
        several = len({preset for _, preset in variations}) > 1
        for (changes, preset), curve in variations.items():
            told = f"{changes or 'full recipe'}{f', preset {preset}' * several}"
            name = mode if len(variations) == 1 else f"{mode} ({told})"
            found.append((name, mode_colour(mode), curve))
    return found


def _plot(
    axes: "Axes", curve: "pd.DataFrame", column: str, colour: str, line: str
) -> "pd.Series[float] | None":
    by_epoch = curve.dropna(subset=[column]).groupby("epoch")[column]
    if not len(by_epoch):
        return None
    mean, x = by_epoch.mean(), list(by_epoch.groups)
    dot = "." if len(x) == 1 else None  # a single epoch makes no line
    axes.plot(x, mean, color=colour, linestyle=line, marker=dot)
    if len(set(curve["seed"])) > 1:
        axes.fill_between(x, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.15, linewidth=0)
    return mean


def _state(curve: "pd.DataFrame") -> str:
    seeds = curve.drop_duplicates("seed")
    count = f", n = {len(seeds)}" if len(seeds) > 1 else ""
    states = [state for state in ("running", "failed") if (seeds["status"] == state).any()]
    return f" %{count}" + (f" ({', '.join(states)})" if states else "")


def _mark_failures(axes: "Axes", curve: "pd.DataFrame", colour: str) -> None:
    failed = curve[curve["status"] == "failed"].dropna(subset=["valid_error_pct"])
    for _, run in failed.groupby("seed"):
        end = run.loc[run["epoch"].idxmax()]
        axes.plot(end["epoch"], end["valid_error_pct"], marker="x", color=colour, markersize=7)


def _finish(axes: "Axes", label: str, values: "pd.Series[float]") -> None:
    axes.set_xlabel("epoch")
    known = values.dropna()
    linear = known.empty or known.min() <= 0 or known.max() < _LOG_SPAN * known.min()
    label += "" if linear else ", log axis"
    axes.text(0, 1.035, label, transform=axes.transAxes, color=MUTED, fontsize=7.5)
    axes.xaxis.set_major_locator(round_steps(8))
    first, last = axes.dataLim.intervalx
    axes.set_xlim(first - 0.5, last + 0.5) if first == last else axes.margins(x=0.01)
    if linear:
        axes.set_ylim(bottom=0)
        return
    axes.set_yscale("log")
    wide = known.max() > _DECADES_ONLY * known.min()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _without_curve(runs: "pd.DataFrame", recipe: str, source: str, panel: "pd.DataFrame") -> str:
    drawn = set(zip(panel["mode"], panel["seed"], strict=True))
    same = runs[(runs["recipe"] == recipe) & runs["source"].isin([source, ""])]
    lost = [
        f"{run['mode']} seed {int(run['seed'])}: {run['failure'] or run['status']}"
        for _, run in same.iterrows()
        if (run["mode"], run["seed"]) not in drawn and run["status"] != "done"
    ]
    return f"no curve for {'; '.join(lost)}" if lost else ""


def draw_run(rows: Sequence[Mapping[str, Any]], name: str, path: Path) -> None:
    """Write one run's curves from the lines of its ``metrics.jsonl``: a PNG or SVG at ``path``."""
    with house_style():
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        left = figure.add_subplot()
        right = left.twinx()
        epochs = [row["epoch"] for row in rows]
        errors, losses = _values(rows, "valid_error_pct"), _values(rows, "train_loss")
        left.plot(epochs, errors, color="#D55E00")
        right.plot(epochs, losses, color=MUTED, linestyle="dotted")
        left.set_title(name)
        left.set_xlabel("epoch")
        left.set_ylabel("validation error, % (solid)", color="#D55E00")
        right.set_ylabel("square hinge loss (dotted)")
        right.grid(visible=False)
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (left, right):
            axes.set_ylim(bottom=0)
        save(figure, path)


def _values(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [math.nan if row.get(key) is None else float(row[key]) for row in rows]
