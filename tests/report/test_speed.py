"""Ratios beside the paper's, the roofline, and several numbers of threads."""

from pathlib import Path

import pytest

from harness.report.frames import Frames
from harness.report.paper import load_paper
from harness.report.ratios import ratios_table
from harness.report.roofline import draw_roofline
from harness.report.speed import draw_figure3, most_threads
from harness.report.style import house_style
from harness.report.sweep import draw_sweep
from tests.report.made_frames import KERNEL, gpu_bench, made_frames


def test_ratios_stand_beside_the_papers(frames: Frames) -> None:
    table = ratios_table(frames, load_paper())
    rows = {(row["case"], row["threads"]): row for row in table.data}
    square = rows["square-1024", 2]
    assert square["over_baseline"] == pytest.approx(900 / 4)
    assert square["over_fp32"] == pytest.approx(21 / 4)
    assert (square["over_vendor"], square["vendor"]) == (pytest.approx(7 / 4), "(bf16)")
    assert square["paper_over_baseline"] is None
    speed = 2 * 1024**3 / 4e-3 / 1e12
    assert square["ceiling_pct"] == pytest.approx(100 * speed / 1.0)  # of 2e9 operations in 2 ms
    assert rows["square-8192", 2]["paper_over_baseline"] == 23
    mlp = rows["mnist-mlp-1024", 2]
    assert mlp["over_baseline"] == pytest.approx(16000 / 260)
    assert mlp["paper_over_baseline"] is None, "the paper's has 4096 units"
    assert rows["square-1024", 1]["kernel"] == "xnor-cpu"
    assert square["over_fp32_with_packing"] == pytest.approx(21 / 4.4)
    assert table.rows[0] == ("box-2c, cpu",)
    assert all(len(row) == len(table.header) for row in table.rows if len(row) > 1)


@pytest.mark.parametrize(("kernel", "share"), [("xnor-tensor-tma", 25.0), ("xnor-csa", 200.0)])
def test_a_kernel_is_held_against_its_own_unit(tmp_path: Path, kernel: str, share: float) -> None:
    ceiling = KERNEL | {"group": "ceiling", "case": "ceilings", "includes": "ceiling", "threads": 2}
    rows = [
        ceiling | {"kernel": "1-bit-tensor", "tops": 16000.0},
        ceiling | {"kernel": "xor+popcount", "tops": 2000.0},
        KERNEL | {"kernel": kernel, "threads": 2, "median_ms": 1.0, "tops": 4000.0},
    ]
    (row,) = ratios_table(made_frames(tmp_path, kernels=rows), load_paper()).data
    assert row["ceiling_pct"] == pytest.approx(share)


def test_figures_show_the_rows_with_the_most_threads(frames: Frames) -> None:
    shown = most_threads(frames.kernels)
    assert set(shown["threads"]) == {2}
    assert len(shown) == len(frames.kernels) - 4
    with house_style():
        sweep, bars = draw_sweep(frames), draw_figure3(frames, load_paper())
    assert sweep is not None and bars is not None
    assert all(len(line.get_xdata()) == 4 for line in sweep.axes[0].lines)  # type: ignore[arg-type]


def test_the_roofline_has_points_below_measured_lines(frames: Frames) -> None:
    with house_style():
        figure = draw_roofline(frames)
    assert figure is not None
    (axes,) = figure.axes  # gpu-box has no ceilings
    texts = " ".join(text.get_text() for text in axes.texts)
    assert "copies at 26.8 GB/s" in texts  # 2^29 bytes in 20 ms
    assert "xor+popcount  1" in texts
    points = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]  # type: ignore[arg-type]
    assert len(points) == 4


def test_a_gpus_roofline_counts_in_terabytes_without_threads(tmp_path: Path) -> None:
    gpu = made_frames(tmp_path, kernels=gpu_bench())
    with house_style():
        figure = draw_roofline(gpu)
    assert figure is not None
    (axes,) = figure.axes
    texts = " ".join(text.get_text() for text in axes.texts)
    assert "copies at 4.19 TB/s" in texts
    assert "— 1-bit-tensor  15,519" in texts
    assert axes.get_title(loc="left") == "gpu, cuda"
    assert any(line.get_fillstyle() == "none" and len(line.get_xdata()) for line in axes.lines)  # type: ignore[arg-type]
    rows = [row for row in ratios_table(gpu, load_paper()).rows if len(row) > 1]
    assert {row[1] for row in rows} == {"–"}


def test_without_ceilings_there_is_no_roofline(frames: Frames) -> None:
    bare = frames.kernels[frames.kernels["group"] != "ceiling"]
    assert draw_roofline(Frames(**{**vars(frames), "kernels": bare})) is None
