"""The two-stage methods: their steps against NumPy, float64, and when each stage begins."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from harness.errors import HarnessError
from harness.methods import build_method
from harness.methods.staged import Staged
from harness.nn.networks import build_network
from harness.nn.streams import Streams
from harness.spec import Recipe, get_mode, load_recipe

Array = npt.NDArray[np.float64]
IMAGE = (1, 2, 3)
EPS = 1e-8  # of the optimizer


def recipe_of(name: str, **changes: Any) -> Recipe:
    small = {"network.hidden": [5, 4], "method.real_epochs": 2, "epochs": 5}
    return load_recipe(name, "mnist", {**small, **changes})


def method_of(name: str, mode: str = "bnn-det", **changes: Any) -> Staged:
    recipe = recipe_of(name, **changes)
    deployed, streams = recipe.deployed_mode(get_mode(mode)), Streams(2)
    network = build_network(recipe.network, deployed, streams, IMAGE, None).double()
    found = build_method(recipe, get_mode(mode), network, streams)
    assert isinstance(found, Staged)
    found.steps = [step.double() for step in found.steps]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in found.weights:
            parameter.data = parameter.data.double()
        for parameter in found.biases:
            start = torch.empty(parameter.shape, dtype=torch.float64)
            parameter.data = start.uniform_(-1, 1, generator=generator)
    found._renew_optimizer()
    return found


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, *IMAGE, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0, 3, 6, 9])


def gradients_in_numpy(
    used: list[tuple[Array, Array]], x: Array, labels: list[int], units: bool
) -> list[tuple[Array, Array]]:
    """Mean square hinge loss back through ``used`` weights; ``units``: sign forward, else tanh."""
    inputs, sums = [x], []
    for weight, bias in used:
        sums.append((inputs[-1] @ weight.T + bias) / math.sqrt(weight.shape[1] + 1))
        inputs.append(np.where(sums[-1] >= 0, 1.0, -1.0) if units else np.tanh(sums[-1]))
    y = np.where(np.arange(10) == np.array(labels)[:, None], 1.0, -1.0)
    signal = -2 * y * np.maximum(0, 1 - y * sums[-1]) / y.size
    found = []
    for i in reversed(range(len(used))):
        weight, _ = used[i]
        signal = signal / math.sqrt(weight.shape[1] + 1)
        found.append((signal.T @ inputs[i], signal.sum(0)))
        if i:
            signal = (signal @ weight) * (1 - np.tanh(sums[i - 1]) ** 2)
    return found[::-1]


def numpy_copies(method: Staged) -> list[tuple[Array, Array]]:
    pairs = zip(method.weights, method.biases, strict=True)
    return [(w.detach().numpy().copy(), b.detach().numpy().copy()) for w, b in pairs]


def adam_in_numpy(value: Array, gradient: Array, rate: float) -> Array:
    """Lasagne's first step: ``rate sqrt(1-b2)/(1-b1) (1-b1) g / (sqrt(1-b2) |g| + eps)``."""
    root = math.sqrt(1 - 0.999)
    return np.asarray(value - rate * root * gradient / (root * np.abs(gradient) + EPS))


def check_step(
    method: Staged, before: list[tuple[Array, Array]], expected: list[tuple[Array, Array]]
) -> None:
    rate = method.recipe.schedule.start
    x, labels = batch()
    method.step(x, labels)
    for i, (weight, bias) in enumerate(numpy_copies(method)):
        for value, start, gradient in zip((weight, bias), before[i], expected[i], strict=True):
            wanted = adam_in_numpy(start, gradient, rate)
            np.testing.assert_allclose(value, wanted, rtol=1e-7, atol=1e-10)


