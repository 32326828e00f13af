"""Records to frames, holes included."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.report.collect import changes, collect, failure_text, network_name
from harness.report.evidence import select
from harness.report.frames import COLUMNS, Frames, read_frames
from harness.report.inspected import network_costs, numbers_of
from harness.spec import as_mapping, load_recipe


def test_collecting_twice_gives_the_same_bytes(full_results: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        collect(full_results, tmp_path / name)
    for frame in COLUMNS:
        first, second = (tmp_path / name / f"{frame}.csv" for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
        assert first.read_text().splitlines()[0] == ",".join(COLUMNS[frame])


def test_every_run_has_a_row_and_holes_say_why(frames: Frames) -> None:
    runs = frames.runs
    assert dict(runs["status"].value_counts()) == {
        "done": 18, "failed": 1, "missing": 1, "running": 1,
    }  # fmt: skip
    failed = runs[runs["status"] == "failed"].iloc[0]
    assert failed["failure"] == "epoch 6: the training loss is nan"
    running = runs[runs["status"] == "running"].iloc[0]
    assert running["failure"] == "reached epoch 12; still training, or killed"
    assert running[["valid_error_pct", "test_error_pct"]].isna().all()
    missing = runs[runs["status"] == "missing"].iloc[0]
    assert list(missing[["recipe", "mode", "seed"]]) == ["torch7-released", "bnn-stoch", 4]


def test_reduced_runs_say_what_was_changed(frames: Frames) -> None:
    changed = set(frames.runs[frames.runs["dataset"] == "mnist"]["changes"])
    assert "epochs=20; network.hidden=[256,256,256]" in changed


def test_an_evaluation_has_a_row_for_each_first_layer(frames: Frames) -> None:
    one = frames.evaluations[
        (frames.evaluations["mode"] == "bnn-stoch")
        & (frames.evaluations["recipe"] == "torch7")
        & (frames.evaluations["kernel"] == "xnor-cpu")
    ]
    assert sorted(one["first_layer"]) == ["bitplanes", "int8"]
    assert (one["agree"] == one["images"]).all()


def test_an_inspected_run_has_a_row_a_layer_and_one_of_its_predictions(frames: Frames) -> None:
    wanted = {"dataset": "svhn", "mode": "bnn-det"}
    layers = select(frames.layers, wanted)
    assert list(layers["kind"]) == ["conv"] * 6 + ["linear"] * 3
    assert set(layers["binary"]) == {True}
    first = layers.iloc[0]
    assert first["weights"] == 27 * 32
    assert [len(numbers_of(first[key])) for key in ("histogram", "patterns")] == [40, 3 * 32]
    assert (layers["patterns"].iloc[1:] == "").all()
    (row,) = select(frames.predictions, wanted).to_dict("records")
    assert sum(numbers_of(row["confusion"])) == row["images"] == sum(numbers_of(row["counts"]))
    assert row["network"] == "ConvNet(32)"


def test_runs_carry_operations_and_bits(frames: Frames) -> None:
    runs = select(frames.runs, {"dataset": "mnist", "recipe": "theano", "seed": 0})
    bnn, real = (select(runs, {"mode": mode}).iloc[0] for mode in ("bnn-det", "float"))
    weights = 784 * 256 + 2 * 256 * 256 + 2560
    assert bnn["macs"] == bnn["bit_macs"] == real["macs"] == weights
    assert real["bit_macs"] == 0
    assert bnn["weight_bits"] == weights + 32 * (3 * 256 + 2 * 10)
    assert real["weight_bits"] == 32 * (weights + 2 * (3 * 256 + 10))
    assert bnn["test_images"] == 10000


def test_a_run_of_an_unknown_recipe_has_no_costs() -> None:
    assert network_costs({"resolved": {"name": "later"}, "mode": "bnn-det"})["macs"] is None


def test_a_skipped_inspection_has_no_row(
    tmp_path: Path, write_run: Callable[..., Path], write_inspect: Callable[..., None]
) -> None:
    write_inspect(write_run(tmp_path, status="failed", failure={"epoch": 1, "reason": "NaN"}))
    counts = collect(tmp_path)
    assert (counts["layers"], counts["predictions"]) == (0, 0)


def test_times_are_quantiles_of_the_raw_samples(
    tmp_path: Path, write_bench: Callable[..., Path], benchmark_entry: Callable[..., Any]
) -> None:
    entry = benchmark_entry("xnor-cpu", 10.0, m=100, ops=2 * 10**6)
    write_bench(tmp_path, "square-100", [entry])
    collect(tmp_path)
    row = read_frames(tmp_path).kernels.iloc[0]
    assert row["median_ms"] == pytest.approx(10.0)
    assert row["p20_ms"] == pytest.approx(9.4)  # a fifth of the way from 9 and 9.5 to 13
    assert row["p80_ms"] == pytest.approx(11.4)
    assert row["tops"] == pytest.approx(2e6 / 10e-3 / 1e12)
    assert row["samples"] == 5


def test_what_was_checked_before_any_clock_is_a_frame(frames: Frames) -> None:
    assert list(frames.correctness["kernel"]) == ["naive", "xnor-tensor"]
    assert set(frames.correctness["machine"]) == {"gpu-box"}
    assert set(frames.correctness["positions"]) == {1152}
    assert "correctness" not in set(frames.kernels["case"])


def test_a_kernel_without_a_time_keeps_its_reason(frames: Frames) -> None:
    rows = frames.kernels[frames.kernels["status"] == "unavailable"]
    assert len(rows) == 4
    assert set(rows["reason"]) == {"the CPU has no VNNI"}
    assert rows["median_ms"].isna().all()


def test_an_ok_kernel_without_samples_is_refused(
    tmp_path: Path, write_bench: Callable[..., Path], benchmark_entry: Callable[..., Any]
) -> None:
    path = write_bench(tmp_path, "square-8", [benchmark_entry("xnor-cpu", 1.0) | {"stats": None}])
    with pytest.raises(HarnessError, match="'xnor-cpu' is ok but has no raw samples") as error:
        collect(tmp_path)
    assert str(path) in str(error.value)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="neither runs/ nor bench/"):
        collect(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", "{", "is not valid JSON"),
        ("run.json", "[]", "expected a JSON object, found list"),
        ("run.json", '{"preset": "x"}', "key 'status' is missing"),
        ("metrics.jsonl", '{"epoch": 1}\n{"ep\n', "line 2 is not JSON"),
        ("metrics.jsonl", "3\n", "no object with an epoch"),
        ("metrics.jsonl", '{"epoch": 1}\n{"epoch": 2}\n{"ep', r"holds 2 of \d+ epochs"),
        ("metrics.jsonl", "", r"holds 0 of \d+ epochs"),
    ],
)
def test_a_damaged_record_is_named(
    tmp_path: Path, write_run: Callable[..., Path], name: str, text: str, message: str
) -> None:
    folder = write_run(tmp_path)
    (folder / name).write_text(text)
    with pytest.raises(HarnessError, match=message) as error:
        collect(tmp_path)
    assert str(folder / name) in str(error.value)


def test_a_last_line_cut_short_by_a_kill_is_dropped(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    folder = write_run(tmp_path, epochs=4, status="running")
    with open(folder / "metrics.jsonl", "a") as handle:
        handle.write('{"epoch": 5, "lr"')
    assert collect(tmp_path)["epochs"] == 4


def test_frames_written_by_another_version_are_refused(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    write_run(tmp_path)
    collect(tmp_path)
    (tmp_path / "runs.csv").write_text("preset,dataset\nquick,mnist\n")
    with pytest.raises(HarnessError, match=r"lacks the column 'source'.*bnn collect"):
        read_frames(tmp_path)
    for name in ("runs", "kernels"):
        (tmp_path / f"{name}.csv").unlink()
    with pytest.raises(HarnessError, match="neither runs.csv nor kernels.csv"):
        read_frames(tmp_path)


def test_the_published_recipe_counts_as_unchanged() -> None:
    run = {"recipe": "torch7", "dataset": "svhn", "source": "official"}
    run |= {"resolved": as_mapping(load_recipe("torch7", "svhn")), "data": {"variant": "full"}}  # type: ignore[dict-item]
    assert changes(run) == ""
    assert changes(run | {"data": {"variant": "train-only"}}) == "data train-only"
    assert changes(run | {"recipe": "gone"}) == "recipe not in this version"


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ({"kind": "mlp", "hidden": [4096, 4096, 4096]}, "MLP 3 × 4096"),
        ({"kind": "mlp", "hidden": [300, 100]}, "MLP 300-100"),
        ({"kind": "convnet", "width": 128}, "ConvNet(128)"),
        ({}, ""),
    ],
)
def test_network_names(network: dict[str, Any], name: str) -> None:
    assert network_name(network) == name


def test_failure_text() -> None:
    assert failure_text({"status": "done", "failure": None}) == ""
    failure = json.loads('{"epoch": 3, "reason": "loss is NaN"}')
    assert failure_text({"status": "failed", "failure": failure}) == "epoch 3: loss is NaN"


def test_a_label_is_a_column_and_no_evidence_for_the_paper(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    results = tmp_path / "demo"
    write_run(results)
    write_run(results, label="no-clip", scale=3)
    (results / "runs" / "mnist" / "torch7-released+zca-off-bnn-stoch" / "seed2").mkdir(parents=True)
    collect(results)
    frames = read_frames(results)
    rows = {(r["recipe"], r["label"], r["mode"], int(r["seed"])) for _, r in frames.runs.iterrows()}
    assert rows == {
        ("theano", "", "bnn-det", 0),
        ("theano", "no-clip", "bnn-det", 0),
        ("torch7-released", "zca-off", "bnn-stoch", 2),
    }
    assert set(frames.epochs["label"]) == {"", "no-clip"}
    plain = frames.unlabelled()
    assert len(plain.runs) == 1 and set(plain.epochs["label"]) == {""}
