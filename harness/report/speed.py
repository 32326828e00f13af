"""Figure 3: times and error by kernel."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from harness.report.evidence import PACKED_TOO, full_scale, select
from harness.report.frames import Frames
from harness.report.paper import Paper
from harness.report.style import FULL_WIDTH, MUTED, empty_panel, headline

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_CLOCKED = {PACKED_TOO: " + pack", "gemm+bits": " to bits"}
_FLOAT32 = "vendor-fp32"
_BASELINE = "#8a929c"
# As many of a family as a GPU has; dark enough for a label to be read on white.
_FAMILIES = {
    "vendor": ("#0072B2", "#3D9BD1", "#6c8ebf", "#004a75", "#5B4FA0", "#00909E", "#9273B8"),
    "xnor": ("#D55E00", "#E69F00", "#a63f00", "#C2185B", "#7B1E3B"),
    "naive": (_BASELINE, "#7a8b6f", "#8c7a62", "#3d444c"),
    "triton": ("#2E7D32",),
}


def duration(milliseconds: float) -> str:
    """Return ``2.31 s``, ``23.1 ms`` or ``231 µs``: three significant digits."""
    for factor, unit in ((1e-3, "s"), (1.0, "ms"), (1e3, "µs")):
        value = milliseconds * factor
        if value >= 1 or unit == "µs":
            places = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
            return f"{value:,.{places}f} {unit}"
    raise AssertionError("the last unit always returns")


def kernel_colours(kernels: "pd.DataFrame") -> dict[str, str]:
    """Return a colour a kernel: greys for naive, blues for vendor, reds and oranges for XNOR."""
    baseline = set(kernels[kernels["baseline"] == True]["kernel"])  # noqa: E712
    found: dict[str, str] = {}
    for family, colours in _FAMILIES.items():
        members = sorted(k for k in set(kernels["kernel"]) if k.startswith(family))
        found |= {name: colours[i % len(colours)] for i, name in enumerate(members)}
    return {k: found.get(k, _BASELINE) for k in set(kernels["kernel"])} | dict.fromkeys(
        baseline, _BASELINE
    )


def most_threads(kernels: "pd.DataFrame") -> "pd.DataFrame":
    """Return, of each machine, device and case, the rows with the most threads."""
    groups = kernels.groupby(["machine", "device", "case"])["threads"]
    return kernels[(kernels["threads"] == groups.transform("max")) | kernels["threads"].isna()]


def draw_figure3(frames: Frames, paper: Paper) -> Figure | None:
    """Return Figure 3, a row of three bar groups for each machine and device; None if empty.

    Median time of the paper's square product (of the largest one timed where that is not), median
    time of the MLP over the test set (both on logarithmic axes), and the MLP's test error with each
    kernel.
    """
    errors = mlp_errors(frames)
    frames = replace(frames, kernels=most_threads(frames.kernels))
    places = _places(frames)
    if not places and errors.empty:
        return None
    rows = places or [("", "")]
    sizes = [_tallest(frames, place, errors, paper) for place in rows]
    height = sum(1.35 + 0.27 * size for size in sizes)
    figure = Figure(figsize=(FULL_WIDTH, height))
    grid = figure.add_gridspec(
        len(rows), 6, wspace=0, hspace=1.35 / (height / len(rows) - 1.35), height_ratios=sizes,
        width_ratios=_columns(frames, rows, paper), left=0, right=1 - 0.1 / FULL_WIDTH,
        top=1 - 0.8 / height, bottom=0.55 / height,
    )  # fmt: skip
    for row, (machine, device) in enumerate(rows):
        here = _at(frames, (machine, device))
        axes = [figure.add_subplot(grid[row, column]) for column in (1, 3, 5)]
        _draw_row(axes, here, errors, frames, paper)
        for one in axes:
            one.set_ylim(sizes[row] - 0.4, -0.6)  # bars of one height in the three groups
        if machine:
            axes[0].annotate(
                f"{machine}, {device}", (0, 1), (0, 38), xycoords="axes fraction",
                textcoords="offset points", fontsize=10, weight="bold", color=MUTED,
            )  # fmt: skip
    return figure


def _columns(frames: Frames, places: list[tuple[str, str]], paper: Paper) -> list[float]:
    """Return widths in inches: before each of three groups, room for its kernels' names.

    Times have longer labels than errors, which a narrower group holds.
    """
    shown = [_product(_at(frames, place), paper) for place in places]
    products = [_name(row) for rows in shown for _, row in rows.iterrows()]
    longest = max((len(name) for name in frames.kernels["kernel"]), default=len("vendor-bf16"))
    first = 0.068 * max([longest, *map(len, products)]) + 0.15
    others = 0.068 * longest + 0.4
    width = (FULL_WIDTH - 0.1 - first - 2 * others) / 2.75
    return [first, width, others, width, others, 0.75 * width]


def _places(frames: Frames) -> list[tuple[str, str]]:
    shown = frames.kernels[frames.kernels["group"].isin(["square", "mlp"])]
    return sorted(set(zip(shown["machine"], shown["device"], strict=True)))


def _at(frames: Frames, place: tuple[str, str]) -> "pd.DataFrame":
    return select(frames.kernels, {"machine": place[0], "device": place[1]})


def _tallest(frames: Frames, place: tuple[str, str], errors: "pd.DataFrame", paper: Paper) -> int:
    here = _at(frames, place)
    known = errors if here.empty else errors[errors["kernel"].isin(set(here["kernel"]))]
    return max(3, len(known), len(_product(here, paper)), len(_largest(here, "mlp")))


def _draw_row(
    axes: "list[Axes]", here: "pd.DataFrame", errors: "pd.DataFrame", frames: Frames, paper: Paper
) -> None:
    facts = paper.facts["figure3"]
    colours = kernel_colours(frames.kernels)
    product, mlp = _product(here, paper), _largest(here, "mlp")
    size = "" if product.empty else f", {int(product['m'].iloc[0]):,}³"
    images = ""
    if len(mlp):
        images = f" 3 × {int(mlp['n'].iloc[0])}, {int(mlp['m'].iloc[0]):,} images"
    quoted = facts["product"]
    _times(axes[0], product, colours, f"Product{size}",
           f"paper, {quoted['m']:,}³: {quoted['xnor_over_baseline']}× baseline, "
           f"{quoted['xnor_over_vendor']}× fp32")  # fmt: skip
    _times(axes[1], mlp, colours, f"MLP{images}",
           f"paper: XNOR {facts['mlp']['xnor_over_baseline']}× baseline")  # fmt: skip
    known = set(here["kernel"])
    _errors(axes[2], errors[errors["kernel"].isin(known)] if known else errors, colours,
            f"paper: {facts['error_pct']} %")  # fmt: skip


def _product(here: "pd.DataFrame", paper: Paper) -> "pd.DataFrame":
    """Return the rows of the paper's product where it has a time, else of the largest."""
    papers = here[here["m"] == paper.facts["figure3"]["product"]["m"]]
    timed = select(papers, {"group": "square", "status": "ok"})
    return _largest(papers if len(timed) else here, "square")


