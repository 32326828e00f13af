"""Packed scores equal the training network's bit for bit: kernels, norms, modes, first layers."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.data.preprocess import from_state
from harness.deploy import packed
from harness.deploy.modelfile import Model, save_model
from harness.deploy.packed import PackedNetwork
from harness.errors import HarnessError
from harness.nn.networks import BinaryNetwork
from harness.spec import NetworkSpec, NormSpec
from harness.train.evaluation import EVALUATION_BATCH
from harness.train.inputs import network_input
from kernels import registry

IMAGES = 7
SHAPES = {"mlp": (1, 6, 5), "convnet": (3, 16, 16)}
LASAGNE = NormSpec("lasagne", 1e-4, 0.1)


def pixels_of(shape: tuple[int, int, int], images: int = IMAGES) -> np.ndarray:
    return np.random.default_rng(images).integers(0, 256, (images, *shape), dtype=np.uint8)


@torch.no_grad()
def training_scores(network: BinaryNetwork, pixels: np.ndarray) -> Tensor:
    return network(network_input(torch.from_numpy(pixels)))


@pytest.fixture(params=list(registry.KERNELS), ids="-".join)
def kernel(request: pytest.FixtureRequest) -> tuple[str, str]:
    name, device = request.param
    reason = registry.get(name, device).why_not()
    if reason is not None:
        pytest.skip(f"{name} on {device}: {reason}")
    return name, device


@pytest.mark.parametrize("first_layer", ["int8", "bitplanes"])
def test_every_kernel_norm_and_first_layer(
    network_spec: NetworkSpec,
    make_network: Callable[..., BinaryNetwork],
    make_model: Callable[..., Model],
    kernel: tuple[str, str],
    first_layer: str,
) -> None:
    shape = SHAPES[network_spec.kind]
    network = make_network(network_spec, shape)
    model = make_model(network, network_spec, shape)
    pixels = pixels_of(shape)
    name, device = kernel
    found = PackedNetwork(model).predict(pixels, name, first_layer, device)
    assert torch.equal(found, training_scores(network, pixels))


@pytest.mark.parametrize("mode", ["bnn-det", "bnn-stoch", "bnn-stoch-w", "bnn-w-stoch"])
def test_every_mode_is_deterministic_at_test_time(
    network_spec: NetworkSpec,
    make_network: Callable[..., BinaryNetwork],
    make_model: Callable[..., Model],
    mode: str,
) -> None:
    shape = SHAPES[network_spec.kind]
    network = make_network(network_spec, shape, mode)
    found = PackedNetwork(make_model(network, network_spec, shape))
    pixels = pixels_of(shape)
    assert torch.equal(found.predict(pixels, "xnor-cpu"), training_scores(network, pixels))


@pytest.mark.parametrize("hidden", [(1,), (64,), (63, 65), (128, 1)])
@pytest.mark.parametrize("affine", [(1 / 255, 0.0), (0.0063, -0.42)])
@pytest.mark.parametrize("first_layer", ["int8", "bitplanes"])
def test_widths_around_the_word_and_an_offset(
    make_network: Callable[..., BinaryNetwork],
    make_model: Callable[..., Model],
    hidden: tuple[int, ...],
    affine: tuple[float, float],
    first_layer: str,
) -> None:
    spec = NetworkSpec("mlp", LASAGNE, LASAGNE, hidden=hidden)
    network = make_network(spec, (3, 8, 8), affine=affine)
    pixels = pixels_of((3, 8, 8))
    found = PackedNetwork(make_model(network, spec, (3, 8, 8)))
    assert torch.equal(
        found.predict(pixels, "xnor-cpu", first_layer), training_scores(network, pixels)
    )


@pytest.mark.parametrize(("width", "fc", "side"), [(4, 10, 8), (16, 64, 16), (33, 20, 8)])
def test_convnet_widths_and_sides(
    make_network: Callable[..., BinaryNetwork],
    make_model: Callable[..., Model],
    width: int,
    fc: int,
    side: int,
) -> None:
    spec = NetworkSpec("convnet", LASAGNE, LASAGNE, width=width, fc=fc)
    network = make_network(spec, (3, side, side))
    pixels = pixels_of((3, side, side))
    found = PackedNetwork(make_model(network, spec, (3, side, side)))
    assert torch.equal(found.predict(pixels, "xnor-cpu"), training_scores(network, pixels))


VARIANCE = NormSpec("shift", 1e-5, 0.125, "variance")
VANILLA = NormSpec("shift", 1e-5, 0.125, "vanilla")


@pytest.mark.parametrize(
    "norm", [LASAGNE, VARIANCE, VANILLA], ids=lambda n: f"{n.kind}-{n.running}"
)
@pytest.mark.parametrize("pool", ["before-norm", "after-sign"])
@pytest.mark.parametrize("affine", [(1 / 255, 0.0), None], ids=["pixels", "real"])
def test_ablations_pack_exactly(
    make_network: Callable[..., BinaryNetwork],
    make_model: Callable[..., Model],
    tmp_path: Path,
    norm: NormSpec,
    pool: Literal["before-norm", "after-sign"],
    affine: tuple[float, float] | None,
) -> None:
    spec = NetworkSpec("convnet", norm, LASAGNE, width=5, fc=33, pool=pool)
    network = make_network(spec, (3, 8, 8), affine=affine)
    state = None if affine else zca_state(3 * 8 * 8)
    model = make_model(network, spec, (3, 8, 8), "scale" if affine else "zca", state)
    save_model(tmp_path / "model.bnn", model)
    pixels = pixels_of((3, 8, 8))
    if state is None:
        expected = training_scores(network, pixels)
    else:
        real = torch.from_numpy(from_state("zca", state).apply(pixels))
        with torch.no_grad():
            expected = network(real)
    found = PackedNetwork.load(tmp_path / "model.bnn").predict(pixels, "xnor-cpu")
    assert torch.equal(found, expected)


def zca_state(features: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(features)
    mean, matrix = rng.random(features), rng.normal(size=(features, features))
    return {"mean": mean.astype(np.float32), "matrix": matrix.astype(np.float32)}


REAL_INPUTS = {
    "zca": zca_state,
    "gcn-lcn": lambda features: {"largest": np.array(3.5, np.float32)},
    "global": lambda features: {"scale": np.array(0.0063), "offset": np.array(-0.42)},
}


@pytest.mark.parametrize("preprocess", list(REAL_INPUTS))
def test_real_first_layer(
    network_spec: NetworkSpec,
    make_network: Callable[..., BinaryNetwork],
    make_model: Callable[..., Model],
    preprocess: str,
) -> None:
    shape = SHAPES[network_spec.kind]
    state = REAL_INPUTS[preprocess](int(np.prod(shape)))
    network = make_network(network_spec, shape, affine=None)
    found = PackedNetwork(make_model(network, network_spec, shape, preprocess, state))
    assert found.first_layers == ("real",)
    pixels = pixels_of(shape, EVALUATION_BATCH + 20)
    real = torch.from_numpy(from_state(preprocess, state).apply(pixels))
    with torch.no_grad():
        expected = torch.cat([network(part) for part in torch.split(real, EVALUATION_BATCH)])
    assert torch.equal(found.predict(pixels, "xnor-cpu"), expected)


def test_the_batch_bounds_memory_and_changes_nothing(
    network_spec: NetworkSpec,
    make_network: Callable[..., BinaryNetwork],
    make_model: Callable[..., Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = SHAPES[network_spec.kind]
    network = make_network(network_spec, shape)
    found = PackedNetwork(make_model(network, network_spec, shape))
    pixels = pixels_of(shape)
    monkeypatch.setattr(packed, "WORKING_BYTES", 1)
    assert torch.equal(found.predict(pixels, "xnor-cpu"), training_scores(network, pixels))
    assert found.predict(pixels[:0], "xnor-cpu").shape == (0, 10)


@pytest.mark.parametrize("at_once", [3, 70, 700])
@pytest.mark.parametrize("images", [1, 69, 500, 1203])
@pytest.mark.parametrize("preprocess", ["scale", "zca"])
def test_few_images_come_in_parts_of_every_size(
    make_network: Callable[..., BinaryNetwork], make_model: Callable[..., Model],
    monkeypatch: pytest.MonkeyPatch, preprocess: str, images: int, at_once: int,
) -> None:  # fmt: skip
    def sizes(count: int) -> set[int]:
        return {len(part) for part in found._entries(pixels_of(shape, count), first)}

    spec, shape = NetworkSpec("mlp", LASAGNE, LASAGNE, hidden=(8,)), (1, 4, 4)
    more: tuple[object, ...] = () if preprocess == "scale" else ("zca", zca_state(16))
    network = make_network(spec, shape, **({"affine": None} if more else {}))
    found = PackedNetwork(make_model(network, spec, shape, *more))
    monkeypatch.setattr(found, "_images_at_once", lambda: at_once)
    first = found.first_layers[0]
    few = found.few(images, first)
    assert few < 2 * max(at_once, EVALUATION_BATCH)
    assert sizes(few) == sizes(images)


@pytest.fixture
def small(
    make_network: Callable[..., BinaryNetwork], make_model: Callable[..., Model]
) -> PackedNetwork:
    spec = NetworkSpec("mlp", LASAGNE, LASAGNE, hidden=(8,))
    return PackedNetwork(make_model(make_network(spec, (1, 4, 4)), spec, (1, 4, 4)))


def test_wrong_arguments_name_the_allowed(small: PackedNetwork) -> None:
    pixels = pixels_of((1, 4, 4))
    with pytest.raises(HarnessError, match=r"'warp'.*xnor-cpu"):
        small.predict(pixels, "warp")
    with pytest.raises(HarnessError, match=r"'real'.*int8, bitplanes"):
        small.predict(pixels, "xnor-cpu", "real")
    with pytest.raises(HarnessError, match=r"shape \(1, 4, 4\).*found uint8 of shape \(1, 4, 5\)"):
        small.predict(pixels_of((1, 4, 5)), "xnor-cpu")
    with pytest.raises(HarnessError, match="found float32"):
        small.predict(pixels.astype(np.float32), "xnor-cpu")