def test_a_real_step_of_bitwise_goes_through_tanh_of_weights_and_biases() -> None:
    method = method_of("bitwise")
    method.start_epoch(0, fresh=True)
    before = numpy_copies(method)
    x, labels = batch()
    used = [(np.tanh(w), np.tanh(b)) for w, b in before]
    flat = x.flatten(1).numpy()
    chain = gradients_in_numpy(used, flat, labels.tolist(), units=False)
    expected = [
        (gw * (1 - uw**2), gb * (1 - ub**2)) for (gw, gb), (uw, ub) in zip(chain, used, strict=True)
    ]
    check_step(method, before, expected)


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_a_noisy_backpropagation_step_is_that_of_numpy(fraction: float) -> None:
    method = method_of("bitwise", **{"method.zero_fraction": fraction})
    method.start_epoch(2, fresh=True)
    before = numpy_copies(method)

    def quantize(value: Array) -> Array:
        zeros = np.argsort(np.abs(value).ravel(), kind="stable")[: int(fraction * value.size)]
        signs = np.where(value >= 0, 1.0, -1.0)
        signs.ravel()[zeros] = 0
        return signs

    used = [(quantize(w), quantize(b)) for w, b in before]
    x, labels = batch()
    flat = x.flatten(1).numpy()
    expected = gradients_in_numpy(used, flat, labels.tolist(), units=True)
    check_step(method, before, expected)


def test_a_retraining_step_of_ternary_is_that_of_numpy() -> None:
    method = method_of("ternary")
    method.start_epoch(2, fresh=True)
    before = numpy_copies(method)
    used = []
    for i, (weight, bias) in enumerate(before):
        step = float(method.steps[i][0])
        nearest = np.array([-step, 0.0, step])
        chosen = np.abs(weight[..., None] - nearest).argmin(-1)
        assert {0, 1, 2} == set(chosen.ravel())
        used.append((nearest[chosen], bias))
    x, labels = batch()
    flat = x.flatten(1).numpy()
    expected = gradients_in_numpy(used, flat, labels.tolist(), units=True)
    check_step(method, before, expected)


def test_the_network_at_test_time_scores_as_the_rule_does() -> None:
    x, _ = batch()
    for name, mode in (("bitwise", "bnn-det"), ("ternary", "bnn-det"), ("bitwise", "float")):
        method = method_of(name, mode)
        method.start_epoch(2 if mode == "bnn-det" else 0, fresh=True)
        network = method.end_epoch().eval()
        assert network is method.network
        assert torch.allclose(network(x), method.forward(x), rtol=1e-12), name


def test_stages_begin_once_and_only_the_last_is_selectable() -> None:
    method = method_of("ternary")
    assert [method.selectable(epoch) for epoch in range(5)] == [False, False, True, True, True]
    rates = []
    for epoch in range(5):
        rates.append(method.start_epoch(epoch, fresh=True))
        assert method.quantized == (epoch >= 2)
        assert len(method.signs()) == (0 if epoch < 2 else 5 * 6 + 4 * 5 + 10 * 4)
        if epoch == 2:
            steps = [step.clone() for step in method.steps]
            with torch.no_grad():
                method.weights[0].mul_(2)
    assert all(torch.equal(a, b) for a, b in zip(steps, method.steps, strict=True)), "D is kept"
    schedule = method.recipe.schedule
    assert rates == [schedule.rate(e, 2) for e in range(2)] + [
        schedule.rate(e, 3) for e in range(3)
    ]
    real = method_of("ternary", "float")
    assert real.selectable(0)
    for epoch in range(5):
        real.start_epoch(epoch, fresh=True)
    assert not real.quantized


def test_the_first_stage_is_the_float_run_s_network() -> None:
    staged, real = method_of("bitwise"), method_of("bitwise", "float")
    for a, b in zip(staged.weights, real.weights, strict=True):
        assert torch.equal(a, b)


def test_methods_say_which_modes_and_networks_they_take() -> None:
    recipe = recipe_of("ternary")
    for mode in ("bc-det", "bnn-stoch"):
        with pytest.raises(HarnessError, match=f"modes float and bnn-det, found '{mode}'"):
            recipe.check_mode(get_mode(mode))
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"method.real_epochs": 5}, "real_epochs must be below the 5 epochs"),
        ({"method.real_epochs": 0}, "at least 1"),
        ({"network.hidden_dropout": 0.5}, "without dropout"),
        ({"method.zero_fraction": 0.5}, "left out for ternary"),
        ({"network.norm.eps": 1e-4}, "left out for fan-in"),
    )
    for change, words in changes:
        with pytest.raises(HarnessError, match=words):
            recipe_of("ternary", **change)
    with pytest.raises(HarnessError, match="left out for ebp"):
        load_recipe("ebp", "mnist", {"method.real_epochs": 3})
