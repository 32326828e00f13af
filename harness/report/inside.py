"""What runs look like inside: flips, latent weights, confusion and calibration."""

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from harness.data.names import CLASS_NAMES
from harness.modes import in_order
from harness.report.evidence import full_scale, select
from harness.report.frames import Frames
from harness.report.inspected import numbers_of
from harness.report.style import FULL_WIDTH, MUTED, mode_colour, round_steps

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

FEWEST = 20  # images in a bin of confidence below which its accuracy is noise
_ACROSS = 3
_LINE = 0.068  # of a square panel's height: a line of labels
_PANEL = ["dataset", "recipe", "source"]

FLIPS = (
    "Share of the binary weights whose sign is another at the end of an epoch than at the end of "
    "the one before (for the first: than at the start), log axis. Over several seeds the mean; of "
    "several scales the recipe's own, else the one with the most seeds."
)
LATENT = (
    "Share of the latent weights in each of 40 bins over [-1, 1], at the best validation error. "
    "Clipping gathers weights at the ends; a weight near 0 may still flip. Mean over seeds. Of EBP "
    "the weights' means, tanh h, which no clip bounds. Of several scales the recipe's own, else "
    "that of the most seeds. Left out are runs that keep quantized weights alone "
    "(bitwise, ternary)."
)
CONFUSION = (
    "Of the test images of a class (rows), the share in % taken for another (columns), at the best "
    "validation error, first seed. Colours by the share's square root. Right predictions, on the "
    "diagonal, are left blank."
)
CALIBRATION = (
    "Accuracy against confidence. The square hinge loss is least where a score is 2p - 1, so the "
    "predicted class's confidence is (score + 1)/2 within [0, 1]; on the dashed line the two are "
    "equal, below it a network is too sure. EBP, which has another loss, is read alike. Bins of "
    "fewer than 20 images are left out. Listed: "
    "expected calibration error, mean over seeds; of several scales the recipe's own, else the one "
    "with the most seeds."
)


def panel_title(dataset: str, recipe: str, source: str, names: dict[str, str]) -> str:
    """Return ``MNIST, theano``, with the label of a stand-in."""
    label = " [stand-in]" if source == "standin" else ""
    return f"{names.get(dataset, dataset)}, {recipe}{label}"


def _grid(count: int, height: float = 2.55) -> "list[Axes]":
    across = min(_ACROSS, count)
    size = (FULL_WIDTH, 0.35 + height * math.ceil(count / across))
    engine = ConstrainedLayoutEngine(hspace=0.06, wspace=0.04)
    figure = Figure(figsize=size, layout=engine)
    axes = figure.subplots(math.ceil(count / across), across, squeeze=False).flatten()
    for spare in axes[count:]:
        spare.set_axis_off()
    return list(axes[:count])


def mode_legend(figure: Figure, modes: "set[str]") -> None:
    """Write one legend of the modes below a figure."""
    shown = in_order(modes)
    lines = [Line2D([], [], color=mode_colour(mode), label=mode) for mode in shown]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))


