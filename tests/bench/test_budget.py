"""The budget of a bench: what fits is foreseen, by counts and then by what was clocked."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.bench import presets
from harness.bench.budget import CALLS, CALLS_A_STEP, RATES, START_S, STEP_S, Budget
from harness.bench.cases import get_case
from harness.bench.estimate import foresee
from harness.bench.gate import NoTimeError
from harness.bench.measure import copies_in, measure
from harness.bench.presets import Item, Preset, preset_settings
from harness.bench.problems import build
from harness.bench.work import Work
from harness.cli import app
from harness.files import read_json
from harness.report.frames import read_frames
from kernels import registry


class Clock:
    """Seconds that go on when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_fits_is_foreseen_by_counts_then_by_the_largest_clocked_case() -> None:
    clock = Clock()
    budget = Budget(110.0, 60.0, clock)
    ops = int(1e12 * RATES["naive", "cuda"])  # a second a call
    assert budget.foreseen_s("naive", "cuda", ops) == pytest.approx(1.0, rel=1e-6)
    budget.check("naive", "cuda", ops)
    with pytest.raises(NoTimeError, match=r"31\.0 s, 10\.0 s are left of the budget of 1 minutes"):
        budget.check("naive", "cuda", 10 * ops)
    budget.saw("naive", "cuda", ops, 0.1)
    budget.saw("naive", "cuda", ops // 8, 0.09)  # a smaller case says less
    assert budget.foreseen_s("naive", "cuda", 10 * ops) == pytest.approx(1.0, rel=1e-6)
    budget.check("naive", "cuda", 10 * ops)
    clock.now = 110.0 - START_S["cuda"] - CALLS * 0.1 + 0.01
    with pytest.raises(NoTimeError) as found:
        budget.check("naive", "cuda", ops)
    assert (found.value.status, found.value.over_budget) == ("skipped", True)
    clock.now = 200.0
    assert (budget.left_s, budget.seconds(0.5)) == (0.0, 0.0)


def test_a_call_on_a_gpu_may_be_long_but_not_take_a_step_s_time() -> None:
    """A kernel that is only slow is left out, and not taken for one that hangs."""
    assert CALLS_A_STEP * Work("cuda", 1, ()).call_limit <= STEP_S["cuda"]
    assert Work("cuda", 1, (), limit=0.5).call_limit == 0.5
    assert Work("cpu", 1, ()).call_limit == math.inf


def test_without_a_budget_everything_fits() -> None:
    budget = Budget()
    budget.check("naive", "cpu", 10**20)
    assert (budget.left_s, budget.seconds(0.5)) == (math.inf, 0.5)


def test_a_call_that_is_clocked_too_long_has_no_time() -> None:
    """The counts let the kernel through; its first calls on a few rows tell otherwise."""
    clock = Clock()
    budget = Budget(101.0, 60.0, clock)
    kernel, problem = registry.get("naive"), build(get_case("layer-9x5x65"))
    product = kernel.product

    def takes_long(a: Any, w: Any) -> Any:
        clock.now += 0.6
        return product(a, w)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(kernel), "product", lambda self, a, w: takes_long(a, w))
        with pytest.raises(NoTimeError, match="0.0 s are left") as found:
            measure(problem, kernel, "gemm", None, 0.01, budget=budget)
    assert found.value.over_budget


def test_long_calls_wait_for_few_copies() -> None:
    assert [copies_in(0.1, call, 1 << 20) for call in (0.0, 1e-5, 0.02, 3.0)] == [64, 64, 5, 2]
    assert copies_in(0.1, 1e-5, 1 << 30) == 1


