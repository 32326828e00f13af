"""``bnn train``: its record, messages and exit codes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from train_helpers import TINY, command, read_metrics, read_run, train_here

from harness.data.dataset import load_dataset
from harness.errors import HarnessError
from harness.spec import get_mode, load_recipe
from harness.train import loop
from harness.train.checkpoint import read_weights
from harness.train.commands import parse_overrides
from harness.train.record import RunSpec
from harness.train.session import prepare_network

Bnn = Callable[..., tuple[int, str]]
BLOCKED = ("mlflow", "snakemake", "triton", "pandas")


def test_record_of_a_run(uninterrupted: Path) -> None:
    run, metrics = read_run(uninterrupted), read_metrics(uninterrupted)
    assert {p.name for p in uninterrupted.iterdir()} == {
        "run.json",
        "metrics.jsonl",
        "best.safetensors",
        "lock",
    }
    assert (run["status"], run["failure"], run["epochs_done"]) == ("done", None, 3)
    assert (run["dataset"], run["recipe"], run["mode"]) == ("mnist", "theano", "bnn-det")
    assert (run["source"], run["device"], run["seed"]) == ("standin", "cpu", 0)
    assert run["resolved"]["network"]["hidden"] == [32]
    binary = 784 * 32 + 32 * 10
    assert run["parameters"] == {"binary_weights": binary, "total": binary + 3 * (32 + 10)}
    assert set(run["provenance"]) == {"commit", "dirty", "versions", "machine"}
    assert run["started"] <= run["finished"]
    assert [line["epoch"] for line in metrics] == [1, 2, 3]
    assert metrics[0]["lr"] == 3e-3


def test_model_is_selected_on_validation_and_tested_for_new_bests_alone(
    uninterrupted: Path,
) -> None:
    run, metrics = read_run(uninterrupted), read_metrics(uninterrupted)
    best = float("inf")
    for line in metrics:
        assert line["best"] == (line["valid_error_pct"] < best)
        assert (line["test_error_pct"] is not None) == line["best"]
        best = min(best, line["valid_error_pct"])
    chosen = metrics[run["best_epoch"] - 1]
    assert run["valid_error_pct"] == chosen["valid_error_pct"] == best
    assert run["test_error_pct"] == chosen["test_error_pct"]
    assert 5 < run["test_error_pct"] < 60, "32 binary units learn something, not everything"


def test_weights_are_stored_with_the_preprocessing(uninterrupted: Path) -> None:
    tensors = read_weights(uninterrupted / "best.safetensors")[1]
    assert tensors["preprocess.scale"].item() == 1 / 255
    latent = tensors["blocks.0.layer.weight"]
    assert latent.shape == (32, 784)
    assert latent.abs().max() <= 1


def test_the_flip_rate_counts_the_signs_that_an_epoch_changed(
    data_root: Path, tmp_path: Path
) -> None:
    settings = {**TINY, "epochs": 1}
    train_here(tmp_path, data_root, **settings)
    recipe = load_recipe("theano", "mnist", settings)
    spec = RunSpec(recipe, get_mode("bnn-det"), 0, "test", tmp_path)
    dataset = load_dataset("mnist", data_root)
    fresh, _, _ = prepare_network(spec, dataset, tmp_path, torch.device("cpu"))
    after = read_weights(tmp_path / "best.safetensors")[1]
    changed = sum(
        int(((layer.weight >= 0) != (after[f"blocks.{i}.layer.weight"] >= 0)).sum())
        for i, layer in enumerate(fresh.binary_layers())
    )
    (line,) = read_metrics(tmp_path)
    assert changed > 0
    assert line["flip_pct"] == pytest.approx(100 * changed / (784 * 4 + 4 * 10))


def test_a_float_network_has_no_flip_rate(data_root: Path, tmp_path: Path) -> None:
    train_here(tmp_path, data_root, mode="float", **{**TINY, "epochs": 1})
    assert read_metrics(tmp_path)[0]["flip_pct"] is None


def test_an_epoch_drops_the_remainder_and_never_repeats_an_image(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, chosen = loop.Resident.batch, []

    def watched(self: loop.Resident, indices: Any) -> Any:
        if isinstance(indices, torch.Tensor):
            chosen.append(indices)
        return batch(self, indices)

    monkeypatch.setattr(loop.Resident, "batch", watched)
    run = train_here(tmp_path, data_root, **{**TINY, "batch": 1000})
    count = run["data"]["counts"]["train"]
    assert count % 1000, "there is a remainder to drop"
    assert [len(indices) for indices in chosen] == [1000] * (count // 1000) * 2
    first, second = (torch.cat(chosen[i : i + count // 1000]) for i in (0, count // 1000))
    for epoch in (first, second):
        assert len(epoch.unique()) == len(epoch)
    assert not torch.equal(first, second), "each epoch has its own order"


def test_training_needs_no_tracker_no_workflow_and_no_log_file(
    data_root: Path, tmp_path: Path
) -> None:
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({BLOCKED!r}))\n"
        "from harness.cli import main; main()"
    )
    arguments = command(tmp_path / "run", data_root, **{**TINY, "epochs": 1})
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("best epoch 1: validation error ")
    assert "epoch 1/1" in done.stderr
    assert read_run(tmp_path / "run")["status"] == "done"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--set", "epochs"], ["--set takes key=value", "'epochs'"]),
        (["--set", "network.hidden=[32"], ["--set network.hidden=[32", "'[32'"]),
        (["--set", "epoch=3"], ["unknown key 'epoch'", "allowed:", "epochs"]),
        (["--set", "epochs=many"], ["epochs", "expected int", "'many'"]),
        (["--mode", "ternary"], ["'ternary'", "bnn-det", "float"]),
        (["--recipe", "keras"], ["'keras'", "theano, torch7, torch7-released"]),
        (["--dataset", "imagenet"], ["'imagenet'", "mnist, cifar10, svhn"]),
        (["--device", "tpu"], ["--device", "auto, cpu or cuda", "'tpu'"]),
    ],
    ids=lambda value: "=".join(value) if isinstance(value, list) else None,
)
def test_bad_options_name_the_value_and_the_allowed_ones(
    bnn: Bnn, data_root: Path, tmp_path: Path, change: list[str], words: list[str]
) -> None:
    code, errors = bnn([*command(tmp_path / "run", data_root), *change])
    assert code == 1
    assert errors.startswith("error: ")
    for word in words:
        assert word in errors
    assert not (tmp_path / "run" / "run.json").exists()


def test_too_many_threads_are_refused(bnn: Bnn, data_root: Path, tmp_path: Path) -> None:
    code, errors = bnn([*command(tmp_path, data_root), "--threads", "100000"])
    assert code == 2
    assert "'--threads'" in errors
    assert "1024" in errors


def test_a_network_beyond_the_memory_is_one_line(bnn: Bnn, data_root: Path, tmp_path: Path) -> None:
    code, errors = bnn(command(tmp_path, data_root, **{"network.hidden": [10**12]}))
    assert code == 1
    assert errors.startswith("error: not enough memory: ")
    assert errors.count("\n") == 1


def test_cuda_without_a_cuda_device_says_what_to_use(
    bnn: Bnn, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, errors = bnn([*command(tmp_path, data_root), "--device", "cuda"])
    assert code == 1
    assert errors.startswith("error: --device cuda: torch ")
    assert "; use --device cpu or auto" in errors


def test_missing_data_names_the_folder(bnn: Bnn, tmp_path: Path) -> None:
    code, errors = bnn(command(tmp_path / "run", tmp_path / "nowhere"))
    assert code == 1
    assert str(tmp_path / "nowhere") in errors


def test_folder_that_cannot_be_made_is_an_error(data_root: Path, tmp_path: Path, bnn: Bnn) -> None:
    (tmp_path / "file").write_text("in the way")
    code, errors = bnn(command(tmp_path / "file" / "run", data_root))
    assert code == 1
    assert errors.startswith("error: ")
    assert str(tmp_path / "file") in errors


def test_settings_are_yaml_and_plain_exponents() -> None:
    parsed = parse_overrides(["a=[1, 2]", "b=1e-3", "c=2.5E+4", "d=word", "e=true", "f.g=1=2"])
    assert parsed == {"a": [1, 2], "b": 1e-3, "c": 25000.0, "d": "word", "e": True, "f.g": "1=2"}


def test_damaged_weights_are_an_error_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    with pytest.raises(HarnessError, match=r"does not exist; train the run first: bnn train"):
        read_weights(path)[1]
    for content in (b"", b"no tensors", b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(HarnessError, match="is damaged.*train again"):
            read_weights(path)[1]


def test_a_label_is_recorded_and_a_bad_one_refused(
    bnn: Bnn, data_root: Path, tmp_path: Path
) -> None:
    settings = {**TINY, "epochs": 1, "optimizer.clip": False}
    arguments = command(tmp_path, data_root, **settings)
    code, errors = bnn([*arguments, "--label", "No Clip"])
    assert code == 1
    assert "label 'No Clip'" in errors
    assert bnn([*arguments, "--label", "no-clip"])[0] == 0
    assert read_run(tmp_path)["label"] == "no-clip"
    latent = read_weights(tmp_path / "best.safetensors")[1]["blocks.0.layer.weight"]
    assert latent.abs().max() > 1, "the weights were clipped"