def log_ticks(axes: "Axes", values: Iterable[float], which: Literal["x", "y"] = "y") -> None:
    """Set a logarithmic axis that has labelled ticks however close the values lie."""
    known = list(values)
    low, high = min(known) / 1.4, max(known) * 1.4
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})  # type: ignore[arg-type]
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(steps_between(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def steps_between(low: float, high: float) -> list[float]:
    """Return the powers of ten in a range, and the more multiples of them the narrower it is."""
    spans = high / low
    steps = (1, 1.5, 2, 3, 4, 5, 7) if spans < 5 else (1, 2, 5) if spans < 300 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]


def _sorted_modes(rows: "pd.DataFrame") -> "Iterator[tuple[str, pd.DataFrame]]":
    """Yield the rows of each mode, of one preset and scale: the recipe's own, else most seeds."""
    for mode in in_order(rows["mode"]):
        scales = [found for _, found in rows[rows["mode"] == mode].groupby(["preset", "changes"])]
        yield (
            mode,
            max(scales, key=lambda x: (full_scale(x["changes"].iloc[0]), x["seed"].nunique())),
        )


def draw_flips(frames: Frames, names: dict[str, str]) -> Figure | None:
    """Return the rate of flipped weights by epoch, a panel a dataset and recipe; None if empty."""
    rows = frames.epochs[frames.epochs["flip_pct"] > 0]
    if rows.empty:
        return None
    panels = list(rows.groupby(_PANEL, sort=True))
    grid = _grid(len(panels))
    for axes, ((dataset, recipe, source), panel) in zip(grid, panels, strict=True):
        axes.set_title(panel_title(dataset, recipe, source, names))
        for mode, here in _sorted_modes(panel):
            mean = here.groupby("epoch")["flip_pct"].mean()
            dot = "." if len(mean) == 1 else None
            axes.plot(mean.index, mean, color=mode_colour(mode), marker=dot)
        log_ticks(axes, panel.loc[panel["flip_pct"] > 0, "flip_pct"])
        axes.xaxis.set_major_locator(round_steps(6))
        axes.set_xlabel("epoch")
    for axes in grid[::_ACROSS]:
        axes.set_ylabel("flipped weights, %")
    mode_legend(grid[0].figure, set(rows["mode"]))  # type: ignore[arg-type]
    return grid[0].figure  # type: ignore[return-value]


def draw_latent(frames: Frames, names: dict[str, str], dataset: str) -> Figure | None:
    """Return histograms of a dataset's latent weights: a row a recipe, a column a layer."""
    import pandas as pd

    rows = select(frames.layers, {"dataset": dataset, "binary": True})
    panels = [
        (key, panel)
        for key, panel in rows.groupby(["recipe", "source"], sort=True)
        if not _only_signs(panel)
    ]
    if not panels:
        return None
    layers = sorted({layer for _, panel in panels for layer in panel["layer"]})
    size = (FULL_WIDTH, 0.5 + 1.55 * len(panels))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(panels), len(layers), squeeze=False)
    for line, ((recipe, source), panel) in zip(grid, panels, strict=True):
        panel = pd.concat([rows for _, rows in _sorted_modes(panel)])  # one network in all layers
        for axes, layer in zip(line, layers, strict=True):
            _latent(axes, select(panel, {"layer": layer}))
        label = "\n[stand-in]" if source == "standin" else ""
        line[0].set_ylabel(f"{recipe}{label}\n% of weights")
    figure.suptitle(names.get(dataset, dataset), x=0.01, ha="left", fontsize=9.5, weight="bold")
    mode_legend(figure, {mode for _, panel in panels for mode in panel["mode"]})
    return figure


def _only_signs(rows: "pd.DataFrame") -> bool:
    """Tell whether all weights lie in the outermost bins: signs were saved, not latent weights."""
    counts = [numbers_of(text) for text in rows["histogram"]]
    return not any(sum(bins[1:-1]) for bins in counts)