def _largest(here: "pd.DataFrame", group: str) -> "pd.DataFrame":
    """Return the rows of the group's largest case that has a time; of any case if none has."""
    rows = select(here, {"group": group})
    timed = rows[rows["status"] == "ok"]
    some = timed if len(timed) else rows
    if some.empty:
        return some
    largest = some.sort_values(["m", "n"], kind="stable").iloc[-1]
    return rows[rows["case"] == largest["case"]]


def _times(
    axes: "Axes", case: "pd.DataFrame", colours: dict[str, str], title: str, quoted: str
) -> None:
    headline(axes, title, quoted)
    if case.empty:
        empty_panel(axes, "not benched")
        return
    rows = list(case.sort_values("median_ms", ascending=False).to_dict("records"))
    timed = [row["median_ms"] for row in rows if row["status"] == "ok"]
    rival, base, over = _rival(rows)
    low = min(timed, default=1.0) / 3
    for y, row in enumerate(rows):
        if row["status"] != "ok":
            axes.text(low * 1.1, y, row["status"], va="center", color=MUTED, style="italic")
            continue
        faded = 0.55 if row["includes"] == PACKED_TOO else 1.0
        axes.barh(
            y, row["median_ms"] - low, left=low, height=0.66, color=colours[row["kernel"]],
            alpha=faded,
        )  # fmt: skip
        ratio = base / row["median_ms"]
        times = f"  ({_ratio(ratio)}×{over})" if base and row["kernel"] != rival else ""
        axes.text(row["median_ms"] * 1.12, y, f"{duration(row['median_ms'])}{times}", va="center")
    _bars(axes, rows)
    axes.set_xscale("log")
    high = max(timed, default=10.0)
    axes.set_xlim(low, high * (high / low) ** 0.8)  # room for the labels
    axes.xaxis.set_major_locator(FixedLocator(_decades(low, high)))
    axes.xaxis.set_minor_locator(FixedLocator(_all_decades(low, high)))
    axes.grid(axis="x", which="both")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("median time, log axis")


