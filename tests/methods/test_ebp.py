"""Expectation backpropagation against sampled binary weights and a step in NumPy, float64."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from harness.methods.ebp import Ebp, Moments, output_signal, propagate, unit_moments
from harness.nn.networks import BinaryNetwork, build_network
from harness.nn.streams import Streams
from harness.spec import MODES, NetworkSpec, NormSpec

Array = npt.NDArray[np.float64]
FAN_IN = NormSpec("fan-in")
# Of means and variances over 40,000 draws: six standard errors of what they hold.
SAMPLED, DRAWS = 0.02, 40_000


def network(hidden: tuple[int, ...], image: tuple[int, int, int] = (1, 2, 3)) -> BinaryNetwork:
    spec = NetworkSpec("mlp", norm=FAN_IN, output_norm=FAN_IN, hidden=hidden)
    return build_network(spec, MODES["bnn-det"], Streams(0), image, None)


def method(hidden: tuple[int, ...], h_scale: float = 1.0) -> Ebp:
    found = Ebp(network(hidden).double(), Streams(3))
    generator = torch.Generator().manual_seed(8)
    for layer in found.network.binary_layers():
        layer.weight.data.mul_(h_scale)
        layer.bias.data.uniform_(-0.5, 0.5, generator=generator)
    return found


def batch(count: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 1, 2, 3, generator=generator, dtype=torch.float64)
    return x, torch.arange(count) * 3 % 10


def test_weights_start_with_the_published_spread() -> None:
    bound = 0.5 * math.sqrt(12 / 6)
    h = Ebp(network((400,)), Streams(0)).network.binary_layers()[0].weight.detach()
    assert 0.98 * bound < h.abs().max() <= bound
    assert h.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_moments_of_two_layers_are_those_of_sampled_binary_weights() -> None:
    """Each layer's mean and variance over draws of ±1 weights, of units and of Gaussian biases.

    Units of the first layer are drawn from Gaussian pre-activations, the rule's assumption.
    """
    ebp = method((40,), h_scale=0.6)
    x, _ = batch(2)
    first, second = ebp.forward(x)
    generator = torch.Generator().manual_seed(5)

    def draw(index: int, inputs: Tensor) -> Tensor:
        layer = ebp.network.binary_layers()[index]
        plus = torch.sigmoid(2 * layer.weight)
        u = torch.rand(len(inputs), *plus.shape, generator=generator, dtype=torch.float64)
        noise = torch.randn(len(inputs), len(plus), generator=generator, dtype=torch.float64)
        sums = torch.einsum("snk,sk->sn", 2 * (u < plus).double() - 1, inputs) + layer.bias + noise
        return sums / math.sqrt(plus.shape[1] + 1)

    for image in range(2):
        pixels = x[image].flatten().expand(DRAWS, -1)
        below = draw(0, pixels)
        assert torch.allclose(below.mean(0), first.mu[image], atol=SAMPLED)
        assert torch.allclose(below.var(0), first.var[image], atol=SAMPLED)
        mean, variance = unit_moments(first)
        gaussian = first.mu[image] + first.var[image].sqrt() * torch.randn(
            DRAWS, 40, generator=generator, dtype=torch.float64
        )
        units = 2 * (gaussian >= 0).double() - 1
        assert torch.allclose(units.mean(0), mean[image], atol=SAMPLED)
        assert torch.allclose(units.var(0), variance[image], atol=SAMPLED)
        above = draw(1, units)
        assert torch.allclose(above.mean(0), second.mu[image], atol=SAMPLED)
        assert torch.allclose(above.var(0), second.var[image], atol=SAMPLED)


def phi(z: Array) -> Array:
    erfc = np.vectorize(math.erfc)
    return np.asarray(0.5 * erfc(-z / math.sqrt(2)))


def gauss(mu: Array, var: Array) -> Array:
    return np.exp(-(mu**2) / (2 * var)) / np.sqrt(2 * math.pi * var)


def step_in_numpy(
    hs: list[Array], bs: list[Array], x: Array, labels: list[int]
) -> tuple[list[Array], list[Array]]:
    """One update of two or more layers, one image and one weight at a time."""
    new_h, new_b = [h.copy() for h in hs], [b.copy() for b in bs]
    for image, label in zip(x, labels, strict=True):
        m, v = image.copy(), np.zeros_like(image)
        seen = []
        for h, b in zip(hs, bs, strict=True):
            n, k = h.shape
            mu, var = np.zeros(n), np.zeros(n)
            for i in range(n):
                mean_w = np.tanh(h[i])
                mu[i] = (mean_w @ m + b[i]) / math.sqrt(k + 1)
                spread = v + (1 - mean_w**2) * (m**2)
                var[i] = (spread.sum() + 1) / (k + 1)
            seen.append((m, mu, var, k))
            p = phi(mu / np.sqrt(var))
            m, v = 2 * p - 1, 4 * (p - p**2)
        y = np.where(np.arange(len(bs[-1])) == label, 1.0, -1.0)
        _, mu, var, k = seen[-1]
        signal = y * 2 * gauss(mu, var) / phi(y * mu / np.sqrt(var)) / math.sqrt(k + 1)
        for layer in reversed(range(len(hs))):
            new_h[layer] += 0.5 * np.outer(signal, seen[layer][0])
            new_b[layer] += 0.5 * signal
            if layer:
                _, mu, var, k = seen[layer - 1]
                signal = (np.tanh(hs[layer]).T @ signal) * 2 * gauss(mu, var) / math.sqrt(k + 1)
    return new_h, new_b


@pytest.mark.parametrize("hidden", [(5,), (5, 4)], ids=str)
def test_a_step_is_that_of_numpy(hidden: tuple[int, ...]) -> None:
    ebp = method(hidden)
    x, labels = batch()
    layers = ebp.network.binary_layers()
    hs = [layer.weight.detach().numpy().copy() for layer in layers]
    bs = [layer.bias.detach().numpy().copy() for layer in layers]
    expected_h, expected_b = step_in_numpy(hs, bs, x.flatten(1).numpy(), labels.tolist())
    ebp.step(x, labels)
    for i, layer in enumerate(layers):
        assert not np.allclose(expected_h[i], hs[i])
        np.testing.assert_allclose(layer.weight.detach().numpy(), expected_h[i], rtol=1e-12)
        np.testing.assert_allclose(layer.bias.detach().numpy(), expected_b[i], rtol=1e-12)


def moments(mu: list[float], var: float, dtype: torch.dtype) -> Moments:
    values = torch.tensor([mu], dtype=dtype)
    inputs = torch.zeros(1, 3, dtype=dtype)
    return Moments(inputs, inputs, values, torch.full_like(values, var))


@pytest.mark.parametrize("label", [1.0, -1.0])
def test_the_output_signal_in_the_tail(label: float) -> None:
    """To 30 deviations on the wrong side; float32's 1 + erf has no Phi beyond 5 of them."""
    mu, var = np.arange(-60, 61, 0.5), 4.0
    exact = label * 2 * gauss(mu, np.asarray(var)) / phi(mu / math.sqrt(var)) / math.sqrt(3 + 1)
    y = torch.full((1, len(mu)), label)
    found = output_signal(moments([label * float(x) for x in mu], var, torch.float32), y)
    assert found[0].numpy() == pytest.approx(exact, rel=1e-4, abs=1e-12)
    assert found[0, 0].item() == pytest.approx(label * 60 / 4, rel=2e-3), "its limit |mu| / var"


