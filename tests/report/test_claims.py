"""Verdicts: the rule decides only where the evidence is what the claim needs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import HarnessError
from harness.report.claims import Judged, judge_all
from harness.report.collect import collect
from harness.report.frames import Frames, empty_frames, read_frames
from harness.report.paper import PAPER, load_paper

Maker = Callable[..., Any]
COUNTED = {c.id for c in load_paper().claims if c.measure["kind"] == "counted"}


def verdicts(results: Path) -> dict[str, Judged]:
    collect(results)
    return {claim.id: claim for claim in judge_all(load_paper(), read_frames(results))}


def test_every_claim_of_the_paper_gets_a_verdict(frames: Frames) -> None:
    judged = {c.id: (c.verdict, c.reason) for c in judge_all(load_paper(), frames)}
    assert set(judged) == {claim.id for claim in load_paper().claims}
    decided = {id for id, (verdict, _) in judged.items() if verdict != "not measured"}
    assert decided - COUNTED == {
        "kernel-independent", "first-layer-exact", "kernel-error", "product-over-baseline",
        "stochastic-costs",
    }  # fmt: skip
    assert judged["mnist-theano"] == (
        "not measured", "reduced only: MLP 3 × 256, 20 epochs",
    )  # fmt: skip
    assert judged["svhn-theano"][1].startswith("stand-in only")
    assert judged["cifar10-theano"] == ("not measured", "no run or bench of this claim")
    assert judged["stochastic-costs"] == (
        "partly", "holds on a reduced scale: MLP 3 × 256, 20 epochs",
    )  # fmt: skip
    assert judged["product-over-baseline"][0] == "better"


@pytest.mark.parametrize(
    ("scale", "verdict"), [(0.5, "reproduced"), (0.9, "not reproduced")], ids=["0.90 %", "1.58 %"]
)
def test_the_full_recipe_on_official_data_is_held_against_the_rule(
    tmp_path: Path, write_run: Maker, scale: float, verdict: str
) -> None:
    full_epochs = 1000
    write_run(tmp_path, epochs=full_epochs, scale=scale, reduce=False)
    claim = verdicts(tmp_path)["mnist-theano"]
    assert (claim.verdict, claim.source, claim.n) == (verdict, "official", 1)


def test_a_stand_in_is_never_held_against_the_paper(tmp_path: Path, write_run: Maker) -> None:
    write_run(tmp_path, source="standin", epochs=1000, scale=0.1, reduce=False)
    claim = verdicts(tmp_path)["mnist-theano"]
    assert (claim.verdict, claim.source) == ("not measured", "standin")


def test_mean_deviation_and_count_over_seeds(tmp_path: Path, write_run: Maker) -> None:
    for seed in range(3):
        write_run(tmp_path, seed=seed)
    frames_of = verdicts(tmp_path)["mnist-theano"]
    errors = read_frames(tmp_path).runs["test_error_pct"]
    assert frames_of.n == 3
    assert frames_of.ours == pytest.approx(errors.mean())
    assert frames_of.sd == pytest.approx(errors.std())


@pytest.mark.parametrize("claim", ["svhn-torch7", "mnist-ebp", "unique-filters", "xnor-reuse"])
def test_what_the_paper_leaves_open_is_said_with_the_verdict(claim: str) -> None:
    (found,) = (one for one in judge_all(load_paper(), empty_frames()) if one.id == claim)
    assert found.note.startswith("not certain: ")


def test_a_failed_run_leaves_a_note(tmp_path: Path, write_run: Maker) -> None:
    failure = {"epoch": 2, "reason": "loss is NaN"}
    write_run(tmp_path, status="failed", failure=failure, epochs=1)
    claim = verdicts(tmp_path)["mnist-theano"]
    assert claim.verdict == "not measured"
    assert claim.note == "bnn-det seed 0 failed (epoch 2: loss is NaN)"


def test_curves_of_running_runs_are_not_compared(tmp_path: Path, write_run: Maker) -> None:
    write_run(tmp_path, "cifar10", mode="float", epochs=6)
    write_run(tmp_path, "cifar10", mode="bnn-det", epochs=6, status="running")
    assert verdicts(tmp_path)["trains-slower"].verdict == "not measured"


def test_one_differing_image_is_a_bug(
    tmp_path: Path, write_run: Maker, write_packed: Maker
) -> None:
    write_packed(write_run(tmp_path), lost=1)
    claim = verdicts(tmp_path)["kernel-independent"]
    assert claim.verdict == "not reproduced"
    assert claim.ours == pytest.approx(99.99)


def test_packing_counts_in_the_ratio_where_it_was_timed(
    tmp_path: Path, write_bench: Maker, benchmark_entry: Maker
) -> None:
    info = {"m": 8192, "device": "cuda"}
    rows = [
        benchmark_entry("naive", 100, **info),
        benchmark_entry("xnor-cpu", 2, **info),
        benchmark_entry("xnor-cpu", 4, "pack+gemm", **info),
    ]
    write_bench(tmp_path, "square-8192", rows)
    claim = verdicts(tmp_path)["product-over-baseline"]
    assert (claim.ours, claim.verdict) == (pytest.approx(25.0), "reproduced")
    assert "packing included" in claim.note


def test_a_smaller_product_is_reduced(
    tmp_path: Path, write_bench: Maker, benchmark_entry: Maker
) -> None:
    rows = [benchmark_entry("naive", 100, m=2048), benchmark_entry("xnor-cpu", 1, m=2048)]
    write_bench(tmp_path, "square-2048", rows)
    claim = verdicts(tmp_path)["product-over-baseline"]
    assert (claim.verdict, claim.reason) == (
        "not measured", "reduced only: 2,048³ on a CPU; the paper: 8,192³ on a GPU",
    )  # fmt: skip


def test_rules_read_as_sentences() -> None:
    rules = {claim.id: claim.rule for claim in load_paper().claims}
    assert rules["mnist-theano"] == "0.96 ± 0.15 %"
    assert rules["nearly-as-accurate"] == "at most 2 points"
    assert rules["size-mnist-theano"] == "exactly 36,806,656 weights"


def test_the_papers_table_1() -> None:
    systems = {s.name: s.errors for group in load_paper().table1 for s in group.systems}
    assert systems["BNN (Theano)"] == {"mnist": 0.96, "svhn": 2.80, "cifar10": 11.40}
    assert systems["BNN (Torch7)"] == {"mnist": 1.40, "svhn": 2.53, "cifar10": 10.15}
    assert len([name for name, errors in systems.items() if errors]) == 10
    assert systems["EBP-P, the same tested with the means of its weights"] == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measure": {"kind": "guess"}}, "measure.kind 'guess' is not one of error,"),
        ({"measure": {"kind": "error"}}, r"takes the keys \['dataset', 'mode', 'recipe'\]"),
        ({"verdict": {"rule": "about", "bound": 1}}, "verdict.rule 'about' is not one of near"),
        ({"verdict": {"rule": "near", "why": "so"}}, r"'near' takes the keys \['better',"),
        ({"verdict": {"rule": "at-most", "bound": "1 %", "why": "so"}}, "bound must be a number"),
        ({"paper": None}, "rule 'near' needs a number of the paper's"),
        (
            {"verdict": {"rule": "near", "tolerance": 1, "better": "less", "why": "so"}},
            "verdict.better 'less' is not one of lower, higher",
        ),
        ({"needs": ["luck"]}, r"needs \['luck'\] \(allowed: official, full\)"),
        ({"verdict": {"rule": "none", "why": "so"}}, "rule none and measure none go together"),
        ({"reduced": "so"}, r"reduced 'so' \(allowed: partly\)"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_mistake_in_the_papers_file_is_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    values = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    values["claims"][0] |= change
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(HarnessError, match=message):
        load_paper(path)


def test_the_command_prints_every_claim_with_its_verdict(tmp_path: Path, write_run: Maker) -> None:
    write_run(tmp_path, source="standin")
    collect(tmp_path)
    found = CliRunner().invoke(app, ["claims", "--frames", str(tmp_path)])
    assert found.exit_code == 0, found.output
    text = " ".join(found.output.split())
    for claim in load_paper().claims:
        assert claim.id.split("-")[0] in text
        assert " ".join(claim.statement.split()[:3]) in text
    assert f"{len(load_paper().claims)} claims: {len(COUNTED)} reproduced, 0 better" in text
    assert "NOT MEASURED (stand-in only: generated data decide nothing)" in text


def test_the_command_shows_one_verdict_alone() -> None:
    found = CliRunner().invoke(app, ["claims", "--verdict", "reproduced"])
    assert found.exit_code == 0, found.output
    assert found.output.count("REPRODUCED") == len(COUNTED)
    assert "NOT MEASURED" not in found.output
    found = CliRunner().invoke(app, ["claims", "--verdict", "maybe"])
    assert found.exit_code != 0
    assert "not one of reproduced, better" in str(found.exception)
