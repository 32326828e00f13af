"""What the workflow refuses before any job starts, and the digest that makes jobs run again."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from workflow_helpers import Snakemake, command, environment, small_preset, write_preset

from harness.preset import jobs_of, load_preset
from workflows import digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernles": []}, "('kernles' was unexpected); allowed: name, source, runs"),
        ({"source": "internet"}, "source: 'internet' is not one of ["),
        ({"kernels": ["../xnor"]}, "not fit for a file name"),
    ],
    ids=["unknown key", "unknown source", "path as a kernel"],
)
def test_a_bad_preset_is_refused(
    tmp_path: Path, snakemake: Snakemake, changes: dict[str, object], message: str
) -> None:
    preset = write_preset(tmp_path, {**small_preset("bad", epochs=1), **changes})
    found = snakemake(tmp_path, preset, "--dry-run")
    assert found.returncode == 1
    assert message in found.stdout
    assert not (tmp_path / "results").exists()


def test_an_unknown_preset_lists_those_there_are(tmp_path: Path, snakemake: Snakemake) -> None:
    found = snakemake(tmp_path, "fast", "--dry-run")
    assert found.returncode == 1
    assert "unknown preset 'fast'; presets:" in found.stdout
    assert "quick" in found.stdout


def test_a_bad_value_of_the_config_is_one_line(tmp_path: Path, snakemake: Snakemake) -> None:
    for given, message in (
        ("presett=quick", "--config: Additional properties are not allowed ('presett' was"),
        ("device=tpu", "--config device: 'tpu' is not one of ['auto', 'cpu', 'cuda']"),
    ):
        words = [*command(tmp_path, "quick", "--dry-run"), given]
        found = subprocess.run(words, env=environment(), capture_output=True, text=True)
        printed = found.stdout + found.stderr
        assert found.returncode == 1
        assert message in printed
        assert "$schema" not in printed


def test_real_data_without_their_folder_is_refused(tmp_path: Path, snakemake: Snakemake) -> None:
    found = snakemake(tmp_path, "cpu", "--dry-run")
    assert found.returncode == 1
    assert "--config data=FOLDER" in found.stdout


def test_the_preset_of_a_gpu_has_a_plan_here_too(tmp_path: Path) -> None:
    words = [*command(tmp_path, "gpu", "--dry-run"), f"data={tmp_path}"]
    found = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    trained = re.search(r"^train_run +(\d+)$", found.stdout + found.stderr, flags=re.MULTILINE)
    assert trained
    assert int(trained[1]) == len(jobs_of(load_preset("gpu")))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Lay out a project of three modules, one of which nothing imports."""
    files = {
        "harness/train/run.py": "from harness.nn import loss\n",
        "harness/nn/__init__.py": "",
        "harness/nn/loss.py": "VALUE = 1\n",
        "harness/report.py": "import harness.nn.loss\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(digest, "ROOT", tmp_path)
    _forget()
    yield tmp_path
    _forget()


def _forget() -> None:
    digest.code_digest.cache_clear()
    digest._imports.cache_clear()


@pytest.mark.parametrize(
    ("edited", "runs_again"), [("harness/nn/loss.py", True), ("harness/report.py", False)]
)
def test_editing_a_module_changes_the_digest_of_what_imports_it(
    project: Path, edited: str, runs_again: bool
) -> None:
    before = digest.code_digest("harness.train.run")
    (project / edited).write_text("VALUE = 2\n")
    _forget()
    assert (digest.code_digest("harness.train.run") != before) == runs_again


def test_editing_a_cuda_source_changes_the_digest_of_the_module_beside_it(project: Path) -> None:
    before = [digest.code_digest(name) for name in ("harness.nn.loss", "harness.report")]
    (project / "harness" / "nn" / "loss.cu").write_text("__global__ void loss() {}\n")
    _forget()
    after = [digest.code_digest(name) for name in ("harness.nn.loss", "harness.report")]
    assert before[0] != after[0]
    assert before[1] != after[1], "it imports the first"
    (project / "harness" / "apart").mkdir()
    (project / "harness" / "apart" / "other.cu").write_text("__global__ void other() {}\n")
    _forget()
    assert digest.code_digest("harness.nn.loss") == after[0]


def test_a_module_that_is_not_there_is_refused(project: Path) -> None:
    with pytest.raises(ValueError, match=r"'harness\.trian' is no module"):
        digest.code_digest("harness.trian")


def test_on_a_machine_with_a_gpu_its_kernels_are_benched_too(tmp_path: Path) -> None:
    """The plan alone. The machine's name is the GPU's, as in the files that bnn bench writes."""
    (tmp_path / "sitecustomize.py").write_text(
        "from harness import provenance\nprovenance.gpu_name = lambda: 'NVIDIA H200'\n"
    )
    words = [*command(tmp_path, "quick", "--dry-run", "--quiet", "progress"), "device=cpu"]
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    planned = {**environment(), "PYTHONPATH": path}
    found = subprocess.run(words, env=planned, capture_output=True, text=True, timeout=300)
    printed = found.stdout + found.stderr
    assert found.returncode == 0, printed
    files = {Path(line.split()[-1]).name for line in printed.splitlines()
             if line.strip().startswith("output:") and "/bench/nvidia-h200/" in line}  # fmt: skip
    cases = load_preset("quick")["bench"]["cases"]
    assert files == {f"{case}{place}.json" for case in cases for place in ("", "-cuda")}
