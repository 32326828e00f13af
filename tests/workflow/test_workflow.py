"""The whole chain through Snakemake: what it leaves, what a second run does, kills, holes."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from workflow_helpers import Snakemake, command, environment, small_preset, write_preset

pytestmark = pytest.mark.slow
BINARY = "mnist/theano-bnn-det/seed0"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_chain_ends_with_a_report(finished: Path) -> None:
    out = finished / "results" / "small"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "stand-in" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert (out / "tables" / "table1.tex").stat().st_size > 0
    assert (out / "figures" / "figure3.png").stat().st_size > 0
    model = out / "runs" / BINARY / "model.bnn"
    assert model.stat().st_size > 0


def test_every_kernel_predicts_what_the_training_network_predicts(finished: Path) -> None:
    found = rows(finished / "results" / "small" / "evaluations.csv")
    done = [row for row in found if row["status"] == "done"]
    assert {row["kernel"] for row in done} == {"xnor-cpu", "vendor-fp32"}
    assert all(float(row["agree"]) == float(row["images"]) == 2000 for row in done)


def test_a_run_that_diverges_is_a_hole_and_the_others_go_on(finished: Path) -> None:
    found = {row["seed"]: row for row in rows(finished / "results" / "small" / "runs.csv")
             if row["mode"] == "float"}  # fmt: skip
    assert found["1"]["status"] == "failed"
    assert found["1"]["failure"].startswith("epoch 1: ")
    assert found["1"]["test_error_pct"] == ""
    assert found["0"]["status"] == "done"


def test_a_second_run_does_nothing(finished: Path, snakemake: Snakemake) -> None:
    found = snakemake(finished, finished / "small.yaml")
    assert found.returncode == 0
    assert "Nothing to be done" in found.stdout


def test_lost_figures_are_drawn_again_and_nothing_else(
    finished: Path, tmp_path: Path, snakemake: Snakemake
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    shutil.rmtree(copy / "results" / "small" / "figures")
    found = snakemake(copy, copy / "small.yaml", "figures")
    assert found.returncode == 0, found.stdout
    ran = re.findall(r"^(?:local)?rule (\w+):", found.stdout, flags=re.MULTILINE)
    assert set(ran) == {"render", "figures"}
    assert (copy / "results" / "small" / "figures" / "figure3.svg").exists()


def test_a_sync_that_failed_is_taken_up_by_the_next_call(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)

    def run(track: str) -> str:
        words = command(folder, finished / "small.yaml")
        words = [f"track={track}" if word.startswith("track=") else word for word in words]
        found = subprocess.run(
            words, env=environment(), capture_output=True, text=True, timeout=300
        )
        printed = found.stdout + found.stderr
        assert found.returncode == 0, printed
        return printed

    printed = run("http://127.0.0.1:9")
    assert "cannot sync" in printed and "bnn track sync --uri http://127.0.0.1:9" in printed
    assert "rule tracked:" in run("http://127.0.0.1:9"), "it is not done yet"
    database = f"sqlite:///{folder / 'mlflow.db'}"
    assert "rule tracked:" in run(database)
    assert (folder / "mlflow.db").stat().st_size > 0
    assert "Nothing to be done" in run(database)


def test_a_changed_setting_trains_its_run_again_and_no_other(
    finished: Path, tmp_path: Path, snakemake: Snakemake
) -> None:
    values = small_preset("small", epochs=3)
    values["runs"][0]["modes"] = ["float"]
    changed = {**values["runs"][0]["set"], "epochs": 4}
    values["runs"].append({**values["runs"][0], "modes": ["bnn-det"], "set": changed})
    preset = write_preset(tmp_path, values)
    found = snakemake(finished, preset, "train", "--dry-run")
    assert found.returncode == 0, found.stdout
    trained = [line for line in found.stdout.splitlines() if "run=" in line]
    assert trained == ["    wildcards: dataset=mnist, run=theano-bnn-det, seed=0"]


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the workflow did not get that far"
        time.sleep(0.05)


def _epochs(runs: Path) -> int:
    lines = 0
    for path in runs.glob("*/*/seed*/metrics.jsonl"):
        lines += len(path.read_text(encoding="utf-8").splitlines())
    return lines


def test_a_killed_workflow_goes_on_to_the_same_weights(
    finished: Path, tmp_path: Path, snakemake: Snakemake
) -> None:
    preset = write_preset(tmp_path, small_preset("small", epochs=3))
    shutil.copytree(finished / "results" / "standin", tmp_path / "results" / "standin")
    runs = tmp_path / "results" / "small" / "runs"
    process = subprocess.Popen(
        command(tmp_path, preset, "--quiet", "all"), env=environment(), start_new_session=True
    )
    try:
        _wait(lambda: _epochs(runs) >= 1, 120)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    found = snakemake(tmp_path, preset, "train")
    assert found.returncode == 0, found.stdout
    for name in ("best.safetensors", "metrics.jsonl"):
        ours, theirs = (root / BINARY / name for root in (runs, _runs(finished)))
        if name.endswith("jsonl"):
            assert _without_times(ours) == _without_times(theirs)
        else:
            assert ours.read_bytes() == theirs.read_bytes()


def _runs(folder: Path) -> Path:
    return folder / "results" / "small" / "runs"


def _without_times(path: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in x.items() if k not in ("seconds", "images_per_s")} for x in lines]
