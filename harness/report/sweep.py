"""The sweep of speed against size."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.report.evidence import select
from harness.report.frames import Frames
from harness.report.speed import kernel_colours, most_threads
from harness.report.style import FULL_WIDTH, end_labels, headline, labels_height
from harness.report.tables import number

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def draw_sweep(frames: Frames) -> Figure | None:
    """Return speed in TOP/s against the size of a square product; None under two sizes.

    One line a kernel: 2·m·n·k operations over the median time, a band from p20 to p80.
    """
    found = most_threads(frames.kernels)
    done = select(found, {"group": "square", "status": "ok", "includes": "gemm"})
    places = [
        (place, rows)
        for place, rows in done.groupby(["machine", "device"], sort=True)
        if rows["m"].nunique() > 1
    ]
    if not places:
        return None
    kernels = max(rows["kernel"].nunique() for _, rows in places)
    panel = max(2.2, labels_height(kernels))
    height = (panel + 0.95) * len(places)
    figure = Figure(figsize=(FULL_WIDTH, height))
    grid = figure.add_gridspec(
        len(places), 1, hspace=0.95 / panel, left=0.065, right=0.82, top=1 - 0.45 / height,
        bottom=0.5 / height,
    )  # fmt: skip
    colours = kernel_colours(frames.kernels)
    for row, ((machine, device), rows) in enumerate(places):
        axes = figure.add_subplot(grid[row, 0])
        note = "10¹² operations a second, log axis; a multiply and an add are two"
        headline(axes, f"{machine}, {device}", note)
        _draw_sweep(axes, rows, colours)
    return figure


def _draw_sweep(axes: "Axes", rows: "pd.DataFrame", colours: dict[str, str]) -> None:
    labels = []
    for kernel, line in rows.groupby("kernel"):
        line = line.sort_values("m").drop_duplicates("m")
        colour, speed = colours[str(kernel)], line["tops"]
        axes.plot(line["m"], speed, color=colour, marker="o", markersize=3.5)
        slow, fast = (speed * line["median_ms"] / line[p] for p in ("p80_ms", "p20_ms"))
        axes.fill_between(line["m"], slow, fast, color=colour, alpha=0.18, linewidth=0)
        labels.append((float(speed.iloc[-1]), f"{kernel}  {number(speed.iloc[-1])}", colour))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = sorted(set(rows["m"]))
    axes.set_xticks(sizes, [f"{int(size):,}³" for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
    wide = rows["tops"].max() > 30 * rows["tops"].min()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("size of the product")
    end_labels(axes, labels)