def test_the_gpu_preset_is_foreseen_to_fit_its_budget_with_room() -> None:
    rows = {(row.case, row.threads): row for row in foresee("gpu")}
    total = sum(row.seconds for row in rows.values())
    assert 120 < total < 0.8 * 60 * presets.PRESETS["gpu"].minutes
    first = ("start", "compiling ahead", "correctness")
    benched = [row for row in rows.values() if row.case not in first]
    assert [row.case for row in benched] == [case.name for case, _ in preset_settings("gpu")]
    naive = 2 * 8192**3 / (1e12 * RATES["naive", "cuda"])
    assert rows["square-8192", benched[-1].threads].clocked_s > 3 * naive
    places = {row.case: at for at, row in enumerate(benched)}
    order = ["ceilings", "square-8192", "mnist-mlp-4096", "square-4096", "conv-50x32x128x128"]
    order += ["layer-10000x4096x4096", "square-256", "square-16384"]
    assert [places[name] for name in order] == sorted(places[name] for name in order)


def test_the_plan_is_printed_without_a_gpu_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, ["bench", "--preset", "gpu", "--plan", "--minutes", "3"])
    assert found.exit_code == 0, found.output
    for heading in ("kernels", "benchmarks", "so far"):
        assert heading in found.output
    assert "not measured" in found.output
    assert "xnor-tensor-tma" in found.output
    assert "the budget is 180 s" in found.output
    assert not list(tmp_path.iterdir())
    found = CliRunner().invoke(app, ["bench", "--case", "square-8", "--out", "a", "--plan"])
    assert "--minutes, --plan and --fresh need --preset" in str(found.exception)
    found = CliRunner().invoke(app, ["bench", "--preset", "gpu", "--minutes", "0"])
    assert "--minutes must be above 0, found 0" in str(found.exception)


def test_what_no_longer_fits_is_a_row_and_comes_with_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    items = [Item("ceilings", ("naive",), 0.01)]
    items += [Item(case, ("naive", "xnor-cpu"), 0.01) for case in ("square-8", "layer-3x4x65")]
    monkeypatch.setitem(presets.PRESETS, "cpu", Preset("cpu", lambda: items))
    command = ["bench", "--preset", "cpu", "--out", str(tmp_path)]
    found = CliRunner().invoke(app, [*command, "--minutes", "0.0001"])
    assert found.exit_code == 0, found.output
    assert "correctness, before any clock" in found.output
    assert "left of the budget of 0.0001 minutes" in found.output
    assert "3/3 layer-3x4x65, threads: " in found.output
    assert "4 benchmarks left out; naive: foreseen to take" in found.output
    first = read_frames(tmp_path).kernels
    # Without AVX-512 there is no such ceiling.
    absent = {"popcount"} if "unavailable" in set(first["status"]) else set()
    assert set(first[~first["kernel"].isin(absent)]["status"]) == {"skipped"}
    assert set(first["case"]) == {"ceilings", "square-8", "layer-3x4x65"}
    assert set(first["includes"]) == {"ceiling", "gemm", "pack+gemm", "gemm+bits"}
    folder = tmp_path / "bench" / machine
    before = {path: path.read_bytes() for path in folder.glob("*.json")}
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    frames = read_frames(tmp_path)
    assert set(frames.kernels[~frames.kernels["kernel"].isin(absent)]["status"]) == {"ok"}
    assert len(frames.kernels) == len(first)
    assert {path.name for path in set(folder.glob("*.json")) - set(before)} == {
        "ceilings-part2.json", "square-8-part2.json", "layer-3x4x65-part2.json",
    }  # fmt: skip
    kept = {path: text for path, text in before.items() if "correctness" not in path.name}
    assert all(path.read_bytes() == text for path, text in kept.items())
    assert set(frames.correctness["status"]) == {"ok"}
    found = CliRunner().invoke(app, command)
    assert "square-8" not in found.output, "everything was there"


def test_rows_over_the_budget_know_it(tmp_path: Path) -> None:
    row = {"kernel": "naive", "group": "square", "includes": "gemm", "status": "skipped"}
    path = tmp_path / "bench" / "m" / "square-8.json"
    path.parent.mkdir(parents=True)
    rows = [{"extra_info": row | {"over_budget": True, "reason": "late"}, "stats": None}] * 2
    path.write_text(json.dumps({"benchmarks": rows}))
    from harness.report.collect import collect

    assert collect(tmp_path)["kernels"] == 1, "once, however often it was left out"
    assert read_json(path)["benchmarks"] == rows
