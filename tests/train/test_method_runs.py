"""Runs of the methods of their own through every stage: kills, selection, export, agreement."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from train_children import run_cli, run_cli_and_die
from train_helpers import assert_same_results, command, read_metrics, read_run, train_here

from harness.data.dataset import load_dataset
from harness.data.preprocess import fit
from harness.deploy.evaluate import evaluate_run
from harness.deploy.export import export_run, rebuild
from harness.deploy.trained import TrainedRun
from harness.train.checkpoint import read_weights
from harness.train.evaluation import evaluate
from harness.train.inputs import resident
from harness.train.loop import Interrupted
from harness.train.steps import EagerSteps

Child = Callable[..., tuple[int, str]]
STAGED = {"network.hidden": [16], "epochs": 3, "method.real_epochs": 1}
RUNS: dict[str, dict[str, Any]] = {
    "ebp": {"recipe": "ebp", "network.hidden": [16], "epochs": 3},
    "bitwise": {"recipe": "bitwise", "method.zero_fraction": 0.2, **STAGED},
    "ternary": {"recipe": "ternary", **STAGED},
}
STEPS_PER_EPOCH = {"ebp": 660, "bitwise": 66, "ternary": 66}


@pytest.fixture(scope="module", params=RUNS)
def whole(
    request: pytest.FixtureRequest, data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Return a method's name and the folder of a run that nothing disturbed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param) / "run"
    train_here(folder, data_root, **RUNS[request.param])
    torch.set_num_threads(before)
    return request.param, folder


def test_a_method_s_run_goes_on_from_every_moment(
    whole: tuple[str, Path], data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within the first stage, at its last step, and within the second stage."""
    name, reference = whole
    step = EagerSteps.learn
    for count in (20, STEPS_PER_EPOCH[name] - 20, 30):
        left = [count]

        def stopping(self: EagerSteps, x: torch.Tensor, labels: torch.Tensor) -> Any:
            left[0] -= 1  # noqa: B023  used within this turn of the loop
            if left[0] == 0:  # noqa: B023
                signal.raise_signal(signal.SIGINT)
            return step(self, x, labels)

        with monkeypatch.context() as patch:
            patch.setattr(EagerSteps, "learn", stopping)
            with pytest.raises(Interrupted):
                train_here(tmp_path, data_root, **RUNS[name])
    train_here(tmp_path, data_root, **RUNS[name])
    assert_same_results(tmp_path, reference)


def test_a_killed_bitwise_run_resumes_in_its_second_stage(
    child: Child, data_root: Path, tmp_path: Path
) -> None:
    settings = RUNS["bitwise"]
    train_here(tmp_path / "whole", data_root, **settings)
    arguments = command(tmp_path / "run", data_root, every=0, **settings)
    count = STEPS_PER_EPOCH["bitwise"] + 25
    code, _ = child(run_cli_and_die, arguments, "step", count, signal.SIGKILL)
    assert code == -signal.SIGKILL
    code, output = child(run_cli, command(tmp_path / "run", data_root, every=1e9, **settings))
    assert code == 0, output
    assert "resuming at epoch 2" in output
    assert_same_results(tmp_path / "run", tmp_path / "whole")


def test_the_record_of_a_method_s_run(whole: tuple[str, Path]) -> None:
    name, folder = whole
    run, lines = read_run(folder), read_metrics(folder)
    assert (run["status"], run["resolved"]["method"]["kind"]) == ("done", name)
    assert run["test_error_pct"] < 85, "it learns something"
    if name == "ebp":
        assert {line["lr"] for line in lines} == {None}
        assert run["other_weights"] == "mean"
        best = min(line["other_valid_error_pct"] for line in lines)
        assert run["other_valid_error_pct"] == best
        chosen = lines[run["other_best_epoch"] - 1]
        assert run["other_test_error_pct"] == chosen["other_test_error_pct"]
        assert lines[1]["flip_pct"] > 0
        return
    assert [line["best"] for line in lines[:1]] == [False], "a real network is not the result"
    assert lines[0]["test_error_pct"] is None
    assert run["best_epoch"] >= 2
    assert [line["flip_pct"] is None for line in lines] == [True, True, False]
    assert (run["other_weights"], run["other_test_error_pct"]) == ("", None)


def test_export_packs_binary_results_and_says_why_not(
    whole: tuple[str, Path], data_root: Path
) -> None:
    name, folder = whole
    record = export_run(folder)
    found = evaluate_run(TrainedRun(folder, data_root), ["naive"])[0]
    if name == "ebp":
        assert record["status"] == found["status"] == "done"
        assert found["agree"] == found["images"]
        assert found["test_error_pct"] == read_run(folder)["test_error_pct"]
        return
    values = {"bitwise": "-1, 0 and +1", "ternary": "-D, 0 and +D"}[name]
    assert (record["status"], found["status"]) == ("skipped", "skipped")
    assert f"method '{name}': its weights are {values}" in record["reason"]
    stored = read_weights(folder / "best.safetensors")[1]["blocks.0.layer.weight"]
    assert len(stored.abs().unique()) == 2
    assert 0 in stored


def test_bitwise_without_zeros_packs(data_root: Path, tmp_path: Path) -> None:
    train_here(tmp_path, data_root, **{**RUNS["bitwise"], "method.zero_fraction": 0.0})
    assert export_run(tmp_path)["status"] == "done"
    found = evaluate_run(TrainedRun(tmp_path, data_root), ["naive"])[0]
    assert found["agree"] == found["images"]


def test_stochastic_binaryconnect_is_tested_with_real_weights_and_with_their_signs(
    data_root: Path, tmp_path: Path
) -> None:
    settings = {"network.hidden": [16], "epochs": 1, "schedule.start": 0.01}
    train_here(tmp_path, data_root, recipe="binaryconnect", mode="bc-stoch", **settings)
    run = read_run(tmp_path)
    dataset = load_dataset("mnist", data_root)
    tensors = read_weights(tmp_path / "best.safetensors")[1]
    preprocessor = fit("scale", dataset.train.pixels)
    errors = {}
    for mode in ("bc-stoch", "bc-det"):  # bc-det tests with sign(w)
        network = rebuild({**run, "mode": mode}, tensors, (1, 28, 28))
        test = resident(dataset.test, preprocessor, network.integer_input, torch.device("cpu"))
        errors[mode] = evaluate(network, test)[1]
    assert run["other_weights"] == "sign"
    assert run["test_error_pct"] == errors["bc-stoch"]
    assert run["other_test_error_pct"] == errors["bc-det"]
    assert errors["bc-stoch"] != errors["bc-det"]


def test_deterministic_modes_have_no_other_weights(uninterrupted: Path) -> None:
    run = read_run(uninterrupted)
    assert (run["other_weights"], run["other_valid_error_pct"]) == ("", None)
    assert read_metrics(uninterrupted)[0]["other_valid_error_pct"] is None
