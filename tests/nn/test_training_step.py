"""Whole training steps against plain NumPy in float64: forward, gradients, update, clip, test."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy_reference import Adam, Array, Layer, Norm, ShiftAdaMax, TorchAdam, ap2, sign, train_step

from harness.nn.loss import squared_hinge
from harness.nn.networks import BinaryNetwork, build_network
from harness.nn.optim import build_optimizer, set_learning_rate
from harness.nn.streams import Streams
from harness.spec import MODES, Mode, Recipe, load_recipe

# Both sides work in float64. A bias before batch norm has gradient 0 but for rounding, 1e-17 to
# 1e-16, which both rules divide by their epsilon: 1e8 and 2^27.
FLOAT64_TOLERANCE = 1e-7
STEPS, BATCH, SEED = 3, 16, 3
RATES = (0.06, 0.03, 0.015)
AFFINE = {"scale": (1 / 255, 0.0), "global": (0.007, -0.31), "zca": None, "gcn-lcn": None}
MLP = {"network.hidden": [12, 9]}
CONVNET = {"network.width": 3, "network.fc": 14}  # narrower, units die: 1/std is 1/sqrt(eps)
NAMES = {"weight": "layer.weight", "bias": "layer.bias", "gamma": "norm.weight"}
NAMES["beta"] = "norm.bias"


@dataclass
class Case:
    recipe: Recipe
    mode: Mode
    shape: tuple[int, int, int]
    network: BinaryNetwork
    replay: Streams
    layers: list[Layer]

    @property
    def affine(self) -> tuple[float, float] | None:
        return AFFINE[self.recipe.preprocess]


def _numpy(tensor: torch.Tensor) -> Array:
    return tensor.detach().numpy().copy()


def _perturb(network: BinaryNetwork) -> None:
    # Gammas of both signs, and offsets that keep integers off the sign's edge.
    generator = torch.Generator().manual_seed(11)
    for block in network.blocks:
        for parameter in (block.layer.bias, block.norm.weight, block.norm.bias):
            parameter.data.uniform_(-0.9, 0.9, generator=generator)


def _layer(block: Any) -> Layer:
    norm, kind = block.norm, getattr(block.norm, "form", "shift")
    running = getattr(norm, "running", "inverse-std")
    variance = kind == "torch" or running == "variance"
    spread = norm.running_var if variance else norm.running_inv_std
    return Layer(
        _numpy(block.layer.weight),
        _numpy(block.layer.bias),
        Norm(
            kind,
            norm.eps,
            norm.momentum,
            _numpy(norm.weight),
            _numpy(norm.bias),
            _numpy(norm.running_mean),
            _numpy(spread),
            running,
        ),
        {"stoch": "sign"}.get(block.activation, block.activation),
        block.layer.is_binary,
        block.pool,
        block.pool_last,
        block.gated,
    )


def make_case(
    recipe_name: str, dataset: str, mode_name: str, settings: dict[str, Any] | None = None
) -> Case:
    small, shape = (MLP, (1, 4, 4)) if dataset == "mnist" else (CONVNET, (3, 8, 8))
    recipe = load_recipe(recipe_name, dataset, {**small, **(settings or {})})
    mode = MODES[mode_name]
    affine = AFFINE[recipe.preprocess]
    network = build_network(recipe.network, mode, Streams(SEED), shape, affine)
    _perturb(network)
    network.double()
    layers = [_layer(block) for block in network.blocks]
    return Case(recipe, mode, shape, network, Streams(SEED), layers)


def batch(case: Case, step: int) -> tuple[Array, torch.Tensor, torch.Tensor]:
    """Return the reference's real input, the network's input, and the labels."""
    rng = np.random.default_rng(step)
    pixels = rng.integers(0, 256, (BATCH, *case.shape)).astype(np.float64)
    labels = torch.from_numpy(rng.integers(0, 10, BATCH))
    if case.affine is None:
        real = pixels / 128 - 1
        return real, torch.from_numpy(real), labels
    scale, offset = case.affine
    odd = 2 * pixels - 255
    real = scale * odd + offset
    return real, torch.from_numpy(odd if case.network.integer_input else real), labels


def replay_draws(case: Case) -> None:
    """Give the reference this step's draws, in the order in which the network takes them."""
    spec = case.recipe.network
    for i, layer in enumerate(case.layers):
        shape = (BATCH, layer.weight[0].size)
        rate = spec.hidden_dropout if i else spec.input_dropout
        if rate:
            kept = torch.empty(shape, dtype=torch.float64)
            kept.bernoulli_(1 - rate, generator=case.replay["dropout"])
            layer.keep = _numpy(kept) / (1 - rate)
        if case.mode.weights == "stoch" and layer.binary:
            uniform = torch.empty(layer.weight.shape, dtype=torch.float64)
            uniform.uniform_(generator=case.replay["weights"])
            chance = np.clip((layer.weight + 1) / 2, 0, 1)
            layer.used = np.where(_numpy(uniform) < chance, 1.0, -1.0)
        else:
            layer.used = sign(layer.weight) if layer.binary else layer.weight
        if case.mode.activations == "stoch" and layer.activation == "sign":
            uniform = torch.empty((BATCH, len(layer.bias)), dtype=torch.float64)
            layer.uniform = _numpy(uniform.uniform_(generator=case.replay["activations"]))


