"""The roofline: speed against operations a byte, under what the machine was measured to do."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from harness.report.evidence import select
from harness.report.frames import Frames
from harness.report.speed import kernel_colours, most_threads
from harness.report.style import FULL_WIDTH, MUTED, end_labels, headline, labels_height
from harness.report.tables import number, threads

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_LEAST = 2.4  # inches a panel is high
_AROUND = 1.05  # inches above and below it
_RESULTS = {"gemm": "full", "gemm+bits": "none"}  # how a point is filled, by the form of its result


def draw_roofline(frames: Frames) -> Figure | None:
    """Return one panel a machine and device that has ceilings and products; None without any.

    A point is a product: 2·m·n·k operations over its bytes (operands as the kernel takes them, and
    its result) against TOP/s; it is hollow where the result is thresholded and packed. The slope is
    the measured copy bandwidth, the levels are the measured peaks.
    """
    kernels = most_threads(select(frames.kernels, {"status": "ok"}))
    places = []
    for place, rows in kernels.groupby(["machine", "device"], sort=True):
        clocked = rows["group"].isin(["square", "layer"]) & rows["includes"].isin(list(_RESULTS))
        products = rows[clocked]
        if (rows["group"] == "ceiling").any() and len(products[products["bytes"] > 0]):
            places.append((place, select(rows, {"group": "ceiling"}), products))
    if not places:
        return None
    labels = max(c["tops"].count() + p["kernel"].nunique() for _, c, p in places)
    panel = max(_LEAST, labels_height(int(labels)))
    height = (panel + _AROUND) * len(places)
    figure = Figure(figsize=(FULL_WIDTH, height))
    grid = figure.add_gridspec(
        len(places), 1, hspace=_AROUND / panel, left=0.065, right=0.78, top=1 - 0.5 / height,
        bottom=0.55 / height,
    )  # fmt: skip
    colours = kernel_colours(frames.kernels)
    for row, ((machine, device), ceilings, products) in enumerate(places):
        axes = figure.add_subplot(grid[row, 0])
        count = threads(products.loc[products["threads"].idxmax()])
        title = f"{machine}, {device}" + (f", threads: {count}" if count != "–" else "")
        headline(axes, title, _draw(axes, ceilings, products, colours))
    return figure


def _draw(
    axes: "Axes", ceilings: "pd.DataFrame", products: "pd.DataFrame", colours: dict[str, str]
) -> str:
    """Draw a panel and return what its axes and lines are."""
    intensity = products["tops"] * products["median_ms"] * 1e9 / products["bytes"]
    low, high = float(intensity.min()) / 2, float(intensity.max()) * 2
    axes.set_xscale("log")
    axes.set_yscale("log")
    labels = []
    copy = select(ceilings, {"kernel": "copy"})
    for _, peak in ceilings[ceilings["tops"] > 0].iterrows():
        axes.axhline(peak["tops"], color=MUTED, linewidth=1)
        labels.append((float(peak["tops"]), f"— {peak['kernel']}  {number(peak['tops'])}", MUTED))
    note = "10¹² operations a second, log axis; lines: measured ceilings of products"
    if len(copy):
        gb_s = float(copy["bytes"].iloc[0] / copy["median_ms"].iloc[0] / 1e6)
        axes.plot([low, high], [low * gb_s / 1000, high * gb_s / 1000], color=MUTED, linewidth=1)
        note += f"; slope: copies at {_bandwidth(gb_s)}"
    for kernel, points in products.groupby("kernel"):
        colour = colours[str(kernel)]
        for includes, fill in _RESULTS.items():
            form = select(points, {"includes": includes})
            axes.plot(
                intensity[form.index], form["tops"], "o", color=colour, markersize=4,
                fillstyle=fill,
            )  # fmt: skip
        best = float(points["tops"].max())
        labels.append((best, f"{kernel}  up to {number(best)}", colour))
    peaks = ceilings["tops"].dropna()
    axes.set_xlim(low, high)
    axes.set_ylim(float(products["tops"].min()) / 2, 2 * max([*products["tops"], *peaks]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("operations a byte of operands and result, log axis")
    end_labels(axes, labels)
    return note


def _bandwidth(gb_s: float) -> str:
    return f"{number(gb_s)} GB/s" if gb_s < 1000 else f"{number(gb_s / 1000)} TB/s"
