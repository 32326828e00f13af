"""Fused batch norm and sign on the CPU: which blocks take it, and layers against the chain."""

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.methods import build_method
from harness.nn import norm_sign as module
from harness.nn import signed
from harness.nn.binarize import binarize_activation
from harness.nn.networks import BinaryNetwork, build_network
from harness.nn.norm import VanillaBatchNorm
from harness.nn.norm_sign import norm_sign
from harness.nn.streams import Streams
from harness.spec import MODES, load_recipe
from kernels.conv import pack_map
from kernels.packing import pack_rows
from tests.norms import EPS, MARGIN, SCALE, close, layer_of

pytestmark = pytest.mark.skipif(not signed.available("cpu"), reason="needs numba and AVX2")
SHAPES = [(50, 10), (4, 10, 6, 3)]


def _in_order(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


@pytest.mark.parametrize("form", ["lasagne", "torch", "inverse-std", "variance"])
@pytest.mark.parametrize("shape", SHAPES, ids=["rows", "map"])
@pytest.mark.parametrize("kind", ["sign", "stoch", "none", "relu"])
def test_a_layer_trains_as_with_the_chain(form: str, shape: tuple[int, ...], kind: str) -> None:
    generator = torch.Generator().manual_seed(0)  # of data without a value at a step
    start = torch.randint(-40, 41, shape, generator=generator).float()
    gradient = torch.randn(shape, generator=generator)  # of a map, not channels-last
    results = []
    for fused in (True, False):
        layer = layer_of(form, 10)
        with torch.no_grad():
            layer.weight.mul_(torch.linspace(-2, 2, 10))
        dots = _in_order(start.clone()).requires_grad_()
        bias = torch.linspace(-1, 1, 10).requires_grad_()
        uniform = torch.Generator().manual_seed(9)
        draws = torch.empty_like(dots).uniform_(generator=uniform) if kind == "stoch" else None
        if fused:
            out = norm_sign(dots, bias, SCALE, layer, draws, form=module.FORMS[kind])
            assert out.stride() == dots.stride()
        else:
            uniform.manual_seed(9)
            by_channel = bias.view(-1, *(1,) * (len(shape) - 2))
            y = out = layer(dots * SCALE + by_channel)
            if kind == "relu":
                out = torch.relu(y)
            elif kind != "none":
                out = binarize_activation(y, uniform if kind == "stoch" else None)
            edges = (-1.0, 1.0, 0.0 if draws is None else 2 * draws - 1)
            assert all(((y - edge).abs() > MARGIN).all() for edge in edges)  # no step is in doubt
        out.backward(gradient)
        grads = [t.grad for t in (dots, layer.weight, layer.bias, bias)]
        results.append([out.detach(), *layer.buffers(), *grads])
    if kind in ("sign", "stoch"):
        assert torch.equal(results[0][0], results[1][0])
    for ours, theirs in zip(*results, strict=True):
        assert close(ours, theirs, 1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=["rows", "map"])
def test_packed_signs_stand_for_the_signs(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = _in_order(torch.randint(-40, 41, shape, generator=generator).float())
    gradient, bias = torch.randn(shape, generator=generator), torch.zeros(10)
    results = []
    for packed in (False, True):
        dots, layer = start.clone().requires_grad_(), VanillaBatchNorm(10, "lasagne", EPS, 0.1)
        out = norm_sign(dots, bias, 1.0, layer, packed=packed)
        words = signed.packed_signs(out)
        assert out.shape == torch.Size(shape)
        assert bool(out.isnan().all()) == packed
        out.backward(gradient)
        results.append([words, dots.grad, layer.weight.grad])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)
    pack = pack_rows if len(shape) == 2 else pack_map
    packed_again: Any = pack(norm_sign(start, bias, 1.0, layer))
    assert torch.equal(getattr(packed_again, "words", packed_again), results[0][0])


@pytest.mark.parametrize("columns", [1, 63, 64, 130])
def test_dropped_signs_are_two_planes_of_bits(columns: int) -> None:
    generator = torch.Generator().manual_seed(columns)
    x = torch.randint(0, 2, (5, columns), generator=generator) * 2.0 - 1
    kept = torch.randint(0, 2, (5, columns), generator=generator) * 2.0
    standing = signed.stand_in(pack_rows(x).words, x)
    for given in (x, standing):
        given.requires_grad_()
        found = signed.drop(given, kept)
        expected = signed.sign_planes((x * kept).detach(), True)
        assert torch.equal(signed.sign_planes(found, True), expected)
        assert found.shape == x.shape and found.isnan().all()
        gradient = torch.randn(5, columns, generator=generator)
        (by_input,) = torch.autograd.grad(found, given, gradient)
        assert torch.equal(by_input, gradient * kept)


def _network(recipe: str, dataset: str, mode: str, precision: str = "fast") -> BinaryNetwork:
    sizes: dict[str, Any] = {"network.width": 8, "network.fc": 40}
    sizes = sizes if dataset == "cifar10" else {"network.hidden": [96, 64]}
    given = load_recipe(recipe, dataset, {**sizes, "precision": precision})
    streams = Streams(3)
    shape, affine = ((3, 32, 32), None) if dataset == "cifar10" else ((1, 28, 28), (1 / 255, 0.0))
    network = build_network(given.network, MODES[mode], streams, shape, affine)
    build_method(given, MODES[mode], network, streams)
    return network.train()


def _fused(network: BinaryNetwork, monkeypatch: pytest.MonkeyPatch, images: Tensor) -> list[bool]:
    calls: list[bool] = []

    def record(*args: Any, **more: Any) -> Tensor:
        calls.append(more["packed"])
        return norm_sign(*args, **more)

    monkeypatch.setattr(module, "norm_sign", record)
    network(images).sum().backward()
    return calls


def test_fast_blocks_take_it_and_pack_where_the_next_takes_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, pixels = torch.randn(4, 3, 32, 32), torch.ones(4, 1, 28, 28)
    # The last convolution's map is flattened, the scores are no signs.
    packed = [True] * 5 + [False] + [True] * 2 + [False]
    assert _fused(_network("theano", "cifar10", "bnn-det"), monkeypatch, images) == packed
    assert _fused(_network("theano", "cifar10", "bnn-stoch"), monkeypatch, images) == packed
    assert _fused(_network("torch7", "cifar10", "bnn-stoch"), monkeypatch, images) == packed
    packed = [True, True, False]
    assert _fused(_network("torch7", "mnist", "bnn-stoch"), monkeypatch, pixels) == packed
    # Dropout lies between the blocks, and takes bits.
    assert _fused(_network("theano", "mnist", "bnn-det"), monkeypatch, pixels) == packed


@pytest.mark.parametrize("mode", ["bc-det", "float"])
@pytest.mark.parametrize("recipe", ["theano", "torch7"])
def test_fast_blocks_of_reals_take_it(
    recipe: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = _network(recipe, "mnist", mode)
    assert _fused(network, monkeypatch, torch.ones(4, 1, 28, 28)) == [False] * 3


def test_exact_blocks_keep_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _network("theano", "mnist", "bnn-det", "exact")
    assert not _fused(network, monkeypatch, torch.ones(4, 1, 28, 28))


def test_evaluation_has_signs_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _network("theano", "cifar10", "bnn-det").eval()
    assert not _fused(network, monkeypatch, torch.randn(4, 3, 32, 32))