def _rival(rows: list[dict[str, Any]]) -> tuple[str, float, str]:
    """Return name and median of what others are held against, and how it is named in brackets.

    The baseline; where that has no time, the vendor's float32 product; 0 ms if that has none too.
    """
    timed = [row for row in rows if row["status"] == "ok"]
    for row in timed:
        if row["baseline"] is True:
            return row["kernel"], row["median_ms"], ""
    floats = [row["median_ms"] for row in timed if row["kernel"] == _FLOAT32]
    return _FLOAT32, min(floats, default=0.0), " fp32"


def _all_decades(low: float, high: float) -> list[float]:
    """Return the powers of ten from ``low`` to ``high``: that the axis is logarithmic shows."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    return [10.0**power for power in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Return the least and the greatest of them: more names would not fit."""
    found = _all_decades(low, high)
    return sorted({*found[:1], *found[-1:]})


def _tick(milliseconds: float) -> str:
    return duration(milliseconds).replace(".00", "").replace(".0", "")


def _ratio(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _name(row: Mapping[Any, Any]) -> str:
    return str(row["kernel"]) + _CLOCKED.get(str(row.get("includes")), "")


def _bars(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows], color="black")
    axes.grid(visible=False, axis="y")


def mlp_errors(frames: Frames) -> "pd.DataFrame":
    """Return one row a kernel: the packed MNIST MLP's test error, of the best run evaluated.

    Official data come before stand-ins, the Theano recipe and the full one before others.
    """
    done = select(frames.evaluations, {"status": "done", "dataset": "mnist"})
    if done.empty:
        return done
    order = done.assign(
        standin=done["source"] == "standin",
        other=done["recipe"] != "theano",
        stochastic=done["mode"] != "bnn-det",
        reduced=[not full_scale(text) for text in done["changes"]],
    )
    keys = ["standin", "other", "stochastic", "reduced", "seed"]
    first = order.sort_values(keys).iloc[0]
    same = {key: first[key] for key in ("source", "recipe", "mode", "seed", "changes", "preset")}
    run = select(done, same)
    return run.loc[run.groupby("kernel")["agree"].idxmin()]  # the worse of its first layers


def _errors(axes: "Axes", errors: "pd.DataFrame", colours: dict[str, str], quoted: str) -> None:
    if errors.empty:
        headline(axes, "MLP error", quoted)
        empty_panel(axes, "no packed network")
        return
    first = errors.iloc[0]
    source = " [stand-in]" if first["source"] == "standin" else ""
    headline(axes, f"MLP error{source}", quoted)
    rows = list(errors.sort_values("kernel").to_dict("records"))
    for y, row in enumerate(rows):
        colour = colours.get(row["kernel"], _BASELINE)
        axes.barh(y, row["test_error_pct"], height=0.66, color=colour)
        text = f" {row['test_error_pct']:.2f} %"
        if row["agree"] != row["images"]:
            text += f"  {int(row['images'] - row['agree'])} differ"
        axes.text(row["test_error_pct"], y, text, va="center")
    _bars(axes, rows)
    axes.set_xlim(0, max(row["test_error_pct"] for row in rows) * 1.5 or 1)
    whose = f"%, {first['recipe']} / {first['mode']}, seed {int(first['seed'])}"
    axes.set_xlabel(whose, loc="right")  # longer than the axis is wide
