"""Tables as readers see them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from made_frames import EVALUATION, made_frames

from harness.report.collect import collect
from harness.report.frames import Frames, read_frames
from harness.report.paper import load_paper
from harness.report.table import Table
from harness.report.table1 import table1
from harness.report.tables import agreement_table, kernels_table, memory_table, number, runs_table


def test_table_1_sets_ours_beside_the_papers_with_labels(frames: Frames) -> None:
    rows = {row[0]: row[1:] for row in table1(load_paper(), frames).rows}
    mnist, svhn, cifar = (slice(i, i + 2) for i in (0, 2, 4))
    assert rows["BNN (Theano)"][mnist] == ("0.96", "1.86 ± 0.05 (n = 3; 1.73–1.98) [reduced]")
    assert rows["BNN (Theano)"][svhn] == ("2.80", "32.16 (n = 1; 31.25–33.08) [stand-in, reduced]")
    assert rows["BNN (Theano)"][cifar] == ("11.40", "[running]")
    assert rows["torch7 / bc-stoch"][mnist] == ("–", "[failed]")
    assert rows["Maxout (Goodfellow et al.)"][mnist] == ("0.94", "quoted only")


def test_table_1_has_a_row_for_each_way_to_test_a_run(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    for recipe, mode, other in (("ebp", "bnn-det", "mean"), ("binaryconnect", "bc-stoch", "sign")):
        path = write_run(tmp_path, recipe=recipe, mode=mode, reduce=False) / "run.json"
        run = json.loads(path.read_text())
        run |= {"other_weights": other, "other_test_error_pct": 2.25, "test_error_pct": 5.5}
        path.write_text(json.dumps(run))
    collect(tmp_path)
    rows = {row[0]: row[1:3] for row in table1(load_paper(), read_frames(tmp_path)).rows if row[1:]}
    own, other = "5.50 (n = 1; ", "2.25 (n = 1; "
    assert rows["EBP (Cheng et al., 2015)"][0] == "2.20 ± 0.1"
    assert rows["EBP (Cheng et al., 2015)"][1].startswith(own)
    assert rows["EBP-P, the same tested with the means of its weights"][0] == "–"
    assert rows["EBP-P, the same tested with the means of its weights"][1].startswith(other)
    assert rows["binaryconnect / bc-stoch"][1].startswith(own)
    assert rows["binaryconnect / bc-stoch, tested with sign weights"][1].startswith(other)


def test_table_1_says_in_notes_what_its_labels_mean(frames: Frames) -> None:
    notes = " ".join(table1(load_paper(), frames).notes)
    assert "generated look-alikes" in notes
    assert "mnist: MLP 3 × 256, 20 epochs" in notes
    assert "bc-stoch seed 0 failed (epoch 6: the training loss is nan)" in notes
    assert "EBP (Cheng et al., 2015), not certain: which network" in notes


def test_kernels_without_a_time_say_why(frames: Frames) -> None:
    rows = [row for row in kernels_table(frames).rows if len(row) > 1]
    assert {row[-1] for row in rows if row[3] == "–"} == {
        "unavailable: the CPU has no VNNI", "wrong: 3 of 100,000 outputs differ",
    }  # fmt: skip
    xnor = next(
        row
        for row in rows
        if row[:3] == ("square-2048", "xnor-cpu", "2") and row[8].startswith("gemm")
    )
    assert xnor[5:7] == ("225", "5.25")


def test_a_kernel_of_a_gpu_is_a_column_of_its_own(tmp_path: Path) -> None:
    rows = [{**EVALUATION, "device": device} for device in ("cpu", "cuda")]
    rows[1]["agree"] = 9999
    table = agreement_table(made_frames(tmp_path, evaluations=rows))
    assert table.header[-2:] == ("naive", "naive, cuda")
    assert table.rows[0][-2:] == ("10,000/10,000", "9,999/10,000")


def test_agreement_is_n_of_n_a_kernel(frames: Frames) -> None:
    table = agreement_table(frames)
    assert table.header[5:] == ("naive", "vendor-bf16", "vendor-fp32", "vendor-int8", "xnor-cpu")
    assert len(table.rows) == 10
    assert {cell for row in table.rows for cell in row[5:]} == {"10,000/10,000"}


def test_a_network_of_several_seeds_has_one_size(frames: Frames) -> None:
    assert memory_table(frames).rows == [
        ("mnist", "MLP 3 × 256", "1,000", "0.004", "0.000", "30.8")
    ]


def test_every_run_is_listed_with_its_state(frames: Frames) -> None:
    states = [row[-1] for row in runs_table(frames).rows]
    assert len(states) == 21
    assert "failed: epoch 6: the training loss is nan" in states


def test_three_forms_of_a_table(tmp_path: Path) -> None:
    table = Table(
        "t", "A title", ("Name", "50 %"), [("a group",), ("x_1 | y", "1 ± 2 [z]")], [{"a": 1}],
        "Words.", numeric=frozenset({1}),
    )  # fmt: skip
    table.write(tmp_path)
    markdown = (tmp_path / "t.md").read_text(encoding="utf-8").splitlines()
    assert markdown[2:] == [
        "| Name | 50 % |", "| --- | ---: |", "| *a group* |  |", "| x_1 \\| y | 1 ± 2 [z] |",
    ]  # fmt: skip
    latex = (tmp_path / "t.tex").read_text(encoding="utf-8")
    assert r"\begin{tabular}{lr}" in latex
    assert r"\multicolumn{2}{l}{\textit{a group}} \\" in latex
    assert r"x\_1 | y & 1 $\pm$ 2 {[}z{]} \\" in latex
    assert (tmp_path / "t.csv").read_text() == "a\n1\n"


def test_a_table_without_rows_says_so_and_keeps_its_header(tmp_path: Path) -> None:
    Table("t", "T", ("A", "B"), [], []).write(tmp_path)
    assert "| nothing measured yet |  |" in (tmp_path / "t.md").read_text(encoding="utf-8")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert list(csv.reader(lines)) == [["A", "B"]]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (0, "0"), (12345.6, "12,346"), (0.012345, "0.0123")],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text
