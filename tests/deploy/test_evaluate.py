"""From training on the stand-in to identical predictions, and what the records say otherwise."""

import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from harness.cli import app
from harness.data.standin import write_standin
from harness.deploy import evaluate
from harness.deploy.evaluate import evaluate_run
from harness.deploy.export import export_run
from harness.deploy.modelfile import Model, load_model, save_model
from harness.deploy.packed import PackedNetwork
from harness.deploy.trained import TrainedRun
from harness.errors import HarnessError
from harness.files import read_json, sha256_file, write_json
from harness.spec import get_mode, load_recipe
from harness.train.evaluation import predict_scores
from harness.train.record import RunSpec
from harness.train.run import run_training
from kernels import registry
from kernels.cpu import sliced, tabled

IMAGES = 2000  # test images of the stand-in
SEED = 0


@pytest.fixture(scope="module")
def exported(train_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = train_run(tmp_path_factory.mktemp("exported"))
    export_run(folder)
    return folder


@pytest.fixture
def run(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "run"))


@pytest.mark.parametrize(
    ("recipe", "mode"),
    [
        ("theano", "bnn-det"),
        ("theano", "bnn-stoch-w"),
        ("torch7", "bnn-stoch"),
        ("torch7-released", "bnn-stoch"),
    ],
)
def test_trained_networks_agree_on_every_test_image_with_every_kernel(
    train_run: Callable[..., Path], data: Path, tmp_path: Path, recipe: str, mode: str
) -> None:
    run = train_run(tmp_path, mode, recipe)
    export_run(run)
    records = evaluate_run(TrainedRun(run, data), ["all"], device="cpu")
    assert [record["kernel"] for record in records] == registry.names_on("cpu")
    trained = read_json(run / "run.json")
    for record in records:
        assert record == read_json(run / f"evaluate-{record['kernel']}.json")
        if record["status"] == "unavailable":
            assert record["reason"]
            continue
        assert (record["images"], record["agree"], record["disagreeing"]) == (IMAGES, IMAGES, [])
        packed = registry.get(record["kernel"]).packed
        assert set(record["first_layers"]) == ({"int8", "bitplanes"} if packed else {"int8"})
        assert all(way["agree"] == IMAGES for way in record["first_layers"].values())
        assert record["test_error_pct"] == record["training_network_error_pct"]
        assert record["test_error_pct"] == pytest.approx(trained["test_error_pct"], abs=1e-4)


