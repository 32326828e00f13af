"""Operations and bits: against networks that are built, and the paper's four in numbers."""

from typing import Any

import pytest
import torch

from harness.data.names import IMAGE_SHAPES
from harness.nn.costs import layer_costs, total_macs, weight_memory_bits, word_operations
from harness.nn.networks import Block, build_network
from harness.nn.streams import Streams
from harness.spec import MODES, NetworkSpec, NormSpec, load_recipe

NORM = NormSpec("lasagne", 1e-4, 0.1)
SMALL = {
    "mnist": NetworkSpec("mlp", NORM, NORM, hidden=(33, 20)),
    "cifar10": NetworkSpec("convnet", NORM, NORM, width=3, fc=7),
}


@pytest.mark.parametrize("dataset", SMALL)
def test_counts_are_those_of_the_network_that_is_built(dataset: str) -> None:
    network = build_network(
        SMALL[dataset], MODES["bnn-det"], Streams(0), IMAGE_SHAPES[dataset], (1 / 255, 0.0)
    ).eval()
    seen: list[tuple[int, int, int, int]] = []

    def watch(block: Block, given: Any) -> None:
        (x,) = given
        rows = x.flatten(1) if block.layer.weight.dim() == 2 else x
        outputs = block.layer.product(rows, block.layer.used_weight())
        seen.append((x[0].numel(), block.layer.fan_in, outputs.shape[1], outputs[0, 0].numel()))

    for block in network.blocks:
        block.register_forward_pre_hook(watch)  # type: ignore[arg-type]
    with torch.no_grad():
        network(torch.ones(1, *IMAGE_SHAPES[dataset]))
    costs = layer_costs(SMALL[dataset], MODES["bnn-det"], dataset)
    assert [(c.inputs, c.fan_in, c.outputs, c.positions) for c in costs] == seen


@pytest.mark.parametrize(
    ("recipe", "dataset", "weights", "macs", "bit_macs"),
    [
        ("theano", "mnist", 36_806_656, 36_806_656, 36_806_656),
        ("torch7", "mnist", 10_014_720, 10_014_720, 10_014_720),
        ("theano", "cifar10", 14_022_016, 616_966_144, 616_966_144),
        ("theano", "svhn", 6_397_632, 158_017_536, 158_017_536),
    ],
)
def test_the_papers_networks(
    recipe: str, dataset: str, weights: int, macs: int, bit_macs: int
) -> None:
    costs = layer_costs(load_recipe(recipe, dataset).network, MODES["bnn-det"], dataset)
    assert sum(cost.weights for cost in costs) == weights
    assert (total_macs(costs), total_macs(costs, "xnor", "planes")) == (macs, bit_macs)
    heads = sum(cost.outputs for cost in costs) * 32 + 10 * 32
    assert weight_memory_bits(costs) == weights + heads


@pytest.mark.parametrize(
    ("mode", "operations", "weight_bits", "input_bits"),
    [
        ("float", ["float", "float", "float"], 32, [32, 32, 32]),
        ("bc-det", ["add", "add", "add"], 1, [32, 32, 32]),
        ("bc-stoch", ["float", "float", "float"], 32, [32, 32, 32]),
        ("bnn-stoch", ["planes", "xnor", "xnor"], 1, [8, 1, 1]),
    ],
)
def test_each_mode_has_its_operations(
    mode: str, operations: list[str], weight_bits: int, input_bits: list[int]
) -> None:
    costs = layer_costs(SMALL["mnist"], MODES[mode], "mnist")
    assert [cost.operation for cost in costs] == operations
    assert {cost.weight_bits for cost in costs} == {weight_bits}
    assert [cost.input_bits for cost in costs] == input_bits


def test_ternary_weights_take_two_bits_and_two_steps() -> None:
    plain, zeros = (
        layer_costs(SMALL["mnist"], MODES["bnn-det"], "mnist", real_input=True, ternary=ternary)
        for ternary in (False, True)
    )
    assert [cost.operation for cost in zeros] == ["add", "ternary", "ternary"]
    assert {cost.weight_bits for cost in zeros} == {2}
    inner = 33 * 20 + 20 * 10
    assert word_operations(plain) == 784 * 33 + inner * 6 / 32
    assert word_operations(zeros) == 784 * 33 + 2 * inner * 6 / 32


def test_real_inputs_and_real_layers_cost_floats() -> None:
    whitened = layer_costs(SMALL["mnist"], MODES["bnn-det"], "mnist", real_input=True)
    assert (whitened[0].operation, whitened[0].input_bits) == ("add", 32)
    spec = NetworkSpec("mlp", NORM, NORM, hidden=(4,), first_layer="real", last_layer="real")
    first, last = layer_costs(spec, MODES["bnn-det"], "mnist")
    assert (first.operation, first.weight_bits) == ("float", 32)
    assert (last.operation, last.weight_bits, last.input_bits) == ("float", 32, 1)