def _latent(axes: "Axes", rows: "pd.DataFrame") -> None:
    if rows.empty:
        axes.set_axis_off()
        return
    axes.set_title(f"layer {int(rows['layer'].iloc[0])}", fontsize=8, weight="normal")
    for mode, here in _sorted_modes(rows):
        counts = np.array([numbers_of(text) for text in here["histogram"]])
        share = 100 * (counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
        bound = float(here["bound"].max())
        edges = np.linspace(-bound, bound, len(share) + 1)
        axes.stairs(share, edges, color=mode_colour(mode), linewidth=1.1)
    reach = float(rows["bound"].max())  # above 1 without clipping
    axes.set_xticks([-1, 0, 1] if reach <= 1 else [-math.floor(reach), 0, math.floor(reach)])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.tick_params(labelsize=7)


def confusion_caption(dataset: str) -> str:
    """Return the caption of a dataset's confusion matrices, with its classes' names."""
    names = CLASS_NAMES.get(dataset, ())
    told = ", ".join(f"{label} {name}" for label, name in enumerate(names))
    return CONFUSION + (f" Classes: {told}." if told else "")


def draw_confusion(frames: Frames, dataset: str) -> Figure | None:
    """Return the confusion matrices of a dataset's first seeds; None where none was inspected."""
    rows = _first_seeds(select(frames.predictions, {"dataset": dataset}))
    if not rows:
        return None
    figure, grid, beside = _squares(len(rows))
    shares = [_shares(row) for row in rows]
    most = max(float(np.nanmax(share)) for share in shares) or 1.0
    mesh = None
    for axes, row, share in zip(grid, rows, shares, strict=True):
        # One bad network would leave all others pale on a linear scale: 0.2 % of 17 % is no colour.
        mesh = axes.pcolormesh(share, cmap="Oranges", norm=PowerNorm(0.5, 0, most))
        axes.invert_yaxis()
        axes.grid(visible=False)
        ticks = np.arange(10)
        axes.set_xticks(ticks + 0.5, ticks)
        axes.set_yticks(ticks + 0.5, ticks)
        label = " [stand-in]" if row["source"] == "standin" else ""
        error = 100 * row["test_errors"] / row["images"]
        axes.set_title(f"{row['recipe']} / {row['mode']}{label}", fontsize=8.5)
        axes.set_xlabel(f"predicted class; error {error:.2f} %")
    for axes in grid[::_ACROSS]:
        axes.set_ylabel("true class")
    assert mesh is not None
    bar = figure.colorbar(mesh, cax=beside)
    assert bar.solids is not None
    bar.solids.set(rasterized=False, edgecolor="face")  # an image has no place in the page
    bar.set_label("of the class's images, %", color=MUTED)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def _squares(count: int) -> "tuple[Figure, list[Axes], Axes]":
    """Return a figure of square axes in rows of three, and axes for a colour bar."""
    side, right, down, edge = 2.3, 0.42, 0.78, 0.5  # inches
    lines = math.ceil(count / _ACROSS)
    height = lines * (side + down)
    figure = Figure(figsize=(FULL_WIDTH, height))

    def place(x: float, y: float, width: float, tall: float) -> "Axes":
        box = (x / FULL_WIDTH, 1 - (y + tall) / height, width / FULL_WIDTH, tall / height)
        return figure.add_axes(box)

    grid = [
        place(edge + i % _ACROSS * (side + right), 0.3 + i // _ACROSS * (side + down), side, side)
        for i in range(count)
    ]
    across = min(_ACROSS, count)
    return figure, grid, place(edge + across * (side + right) - 0.15, 0.3, 0.12, side)


def _shares(row: dict[str, Any]) -> "np.ndarray[Any, Any]":
    counts = np.array(numbers_of(row["confusion"])).reshape(10, 10)
    share: np.ndarray[Any, Any] = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(share, np.nan)
    return share


def _first_seeds(rows: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return one row a recipe and mode: official before stand-in, the least seed."""
    order = rows.assign(standin=rows["source"] == "standin").sort_values(
        ["recipe", "mode", "standin", "changes", "seed"],
        key=lambda column: column.map(in_order(column).index) if column.name == "mode" else column,
    )
    return list(order.drop_duplicates(["recipe", "mode"]).to_dict("records"))


def draw_calibration(frames: Frames, names: dict[str, str]) -> Figure | None:
    """Return accuracy against confidence, a panel a dataset and recipe; None if empty."""
    if frames.predictions.empty:
        return None
    panels = list(frames.predictions.groupby(_PANEL, sort=True))
    grid = _grid(len(panels), height=2.9)
    for axes, ((dataset, recipe, source), panel) in zip(grid, panels, strict=True):
        axes.set_title(panel_title(dataset, recipe, source, names))
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="dashed")
        modes = list(_sorted_modes(panel))
        points = [point for mode, here in modes for point in _reliability(axes, mode, here)]
        below, tall = _emptier_below(points, len(modes)), _LINE * len(modes)
        for place, (mode, here) in enumerate(modes):
            axes.text(
                0.97 if below else 0.03, (0.03 + tall if below else 0.97) - _LINE * place,
                f"{mode}  {here['ece_pct'].mean():.1f} %", ha="right" if below else "left",
                va="top", color=mode_colour(mode), fontsize=7.5, transform=axes.transAxes,
            )  # fmt: skip
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_yticks([0.2, 0.4, 0.6, 0.8, 1.0])  # the x axis says 0 for both
        axes.set_xlabel("confidence")
    for axes in grid[::_ACROSS]:
        axes.set_ylabel("accuracy")
    return grid[0].figure  # type: ignore[return-value]


def _emptier_below(points: list[tuple[float, float]], lines: int) -> bool:
    """Tell whether fewer points lie in the lower right, where labels may stand, than above left."""
    tall = 0.03 + _LINE * lines  # and 0.4 wide: "bnn-stoch-w  12.3 %"
    below = sum(x > 0.6 and y < tall for x, y in points)
    return below <= sum(x < 0.4 and y > 1 - tall for x, y in points)


def _reliability(axes: "Axes", mode: str, rows: "pd.DataFrame") -> list[tuple[float, float]]:
    """Draw a mode's curve and return its points."""
    counts, confidence, correct = (
        np.array([numbers_of(text) for text in rows[key]]).sum(axis=0)
        for key in ("counts", "confidence", "correct")
    )
    known = counts >= FEWEST
    x, y = confidence[known] / counts[known], correct[known] / counts[known]
    axes.plot(x, y, color=mode_colour(mode), marker="o", markersize=3)
    return list(zip(x, y, strict=True))
