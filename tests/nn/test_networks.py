import math

import pytest
import torch
from torch import Tensor

from harness.nn.binarize import binary_sign
from harness.nn.layers import Conv3x3, Linear
from harness.nn.networks import BinaryNetwork, build_network
from harness.nn.streams import Streams
from harness.spec import DATASETS, MODES, Recipe, load_recipe
from harness.train.evaluation import GPU_BATCH, gpu_batch
from harness.train.inputs import Resident

SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "svhn": (3, 32, 32)}
SMALL = {"mlp": {"network.hidden": [16, 12]}, "convnet": {"network.width": 4, "network.fc": 8}}
# The other recipes, of methods of their own, are for MNIST alone and in tests/methods.
ON_EVERY_DATASET = ("theano", "torch7", "torch7-released", "binaryconnect")
AFFINE = {"scale": (1 / 255, 0.0), "global": (0.0061, -0.42), "zca": None, "gcn-lcn": None}
# Published with four decimals.
GLOROT_TOLERANCE = 5e-4
BINARY_WEIGHTS = {
    ("theano", "mnist"): 36_806_656,
    ("torch7", "mnist"): 10_014_720,
    ("theano", "cifar10"): 14_022_016,
    ("torch7", "svhn"): 6_397_632,
}


def small_recipe(name: str, dataset: str) -> Recipe:
    kind = load_recipe(name, dataset).network.kind
    return load_recipe(name, dataset, SMALL[kind])


def build(recipe: Recipe, mode: str, seed: int = 0) -> BinaryNetwork:
    shape, affine = SHAPES[recipe.dataset], AFFINE.get(recipe.preprocess)
    return build_network(recipe.network, MODES[mode], Streams(seed), shape, affine)