def test_input_dropout_with_an_offset_keeps_real_pixels(
    train_run: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    run = train_run(tmp_path, preprocess="global", network__input_dropout=0.2)
    export_run(run)
    (record,) = evaluate_run(TrainedRun(run, data), ["xnor-cpu"])
    assert (record["first_layer"], record["agree"]) == ("real", IMAGES)


def test_a_failed_run_is_recorded_as_skipped(run: Path, data: Path) -> None:
    failure = {"epoch": 1, "reason": "training loss inf in epoch 1"}
    write_json(
        run / "run.json", {**read_json(run / "run.json"), "status": "failed", "failure": failure}
    )
    (record,) = evaluate_run(TrainedRun(run, data), ["naive"])
    assert (record["status"], record["kernel"]) == ("skipped", "naive")
    assert failure["reason"] in record["reason"]
    assert read_json(run / "evaluate-naive.json") == record


def test_a_model_of_earlier_weights_is_refused(run: Path, data: Path) -> None:
    """As where training went on after bnn export --allow-running."""
    best = run / "best.safetensors"
    tensors = load_file(best)
    tensors["blocks.0.layer.bias"] += 1
    save_file(tensors, best)
    write_json(run / "run.json", {**read_json(run / "run.json"), "best_sha256": sha256_file(best)})
    with pytest.raises(HarnessError, match=r"model.bnn holds other weights .* bnn export --run"):
        evaluate_run(TrainedRun(run, data), ["naive"])
    export_run(run)
    assert evaluate_run(TrainedRun(run, data), ["naive"])[0]["status"] == "done"


def test_two_models_may_lie_in_one_folder(run: Path, data: Path, tmp_path: Path) -> None:
    for name in ("a.bnn", "b.bnn"):
        export_run(run, tmp_path / "both" / name)
    other = read_json(tmp_path / "both" / "export.json")
    write_json(tmp_path / "both" / "export.json", {**other, "model_sha256": 64 * "0"})
    found = evaluate_run(TrainedRun(run, data), ["naive"], tmp_path / "both" / "a.bnn")
    assert found[0]["agree"] == IMAGES
    with pytest.raises(HarnessError, match=rf"bnn export --run {run} --out .*b\.bnn"):
        evaluate_run(TrainedRun(run, data), ["naive"], tmp_path / "both" / "b.bnn")


def test_a_kernel_that_cannot_run_says_why(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = type(registry.get("xnor-cpu"))
    monkeypatch.setattr(kernel, "why_not", lambda self, m=None, n=None, k=None: "no such unit")
    (record,) = evaluate_run(TrainedRun(run, data), ["xnor-cpu"])
    assert (record["status"], record["reason"]) == ("unavailable", "no such unit")


def test_a_kernel_that_fails_is_a_record_and_the_others_go_on(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no code for\nthis chip")

    monkeypatch.setattr(type(registry.get("naive")), "product", broken)
    records = evaluate_run(TrainedRun(run, data), ["naive", "vendor-fp32"], device="cpu")
    assert [record["status"] for record in records] == ["failed", "done"]
    assert records[0]["reason"] == "RuntimeError: no code for this chip"
    assert "agree" not in records[0]
    command = ["evaluate", "--run", str(run), "--data", str(data), "--kernel", "naive"]
    found = CliRunner().invoke(app, command)
    assert (found.exit_code, "naive: failed" in found.output) == (0, True)
    assert CliRunner().invoke(app, [*command, "--strict"]).exit_code == 1


def test_all_that_a_kernel_compiles_comes_before_its_time(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, str]] = []

    def predict(network: PackedNetwork, pixels: np.ndarray, _: str, way: str, __: str) -> object:
        calls.append((len(pixels), way))
        return torch.zeros(len(pixels), 10)

    monkeypatch.setattr(PackedNetwork, "predict", predict)
    monkeypatch.setattr(PackedNetwork, "_images_at_once", lambda network: 900)
    check = evaluate._Check(TrainedRun(run, data), run / "model.bnn")
    check.compare(Mock(packed=True, device="cpu"))
    ways = ["int8", "int8", "bitplanes", "bitplanes"]
    assert [way for _, way in calls] == ways
    assert calls[0][0] > max(sliced.FEW_ROWS, tabled.FEW_ROWS)
    calls.clear()
    check.compare(Mock(packed=True, device="cuda"))
    assert calls == [(900 + IMAGES % 900, "int8"), (IMAGES, "int8")]


def test_unknown_kernel(run: Path, data: Path) -> None:
    with pytest.raises(HarnessError, match=r"'warp'; allowed: all, naive"):
        evaluate_run(TrainedRun(run, data), ["xnor-cpu", "warp"])


def test_other_data_than_the_runs(run: Path, data: Path) -> None:
    record = read_json(run / "run.json")
    record["data"]["digest"] = "0" * 64
    write_json(run / "run.json", record)
    with pytest.raises(HarnessError, match="trained on the standin one of digest 0000"):
        evaluate_run(TrainedRun(run, data), ["xnor-cpu"])


def test_a_damaged_model_is_refused(run: Path, data: Path) -> None:
    raw = bytearray((run / "model.bnn").read_bytes())
    raw[-1] ^= 1
    (run / "model.bnn").write_bytes(raw)
    with pytest.raises(HarnessError, match="damaged or was replaced.*bnn export --run"):
        evaluate_run(TrainedRun(run, data), ["xnor-cpu"])
    (run / "export.json").unlink()
    with pytest.raises(HarnessError, match="does not match its digest"):
        evaluate_run(TrainedRun(run, data), ["xnor-cpu"])


def test_a_model_of_another_run(run: Path, data: Path) -> None:
    write_json(run / "run.json", {**read_json(run / "run.json"), "fingerprint": "another"})
    with pytest.raises(HarnessError, match="comes from another run"):
        evaluate_run(TrainedRun(run, data), ["xnor-cpu"])


def spoil(run: Path) -> None:
    """Turn the second hidden layer's bits around, as a whole and undamaged file."""
    model = load_model(run / "model.bnn")
    flip = model.tensors["layers.1.flip"]
    save_model(run / "model.bnn", Model(model.spec, {**model.tensors, "layers.1.flip": ~flip}))
    (run / "export.json").unlink()


def test_disagreement_is_shown_and_strict_fails(run: Path, data: Path) -> None:
    spoil(run)
    command = ["evaluate", "--run", str(run), "--data", str(data), "--kernel", "xnor-cpu"]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0
    record = read_json(run / "evaluate-xnor-cpu.json")
    assert record["agree"] < IMAGES
    assert 0 < len(record["disagreeing"]) <= 20
    assert f"warning: {IMAGES - record['agree']} predictions differ with xnor-cpu" in found.output
    assert CliRunner().invoke(app, [*command, "--strict"]).exit_code == 1


def test_commands(train_run: Callable[..., Path], data: Path, tmp_path: Path) -> None:
    run = train_run(tmp_path)
    found = CliRunner().invoke(app, ["export", "--run", str(run)])
    assert found.exit_code == 0
    assert "times smaller" in found.output
    command = ["evaluate", "--run", str(run), "--data", str(data), "--threads", "1", "--strict"]
    found = CliRunner().invoke(app, [*command, "--kernel", "xnor-cpu", "--kernel", "vendor-fp32"])
    assert found.exit_code == 0
    assert f"xnor-cpu (bitplanes): {IMAGES} of {IMAGES} predictions" in found.output
    assert f"vendor-fp32 (int8): {IMAGES} of {IMAGES} predictions" in found.output


def test_examine_writes_what_the_three_stages_write_in_one_pass(
    train_run: Callable[..., Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train_run(tmp_path)
    passes = Mock(wraps=predict_scores)
    monkeypatch.setattr("harness.deploy.trained.predict_scores", passes)
    command = ["examine", "--run", str(run), "--data", str(data), "--kernel", "naive"]
    found = CliRunner().invoke(app, [*command, "--threads", "1"])
    assert found.exit_code == 0, found.output
    names = ("export.json", "evaluate-naive.json", "inspect.json")
    records = [read_json(run / name) for name in names]
    assert [record["status"] for record in records] == ["done"] * 3
    assert records[1]["agree"] == records[1]["images"] == records[2]["images"]
    assert passes.call_count == 1


@pytest.fixture(scope="module")
def svhn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("svhn")
    write_standin("svhn", root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("preprocess", ["scale", "gcn-lcn"])
def test_a_trained_convnet_agrees(svhn: Path, tmp_path: Path, preprocess: str) -> None:
    changes = {"network.width": 4, "network.fc": 33, "epochs": 1, "preprocess": preprocess}
    recipe = load_recipe("torch7", "svhn", changes)
    spec = RunSpec(recipe, get_mode("bnn-stoch"), SEED, "test", tmp_path)
    run_training(spec, svhn, torch.device("cpu"), 60.0)
    export_run(tmp_path)
    (record,) = evaluate_run(TrainedRun(tmp_path, svhn), ["xnor-cpu"])
    ways = {"scale": {"int8", "bitplanes"}, "gcn-lcn": {"real"}}[preprocess]
    assert set(record["first_layers"]) == ways
    assert all(way["agree"] == record["images"] for way in record["first_layers"].values())
