"""What ``bnn run`` refuses before any run, and that it needs nothing but what training needs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from piece_helpers import DET, small_preset, words
from typer.testing import CliRunner

from harness import provenance
from harness.cli import app
from harness.errors import HarnessError
from harness.preset import PRESETS, jobs_of, load_preset
from harness.run.estimate import Estimate
from harness.run.setup import Setup, make_setup

BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = ["bnn", *sys.argv[1:]]
from harness.cli import main
main()
"""
ABSENT = ("mlflow", "snakemake", "pytest", "pytest_benchmark", "hypothesis", "sqlalchemy")


def refused(tmp_path: Path, data: Path, *more: str, without: str = "") -> str:
    """Return the message of a command that is refused; ``without`` an option and its value."""
    arguments = words(tmp_path, data)
    if without:
        at = arguments.index(without)
        del arguments[at : at + 2]
    found = CliRunner().invoke(app, [*arguments, *more])
    assert isinstance(found.exception, HarnessError), found.output
    assert not (tmp_path / "work" / "runs").exists()
    return str(found.exception)


def small_setup(tmp_path: Path, data: Path, device: str) -> Setup:
    """Return the setup of the small preset on a device that need not be there."""
    preset, out, work = small_preset(tmp_path), tmp_path / "out", tmp_path / "work"
    return make_setup(str(preset), data, out, work, (), torch.device(device))


def test_an_unknown_preset_lists_those_there_are(tmp_path: Path, data_root: Path) -> None:
    message = refused(tmp_path, data_root, "--preset", "fast")
    listed = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
    assert f"unknown preset 'fast'; presets: {listed}, or the path of a YAML file" in message


def test_a_preset_of_another_form_names_what_is_missing(tmp_path: Path, data_root: Path) -> None:
    path = tmp_path / "mine.yaml"
    start = "name: mine\nkernels: [naive]\n"
    path.write_text(start + "source: standin\nruns: [{dataset: mnist, recipe: theano, seeds: [0]}]")
    message = refused(tmp_path, data_root, "--preset", str(path))
    assert ".runs: key 'modes' is missing" in message
    path.write_text(start)
    assert "'source' is missing" in refused(tmp_path, data_root, "--preset", str(path))


def test_a_folder_without_the_data_says_how_to_get_them(tmp_path: Path) -> None:
    message = refused(tmp_path, tmp_path / "nowhere", "--preset", "gpu")
    assert str(tmp_path / "nowhere") in message
    assert "bnn data fetch" in message


def test_official_data_must_be_named(tmp_path: Path) -> None:
    message = refused(tmp_path, tmp_path, "--preset", "gpu", without="--data")
    assert "--data FOLDER" in message


@pytest.mark.parametrize("option", ["--out", "--work"])
def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, data_root: Path, option: str
) -> None:
    (tmp_path / "file").write_text("")
    message = refused(tmp_path, data_root, option, str(tmp_path / "file" / "below"))
    assert f"{option} {tmp_path / 'file' / 'below'} cannot be written: Not a directory" in message


def test_one_folder_for_both_is_refused(tmp_path: Path, data_root: Path) -> None:
    assert "give two folders" in refused(tmp_path, data_root, "--out", str(tmp_path / "work"))


def test_a_pattern_that_fits_no_run_lists_the_runs(tmp_path: Path, data_root: Path) -> None:
    message = refused(tmp_path, data_root, "--only", "cifar10/*")
    assert "--only 'cifar10/*' fits no run" in message
    assert DET in message


def test_an_unknown_kernel_lists_the_known(tmp_path: Path, data_root: Path) -> None:
    path = tmp_path / "mine.yaml"
    words(tmp_path, data_root)
    text = (tmp_path / "small.yaml").read_text()
    path.write_text(text.replace("vendor-fp32", "xnor-tpu"))
    assert "no kernel 'xnor-tpu'" in refused(tmp_path, data_root, "--preset", str(path))


@pytest.mark.slow
def test_the_whole_command_runs_where_only_training_is_installed(
    tmp_path: Path, data_root: Path
) -> None:
    script = BLOCKED.format(blocked=set(ABSENT))
    command = [sys.executable, "-c", script, *words(tmp_path, data_root, "--only", "*seed0")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "runs" / DET / "model.bnn").exists()
    assert "2 of 2 runs done" in done.stdout
    probe = [sys.executable, "-c", script.replace("from harness.cli", "import mlflow\nfrom a")]
    absent = subprocess.run(probe, capture_output=True, text=True)
    assert "No module named 'mlflow'" in absent.stderr


def test_on_a_gpu_its_kernels_evaluate_beside_the_presets(tmp_path: Path, data_root: Path) -> None:
    setup = small_setup(tmp_path, data_root, "cpu")
    estimate, (det, real, wild) = Estimate(setup), setup.jobs
    assert estimate.left([real]) is None
    estimate.learn(det, 10.0, 1)
    assert estimate.left([real, wild]) == pytest.approx(2 * 2 * 10.0)
    estimate.learn(real, 3.0, 1)
    assert estimate.left([wild]) == pytest.approx(2 * 3.0), "the same mode counts alone"
    assert estimate.left([]) == 0


def test_the_gpu_preset_is_full_and_begins_with_the_papers_numbers() -> None:
    jobs = jobs_of(load_preset("gpu"))
    runs = [(j.dataset, j.recipe, j.mode, j.seed) for j in jobs.values()]
    assert runs[:2] == [("mnist", "theano", "bnn-det", 0), ("mnist", "torch7", "bnn-stoch", 0)]
    wanted = {("mnist", "theano", "bnn-det", seed) for seed in range(3)}
    wanted |= {("mnist", "torch7", "bnn-stoch", seed) for seed in range(3)}
    wanted |= {("mnist", "theano", mode, 0) for mode in ("float", "bc-det", "bc-stoch")}
    wanted |= {("cifar10", "theano", mode, 0) for mode in ("bnn-det", "bc-det", "float")}
    wanted |= {("cifar10", "torch7", "bnn-stoch", 0)}
    assert wanted <= set(runs)
    assert {j.settings for j in jobs.values()} == {(("precision", "fast"),)}, "else as published"


def test_a_copy_without_its_checkout_is_told_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_git", lambda *_: None)
    monkeypatch.delenv("BNN_COMMIT", raising=False)
    assert provenance.commit() == (None, None)
    monkeypatch.setenv("BNN_COMMIT", "c0ffee")
    assert provenance.commit() == ("c0ffee", None), "whether it differs is not known"
    monkeypatch.setattr(provenance, "_git", lambda *_: "of another commit")
    assert provenance.commit() == ("c0ffee", None)
