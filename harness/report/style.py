"""How figures look, and how they are saved so that the same data give the same bytes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# After Okabe and Ito, whose colours colour-blind readers tell apart; one a mode, each dark enough
# for its label to be read on white.
MODE_COLOURS = {
    "float": "#000000",
    "bc-det": "#0072B2",
    "bc-stoch": "#3D9BD1",
    "bnn-det": "#D55E00",
    "bnn-stoch": "#009E73",
    "bnn-stoch-w": "#CC79A7",
    "bnn-w-stoch": "#8A6D00",
}
MUTED = "#5c6470"
RULE = "#d7dbe0"
FULL_WIDTH = 9.4  # inches
_RC: Any = {
    "svg.hashsalt": "bnn-harness",
    "svg.fonttype": "path",  # text as outlines: the same picture whatever fonts a reader has
    "font.family": "DejaVu Sans",  # matplotlib brings it along
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e8ebee",
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
}


def mode_colour(mode: str) -> str:
    """Return a mode's colour; grey for one that has none yet, or of another version's frames."""
    return MODE_COLOURS.get(mode, MUTED)


@contextmanager
def house_style() -> Iterator[None]:
    """Draw and save with the figures' own settings, whatever the reader's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as SVG or PNG, by the ending of ``path``, without dates or versions.

    Its layout is then fixed: to work it out again for its other form takes as long as drawing it.
    """
    form = path.suffix.removeprefix(".")
    nothing = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=form, dpi=160, metadata=nothing)
    figure.set_layout_engine("none")
    return path


def spread_out(positions: Sequence[float], gap: float) -> list[float]:
    """Move positions as little as needed so that neighbours are ``gap`` apart within 0 and 1.

    Where they cannot all fit they are spaced evenly.
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    if len(order) > 1:
        gap = min(gap, 1.0 / (len(order) - 1))
    placed: list[float] = []
    for rank, i in enumerate(order):
        floor = placed[-1] + gap if placed else 0.0
        ceiling = 1.0 - gap * (len(order) - 1 - rank)
        placed.append(min(max(positions[i], floor), ceiling))
    # A second pass from above pulls a crowded group back around its true place.
    for rank in range(len(order) - 2, -1, -1):
        wanted = max(positions[order[rank]], gap * rank)
        placed[rank] = min(placed[rank + 1] - gap, max(wanted, placed[rank] - gap / 2))
    found = [0.0] * len(order)
    for rank, i in enumerate(order):
        found[i] = placed[rank]
    return found


def end_labels(axes: "Axes", labels: Sequence[tuple[float, str, str]], size: float = 8) -> None:
    """Write (data y, text, colour) labels to the right of the axes, moved apart where they touch.

    The axes' limits must be final.
    """
    to_axes = axes.transScale + axes.transLimits
    heights = [float(to_axes.transform((axes.get_xlim()[1], y))[1]) for y, _, _ in labels]
    inches = axes.get_position().height * axes.figure.get_figheight()  # type: ignore[union-attr]
    gap = labels_height(1, size) / inches
    places = spread_out([min(max(h, 0.0), 1.0) for h in heights], gap)
    for (_, text, colour), place in zip(labels, places, strict=True):
        axes.text(
            1.015, place, text, color=colour, fontsize=size, va="center", transform=axes.transAxes
        )


def headline(axes: "Axes", title: str, note: str) -> None:
    """Write a title and below it a smaller note; set in points, so that no height moves them."""
    axes.set_title(title, pad=17)
    axes.annotate(
        note, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", color=MUTED,
        fontsize=7.5,
    )  # fmt: skip


def labels_height(count: int, size: float = 8) -> float:
    """Return the inches that so many of :func:`end_labels` need to stand apart."""
    return 1.35 * size / 72 * count


def round_steps(most: int) -> MaxNLocator:
    """Return whole ticks that a reader counts by: at most ``most`` steps of 1, 2, 5, 10, ..."""
    return MaxNLocator(integer=True, nbins=most, min_n_ticks=1, steps=[1, 2, 5, 10])


def empty_panel(axes: "Axes", message: str) -> None:
    """Say in an empty panel why nothing is drawn."""
    axes.set_axis_off()
    axes.text(
        0.5, 0.5, message, ha="center", va="center", color=MUTED, transform=axes.transAxes,
        style="italic",
    )  # fmt: skip
