"""Figures: the same data give the same bytes, and labels do not touch."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.report.curves import draw_curves
from harness.report.evidence import select
from harness.report.figures import draw_all, draw_run
from harness.report.frames import Frames
from harness.report.paper import load_paper
from harness.report.roofline import draw_roofline
from harness.report.speed import draw_figure3, duration, kernel_colours, mlp_errors
from harness.report.style import house_style, spread_out
from harness.report.sweep import draw_sweep
from tests.report.made_frames import EVALUATION, GPU_TIMES, gpu_bench, made_frames


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_same_frames_give_the_same_bytes(frames: Frames, tmp_path: Path) -> None:
    paper = load_paper()
    for name in ("a", "b"):
        drawn = draw_all(frames, paper, tmp_path / name)
    names = [drawing.name for drawing in drawn]
    assert names == [
        "figure1-mnist", "figure1-svhn", "figure1-cifar10", "figure3", "speed", "roofline",
        "latent-mnist", "confusion-mnist", "figure2-svhn", "latent-svhn", "confusion-svhn",
        "flips", "calibration", "trade", "seeds",
    ]  # fmt: skip
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        assert b"<dc:date>" not in path.read_bytes()


def test_figures_without_data_any_more_are_removed(frames: Frames, tmp_path: Path) -> None:
    for name in ("figure1-gone.svg", "speed.png", "mine.svg"):
        (tmp_path / name).write_text("old")
    none = Frames(*(getattr(frames, name).iloc[:0] for name in Frames.__dataclass_fields__))
    assert draw_all(none, load_paper(), tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["mine.svg"]


def test_curves_are_solid_errors_and_dotted_losses_of_one_colour_a_mode(frames: Frames) -> None:
    with house_style():
        figure = draw_curves(frames, "mnist")
    assert figure is not None
    errors, losses = figure.axes[:2]
    assert errors.get_title(loc="left") == "theano recipe, MLP 3 × 256"
    assert {line.get_linestyle() for line in errors.lines} == {"-"}
    assert {line.get_linestyle() for line in losses.lines} == {":"}
    colours = [line.get_color() for line in errors.lines]
    assert len(set(colours)) == 6
    assert colours == [line.get_color() for line in losses.lines]


def test_the_same_runs_of_two_presets_are_two_curves(frames: Frames) -> None:
    twice = {}
    for name in ("runs", "epochs"):
        rows = getattr(frames, name)
        twice[name] = pd.concat([rows, rows.assign(preset="other")], ignore_index=True)
    with house_style():
        one, two = (draw_curves(found, "mnist") for found in (frames, replace(frames, **twice)))
    assert one is not None and two is not None
    assert len(two.axes[0].lines) == 2 * len(one.axes[0].lines)
    texts = [text.get_text() for text in two.axes[0].texts]
    assert any("bnn-det (" in text and "preset other" in text for text in texts)


def test_curves_name_stand_ins_failures_and_runs_under_way(frames: Frames) -> None:
    with house_style():
        drawn = {name: draw_curves(frames, name) for name in ("mnist", "svhn", "cifar10")}
    assert all(drawn.values())
    svhn, mnist, cifar = (drawn[name] for name in ("svhn", "mnist", "cifar10"))
    assert svhn is not None
    assert "[stand-in data]" in svhn.axes[0].get_title(loc="left")
    assert mnist is not None
    assert any(text.startswith("bc-stoch") and "(failed)" in text for text in texts(mnist))
    assert any(text.startswith("bnn-det") and "n = 3" in text for text in texts(mnist))
    assert cifar is not None
    assert any(text.startswith("bnn-det") and "(running)" in text for text in texts(cifar))


@pytest.fixture(scope="session")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """Return frames of a GPU's bench, every kernel of which has evaluated a network."""
    evaluations = [{**EVALUATION, "kernel": kernel, "device": "cuda"} for kernel in GPU_TIMES]
    folder = tmp_path_factory.mktemp("gpu")
    return made_frames(folder, kernels=gpu_bench(), evaluations=evaluations)