def test_the_output_signal_beyond_float64() -> None:
    found = output_signal(moments([-1e9, 1e9], 4.0, torch.float32), torch.ones(1, 2))
    assert found[0].tolist() == [pytest.approx(1e9 / 4, rel=1e-6), 0.0]


def test_pixels_as_odd_integers_and_as_reals_give_the_same_moments() -> None:
    spec = NetworkSpec("mlp", norm=FAN_IN, output_norm=FAN_IN, hidden=(5,))
    affine = (1 / 255, 0.25)
    found = []
    pixels = torch.tensor([[0, 10, 100, 128, 200, 255.0]]).view(1, 1, 2, 3)
    odd = 2 * pixels - 255
    for pair, x in ((affine, odd), (None, odd * affine[0] + affine[1])):
        net = build_network(spec, MODES["bnn-det"], Streams(0), (1, 2, 3), pair)
        found.append(Ebp(net, Streams(0)).forward(x)[-1])
    assert torch.allclose(found[0].mu, found[1].mu, atol=1e-6)
    assert torch.allclose(found[0].var, found[1].var, atol=1e-6)


def test_a_known_weight_adds_no_variance_but_the_bias_s() -> None:
    h = torch.full((1, 3), 20.0)
    found = propagate(h, torch.zeros(1), torch.tensor([[1.0, -1.0, 1.0]]), torch.zeros(1, 3))
    assert found.mu.item() == pytest.approx(1 / 2)
    assert found.var.item() == pytest.approx(1 / 4)