def odd_pixels(dataset: str, count: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    u = torch.randint(0, 256, (count, *SHAPES[dataset]), generator=generator)
    return 2.0 * u - 255


def used_by(network: BinaryNetwork, dataset: str) -> Tensor:
    x = odd_pixels(dataset)
    return x if network.integer_input else x / 128


def warm_up(network: BinaryNetwork, dataset: str) -> None:
    """Give the running averages, gammas and offsets values that a training would leave."""
    generator = torch.Generator().manual_seed(4)
    for block in network.blocks:
        for p in (block.layer.bias, block.norm.weight, block.norm.bias):
            p.data.uniform_(-1, 1, generator=generator)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(used_by(network, dataset))


@pytest.mark.parametrize(("name", "dataset"), BINARY_WEIGHTS)
def test_binary_weights_of_the_paper_networks(name: str, dataset: str) -> None:
    network = build(load_recipe(name, dataset), "bnn-det")
    counted = sum(layer.weight.numel() for layer in network.binary_layers())
    assert counted == BINARY_WEIGHTS[name, dataset]
    if (name, dataset) == ("theano", "mnist"):
        scales = [layer.glorot_scale for layer in network.binary_layers()]
        expected = [57.038, 73.9008, 73.9008, 52.3195]
        assert scales == pytest.approx(expected, abs=GLOROT_TOLERANCE)


def test_glorot_scale_of_a_convolution_counts_the_filter_area() -> None:
    first = build(load_recipe("theano", "svhn"), "bnn-det").binary_layers()[0]
    assert (first.fan_in, first.fan_out) == (27, 576)
    assert first.glorot_scale == pytest.approx(1 / math.sqrt(1.5 / 603))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("name", ON_EVERY_DATASET)
def test_every_recipe_and_mode_builds_and_learns_a_step(name: str, dataset: str, mode: str) -> None:
    recipe = small_recipe(name, dataset)
    network = build(recipe, mode)
    binary = MODES[mode].weights != "real"
    assert len(network.binary_layers()) == (len(network.blocks) if binary else 0)
    x = used_by(network, dataset)
    scores = network(x)
    assert scores.shape == (12, 10)
    scores.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    network.eval()
    assert torch.equal(network(x), network(x)), "test time draws nothing"


@pytest.mark.parametrize(
    ("mode", "train", "test"),
    [
        ("float", "real", "real"),
        ("bc-det", "binary", "binary"),
        ("bc-stoch", "binary", "real"),
        ("bnn-det", "binary", "binary"),
        ("bnn-stoch", "binary", "binary"),
        ("bnn-stoch-w", "binary", "binary"),
        ("bnn-w-stoch", "binary", "binary"),
    ],
)
def test_weights_used_in_training_and_at_test_time(mode: str, train: str, test: str) -> None:
    network = build(small_recipe("theano", "mnist"), mode)
    for block in network.blocks:
        layer = block.layer
        for state, kind in ((True, train), (False, test)):
            used = layer.train(state).used_weight()
            assert torch.equal(used, layer.weight) == (kind == "real")
            if kind == "binary":
                assert set(used.unique().tolist()) == {-1.0, 1.0}
        if test == "binary":
            assert torch.equal(used, binary_sign(layer.weight)), "test time is deterministic"


@pytest.mark.parametrize("place", ["first_layer", "last_layer"])
def test_first_and_last_layer_stay_real_where_asked(place: str) -> None:
    changes = {**SMALL["mlp"], f"network.{place}": "real"}
    network = build(load_recipe("theano", "mnist", changes), "bnn-det")
    expected = [False, True, True] if place == "first_layer" else [True, True, False]
    assert [block.layer.is_binary for block in network.blocks] == expected
    with torch.no_grad():
        for block in network.blocks:
            block.layer.weight.fill_(1.5)
        network.clip_latent()
    clipped = [bool((block.layer.weight == 1).all()) for block in network.blocks]
    assert clipped == expected


def test_convnet_is_the_papers() -> None:
    network = build(load_recipe("torch7", "svhn", {"network.width": 2}), "bnn-det")
    shapes = [tuple(block.layer.weight.shape) for block in network.blocks]
    maps = [(2, 3), (2, 2), (4, 2), (4, 4), (8, 4), (8, 8)]
    assert shapes == [(*m, 3, 3) for m in maps] + [(1024, 128), (1024, 1024), (10, 1024)]
    assert [block.pool for block in network.blocks] == [False, True] * 3 + [False] * 3
    assert [block.activation for block in network.blocks] == ["sign"] * 8 + ["none"]


def test_convnet_refuses_images_that_do_not_halve_three_times() -> None:
    spec = load_recipe("theano", "svhn").network
    with pytest.raises(ValueError, match=r"multiple of 8; found \(3, 28, 28\)"):
        build_network(spec, MODES["bnn-det"], Streams(0), (3, 28, 28), None)


@pytest.mark.parametrize(
    ("recipe", "dataset", "integer"),
    [
        ("theano", "mnist", True),
        ("torch7", "mnist", True),
        ("theano", "cifar10", True),
        ("torch7-released", "cifar10", False),
        ("torch7-released", "svhn", False),
    ],
)
def test_first_layer_takes_integers_where_that_is_exact(
    recipe: str, dataset: str, integer: bool
) -> None:
    network = build(small_recipe(recipe, dataset), "bnn-det")
    assert network.integer_input == integer
    shifted = build_network(
        small_recipe(recipe, dataset).network,
        MODES["bnn-det"],
        Streams(0),
        SHAPES[dataset],
        (0.01, 0.5),
    )
    dropped = small_recipe(recipe, dataset).network.input_dropout > 0
    assert shifted.integer_input == (dataset == "mnist" and not dropped)


def test_integer_pixels_stand_for_the_real_input() -> None:
    recipe = small_recipe("torch7", "mnist")
    network = build(recipe, "bnn-det")
    warm_up(network, "mnist")
    real = build_network(recipe.network, MODES["bnn-det"], Streams(0), SHAPES["mnist"], None)
    real.load_state_dict(network.state_dict())
    scale, offset = AFFINE["global"]  # type: ignore[misc]
    odd = odd_pixels("mnist")
    block, other = network.eval().blocks[0], real.eval().blocks[0]
    weight = block.layer.used_weight()
    ours = block.norm_from_dots(block.layer.product(odd.flatten(1), weight))
    x = (scale * odd.double() + offset).flatten(1)
    bias = other.layer.bias.double()
    theirs = other.norm.double().eval()(x @ weight.double().T + bias)
    assert torch.allclose(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def products(network: BinaryNetwork, dataset: str) -> list[tuple[int, Tensor, Tensor]]:
    """Return (fan-in, product, block's output) of every block at test time."""
    network.eval()
    found = []
    with torch.no_grad():
        x = used_by(network, dataset)
        for block in network.blocks:
            given = x.flatten(1) if isinstance(block.layer, Linear) else x
            dots = block.layer.product(given, block.layer.used_weight())
            x = block(x)
            found.append((block.layer.fan_in, dots, x))
    return found


@pytest.mark.parametrize("mode", ["bnn-det", "bnn-stoch", "bnn-stoch-w", "bnn-w-stoch"])
@pytest.mark.parametrize(
    ("recipe", "dataset"),
    [("theano", "mnist"), ("torch7", "mnist"), ("theano", "cifar10"), ("torch7", "svhn")],
)
def test_binary_products_at_test_time_are_exact_integers(
    recipe: str, dataset: str, mode: str
) -> None:
    network = build(small_recipe(recipe, dataset), mode)
    warm_up(network, dataset)
    for i, (fan_in, dots, out) in enumerate(products(network, dataset)):
        assert torch.equal(dots, dots.round())
        assert dots.abs().max() <= fan_in * (255 if i == 0 else 1)
        if i and dots.dim() == 2:
            assert (dots.remainder(2) == fan_in % 2).all()
        if i < len(network.blocks) - 1:
            assert set(out.unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("recipe", "dataset"),
    [("theano", "mnist"), ("torch7", "mnist"), ("theano", "cifar10"), ("torch7", "svhn")],
)
def test_norm_from_dots_equals_the_forward_pass_bit_for_bit(recipe: str, dataset: str) -> None:
    network = build(small_recipe(recipe, dataset), "bnn-det")
    warm_up(network, dataset)
    for block, (_, dots, out) in zip(network.blocks, products(network, dataset), strict=True):
        if block.pool:
            dots = torch.nn.functional.max_pool2d(dots, 2)
        value = block.norm_from_dots(dots, 1)
        assert torch.equal(binary_sign(value) if block.activation == "sign" else value, out)
        # Channels last, as export lays them out, is the same map.
        assert torch.equal(block.norm_from_dots(dots.movedim(1, -1)).movedim(-1, 1), value)


@pytest.mark.parametrize("recipe", ["theano", "torch7"])
def test_norm_from_dots_is_monotone_in_every_channel(recipe: str) -> None:
    network = build(small_recipe(recipe, "mnist"), "bnn-det")
    warm_up(network, "mnist")
    network.eval()
    rising = falling = 0
    for block in network.blocks:
        bound = block.layer.fan_in * 255
        dots = torch.arange(-bound, bound + 1, dtype=torch.float32)[:, None]
        steps = block.norm_from_dots(dots.expand(-1, len(block.layer.bias))).diff(dim=0)
        rises, falls = (steps >= 0).all(0), (steps <= 0).all(0)
        assert (rises | falls).all()
        rising, falling = rising + int(rises.sum()), falling + int(falls.sum())
    assert rising
    assert falling, "gammas of both signs are meant to be tested"


def test_dropout_keeps_the_mean_and_stops_at_test_time() -> None:
    recipe = load_recipe("theano", "mnist", {"network.hidden": [4]})
    network = build(recipe, "bnn-det")
    seen = []
    network.blocks[0].layer.product = lambda x, w, *_: seen.append(x) or x @ w.T  # type: ignore
    ones = torch.ones(400, 1, 28, 28)
    network.train()(ones)
    network.eval()(ones)
    kept, rate = seen[0], 0.2
    assert kept.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
    # Five standard deviations of the mean of 313,600 kept or dropped inputs.
    tolerance = 5 * math.sqrt(rate / (1 - rate) / kept.numel())
    assert kept.mean().item() == pytest.approx(1, abs=tolerance)
    assert torch.equal(seen[1], ones.flatten(1))


def test_the_seed_decides_the_first_weights() -> None:
    recipe = small_recipe("theano", "mnist")
    first, same, other = (build(recipe, "bnn-det", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert not torch.equal(first["blocks.0.layer.weight"], other["blocks.0.layer.weight"])
    latent = first["blocks.0.layer.weight"]
    assert latent.min() >= -1
    assert latent.max() <= 1
    assert latent.abs().mean().item() == pytest.approx(0.5, abs=0.02)  # uniform on [-1, 1]


@pytest.mark.parametrize(("width", "images"), [(128, GPU_BATCH), (512, 4095)])
def test_the_maps_of_an_evaluation_on_a_gpu_are_indexed_in_32_bits(width: int, images: int) -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(1, 1), _filters(width), _filters(2 * width))
    held = Resident(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1))
    assert gpu_batch(layer, held) == images
    assert images * width * 32 * 32 < 2**31
    assert gpu_batch(torch.nn.Linear(1, 1), held) == GPU_BATCH


def _filters(n: int) -> Conv3x3:
    return Conv3x3((n, 3, 3, 3), "det", "det", torch.Generator(), None)
