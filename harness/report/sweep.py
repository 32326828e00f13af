"""The sweep of speed against size."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.report.evidence import select
from harness.report.frames import Frames
from harness.report.speed import kernel_colours, most_threads
from harness.report.style import FULL_WIDTH, MUTED, end_labels

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
    figure = Figure(figsize=(FULL_WIDTH, 0.5 + 2.75 * len(places)))
    grid = figure.add_gridspec(
        len(places),
        1,
        hspace=0.52,
        left=0.06,
        right=0.83,
        top=1 - 0.45 / figure.get_figheight(),
        bottom=0.5 / figure.get_figheight(),
    )
    colours = kernel_colours(frames.kernels)
    for row, ((machine, device), rows) in enumerate(places):
        axes = figure.add_subplot(grid[row, 0])
        axes.set_title(f"{machine}, {device}", pad=17)
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
        labels.append((float(speed.iloc[-1]), f"{kernel}  {speed.iloc[-1]:.3g}", colour))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = sorted(set(rows["m"]))
    axes.set_xticks(sizes, [f"{int(size):,}³" for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
    wide = rows["tops"].max() > 30 * rows["tops"].min()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("size of the product")
    axes.text(
        0, 1.04, "10¹² operations a second, log axis; a multiply and an add are two",
        transform=axes.transAxes, color=MUTED, fontsize=7.5,
    )  # fmt: skip
    end_labels(axes, labels)
