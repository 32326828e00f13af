"""``bnn bench`` on tiny cases, in the process it starts, and ``bnn doctor``."""

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.errors import HarnessError
from harness.files import read_json

KEYS = {
    *("case", "group", "kernel", "device", "m", "n", "k", "baseline", "ops", "bytes"),
    *("status", "reason", "threads", "includes"),
}
FAULTS = ["wrong", "wrong-when-large", "tires", "raises", "absent"]


def run_bench(out: Path, case: str, *kernels: str, options: tuple[str, ...] = ()) -> Result:
    named = [part for kernel in kernels for part in ("--kernel", kernel)]
    arguments = ["bench", "--case", case, *named, "--seconds", "0.02", "--threads", "1"]
    return CliRunner().invoke(app, [*arguments, "--out", str(out), *options])


@pytest.fixture(scope="module")
def layer(
    faulty: list[str], machine: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Return the file of a product of 100 rows with sound and faulty kernels."""
    assert faulty == FAULTS
    out = tmp_path_factory.mktemp("bench")
    found = run_bench(out, "layer-100x10x65", "naive", "xnor-cpu", "vendor-bf16", *FAULTS)
    assert found.exit_code == 0, found.output
    path = out / machine / "layer-100x10x65.json"
    assert [p.relative_to(out) for p in out.rglob("*") if p.is_file()] == [path.relative_to(out)]
    document: dict[str, Any] = read_json(path)
    return document | {"output": found.output}


def rows_of(document: dict[str, Any], kernel: str) -> dict[str, dict[str, Any]]:
    rows = [b for b in document["benchmarks"] if b["extra_info"]["kernel"] == kernel]
    return {row["extra_info"]["includes"]: row for row in rows}


def test_sound_kernels_have_raw_samples(layer: dict[str, Any]) -> None:
    for kernel, includes in (
        ("naive", {"gemm"}),
        ("xnor-cpu", {"gemm", "pack+gemm", "gemm+bits"}),
        ("vendor-bf16", {"gemm", "pack+gemm"}),
    ):
        rows = rows_of(layer, kernel)
        assert set(rows) == includes
        for row in rows.values():
            info, stats = row["extra_info"], row["stats"]
            assert set(info) >= KEYS
            assert (info["status"], info["reason"], info["threads"]) == ("ok", None, 1)
            assert (info["m"], info["n"], info["k"]) == (100, 10, 65)
            assert info["ops"] == 2 * 100 * 10 * 65
            assert len(stats["data"]) == stats["rounds"] >= 3
            assert stats["median"] == statistics.median(stats["data"]) > 0
    assert rows_of(layer, "naive")["gemm"]["extra_info"]["baseline"]
    xnor = rows_of(layer, "xnor-cpu")["gemm"]["extra_info"]
    # Packed rows; two panels of eight weights in words; int32 dots.
    assert xnor["bytes"] == 100 * 2 * 8 + 2 * 8 * 2 * 8 + 100 * 10 * 4


@pytest.mark.parametrize(
    ("kernel", "status", "reason"),
    [
        (
            "wrong",
            "wrong",
            "1 of 640 sampled results differ from the reference; the first, [63, 0]",
        ),
        ("wrong-when-large", "wrong", "sampled results differ"),
        ("tires", "wrong", "640 of 640 sampled results differ"),
        ("raises", "failed", "MemoryError: no room for the product"),
        ("absent", "unavailable", "needs a device that this machine lacks"),
    ],
)
def test_a_faulty_kernel_is_a_row_without_a_time(
    layer: dict[str, Any], kernel: str, status: str, reason: str
) -> None:
    row = rows_of(layer, kernel)["gemm"]
    assert row["stats"] is None
    assert row["extra_info"]["status"] == status
    assert reason in row["extra_info"]["reason"]
    assert set(row["extra_info"]) >= KEYS
    assert f"{kernel}, gemm: {status}, " in layer["output"]


def test_the_file_knows_machine_commit_and_load(layer: dict[str, Any], machine: str) -> None:
    found = layer["machine_info"]
    assert found["name"] == machine
    assert set(found["provenance"]) == {"commit", "dirty", "versions", "machine"}
    assert len(found["state"]["load_1_5_15_min"]) == 3
    assert layer["commit_info"]["id"] == found["provenance"]["commit"]
    assert {row["fullname"] for row in layer["benchmarks"]} >= {"layer-100x10x65/xnor-cpu/gemm"}


@pytest.mark.usefixtures("faulty")
def test_a_network_and_no_time_at_all(nothing_below: Path, machine: str) -> None:
    found = run_bench(nothing_below, "mnist-mlp-2", "absent", "wrong", options=("--strict",))
    assert found.exit_code == 1
    document = read_json(nothing_below / machine / "mnist-mlp-2.json")
    assert [row["extra_info"]["status"] for row in document["benchmarks"]] == [
        "unavailable",
        "wrong",
    ]
    assert all(row["stats"] is None for row in document["benchmarks"])


def test_a_network_is_clocked_as_a_whole(nothing_below: Path, machine: str) -> None:
    found = run_bench(nothing_below, "mnist-mlp-3", "naive", "xnor-cpu", "vendor-int8")
    assert found.exit_code == 0, found.output
    document = read_json(nothing_below / machine / "mnist-mlp-3.json")
    rows = {row["extra_info"]["kernel"]: row for row in document["benchmarks"]}
    assert set(rows) == {"naive", "xnor-cpu", "vendor-int8"}
    assert {row["extra_info"]["includes"] for row in rows.values()} == {"network"}
    assert rows["naive"]["extra_info"]["first_layer"] == "float32"
    assert rows["xnor-cpu"]["extra_info"]["first_layer"] == "int8"
    assert all(row["stats"]["data"] for row in rows.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("case", ["square-8", "mnist-mlp-2"])
def test_a_gpu_s_kernel_without_a_gpu_is_a_row_that_says_so(
    nothing_below: Path, machine: str, case: str
) -> None:
    found = run_bench(nothing_below, case, "vendor-fp32", options=("--device", "cuda"))
    assert found.exit_code == 0, found.output
    (row,) = read_json(nothing_below / machine / f"{case}-cuda.json")["benchmarks"]
    assert row["extra_info"]["status"] == "unavailable"
    assert row["extra_info"]["reason"] == "torch finds no CUDA device"


@pytest.mark.parametrize(
    ("case", "kernel", "options", "message"),
    [
        (
            "square-8",
            "fast",
            (),
            "--kernel, --device: no kernel 'fast'; allowed: all, naive",
        ),
        ("square", "xnor-cpu", (), "unknown case 'square'; allowed: square-<size>"),
        (
            "square-8",
            "xnor-cpu",
            ("--seconds", "0"),
            "--seconds must be above 0 and finite, found 0",
        ),
        ("square-8", "xnor-cpu", ("--seconds", "nan"), "--seconds must be above 0"),
    ],
    ids=["kernel", "case", "seconds", "no-number"],
)
def test_bad_arguments_are_refused_before_anything_runs(
    nothing_below: Path, case: str, kernel: str, options: tuple[str, ...], message: str
) -> None:
    found = run_bench(nothing_below, case, kernel, options=options)
    assert isinstance(found.exception, HarnessError)
    assert str(found.exception).startswith(message)
    assert not nothing_below.exists()


def test_a_bench_that_cannot_start_leaves_no_file(
    nothing_below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_PLUGINS", "no_such_plugin")
    found = run_bench(nothing_below, "square-8", "xnor-cpu")
    assert isinstance(found.exception, HarnessError)
    assert "the bench of square-8 ended with status" in str(found.exception)
    assert not nothing_below.exists()


@pytest.mark.usefixtures("faulty")
def test_doctor_says_what_runs_and_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    found = CliRunner().invoke(app, ["doctor"])
    assert found.exit_code == 0, found.output
    rows = [line.split("│") for line in found.output.splitlines() if line.count("│") > 4]
    lines = {(row[1].strip(), row[2].strip()): "│".join(row[3:]) for row in rows}
    assert "yes" in lines["naive (baseline)", "cpu"]
    assert "yes" in lines["xnor-cpu", "cpu"]
    assert "one dot is off by two" in lines["wrong", "cpu"]
    assert all("no" in lines[name, "cpu"] for name in ("wrong", "raises", "absent"))
    below = found.output.splitlines()
    assert "not here, gives a wrong product of 32 x 32 x 128: wrong (cpu)" in below
    assert "not here, MemoryError: no room for the product: raises (cpu)" in below
    assert "not here, needs a device that this machine lacks: absent (cpu)" in below