def glorot(case: Case, layer: Layer) -> float:
    area = layer.weight[0, 0].size
    fans = (layer.weight.shape[0] + layer.weight.shape[1]) * area
    scale = 1 / np.sqrt(1.5 / fans)
    kinds = {"glorot": scale, "glorot-ap2": ap2(scale), "none": 1.0}
    return float(kinds[case.recipe.optimizer.lr_scale])


def update(case: Case, rules: dict[Any, Adam], lr: float) -> None:
    spec = case.recipe.optimizer
    new = {"adam-lasagne": Adam, "adam-torch": TorchAdam, "shift-adamax": ShiftAdaMax}[spec.kind]
    for i, layer in enumerate(case.layers):
        for name, g in layer.gradients.items():
            rule = rules.setdefault((i, name), new(spec.beta1, spec.beta2, spec.eps))
            if isinstance(rule, ShiftAdaMax):
                rule.stored_ap2 = spec.stored_ap2
            scaled = name == "weight" and layer.binary
            step = rule.step(g, lr, glorot(case, layer) if scaled else 1.0)
            owner = layer.norm if name in ("gamma", "beta") else layer
            value = getattr(owner, name) - step
            setattr(owner, name, np.clip(value, -1, 1) if scaled and spec.clip else value)


def compare(case: Case, gradients: bool) -> None:
    for i, (layer, block) in enumerate(zip(case.layers, case.network.blocks, strict=True)):
        norm = layer.norm
        for name, path in NAMES.items():
            ours = block.get_parameter(path)
            theirs = getattr(norm if name in ("gamma", "beta") else layer, name)
            if gradients:
                assert ours.grad is not None
                ours, theirs = ours.grad, layer.gradients[name]
            np.testing.assert_allclose(
                _numpy(ours), theirs, rtol=0, atol=FLOAT64_TOLERANCE, err_msg=f"layer {i} {name}"
            )
        variance = norm.kind == "torch" or norm.running == "variance"
        spread = "running_var" if variance else "running_inv_std"
        for name, theirs in (("running_mean", norm.running_mean), (spread, norm.running_spread)):
            ours = block.norm.get_buffer(name)
            np.testing.assert_allclose(_numpy(ours), theirs, rtol=0, atol=FLOAT64_TOLERANCE)


def run_steps(case: Case) -> None:
    optimizer = build_optimizer(case.network, case.recipe.optimizer, RATES[0])
    rules: dict[Any, Adam] = {}
    for step in range(STEPS):
        real, given, labels = batch(case, step)
        replay_draws(case)
        loss, scores = train_step(case.layers, real, labels.numpy())
        set_learning_rate(optimizer, RATES[step])
        case.network.train()
        ours = case.network(given)
        our_loss = squared_hinge(ours, labels)
        optimizer.zero_grad()
        our_loss.backward()
        np.testing.assert_allclose(_numpy(ours), scores, rtol=0, atol=FLOAT64_TOLERANCE)
        assert our_loss.item() == pytest.approx(loss, abs=FLOAT64_TOLERANCE)
        compare(case, gradients=True)
        optimizer.step()
        if case.recipe.optimizer.clip:
            case.network.clip_latent()
        update(case, rules, RATES[step])
        compare(case, gradients=False)


