"""All figures: drawn, written as SVG and PNG, and described for the page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from harness.report.ablation_figures import CAPTION, draw_ablation
from harness.report.ablations import Ablation
from harness.report.curves import draw_curves, draw_run
from harness.report.filter_figures import CAPTION as FILTERS
from harness.report.filter_figures import draw_filters
from harness.report.frames import Frames
from harness.report.inside import (
    CALIBRATION,
    FLIPS,
    LATENT,
    confusion_caption,
    draw_calibration,
    draw_confusion,
    draw_flips,
    draw_latent,
)
from harness.report.paper import Paper
from harness.report.roofline import draw_roofline
from harness.report.speed import draw_figure3
from harness.report.style import house_style, save
from harness.report.sweep import draw_sweep
from harness.report.tradeoff import SEEDS, TRADE, draw_seeds, draw_trade

__all__ = ["Drawing", "draw_all", "draw_run"]


@dataclass(frozen=True)
class Drawing:
    """A figure on disk: ``<folder>/<name>.svg`` and ``.png``."""

    name: str
    title: str
    caption: str
    svg: Path


def draw_all(
    frames: Frames, paper: Paper, folder: Path, ablations: Sequence[Ablation] = ()
) -> list[Drawing]:
    """Draw every figure that has data into ``folder`` and remove those that no longer have any."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with house_style():
        for name, title, caption, figure in _figures(frames, paper, ablations):
            save(figure, folder / f"{name}.png")
            found.append(Drawing(name, title, caption, save(figure, folder / f"{name}.svg")))
    kept = {drawing.name for drawing in found}
    for pattern in _PATTERNS:
        for path in (*folder.glob(f"{pattern}.svg"), *folder.glob(f"{pattern}.png")):
            if path.stem not in kept:
                path.unlink()
    return found


def _figures(
    frames: Frames, paper: Paper, ablations: Sequence[Ablation]
) -> Iterator[tuple[str, str, str, Figure]]:
    for dataset, shown in paper.datasets.items():
        curves = draw_curves(frames, dataset)
        if curves is not None:
            yield f"figure1-{dataset}", f"Figure 1, {shown}: training curves", _CURVES, curves
    bars = draw_figure3(frames, paper)
    if bars is not None:
        yield "figure3", "Figure 3: time and error by kernel", bars_caption(paper), bars
    sweep = draw_sweep(frames)
    if sweep is not None:
        yield "speed", "Speed against size", _SWEEP, sweep
    roof = draw_roofline(frames)
    if roof is not None:
        yield "roofline", "Roofline", _ROOF, roof
    yield from _inside(frames, paper)
    for one in ablations:
        yield one.name, f"Ablation: {one.group.title}", CAPTION, draw_ablation(one)


def _inside(frames: Frames, paper: Paper) -> Iterator[tuple[str, str, str, Figure]]:
    """Yield what the paper lacks, and Figure 2."""
    names = paper.datasets
    for dataset, shown in names.items():
        made = {
            "figure2": (f"Figure 2, {shown}: binary filters", FILTERS,
                        draw_filters(frames, paper, dataset)),
            "latent": (f"Latent weights, {shown}", LATENT, draw_latent(frames, names, dataset)),
            "confusion": (f"Confusion, {shown}", confusion_caption(dataset),
                          draw_confusion(frames, dataset)),
        }  # fmt: skip
        for kind, (title, caption, figure) in made.items():
            if figure is not None:
                yield f"{kind}-{dataset}", title, caption, figure
    whole = {
        "flips": ("Flipped weights by epoch", FLIPS, draw_flips(frames, names)),
        "calibration": ("Calibration", CALIBRATION, draw_calibration(frames, names)),
        "trade": ("Error against bits and operations", TRADE, draw_trade(frames, names)),
        "seeds": ("Spread over seeds", SEEDS, draw_seeds(frames, names)),
    }
    for name, (title, caption, figure) in whole.items():
        if figure is not None:
            yield name, title, caption, figure


def bars_caption(paper: Paper) -> str:
    """Return Figure 3's caption, with the device of the paper's ratios."""
    return _BARS + f" The paper's ratios are of one {paper.facts['figure3']['device']}."


_PATTERNS = (
    "figure1-*", "figure2-*", "figure3", "speed", "roofline", "latent-*", "confusion-*",
    "flips", "calibration", "trade", "seeds", "ablation-*",
)  # fmt: skip
_ROOF = (
    "A point is one product of a case: its operations over the bytes of its operands and result, "
    "against its speed; hollow where the result is thresholded and packed into bits. Lines are "
    "ceilings measured in the same run: units at work in registers or caches, and one large "
    "product of the vendor's library of each type, which other kernels and sizes may exceed, as "
    "carry-save adders exceed one popcount a word. Above the slope operands come from the caches."
)
_CURVES = (
    "Solid: validation error. Dotted: mean square hinge loss over the training epoch, with the "
    "weights as they changed. Beside each mode, its least validation error. Over several seeds: "
    "mean, and a band from the least to the greatest. Where a curve of bitwise or ternary jumps, "
    "its second stage begins, with quantized weights."
)
_BARS = (
    "Median of the raw samples; in brackets, how many times faster than the baseline kernel, or "
    "where that has no time than the vendor's float32 product. "
    "“+ pack” includes packing the activations, “to bits” thresholds and a packed result. A kernel "
    "that cannot run, or whose result was wrong, has a word in place of a bar."
)
_SWEEP = (
    "Square ±1 products: 2·m·n·k operations over the median time; the band is p20 to p80. "
    "Operands packed beforehand. Beside each line, its speed at its largest size."
)
