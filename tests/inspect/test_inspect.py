"""Facts of weights and scores, worked out by hand, and the record of a trained run."""

import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from harness.cli import app
from harness.data.standin import write_standin
from harness.deploy.trained import TrainedRun
from harness.errors import HarnessError
from harness.files import read_json, write_json
from harness.inspect.outputs import calibration, confusion
from harness.inspect.run import inspect_run
from harness.inspect.weights import filter_codes, filter_counts, layer_facts
from harness.nn.layers import Conv3x3, Linear
from harness.spec import get_mode, load_recipe
from harness.train.record import RunSpec
from harness.train.run import run_training

SMALL = {
    "mnist": {"network.hidden": [16], "epochs": 1, "network.input_dropout": 0.0},
    "cifar10": {"network.width": 4, "network.fc": 8, "epochs": 1},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in SMALL:
        write_standin(name, root)
    return root


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    made: dict[tuple[str, str, str], Path] = {}

    def train(dataset: str, mode: str, recipe: str = "theano", **settings: Any) -> Path:
        if (dataset, mode, recipe) not in made:
            folder = tmp_path_factory.mktemp(f"{dataset}-{mode}")
            used = load_recipe(recipe, dataset, {**SMALL[dataset], **settings})
            spec = RunSpec(used, get_mode(mode), 0, "test", folder)
            run_training(spec, data, torch.device("cpu"), 60.0)
            made[dataset, mode, recipe] = folder
        return made[dataset, mode, recipe]

    return train


def filters(*rows: list[str]) -> Tensor:
    """Return [N, C, 3, 3] of filters written as nine signs."""
    value = {"+": 0.25, "-": -0.5}
    return torch.tensor([[[value[s] for s in f] for f in row] for row in rows]).reshape(
        len(rows), -1, 3, 3
    )


def test_a_filters_code_has_a_bit_for_each_positive_tap_in_reading_order() -> None:
    codes = filter_codes(filters(["+--------", "--------+"], ["+++++++++", "---------"]))
    assert codes.tolist() == [[1, 256], [511, 0]]


def test_zero_counts_as_positive_as_in_training() -> None:
    assert filter_codes(torch.zeros(1, 1, 3, 3)).tolist() == [[511]]


def test_filters_alike_are_counted_in_a_layer_and_an_input_map_with_and_without_sign() -> None:
    one, inverse, other = "+--+--+--", "-++-++-++", "+++++++++"
    codes = filter_codes(filters([one, one], [inverse, one], [one, other]))
    assert filter_counts(codes) == {
        "total": 6,
        "distinct": 3,  # one, inverse, other
        "distinct_up_to_sign": 2,
        "per_input": 4,  # first map: one, inverse; second: one, other
        "per_input_up_to_sign": 3,
    }


def test_all_512_filters_make_256_pairs() -> None:
    every = filters(*([("".join(signs))] for signs in product("+-", repeat=9)))
    counts = filter_counts(filter_codes(every))
    assert (counts["total"], counts["distinct"], counts["distinct_up_to_sign"]) == (512, 512, 256)


def test_a_binary_layers_histogram_spans_the_clip_and_counts_its_ends() -> None:
    layer = Linear((2, 4), "det", "det", torch.Generator(), None)
    weight = [[-1.0, 1.0, 0.0, 0.01], [-0.03, 0.5, 1.0, -0.99]]
    layer.weight.data = torch.tensor(weight)
    facts = layer_facts(layer, first=True)
    assert (facts["bound"], sum(facts["histogram"]), len(facts["histogram"])) == (1.0, 8, 40)
    assert facts["histogram"][0] == 2, "-1 and -0.99"
    assert facts["histogram"][-1] == 2, "+1 twice: the last bin is closed"
    assert facts["histogram"][19:21] == [1, 2]
    assert (facts["plus_pct"], facts["clipped_pct"]) == (62.5, 37.5)
    assert "filters" not in facts


def test_without_a_clip_nothing_counts_as_clipped() -> None:
    layer = Linear((1, 3), "det", "det", torch.Generator(), None)
    layer.weight.data = torch.tensor([[-4.0, 1.0, 0.5]])
    facts = layer_facts(layer, first=True, clipped=False)
    assert (facts["bound"], facts["clipped_pct"]) == (4.0, None)
    assert (facts["histogram"][0], sum(facts["histogram"])) == (1, 3)


def test_parameters_are_counted_as_means_of_the_weights() -> None:
    layer = Linear((2, 3), "det", "det", torch.Generator(), None)
    layer.weight.data = torch.tensor([[-73.0, 18.0, 0.0], [0.55, -0.55, 1.1]])
    facts = layer_facts(layer, first=True, clipped=False, parameters=True)
    assert (facts["bound"], facts["clipped_pct"], facts["plus_pct"]) == (1.0, None, 66.6667)
    bins = {i: n for i, n in enumerate(facts["histogram"]) if n}
    # tanh 0.55 = 0.5005 lies in bin 30 of 40 over [-1, 1], tanh 1.1 = 0.8005 in bin 36.
    assert bins == {0: 1, 9: 1, 20: 1, 30: 1, 36: 1, 39: 1}


def test_a_real_layer_spans_its_own_greatest_weight() -> None:
    layer = Conv3x3((2, 3, 3, 3), "real", "real", torch.Generator().manual_seed(0), None)
    facts = layer_facts(layer, first=False)
    assert facts["bound"] == pytest.approx(layer.weight.abs().max().item())
    assert (facts["clipped_pct"], facts["binary"], facts["filters"]["total"]) == (None, False, 6)
    assert "patterns" not in facts


def test_confusion_is_true_class_by_predicted_class() -> None:
    scores = torch.tensor([[1.0, 0.0, -1], [1, 0, -1], [0, 1, -1], [0, 0, 1]])
    assert confusion(scores, torch.tensor([0, 1, 1, 2])) == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_calibration_against_counts_by_hand() -> None:
    # Scores 1.4, 0.9, 0.9 and -0.5 stand for probabilities 1, 0.95, 0.95 and 0.25.
    scores = torch.tensor([[1.4, -1], [-1, 0.9], [0.9, -1], [-0.5, -0.9]])
    found = calibration(scores, torch.tensor([0, 1, 1, 0]))
    assert found["counts"] == [0, 0, 1, 0, 0, 0, 0, 0, 0, 3]
    assert found["correct"] == [0, 0, 1, 0, 0, 0, 0, 0, 0, 2]
    assert found["confidence"][2] == 0.25
    assert found["confidence"][9] == pytest.approx(2.9)
    assert found["ece_pct"] == pytest.approx(100 * (0.75 + 0.9) / 4)


@pytest.mark.parametrize(
    ("dataset", "mode"), [("mnist", "float"), ("mnist", "bc-stoch"), ("cifar10", "bnn-det")]
)
def test_the_record_of_a_run_of_any_mode(
    trained: Callable[..., Path], data: Path, dataset: str, mode: str
) -> None:
    folder = trained(dataset, mode)
    record = inspect_run(TrainedRun(folder, data))
    assert record == read_json(folder / "inspect.json")
    run = read_json(folder / "run.json")
    assert record["test_error_pct"] == pytest.approx(run["test_error_pct"], abs=1e-4)
    counts = torch.tensor(record["confusion"])
    assert int(counts.sum()) == record["images"] == sum(record["calibration"]["counts"])
    right = int(counts.diagonal().sum())
    assert right == record["images"] - record["test_errors"]
    assert right == sum(record["calibration"]["correct"])
    assert (
        sum(layer["weights"] for layer in record["layers"] if layer["binary"])
        == (run["parameters"]["binary_weights"])
    )
    first = record["layers"][0]
    if dataset == "cifar10":
        codes = torch.tensor(first["patterns"])
        assert codes.shape == (4, 3)
        assert first["filters"] == filter_counts(codes)
        assert all(("filters" in x) == (x["kind"] == "conv") for x in record["layers"])


@pytest.mark.parametrize(
    ("recipe", "settings"), [("ebp", {}), ("bitwise", {"epochs": 2, "method.real_epochs": 1})]
)
def test_rules_without_latent_weights_have_no_clipped_ones(
    trained: Callable[..., Path], data: Path, recipe: str, settings: dict[str, Any]
) -> None:
    folder = trained("mnist", "bnn-det", recipe, **settings)
    layers = inspect_run(TrainedRun(folder, data))["layers"]
    assert [(layer["clipped_pct"], layer["bound"]) for layer in layers] == [(None, 1.0)] * 2
    inner = sum(sum(layer["histogram"][1:-1]) for layer in layers)
    assert (inner == 0) == (recipe == "bitwise"), "bitwise runs save the signs themselves"


def test_a_failed_run_is_skipped_with_its_reason(
    trained: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained("mnist", "float"), tmp_path / "run"))
    failure = {"epoch": 1, "reason": "training loss nan in epoch 1"}
    write_json(
        folder / "run.json",
        {**read_json(folder / "run.json"), "status": "failed", "failure": failure},
    )
    found = CliRunner().invoke(app, ["inspect", "--run", str(folder), "--data", str(data)])
    assert found.exit_code == 0
    assert "skipped, the run failed: training loss nan in epoch 1" in found.output
    assert read_json(folder / "inspect.json")["status"] == "skipped"


def test_other_data_and_running_runs_are_refused(
    trained: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained("mnist", "float"), tmp_path / "run"))
    run = read_json(folder / "run.json")
    write_json(folder / "run.json", {**run, "data": {**run["data"], "digest": "0" * 64}})
    with pytest.raises(HarnessError, match="trained on the standin one of digest 0000"):
        inspect_run(TrainedRun(folder, data))
    write_json(folder / "run.json", {**run, "status": "running"})
    with pytest.raises(HarnessError, match="--allow-running"):
        inspect_run(TrainedRun(folder, data))


def test_the_command_shows_each_layer(trained: Callable[..., Path], data: Path) -> None:
    folder = trained("cifar10", "bnn-det")
    found = CliRunner().invoke(app, ["inspect", "--run", str(folder), "--data", str(data)])
    assert found.exit_code == 0, found.output
    assert "layer 1 (conv, 27 x 4)" in found.output
    assert "3x3 filters: 12," in found.output
    assert found.output.count("  layer ") == 9