def check_test_time(case: Case) -> None:
    real, given, _ = batch(case, STEPS)
    stays_real = case.mode.weights == "real" or case.mode.name == "bc-stoch"
    expected = real
    for layer in case.layers:
        latent = stays_real or not layer.binary
        expected = layer.at_test_time(expected, layer.weight if latent else sign(layer.weight))
    case.network.eval()
    with torch.no_grad():
        ours = case.network(given)
    np.testing.assert_allclose(_numpy(ours), expected, rtol=0, atol=FLOAT64_TOLERANCE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("recipe", ["theano", "torch7", "torch7-released"])
def test_three_steps_of_the_mlp_equal_the_reference(recipe: str, mode: str) -> None:
    case = make_case(recipe, "mnist", mode)
    run_steps(case)
    if mode != "float":
        clipped = [int((np.abs(layer.weight) == 1).sum()) for layer in case.layers]
        assert sum(clipped) > 0, "no weight reached the clip: the case does not test it"
    check_test_time(case)


@pytest.mark.parametrize("mode", ["bnn-det", "bc-det"])
@pytest.mark.parametrize(
    ("recipe", "dataset"),
    [("theano", "cifar10"), ("torch7", "svhn"), ("torch7-released", "cifar10")],
)
def test_three_steps_of_the_convnet_equal_the_reference(
    recipe: str, dataset: str, mode: str
) -> None:
    case = make_case(recipe, dataset, mode)
    run_steps(case)
    check_test_time(case)


SHIFT_NORM = {"network.norm.kind": "shift", "network.norm.eps": 1e-5, "network.norm.momentum": 0.1}
TORCH_NORM = {"network.norm.kind": "torch", "network.output_norm.kind": "torch"}
SHIFT_RULE = {"optimizer.kind": "shift-adamax", "optimizer.eps": 2**-27}
# Pooled signs are nearly constant: variances and gradients that are 0 but for rounding, which the
# recipes' epsilons would blow up.
LARGE_EPS = {"optimizer.eps": 1e-4, "network.norm.eps": 1e-2}
SWITCHES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "clip-off": ("theano", "mnist", {"optimizer.clip": False}),
    "ste-identity": ("theano", "mnist", {"network.ste": "identity"}),
    "scale-none": ("theano", "mnist", {"optimizer.lr_scale": "none"}),
    "scale-ap2": ("theano", "mnist", {"optimizer.lr_scale": "glorot-ap2"}),
    "norm-torch": ("theano", "mnist", TORCH_NORM),
    "adam-torch": ("theano", "mnist", {"optimizer.kind": "adam-torch"}),
    "norm-shift": ("theano", "mnist", SHIFT_NORM),
    "rule-shift": ("theano", "mnist", SHIFT_RULE),
    "first-real": ("theano", "mnist", {"network.first_layer": "real"}),
    "last-real": ("theano", "mnist", {"network.last_layer": "real"}),
    "running-variance": ("torch7", "mnist", {"network.norm.running": "variance"}),
    "running-vanilla": ("torch7", "mnist", {"network.norm.running": "vanilla"}),
    "v-stored": ("torch7", "mnist", {"optimizer.stored_ap2": True}),
    "pool-after-sign": ("theano", "cifar10", {"network.pool": "after-sign", **LARGE_EPS}),
    "pool-after-shift": ("torch7", "cifar10", {"network.pool": "after-sign", **LARGE_EPS}),
}


def _last_weights(case: Case) -> Array:
    return np.concatenate([layer.weight.ravel() for layer in case.layers])


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_equals_the_reference_and_changes_the_result(switch: str) -> None:
    recipe, dataset, settings = SWITCHES[switch]
    common = LARGE_EPS if dataset == "cifar10" else {}
    case, plain = (make_case(recipe, dataset, "bnn-det", s) for s in (settings, common))
    for one in (case, plain):
        run_steps(one)
        check_test_time(one)
    after = [_last_weights(one) for one in (case, plain)]
    spreads = [one.layers[0].norm.running_spread for one in (case, plain)]
    assert not (np.array_equal(*after) and np.array_equal(*spreads))
