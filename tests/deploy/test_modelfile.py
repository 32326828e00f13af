"""model.bnn comes back as it was written, or is refused with the reason and the remedy."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from harness.deploy import modelfile
from harness.deploy.modelfile import (
    LayerSpec,
    Model,
    load_model,
    pack_weight,
    save_model,
    unpack_weight,
    weight_bytes,
)
from harness.errors import HarnessError
from harness.nn.networks import BinaryNetwork
from harness.spec import NetworkSpec, NormSpec

NORM = NormSpec("lasagne", 1e-4, 0.1)


@pytest.fixture
def model(make_network: Callable[..., BinaryNetwork], make_model: Callable[..., Model]) -> Model:
    spec = NetworkSpec("convnet", NORM, NORM, width=5, fc=33)
    return make_model(make_network(spec, (3, 8, 8)), spec, (3, 8, 8))


@pytest.fixture
def path(model: Model, tmp_path: Path) -> Path:
    save_model(tmp_path / "model.bnn", model)
    return tmp_path / "model.bnn"


def test_round_trip(model: Model, path: Path) -> None:
    found = load_model(path)
    assert found.spec == model.spec
    assert found.tensors.keys() == model.tensors.keys()
    assert all(torch.equal(found.tensors[name], model.tensors[name]) for name in model.tensors)


def test_the_same_model_gives_the_same_bytes(model: Model, path: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "again.bnn", model)
    assert (tmp_path / "again.bnn").read_bytes() == path.read_bytes()


def test_a_model_that_does_not_fit_leaves_the_last_one(
    model: Model, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, target: Path, metadata: object) -> None:
        target.write_bytes(b"half")
        raise SafetensorError("No space left on device (os error 28)")

    before = path.read_bytes()
    monkeypatch.setattr(modelfile, "save_file", full)
    with pytest.raises(HarnessError, match=r"cannot write .*model\.bnn: No space left"):
        save_model(path, model)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["model.bnn"]


@pytest.mark.parametrize(
    ("kind", "groups", "channels", "shape"),
    [
        ("linear", 1, 65, (3, 65)),
        ("linear", 4, 33, (3, 132)),
        ("conv", 9, 70, (3, 70, 3, 3)),
        ("conv", 1, 27, (3, 3, 3, 3)),
    ],
)
def test_weights_round_trip(kind: str, groups: int, channels: int, shape: tuple[int, ...]) -> None:
    spec = LayerSpec(kind, "bits", "bits", 3, groups, channels, False, NORM)  # type: ignore[arg-type]
    weight = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(2)).float() * 2 - 1
    words = pack_weight(weight, spec)
    assert words.shape == (3, spec.words)
    assert torch.equal(unpack_weight(words, spec).reshape(shape), weight)


def test_bytes_count_the_pads(model: Model) -> None:
    packed, real = weight_bytes(model.spec)
    # ConvNet(5): taps of 5 to 20 channels take a word each; the map below the first FC has 1 x 1.
    assert packed == 8 * (5 * 1 + 5 * 9 + 10 * 9 * 2 + 20 * 9 * 2 + 33 + 33 + 10)
    weights = 5 * 27 + 25 * 9 + 50 * 9 + 100 * 9 + 200 * 9 + 400 * 9 + 33 * 20 + 33 * 33 + 10 * 33
    assert real == 4 * weights


def refused(path: Path, reason: str) -> None:
    with pytest.raises(HarnessError, match=reason) as caught:
        load_model(path)
    assert "bnn export --run" in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing(tmp_path: Path) -> None:
    refused(tmp_path / "model.bnn", "does not exist")


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_truncated(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, "damaged")


def test_every_flipped_byte_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    for at in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        refused(path, "damaged")


def test_another_kind_of_file(path: Path) -> None:
    save_file({"x": torch.zeros(2)}, path)
    refused(path, "no description")


def test_another_schema(model: Model, path: Path) -> None:
    save_model(path, replace(model, spec=replace(model.spec, schema=99)))
    refused(path, "schema 99, expected 1")


def test_a_tensor_of_another_shape(model: Model, path: Path) -> None:
    tensors = {**model.tensors, "layers.1.threshold": torch.zeros(4, dtype=torch.int32)}
    save_model(path, Model(model.spec, tensors))
    refused(path, r"layers.1.threshold: expected torch.int32 \[5\], found torch.int32 \[4\]")


def test_a_missing_tensor(model: Model, path: Path) -> None:
    tensors = {k: v for k, v in model.tensors.items() if k != "layers.2.flip"}
    save_model(path, Model(model.spec, tensors))
    refused(path, r"layers.2.flip: expected torch.bool \[10\], found nothing")


def test_a_tensor_that_no_layer_has(model: Model, path: Path) -> None:
    save_model(path, Model(model.spec, {**model.tensors, "preprocess.mean": torch.zeros(3)}))
    refused(path, "preprocess.mean: no layer has it")


def test_a_tensor_of_a_type_that_numpy_lacks(model: Model, path: Path) -> None:
    tensors = {**model.tensors, "layers.1.threshold": torch.zeros(5, dtype=torch.bfloat16)}
    save_model(path, Model(model.spec, tensors))
    refused(path, r"layers.1.threshold: expected torch.int32 \[5\], found torch.bfloat16 \[5\]")


@pytest.mark.parametrize(
    ("layer", "change", "reason"),
    [
        (0, {"input": "bits"}, "layers.0: a conv layer on bits"),
        (0, {"groups": 9}, "layers.0.groups: expected 1, found 9"),
        (1, {"groups": 0}, "layers.1.groups: expected 9, found 0"),
        (1, {"channels": 6}, "layers.1.channels: expected 5, found 6"),
        (2, {"outputs": -64}, "layers.2.outputs: expected 1, found -64"),
        (2, {"output": "scores"}, "layers.2.output: expected 'bits', found 'scores'"),
        (7, {"input": "odd-integers"}, "layers.7.input: expected 'bits', found 'odd-integers'"),
        (7, {"pool": True}, "layers.7.pool: expected False, found True"),
        (7, {"kind": "conv", "groups": 9}, "layers.7: a conv layer on bits at that place"),
        (8, {"output": "bits"}, "layers.8.output: expected 'scores', found 'bits'"),
    ],
)
def test_a_layer_that_cannot_follow(
    model: Model, path: Path, layer: int, change: dict[str, object], reason: str
) -> None:
    layers = list(model.spec.layers)
    layers[layer] = replace(layers[layer], **change)  # type: ignore[arg-type]
    save_model(path, replace(model, spec=replace(model.spec, layers=tuple(layers))))
    refused(path, reason)


@pytest.mark.parametrize("layers", [0, 1])
def test_too_few_layers(model: Model, path: Path, layers: int) -> None:
    few = model.spec.layers[len(model.spec.layers) - layers :]
    save_model(path, replace(model, spec=replace(model.spec, layers=few)))
    refused(path, f"{layers} layers on images of")


@pytest.mark.parametrize("text", ["{", "[]", "null", "NaN", "{}", "[" * 100_000])
def test_a_description_of_another_kind(model: Model, path: Path, text: str) -> None:
    """Its digest fits: anyone can write one."""
    entry = {"bnn": f"{modelfile._digest(text, model.tensors)} {text}"}
    save_file(model.tensors, path, metadata=entry)
    refused(path, "not JSON" if text[0] in "{[" and text not in ("[]", "{}") else "schema None")


def test_the_command_that_writes_a_model_again(tmp_path: Path) -> None:
    run, model = tmp_path / "run", tmp_path / "run" / "model.bnn"
    assert modelfile.how_to_export(model) == f"bnn export --run {run}"
    assert modelfile.how_to_export(model, run) == f"bnn export --run {run}"
    other = tmp_path / "a.bnn"
    assert modelfile.how_to_export(other, run) == f"bnn export --run {run} --out {other}"
    assert modelfile.how_to_export(other) == f"bnn export --run <its run> --out {other}"


def test_it_holds_no_pickle(path: Path) -> None:
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    description = header["__metadata__"]["bnn"].partition(" ")[2]
    assert json.loads(description)["image_shape"] == [3, 8, 8]
