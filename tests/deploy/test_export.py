"""Export from a run's folder: what is written, what is skipped, what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.names import IMAGE_SHAPES
from harness.deploy.export import export_run
from harness.deploy.modelfile import load_model
from harness.errors import HarnessError
from harness.files import read_json, sha256_file, write_json


@pytest.fixture(scope="module")
def trained(train_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def change(run: Path, **values: object) -> None:
    write_json(run / "run.json", {**read_json(run / "run.json"), **values})


def test_writes_the_model_and_its_record(run: Path) -> None:
    record = export_run(run)
    assert record == read_json(run / "export.json")
    assert record["status"] == "done"
    assert record["reason"] is None
    assert record["model_sha256"] == sha256_file(run / "model.bnn")
    assert record["bytes_float32"] == 4 * (784 * 33 + 33 * 65 + 65 * 10)
    assert record["bytes_packed"] == 8 * (33 * 13 + 65 * 1 + 10 * 2)
    assert record["mode"] == "bnn-det"
    assert load_model(run / "model.bnn").spec.image_shape == IMAGE_SHAPES["mnist"]


def test_out_and_its_record_go_together(run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "else" / "net.bnn")
    assert load_model(tmp_path / "else" / "net.bnn").spec.recipe == "theano"
    assert read_json(tmp_path / "else" / "export.json")["model"] == "net.bnn"


def test_a_failed_run_is_recorded_as_skipped(run: Path) -> None:
    export_run(run)
    reason = "training loss nan in epoch 3"
    change(run, status="failed", failure={"epoch": 3, "reason": reason})
    record = export_run(run)
    assert (record["status"], record["reason"]) == ("skipped", f"the run failed: {reason}")
    assert not (run / "model.bnn").exists()
    assert read_json(run / "export.json")["status"] == "skipped"


def test_a_mode_that_is_no_bnn_is_skipped(run: Path) -> None:
    change(run, mode="bc-det")
    assert "'bc-det' does not binarize both" in export_run(run)["reason"]


def test_a_real_layer_is_skipped(run: Path) -> None:
    resolved = read_json(run / "run.json")["resolved"]
    resolved["network"]["last_layer"] = "real"
    change(run, resolved=resolved)
    assert "network.last_layer is 'real'" in export_run(run)["reason"]


def test_a_running_run_needs_to_be_allowed(run: Path) -> None:
    change(run, status="running")
    with pytest.raises(HarnessError, match="'running', expected 'done'.*--allow-running"):
        export_run(run)
    assert export_run(run, allow_running=True)["status"] == "done"


def test_other_weights_are_refused(run: Path) -> None:
    resolved = read_json(run / "run.json")["resolved"]
    resolved["network"]["hidden"] = [33, 66]
    change(run, resolved=resolved)
    with pytest.raises(HarnessError, match=r"best.safetensors does not fit"):
        export_run(run)


@pytest.mark.parametrize("text", ["null", "[]", "{}"])
def test_a_record_of_another_kind_is_refused(run: Path, text: str) -> None:
    (run / "run.json").write_text(text)
    with pytest.raises(HarnessError, match=r"run\.json: (expected a JSON object|key 'status')"):
        export_run(run)


def test_a_bit_that_flipped_in_the_weights_is_noticed(run: Path) -> None:
    content = bytearray((run / "best.safetensors").read_bytes())
    content[len(content) // 2] ^= 16
    (run / "best.safetensors").write_bytes(content)
    with pytest.raises(HarnessError, match=r"best\.safetensors is damaged \(its SHA-256 is not"):
        export_run(run)


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"run.json does not exist"):
        export_run(tmp_path)


def test_a_run_without_a_packed_form_leaves_the_file_of_out(run: Path, tmp_path: Path) -> None:
    change(run, mode="bc-det")
    kept = tmp_path / "precious.bnn"
    kept.write_text("of another run")
    assert export_run(run, kept)["status"] == "skipped"
    assert kept.read_text() == "of another run"


@pytest.mark.parametrize("name", ["export.json", "best.safetensors", "run.json", "", "folder.bnn"])
@pytest.mark.parametrize("mode", ["bnn-det", "bc-det"])
def test_out_must_be_a_models_name(run: Path, mode: str, name: str) -> None:
    (run / "folder.bnn").mkdir()
    before = {p: p.read_bytes() for p in run.iterdir() if p.is_file() and p.name != "run.json"}
    change(run, mode=mode)
    with pytest.raises(HarnessError, match=r"--out .*: give a file whose name ends in \.bnn"):
        export_run(run, run / name)
    assert all(p.read_bytes() == content for p, content in before.items())
