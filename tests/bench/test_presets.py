"""``bnn bench --preset``: its cases, resuming, and the gates before the clock."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from harness.bench import presets
from harness.bench.cases import get_case
from harness.bench.ceilings import ceilings
from harness.bench.estimate import CEILINGS
from harness.bench.gate import NoTimeError, check_available
from harness.bench.measure import measure
from harness.bench.positions import first_wrong_position
from harness.bench.presets import Item, Preset, preset_settings
from harness.bench.problems import build
from harness.bench.runner import Settings, case_file, missing
from harness.cli import app
from harness.errors import HarnessError
from harness.report.frames import read_frames
from kernels import registry
from kernels.cpu import vectors
from kernels.cpu.kernels import XnorCpu


class SkipsOne(XnorCpu):
    """Reads one position of K from its neighbour."""

    def activations(self, p: Any) -> Any:
        bits = p.words.clone()
        bits[:, 9] = (bits[:, 9] & ~1) | (bits[:, 9] >> 1 & 1)
        return type(p)(bits, p.k)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_every_case_of_a_preset_exists_and_none_shares_a_file(name: str, tmp_path: Path) -> None:
    found = list(preset_settings(name, 10.0))
    files = [case_file(tmp_path, case, settings) for case, settings in found]
    assert len(set(files)) == len(files) > 20
    assert found[0][0].name == "ceilings"
    assert {"square-8192", "mnist-mlp-4096"} <= {case.name for case, _ in found}


@pytest.mark.parametrize("fast", [False, True])
def test_large_squares_meet_int8_and_bf16_where_these_are_fast(
    monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    monkeypatch.setattr(vectors, "VNNI", fast)
    for case, settings in preset_settings("cpu"):
        if case.name in ("square-4096", "mnist-mlp-4096"):
            assert ({"vendor-bf16", "vendor-int8"} <= set(settings.kernels)) == fast


def test_a_plan_counts_the_ceilings_that_there_are() -> None:
    assert {device: len(ceilings(device)) for device in ("cpu", "cuda")} == CEILINGS


def test_an_unknown_preset_names_the_allowed() -> None:
    with pytest.raises(HarnessError, match="unknown preset 'tpu'; allowed: cpu, gpu"):
        list(preset_settings("tpu", 1.0))
    found = CliRunner().invoke(app, ["bench"])
    assert "give either --case or --preset" in str(found.exception)
    found = CliRunner().invoke(app, ["bench", "--case", "square-8"])
    assert "--case needs --out" in str(found.exception)


def test_the_preset_of_a_gpu_needs_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = CliRunner().invoke(app, ["bench", "--preset", "gpu", "--out", str(tmp_path / "out")])
    assert isinstance(found.exception, HarnessError)
    assert str(found.exception).startswith("--preset gpu: torch ")
    assert not (tmp_path / "out").exists()


def test_a_preset_benches_collects_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    items = [Item("ceilings", ("naive",), 0.01), Item("square-8", ("naive", "xnor-cpu"), 0.01)]
    monkeypatch.setitem(presets.PRESETS, "cpu", Preset("cpu", lambda: items))
    ceiling = tmp_path / "bench" / machine / "ceilings.json"
    ceiling.parent.mkdir(parents=True)
    row = {
        "group": "ceiling",
        "kernel": "copy",
        "case": "ceilings",
        "status": "ok",
        "device": "cpu",
    }
    stats = {"data": [0.5]}
    ceiling.write_text(json.dumps({"benchmarks": [{"extra_info": row, "stats": stats}]}))
    before = ceiling.read_bytes()
    found = CliRunner().invoke(app, ["bench", "--preset", "cpu", "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "1/1 square-8" in found.output
    assert ceiling.read_bytes() == before
    kernels = read_frames(tmp_path).kernels
    assert set(kernels["kernel"]) == {"copy", "naive", "xnor-cpu"}
    assert set(kernels["includes"]) == {"", "gemm", "pack+gemm", "gemm+bits"}


def test_kernels_of_the_command_line_join_those_of_the_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    items = [Item("square-8", ("naive", "xnor-cpu"), 0.01)]
    monkeypatch.setitem(presets.PRESETS, "cpu", Preset("cpu", lambda: items))
    words = ["bench", "--preset", "cpu", "--out", str(tmp_path)]
    for _ in range(2):  # without it first: a case that lacks it is benched again
        found = CliRunner().invoke(app, words)
        assert found.exit_code == 0, found.output
        words += ["--kernel", "vendor-fp32", "--kernel", "naive"]
    assert set(read_frames(tmp_path).kernels["kernel"]) == {"naive", "xnor-cpu", "vendor-fp32"}
    checks = json.loads((tmp_path / "bench" / machine / "correctness.json").read_text())
    checked = [row["kernel"] for row in checks["kernels"]]
    wanted = {"naive", "xnor-cpu", "vendor-fp32"}
    assert checked == [name for name in registry.names_on("cpu") if name in wanted]
    found = CliRunner().invoke(app, ["bench", "--preset", "cpu", "--kernel", "mine"])
    assert isinstance(found.exception, HarnessError)
    assert str(found.exception).startswith("--kernel: ")
    assert "mine" in str(found.exception) and "xnor-cpu" in str(found.exception)


def test_a_file_cut_short_or_without_a_kernel_is_benched_from_the_start(tmp_path: Path) -> None:
    case, settings = get_case("square-8"), Settings(("naive", "xnor-cpu"), "cpu", 1.0, 1)
    assert missing(tmp_path, case, settings) is None
    path = case_file(tmp_path, case, settings)
    path.parent.mkdir()
    for text in ('{"benchmarks": [', '{"benchmarks": []}'):
        path.write_text(text)
        assert missing(tmp_path, case, settings) is None
    rows = [{"extra_info": {"kernel": "naive", "group": "square", "includes": "gemm"}}]
    path.write_text(json.dumps({"benchmarks": rows}))
    assert missing(tmp_path, case, settings) is None
    rows.append({"extra_info": {"kernel": "xnor-cpu", "group": "square", "includes": "gemm"}})
    path.write_text(json.dumps({"benchmarks": rows}))
    assert missing(tmp_path, case, settings) == ()


def test_a_file_of_another_number_of_threads_is_benched_again(tmp_path: Path) -> None:
    case, settings = get_case("square-8"), Settings(("naive",), "cpu", 1.0, 2)
    path = case_file(tmp_path, case, settings)
    path.parent.mkdir()
    row = {"kernel": "naive", "group": "square", "includes": "gemm", "threads": 1}
    path.write_text(json.dumps({"benchmarks": [{"extra_info": row}]}))
    assert missing(tmp_path, case, settings) is None
    assert missing(tmp_path, case, replace(settings, threads=1)) == ()


@pytest.mark.parametrize("words", [["--threads", "1"], ["--seconds", "1"], ["--device", "cpu"]])
def test_what_a_preset_has_of_its_own_is_refused(words: list[str]) -> None:
    found = CliRunner().invoke(app, ["bench", "--preset", "cpu", *words])
    assert str(found.exception) == (
        "--seconds, --threads and --device need --case: a preset has its own"
    )


def test_what_was_over_the_budget_is_missing_until_another_part_has_it(tmp_path: Path) -> None:
    case, settings = get_case("square-8"), Settings(("naive", "xnor-cpu"), "cpu", 1.0, 1)
    sound = {"kernel": "xnor-cpu", "group": "square", "includes": "gemm"}
    over = {"kernel": "naive", "group": "square", "includes": "gemm", "over_budget": True}
    first, second = (case_file(tmp_path, case, settings, part) for part in (1, 2))
    assert second.name == "square-8-part2.json"
    first.parent.mkdir()
    first.write_text(json.dumps({"benchmarks": [{"extra_info": sound}, {"extra_info": over}]}))
    assert missing(tmp_path, case, settings) == (("naive", "gemm"),)
    second.write_text(json.dumps({"benchmarks": [{"extra_info": over}]}))
    assert missing(tmp_path, case, settings) == (("naive", "gemm"),)
    over["over_budget"] = False
    second.write_text(json.dumps({"benchmarks": [{"extra_info": over}]}))
    assert missing(tmp_path, case, settings) == ()


def test_a_bit_taken_from_elsewhere_is_found_at_its_position() -> None:
    assert first_wrong_position(registry.get("xnor-cpu")) is None
    problem = build(get_case("layer-3x5x65"))
    with pytest.raises(NoTimeError, match="one-hot bit at position 57[67] of K=1152") as red:
        check_available(SkipsOne(), problem)
    assert red.value.status == "wrong"


def test_a_call_foreseen_to_take_too_long_has_no_time() -> None:
    problem = build(get_case("square-256"))
    with pytest.raises(NoTimeError, match="foreseen to take 0 s a call, over 1e-09 s") as found:
        measure(problem, registry.get("naive"), "gemm", None, 0.01, 1e-9)
    assert found.value.status == "skipped"


def test_packed_output_is_compared_through_a_product() -> None:
    problem = build(get_case("layer-70x130x65"))
    subject = problem.subject(registry.get("xnor-cpu"), "gemm+bits")
    assert subject is not None
    assert problem.subject(registry.get("naive"), "gemm+bits") is None
    bits = subject.run(subject.prepare(problem.rows))
    assert torch.equal(subject.dots(bits), subject.expected)
    bits.words[0, 0] ^= 1
    assert not torch.equal(subject.dots(bits), subject.expected)
