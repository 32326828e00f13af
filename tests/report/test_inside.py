"""Figure 2 and what the paper lacks: each figure says what its data are and labels do not touch."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from made_frames import LAYER, made_frames, runs
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.modes import MODES, in_order
from harness.report.cost_tables import costs_table, energy_table, filters_table
from harness.report.evidence import select
from harness.report.filter_figures import draw_filters
from harness.report.frames import Frames, empty_frames
from harness.report.inside import (
    draw_calibration,
    draw_confusion,
    draw_flips,
    draw_latent,
    steps_between,
)
from harness.report.intervals import student
from harness.report.paper import load_paper
from harness.report.style import MUTED, house_style, mode_colour
from harness.report.tradeoff import draw_seeds, draw_trade

PAPER = load_paper()
NAMES = PAPER.datasets
DRAW: dict[str, Callable[[Frames], Figure | None]] = {
    "figure2": lambda frames: draw_filters(frames, PAPER, "svhn"),
    "flips": lambda frames: draw_flips(frames, NAMES),
    "latent": lambda frames: draw_latent(frames, NAMES, "mnist"),
    "confusion": lambda frames: draw_confusion(frames, "mnist"),
    "calibration": lambda frames: draw_calibration(frames, NAMES),
    "trade": lambda frames: draw_trade(frames, NAMES),
    "seeds": lambda frames: draw_seeds(frames, NAMES),
}


def drawn(name: str, frames: Frames) -> Figure:
    with house_style():
        figure = DRAW[name](frames)
    assert figure is not None
    return figure


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]


@pytest.mark.parametrize("name", DRAW)
def test_without_data_there_is_no_figure(name: str) -> None:
    assert DRAW[name](empty_frames()) is None


@pytest.mark.parametrize("name", DRAW)
def test_no_text_touches_another_or_leaves_the_page(frames: Frames, name: str) -> None:
    with house_style():
        figure = DRAW[name](frames)
        assert figure is not None
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        boxes = []
        for axes in figure.axes:
            shown = [*axes.texts, axes._left_title, axes.xaxis.label, axes.yaxis.label]  # type: ignore[attr-defined]
            boxes += [
                (text.get_text(), text.get_window_extent(renderer))
                for text in shown
                if text.get_text() and text.get_visible() and axes.axison | bool(axes.texts)
            ]
    for i, (text, box) in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, text
        for other, beside in boxes[i + 1 :]:
            assert not box.shrunk(0.9, 0.7).overlaps(beside.shrunk(0.9, 0.7)), (text, other)


@pytest.mark.parametrize("name", ["figure2", "flips", "calibration", "trade"])
def test_stand_ins_are_labelled(frames: Frames, name: str) -> None:
    assert any("[stand-in" in title for title in titles(drawn(name, frames)))
    official = Frames(
        **{
            key: select(frame, {"source": "official"}) if "source" in frame else frame
            for key, frame in vars(frames).items()
        }
    )
    with house_style():
        figure = DRAW[name](official)
    assert figure is None or not any("[stand-in" in title for title in titles(figure))


def test_figure_2_shows_every_filter_of_the_first_layer_and_the_papers_share(
    frames: Frames,
) -> None:
    figure = drawn("figure2", frames)
    left, right = figure.axes
    codes = [(97 * n + 31 * c) % 512 for n in range(32) for c in range(3)]
    dark = sum(9 - code.bit_count() for code in codes)
    tiles, squares = (patch.get_path().vertices for patch in left.patches)  # type: ignore[attr-defined]
    assert (len(tiles), len(squares)) == (5 * len(codes), 5 * dark)
    assert len(right.lines) == 5
    texts = [text.get_text() for text in right.texts]
    assert "paper: 42 %" in texts
    assert "at an input map, ± as one: 40 %" in texts


def test_without_a_binary_first_layer_no_filters_are_shown(tmp_path: Path) -> None:
    deeper = {**LAYER, "layer": 2, "patterns": "", "outputs": 1, "weights": 27, "filters": 3}
    frames = made_frames(tmp_path, layers=[deeper], runs=runs(20.0, dataset="cifar10"))
    assert draw_filters(frames, PAPER, "cifar10") is None


def test_the_filters_shown_are_of_an_official_full_theano_run_where_there_is_one(
    tmp_path: Path,
) -> None:
    facts = {"patterns": "1 2 3", "outputs": 1, "weights": 27, "filters": 3}
    rows = [
        {**LAYER, **facts, "source": "standin"},
        {**LAYER, **facts, "recipe": "torch7", "mode": "bnn-stoch"},
        {**LAYER, **facts, "changes": "epochs=2", "seed": 3},
    ]
    reduced = {"dataset": "cifar10", "changes": "epochs=2", "epochs": 2, "network": "ConvNet(128)"}
    frames = made_frames(tmp_path, layers=rows[2:], runs=runs(20.0, **reduced))
    figure = draw_filters(frames, PAPER, "cifar10")
    assert figure is not None
    assert "3 filters of ConvNet(128), 2 epochs, seed 3" in [
        text.get_text() for text in figure.axes[0].texts
    ]
    full = {"dataset": "cifar10", "recipe": "torch7", "mode": "bnn-stoch"}
    frames = made_frames(tmp_path, layers=rows, runs=runs(20.0, **reduced) + runs(9.0, **full))
    figure = draw_filters(frames, PAPER, "cifar10")
    assert figure is not None
    assert titles(figure)[0] == "torch7 / bnn-stoch", "full before reduced"


def test_latent_weights_of_runs_that_saved_signs_alone_are_left_out(tmp_path: Path) -> None:
    latent = {**LAYER, "dataset": "mnist", "kind": "linear", "bound": 1.0, "histogram": "3 4 2 1"}
    signs = {**latent, "recipe": "bitwise", "histogram": "5 0 0 5"}
    decided = {**latent, "layer": 2, "histogram": "5 0 0 5"}
    ebp = [{**row, "recipe": "ebp"} for row in (latent, decided)]
    with house_style():
        figure = draw_latent(made_frames(tmp_path, layers=[latent, signs, *ebp]), NAMES, "mnist")
        assert draw_latent(made_frames(tmp_path, layers=[signs]), NAMES, "mnist") is None
    assert figure is not None
    shown = [(axes.get_ylabel().split("\n")[0], axes.get_title(loc="left")) for axes in figure.axes]
    assert shown == [("ebp", "layer 1"), ("", "layer 2"), ("theano", "layer 1"), ("", "")]


def test_unclipped_latent_weights_have_ticks_that_do_not_touch(tmp_path: Path) -> None:
    row = {**LAYER, "dataset": "mnist", "kind": "linear", "bound": 73.5, "histogram": "1 4 4 1"}
    layers = [{**row, "layer": i + 1} for i in range(9)]
    with house_style():
        figure = draw_latent(made_frames(tmp_path, layers=layers), NAMES, "mnist")
        assert figure is not None
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        ticks = [label for axes in figure.axes for label in axes.get_xticklabels()]
        boxes = [label.get_window_extent(renderer) for label in ticks]
    assert [label.get_text() for label in ticks[:3]] == ["−73", "0", "73"]
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))


def test_seeds_far_apart_are_on_a_log_axis(tmp_path: Path) -> None:
    near, far = runs(1.4, 1.5), runs(12.0, 14.0, mode="bnn-stoch-w")
    with house_style():
        plain = draw_seeds(made_frames(tmp_path, runs=near), NAMES)
        wide = draw_seeds(made_frames(tmp_path, runs=near + far), NAMES)
    assert plain is not None and wide is not None
    assert (plain.axes[0].get_xscale(), wide.axes[0].get_xscale()) == ("linear", "log")
    low, high = wide.axes[0].get_xlim()
    assert low < 1.4 and student([12.0, 14.0])[1] < high


@pytest.mark.parametrize(("correct", "side"), [("9 90", "left"), ("50 100", "right")])
def test_calibration_errors_stand_where_no_curve_runs(
    tmp_path: Path, correct: str, side: str
) -> None:
    row = {**LAYER, "counts": "100 100", "confidence": "70 95", "correct": correct, "ece_pct": 5.0}
    row |= {"images": 200, "test_errors": 9, "confusion": "1"}
    rows = [{**row, "mode": mode} for mode in ("bnn-det", "float")]
    with house_style():
        figure = draw_calibration(made_frames(tmp_path, predictions=rows), NAMES)
    assert figure is not None
    texts = figure.axes[0].texts
    assert [(text.get_text(), text.get_ha()) for text in texts] == [
        ("float  5.0 %", side), ("bnn-det  5.0 %", side),
    ]  # fmt: skip
    assert texts[0].get_position()[1] > texts[1].get_position()[1], "in the order of the modes"


def test_confusion_leaves_out_the_diagonal(frames: Frames) -> None:
    figure = drawn("confusion", frames)
    mesh = figure.axes[0].collections[0].get_array().reshape(10, 10)  # type: ignore[union-attr]
    assert mesh.mask.diagonal().all()
    assert not mesh.mask[0, 3]
    assert mesh[0, 3] > 0


def test_seeds_need_two_of_a_system(frames: Frames) -> None:
    figure = drawn("seeds", frames)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "theano / bnn-det, MLP 3 × 256, n = 3", "torch7 / bnn-det, MLP 3 × 256, n = 3",
    ]  # fmt: skip
    one = replace(frames, runs=select(frames.runs, {"seed": 0}))
    assert draw_seeds(one, NAMES) is None


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.9, 1100, [1, 10, 100, 1000]), (0.9, 11, [1, 2, 5, 10]), (30, 60, [30, 40, 50])],
)
def test_every_log_axis_has_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert steps_between(low, high) == pytest.approx(ticks)


def test_costs_of_the_papers_networks() -> None:
    rows = {(row["network"], row["form"]): row for row in costs_table().data}
    mlp = rows["MNIST, MLP 3 × 4096", "BNN"]
    assert mlp["macs"] == 36_806_656
    assert mlp["xnor_macs"] == 36_806_656 - 784 * 4096
    units = 3 * 4096 + 2 * 10
    assert mlp["weight_accesses"] == (36_806_656 + 32 * units) / 64
    assert mlp["activation_accesses"] == (784 * 8 + 2 * 3 * 4096 + 320) / 64
    ours = rows["MNIST, MLP 3 × 4096", "float"]
    assert ours["activation_accesses"] == 32 * (784 + 2 * 3 * 4096 + 10) / 64


def test_energy_at_each_level_and_where_the_weights_fit() -> None:
    rows = {(row["network"], row["form"]): row for row in energy_table(PAPER).data}
    costs = {(row["network"], row["form"]): row for row in costs_table().data}
    key = ("SVHN, ConvNet(64)", "BNN")
    bnn, count = rows[key], costs[key]
    moved = count["weight_accesses"] + count["activation_accesses"]
    assert bnn["8 KB cache"] == pytest.approx(moved * 10 / 1e6)
    assert bnn["DRAM, most"] == pytest.approx(moved * 2600 / 1e6)
    assert bnn["fits"] == "1 MB cache"
    assert rows["SVHN, ConvNet(64)", "float"]["fits"] == "DRAM, least"
    assert rows["MNIST, MLP 3 × 4096", "float"]["arithmetic_uj"] == pytest.approx(
        36_806_656 * 4.6 / 1e6
    )
    notes = " ".join(energy_table(PAPER).notes)
    assert "130 to 260 times" in notes


def test_filters_are_listed_layer_by_layer_with_their_mean(frames: Frames) -> None:
    rows = filters_table(frames).rows
    assert rows[0] == ("svhn, theano / bnn-det, ConvNet(32), 1 epoch [stand-in]",)
    assert rows[1] == ("1", "96", "47.9", "39.6", "100.0", "100.0")
    assert [row[0] for row in rows[1:]] == ["1", "2", "3", "4", "5", "6", "mean"]


def test_a_mode_of_another_version_has_a_place_behind_the_known() -> None:
    assert in_order(["bnn-new", "bnn-det", "float", "a-new"]) == [
        *("float", "bnn-det"), *("a-new", "bnn-new"),
    ]  # fmt: skip
    assert mode_colour("bnn-new") == MUTED
    assert {mode_colour(mode) for mode in MODES}.isdisjoint({MUTED}), "each has its own"


def test_a_network_without_a_mistake_leaves_the_axis_as_it_is(tmp_path: Path) -> None:
    facts = {"weight_bits": 1e6, "operations": 1e6, "bytes_packed": 1, "bytes_float32": 2}
    rows = [{**run, **facts} for run in runs(0.0, 1.0)]
    with house_style():
        assert draw_trade(made_frames(tmp_path, runs=rows), NAMES) is not None
