"""The roofline: speed against operations a byte, under what the machine was measured to do."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from harness.report.evidence import select
from harness.report.frames import Frames
from harness.report.speed import kernel_colours, most_threads
from harness.report.style import FULL_WIDTH, MUTED, end_labels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_HEIGHT = 3.4  # inches a machine


def draw_roofline(frames: Frames) -> Figure | None:
    """Return one panel a machine and device that has ceilings and products; None without any.

    A point is a product: 2·m·n·k operations over its bytes (operands as the kernel takes them, and
    its result) against TOP/s. The slope is the measured copy bandwidth, the levels are the measured
    peaks.
    """
    kernels = most_threads(select(frames.kernels, {"status": "ok"}))
    places = []
    for place, rows in kernels.groupby(["machine", "device"], sort=True):
        products = rows[rows["group"].isin(["square", "layer"]) & (rows["includes"] == "gemm")]
        if (rows["group"] == "ceiling").any() and len(products[products["bytes"] > 0]):
            places.append((place, select(rows, {"group": "ceiling"}), products))
    if not places:
        return None
    height = 0.4 + _HEIGHT * len(places)
    figure = Figure(figsize=(FULL_WIDTH, height))
    grid = figure.add_gridspec(
        len(places), 1, hspace=0.45, left=0.06, right=0.79, top=1 - 0.5 / height,
        bottom=0.55 / height,
    )  # fmt: skip
    colours = kernel_colours(frames.kernels)
    for row, ((machine, device), ceilings, products) in enumerate(places):
        axes = figure.add_subplot(grid[row, 0])
        axes.set_title(f"{machine}, {device}, threads: {int(products['threads'].max())}", pad=17)
        _draw(axes, ceilings, products, colours)
    return figure


def _draw(
    axes: "Axes", ceilings: "pd.DataFrame", products: "pd.DataFrame", colours: dict[str, str]
) -> None:
    intensity = products["tops"] * products["median_ms"] * 1e9 / products["bytes"]
    low, high = float(intensity.min()) / 2, float(intensity.max()) * 2
    axes.set_xscale("log")
    axes.set_yscale("log")
    labels = []
    copy = select(ceilings, {"kernel": "copy"})
    for _, peak in ceilings[ceilings["tops"] > 0].iterrows():
        axes.axhline(peak["tops"], color=MUTED, linewidth=1)
        labels.append((float(peak["tops"]), f"{peak['kernel']}  {peak['tops']:.3g}", MUTED))
    note = "10¹² operations a second, log axis; lines: measured ceilings of products"
    if len(copy):
        gb_s = float(copy["bytes"].iloc[0] / copy["median_ms"].iloc[0] / 1e6)
        axes.plot([low, high], [low * gb_s / 1000, high * gb_s / 1000], color=MUTED, linewidth=1)
        note += f"; slope: copies at {gb_s:.3g} GB/s"
    for kernel, points in products.groupby("kernel"):
        colour = colours[str(kernel)]
        axes.plot(intensity[points.index], points["tops"], "o", color=colour, markersize=4)
        best = float(points["tops"].max())
        labels.append((best, f"{kernel}  up to {best:.3g}", colour))
    peaks = ceilings["tops"].dropna()
    axes.set_xlim(low, high)
    axes.set_ylim(float(products["tops"].min()) / 2, 2 * max([*products["tops"], *peaks]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("operations a byte of operands and result, log axis")
    axes.text(0, 1.04, note, transform=axes.transAxes, color=MUTED, fontsize=7.5)
    end_labels(axes, labels)
