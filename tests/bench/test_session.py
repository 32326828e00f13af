"""One process for many cases: its files, and its death."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.bench import session
from harness.bench.correctness import KINDS, SHAPES, check_kernel
from harness.bench.positions import POSITIONS
from harness.bench.work import Entry, Work, read_work
from harness.errors import HarnessError
from harness.files import read_json
from harness.report.frames import read_frames
from kernels import registry
from tests.bench.small_preset import CASES, bench

DRIVER = f"""
import odd_kernels
from harness.bench import presets
from harness.cli import main

items = [presets.Item(case, ("naive", "slow"), 0.01) for case in {CASES}]
presets.PRESETS["cpu"] = presets.Preset("cpu", lambda: items)
main()
"""
PATIENCE_S = 240.0


def test_work_is_handed_over_as_it_is(tmp_path: Path) -> None:
    entry = Entry("square-8", ("naive",), 0.5, "a.json", (("naive", "gemm"),))
    whole = Entry("ceilings", ("naive",), 0.5, "b.json")
    work = Work("cpu", 2, (entry, whole), "c.json", ("naive",), 1.0, 9.0, 60.0, {"a": ("b", "c")})
    work.write(tmp_path / "work.json")
    assert read_work(tmp_path / "work.json") == work
    assert [(step.kernel, step.includes) for step in work.steps()] == [("naive", "gemm")]
    assert work.ceilings() == [1]


def test_many_cases_run_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    started, popen = [], subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        started.append(arguments)
        return popen(*arguments, **options)

    monkeypatch.setattr(session.subprocess, "Popen", start)
    found = bench(tmp_path, monkeypatch, ("naive", "xnor-cpu"))
    assert found.exit_code == 0, found.output
    assert len(started) == 1
    for at, case in enumerate(CASES, 1):
        assert f"{at}/3 {case}" in found.output
        document = read_json(tmp_path / "bench" / machine / f"{case}.json")
        assert [row["extra_info"]["kernel"] for row in document["benchmarks"]] == [
            *("naive", "xnor-cpu", "xnor-cpu", "xnor-cpu"),
        ]
        assert all(row["stats"]["data"] for row in document["benchmarks"])
        assert set(document["machine_info"]) >= {"state", "state_after"}


@pytest.mark.usefixtures("odd")
def test_a_kill_keeps_the_finished_cases_and_the_same_command_goes_on(
    tmp_path: Path, machine: str
) -> None:
    driver, out = tmp_path / "driver.py", tmp_path / "out"
    driver.write_text(DRIVER)
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join([os.environ["PYTHONPATH"], root])
    environment = os.environ | {"PYTHONPATH": paths, "BNN_TEST_SLOW": "1"}
    command = [sys.executable, str(driver), "bench", "--preset", "cpu", "--out", str(out)]
    folder = out / "bench" / machine
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("layer-9x4x65: slow"):
                break
        children = psutil.Process(process.pid).children()
        os.kill(process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert not alive, "the process that benched stops with the one that waited"
    assert {path.name for path in folder.iterdir()} == {"correctness.json", "layer-5x4x65.json"}
    first = (folder / "layer-5x4x65.json").read_bytes()
    del environment["BNN_TEST_SLOW"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "layer-9x4x65: slow, gemm" in done.stderr
    assert "layer-5x4x65" not in done.stderr
    assert (folder / "layer-5x4x65.json").read_bytes() == first
    kernels = read_frames(out).kernels
    assert set(kernels["case"]) == set(CASES)
    assert set(kernels["status"]) == {"ok"}


def test_a_spent_budget_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(session, "_run")
    entries = [Entry("ceilings", ("naive",), 0.1, str(tmp_path / "a.json"))]
    entries += [Entry("square-8", ("naive", "xnor-cpu"), 0.1, str(tmp_path / "b.json"))]
    excluded = {"naive": ("wrong", "before any clock: off by two")}
    excluded["copy"] = "failed", "brought the device down"
    work = Work("cpu", 1, tuple(entries), deadline=time.monotonic(), total_s=60.0)
    seen: list[Path] = []
    left_out = replace(work, excluded=excluded)
    assert session.run_work(left_out, lambda event, path: seen.append(path)) == {}
    assert [str(path) for path in seen] == [entry.path for entry in entries]
    rows = [row["extra_info"] for path in seen for row in read_json(path)["benchmarks"]]
    assert [(row["kernel"], row["includes"], row["status"]) for row in rows] == [
        ("copy", "ceiling", "failed"),
        ("fp32-product", "ceiling", "skipped"),
        ("xor+popcount", "ceiling", "skipped"),
        ("popcount", "ceiling", "skipped"),
        ("naive", "gemm", "wrong"),
        ("xnor-cpu", "gemm", "skipped"),
        ("xnor-cpu", "pack+gemm", "skipped"),
        ("xnor-cpu", "gemm+bits", "skipped"),
    ]
    assert [row["over_budget"] for row in rows] == [
        False,
        True,
        True,
        True,
        False,
        True,
        True,
        True,
    ]
    assert all(row["stats"] is None for path in seen for row in read_json(path)["benchmarks"])


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    entry = Entry("square-8", ("naive",), 0.01, str(tmp_path / "file" / "a.json"))
    with pytest.raises(HarnessError) as raised:
        session.run_work(Work("cpu", 1, (entry,)), lambda event, path: None)
    assert str(raised.value).startswith(f"cannot write {entry.path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("odd")
def test_a_wrong_kernel_is_found_first_and_gets_no_time_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    """Its cases here are right by chance of their rows: only the checks tell."""
    cases = "layer-8x4x65", "square-6"
    found = bench(tmp_path, monkeypatch, ("naive", "shifted"), "--strict", cases=cases)
    assert found.exit_code == 1, found.output
    assert "shifted: wrong, random operands of 129 x 257 x 65" in found.output
    frames = read_frames(tmp_path)
    verdicts = frames.correctness.set_index("kernel")
    assert verdicts.loc["naive", "status"] == "ok"
    assert verdicts.loc["naive", "products"] == len(SHAPES) * len(KINDS) + 1
    assert verdicts.loc["naive", "positions"] == POSITIONS
    assert verdicts.loc["shifted", "status"] == "wrong"
    rows = frames.kernels[frames.kernels["kernel"] == "shifted"]
    assert set(rows["case"]) == {"layer-8x4x65", "square-6"}
    assert set(rows["status"]) == {"wrong"}
    assert rows["median_ms"].isna().all()
    assert set(frames.kernels.query("kernel == 'naive'")["status"]) == {"ok"}


@pytest.mark.usefixtures("faulty")
def test_every_fault_has_its_verdict() -> None:
    found = {name: check_kernel(registry.get(name)) for name in ("wrong", "raises", "absent")}
    assert [verdict.status for verdict in found.values()] == ["wrong", "failed", "unavailable"]
    assert found["raises"].reason == "MemoryError: no room for the product"
    assert found["absent"].reason == "needs a device that this machine lacks"
    for name in registry.names_on("cpu"):
        if registry.get(name).why_not() is None and name in ("naive", "xnor-cpu", "vendor-bf16"):
            assert check_kernel(registry.get(name)).status == "ok", name


BLOCKED = """
import sys
from importlib.abc import MetaPathFinder


class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"mlflow", "snakemake", "uv", "seaborn", "jinja2"}:
            raise ImportError(f"{name} is not needed here")


sys.meta_path.insert(0, Blocked())
import harness.bench.plugin, harness.bench.suite, harness.bench.whole, harness.report.collect
from harness.cli import main
main()
"""


def test_a_bench_needs_no_tracking_workflow_or_download(tmp_path: Path) -> None:
    script = tmp_path / "blocked.py"
    script.write_text(BLOCKED)
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, str(script), "bench", "--preset", "gpu", "--plan"]
    began = time.monotonic()
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "foreseen: " in done.stdout
    assert time.monotonic() - began < PATIENCE_S
