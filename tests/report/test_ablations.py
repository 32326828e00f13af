from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_frames import made_frames, runs
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.stats import ttest_rel

from harness.ablations import Group, load_groups
from harness.report.ablation_figures import draw_ablation
from harness.report.ablations import Ablation, ablation_tables, ablations
from harness.report.claims import judge_all
from harness.report.collect import collect
from harness.report.figures import draw_all
from harness.report.frames import Frames, read_frames
from harness.report.paper import load_paper
from harness.report.render import render
from harness.report.style import house_style

FAILURE = {"epoch": 2, "reason": "training loss nan"}


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory, write_run: Callable[..., Path]) -> Frames:
    """Return frames of a clipping and a Lasagne-or-torch ablation, with a failed run."""
    results = tmp_path_factory.mktemp("results") / "demo"
    for seed in range(3):
        write_run(results, seed=seed)
        write_run(results, seed=seed, label="no-clip", scale=2 + seed)
        write_run(results, seed=seed, label="torch-bn", scale=1.1)
        if seed:
            write_run(results, seed=seed, label="torch-adam", scale=1.5)
    write_run(results, seed=0, label="torch-adam", status="failed", failure=FAILURE, epochs=2)
    write_run(results, seed=0, label="torch-bn-torch-adam", scale=1.7)
    for label in ("", "no-gate"):
        write_run(results, seed=7, label=label, source="standin", scale=4)
    collect(results)
    return read_frames(results)


def named(frames: Frames, name: str) -> Ablation:
    (found,) = [one for one in ablations(frames) if one.group.name == name]
    return found


def errors(frames: Frames, label: str, seeds: list[int]) -> list[float]:
    runs = frames.runs[(frames.runs["label"] == label) & (frames.runs["source"] == "official")]
    return [float(runs[runs["seed"] == seed]["test_error_pct"].iloc[0]) for seed in seeds]


def test_differences_are_paired_by_seed_with_students_interval(varied: Frames) -> None:
    (effect,) = named(varied, "clipping").effects
    theirs = ttest_rel(errors(varied, "no-clip", [0, 1, 2]), errors(varied, "", [0, 1, 2]))
    expected = theirs.confidence_interval(0.95)
    assert effect.interval == pytest.approx((expected.low, expected.high))
    assert effect.mean == pytest.approx(
        np.mean(errors(varied, "no-clip", [0, 1, 2])) - np.mean(errors(varied, "", [0, 1, 2]))
    )


def test_factors_are_paired_by_the_others_levels_too(varied: Frames) -> None:
    norm, adam = named(varied, "lasagne-or-torch").effects
    # torch's norm against Lasagne's: three seeds under Lasagne's Adam, none under torch's, whose
    # seed 0 failed.
    assert len(norm.differences) == 3
    # torch's Adam: seeds 1 and 2 under Lasagne's norm, seed 0 under torch's.
    by_hand = [
        *(np.array(errors(varied, "torch-adam", [1, 2])) - errors(varied, "", [1, 2])),
        errors(varied, "torch-bn-torch-adam", [0])[0] - errors(varied, "torch-bn", [0])[0],
    ]
    assert sorted(adam.differences) == pytest.approx(sorted(by_hand))


def test_tables_show_levels_holes_and_no_other_source(varied: Frames) -> None:
    found = ablations(varied)
    assert {one.group.name for one in found} == {"clipping", "lasagne-or-torch", "gate"}
    tables = {table.name: table for table in ablation_tables(found)}
    clipping = tables["ablation-clipping"]
    assert [row[:2] for row in clipping.rows] == [
        ("latent weights", "clipped"), ("latent weights", "free"),
    ]  # fmt: skip
    assert clipping.rows[0][3:5] == ("3", "baseline")  # the stand-in's seed 7 is not among them
    assert clipping.rows[1][4].startswith("+")
    torch = tables["ablation-lasagne-or-torch"]
    assert any("[1 without a result]" in row[2] for row in torch.rows if len(row) > 1)
    assert "[stand-in]" in tables["ablation-gate"].caption
    single = tables["ablation-gate"].rows[1]
    assert single[3] == "1" and single[5] == "", "one pair has no interval"


def test_each_group_has_a_figure_that_goes_when_its_data_go(varied: Frames, tmp_path: Path) -> None:
    draw_all(varied, load_paper(), tmp_path, ablations(varied))
    drawn = {path.stem for path in tmp_path.glob("ablation-*.png")}
    assert drawn == {"ablation-clipping", "ablation-lasagne-or-torch", "ablation-gate"}
    draw_all(varied, load_paper(), tmp_path, [])
    assert not list(tmp_path.glob("ablation-*"))


@pytest.mark.parametrize("group", load_groups().values(), ids=lambda group: group.name)
def test_every_group_has_a_table_and_a_figure_whose_names_fit(group: Group, tmp_path: Path) -> None:
    facts = {"dataset": group.dataset, "recipe": group.recipe, "changes": "epochs=20"}
    rows: list[dict[str, Any]] = []
    for i, cell in enumerate(group.cells()):
        same = {**facts, "label": cell.label, "mode": cell.mode, "network": "ConvNet(16)"}
        rows += runs(2.0 + i, 2.1 + i, 2.4 + i, epochs=20, **same)
    (one,) = [a for a in ablations(made_frames(tmp_path, runs=rows)) if a.group == group]
    (table,) = ablation_tables([one])
    assert table.name == f"ablation-{group.name}"
    assert len([row for row in table.data if row["factor"] != "combination"]) == sum(
        len(factor.levels) for factor in group.factors
    )
    with house_style():
        figure = draw_ablation(one)
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
    left, right = figure.axes
    names = [left.texts[0], *left.get_yticklabels(), left._left_title]  # type: ignore[attr-defined]
    boxes = [text.get_window_extent(renderer) for text in names]
    assert min(box.x0 for box in boxes) >= 0
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    beyond = left.get_window_extent(renderer).x1
    assert min(text.get_window_extent(renderer).x0 for text in right.get_yticklabels()) > beyond


def test_the_page_has_them_and_claims_do_not_count_them(varied: Frames, tmp_path: Path) -> None:
    page = render(varied, tmp_path).read_text()
    assert "Ablation: Clipping of latent weights" in page
    settings = {c.id for c in load_paper().claims if c.measure["kind"] == "setting-gap"}
    judged, plain = (judge_all(load_paper(), f) for f in (varied, varied.unlabelled()))
    assert [c for c in judged if c.id not in settings] == [c for c in plain if c.id not in settings]
    assert any(claim.ours is not None for claim in judged)
    table1 = (tmp_path / "tables" / "table1.md").read_text()
    assert "n = 3" in table1


def test_without_labelled_runs_there_is_no_section(frames: Frames) -> None:
    assert ablations(frames) == []
    assert ablations(frames.unlabelled()) == []
