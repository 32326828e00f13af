"""Figure 2: the first layer's binary filters as a picture, and unique filters a layer."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from harness.report.evidence import full_scale, scale_text, select
from harness.report.filters import convolutions
from harness.report.frames import Frames
from harness.report.inspected import numbers_of
from harness.report.paper import Paper
from harness.report.style import FULL_WIDTH, MUTED, RULE, end_labels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

CAPTION = (
    "Left: every 3x3 filter of the first convolution, dark for -1; the filters of one output stand "
    "side by side. Right: filters that differ, of all of a layer: those that meet one input map, "
    "whose results several outputs could share, and those in the whole layer, of which at most 512 "
    "can differ. “± as one” counts a filter and its inverse as one."
)
_KIND = {"per_input": "at an input map", "distinct": "in the whole layer"}
_LINES = (
    ("per_input", "#0072B2", "solid"),
    ("per_input_up_to_sign", "#D55E00", "solid"),
    ("distinct", "#0072B2", "dotted"),
    ("distinct_up_to_sign", "#D55E00", "dotted"),
)


def draw_filters(frames: Frames, paper: Paper, dataset: str) -> Figure | None:
    """Return Figure 2 of a dataset's best known ConvNet whose first layer is binary, or None."""
    rows = convolutions(frames, {"dataset": dataset})
    if not (rows["patterns"] != "").any():  # a real first layer has no patterns
        return None
    run = _chosen(rows)
    same = {key: run[key] for key in ("source", "recipe", "mode", "changes")}
    codes = [int(code) for code in numbers_of(run["patterns"])]
    figure = Figure(figsize=(FULL_WIDTH, 4.0))
    left = figure.add_axes((0.02, 0.04, 0.42, 0.8))
    right = figure.add_axes((0.53, 0.13, 0.25, 0.71))
    maps = len(codes) // int(run["outputs"])
    _picture(left, codes, maps)
    standin = "  [stand-in data]" if run["source"] == "standin" else ""
    left.set_title(f"{run['recipe']} / {run['mode']}{standin}", pad=17)
    trained = select(frames.runs, {**same, "dataset": dataset}).iloc[0]
    _under_title(left, f"{len(codes)} filters of {scale_text(trained)}, seed {int(run['seed'])}")
    seeds = select(rows, same)
    _counts(right, seeds, float(paper.facts["figure2"]["unique_pct"]))
    n = seeds["seed"].nunique()
    right.set_title("Filters that differ, %", pad=17)
    seeds_text = f"mean of {n} seeds" if n > 1 else "one seed"
    _under_title(right, f"{seeds_text}; beside each line its mean")
    return figure


def _under_title(axes: "Axes", text: str) -> None:
    axes.text(0, 1.035, text, transform=axes.transAxes, color=MUTED, fontsize=7.5)


def _chosen(rows: "pd.DataFrame") -> "pd.Series[Any]":
    """The first layer of the run to show: official, full, Theano, deterministic, least seed."""
    first = rows[rows["patterns"] != ""]
    order = first.assign(
        standin=first["source"] == "standin",
        reduced=[not full_scale(text) for text in first["changes"]],
        other=first["recipe"] != "theano",
        stochastic=first["mode"] != "bnn-det",
    )
    keys = ["standin", "reduced", "other", "stochastic", "recipe", "mode", "changes", "seed"]
    return order.sort_values(keys).iloc[0]


def _picture(axes: "Axes", codes: Sequence[int], maps: int) -> None:
    """Draw filters as tiles of 3x3 squares, the maps of one output in a row."""
    groups = math.ceil(len(codes) / maps)
    across = max(1, round(math.sqrt(groups * 1.5 / maps)))
    dark: list[tuple[float, float]] = []
    tiles: list[tuple[float, float]] = []
    for i, code in enumerate(codes):
        group, channel = divmod(i, maps)
        x = (group % across) * (4 * maps + 1) + 4 * channel
        y = (group // across) * 4.6
        tiles.append((x, y))
        dark += [(x + tap % 3, y + tap // 3) for tap in range(9) if not code >> tap & 1]
    axes.add_patch(PathPatch(_squares(tiles, 3), facecolor="white", edgecolor=RULE, linewidth=0.6))
    axes.add_patch(PathPatch(_squares(dark, 1), facecolor="#2b3138", linewidth=0))
    axes.set_xlim(-1, across * (4 * maps + 1))
    axes.set_ylim(math.ceil(groups / across) * 4.6, -1)
    axes.set_aspect("equal", anchor="NW")
    axes.set_axis_off()


def _squares(corners: Sequence[tuple[float, float]], side: float) -> Path:
    """Return one path of squares: thousands of patches would make the page slow."""
    ring = np.array([(0, 0), (side, 0), (side, side), (0, side), (0, 0)], float)
    vertices = (np.array(corners, float).reshape(-1, 1, 2) + ring).reshape(-1, 2)
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(vertices, codes * len(corners))


def _counts(axes: "Axes", rows: "pd.DataFrame", quoted: float) -> None:
    labels = [(quoted, f"paper: {quoted:g} %", MUTED)]
    by_layer = rows.groupby("layer")
    for count, colour, line in _LINES:
        share = by_layer[f"share_{count}"].mean()
        axes.plot(share.index, share, color=colour, linestyle=line, marker="o", markersize=3.5)
        kind = _KIND[count.removesuffix("_up_to_sign")]
        sign = ", ± as one" if count.endswith("sign") else ""
        labels.append((float(share.iloc[-1]), f"{kind}{sign}: {share.mean():.0f} %", colour))
    axes.axhline(quoted, color=MUTED, linewidth=0.9, linestyle="dashed", zorder=1)
    axes.set_ylim(0, 104)
    axes.set_xlabel("convolution")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    end_labels(axes, labels, size=7.5)