@pytest.mark.parametrize(
    ("name", "place"),
    [("mnist", "cpu"), *((n, p) for n in ("figure3", "sweep", "roof") for p in ("cpu", "gpu"))],
)
def test_no_text_touches_another(frames: Frames, gpu: Frames, name: str, place: str) -> None:
    shown_of = gpu if place == "gpu" else frames
    with house_style():
        figure = {
            "mnist": lambda: draw_curves(shown_of, "mnist"),
            "figure3": lambda: draw_figure3(shown_of, load_paper()),
            "sweep": lambda: draw_sweep(shown_of),
            "roof": lambda: draw_roofline(shown_of),
        }[name]()
        assert figure is not None
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        boxes = []
        for axes in figure.axes:
            shown = [*axes.texts, axes._left_title, axes.xaxis.label]  # type: ignore[attr-defined]
            shown += [label for label in axes.get_yticklabels() if axes.axison]
            boxes += [
                (text.get_text(), text.get_window_extent(renderer))
                for text in shown
                if text.get_text() and text.get_visible()
            ]
    page = figure.bbox
    for i, (text, box) in enumerate(boxes):
        assert box.x0 >= page.x0, text
        assert box.x1 <= page.x1, text
        for other, beside in boxes[i + 1 :]:
            assert not box.shrunk(0.9, 0.7).overlaps(beside.shrunk(0.9, 0.7)), (text, other)


def test_figure_3_has_a_row_a_machine_and_names_holes(frames: Frames) -> None:
    with house_style():
        figure = draw_figure3(frames, load_paper())
    assert figure is not None
    assert len(figure.axes) == 6
    found = texts(figure)
    assert {"box-2c, cpu", "gpu-box, cuda", "unavailable", "wrong", "not benched"} <= set(found)
    assert "32.0 ms  (225×)" in found
    assert figure.axes[0].get_xscale() == "log"


def test_figure_3_shows_the_papers_product_where_a_larger_one_was_timed_too(gpu: Frames) -> None:
    with house_style():
        figure = draw_figure3(gpu, load_paper())
    assert figure is not None
    assert figure.axes[0].get_title(loc="left") == "Product, 8,192³"
    assert "146 µs  (8,115×)" in texts(figure)  # xnor-tensor to bits: 0.8 of 0.183 ms


def test_no_two_kernels_of_a_gpu_have_one_colour(gpu: Frames) -> None:
    colours = kernel_colours(select(gpu.kernels, {"group": "mlp"}))
    assert len(set(colours.values())) == len(colours) == len(GPU_TIMES)


def test_without_a_bench_figure_3_still_shows_the_errors(frames: Frames) -> None:
    bare = replace(frames, kernels=frames.kernels.iloc[:0])
    with house_style():
        figure = draw_figure3(bare, load_paper())
        assert draw_sweep(bare) is None
    assert figure is not None
    assert texts(figure).count("not benched") == 2
    assert texts(figure).count(" 1.88 %") == 5


def test_errors_by_kernel_are_of_one_network(frames: Frames) -> None:
    errors = mlp_errors(frames)
    assert sorted(errors["kernel"]) == list(errors.sort_values("kernel")["kernel"])
    assert len(errors) == 5
    assert set(errors["recipe"]) == {"theano"}
    assert set(errors["mode"]) == {"bnn-det"}


def test_a_runs_own_curve(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "valid_error_pct": 9.0, "train_loss": 0.5},
            {"epoch": 2, "valid_error_pct": None, "train_loss": None}]  # fmt: skip
    draw_run(rows, "mnist/theano/float/0", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.2, allow_subnormal=False)
)
def test_labels_spread_out_keep_order_distance_and_bounds(places: list[float], gap: float) -> None:
    found = spread_out(places, gap)
    gap = min(gap, 1 / max(1, len(places) - 1))
    order = sorted(range(len(places)), key=lambda i: places[i])
    for low, high in pairwise(found[i] for i in order):
        assert high - low >= gap - 1e-9
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in found)


def test_labels_that_do_not_touch_stay_where_they_are() -> None:
    assert spread_out([0.9, 0.1, 0.5], 0.1) == [0.9, 0.1, 0.5]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(7200, "7.20 s"), (168, "168 ms"), (1, "1.00 ms"), (0.0231, "23.1 µs"), (0, "0 µs")],
)
def test_durations(milliseconds: float, text: str) -> None:
    assert duration(milliseconds) == text
