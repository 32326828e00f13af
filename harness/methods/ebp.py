"""Expectation backpropagation (Soudry et al., 2014; Cheng et al., 2015).

Online Bayesian inference of binary weights: no learning rate and no gradient of a loss. A weight
w of ±1 has the natural parameter h, ``P(w = +1) = sigmoid(2h)``, and the mean ``tanh h``; sign
units see Gaussian pre-activations.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from harness.methods.base import flat_signs
from harness.nn.loss import squared_hinge
from harness.nn.networks import BinaryNetwork, Block
from harness.nn.streams import Streams
from harness.train.evaluation import EVALUATION_BATCH, error_pct
from harness.train.inputs import Resident


@dataclass(frozen=True)
class Moments:
    """What a layer's forward pass leaves for the update.

    ``inputs`` [B, K] are the means of what it takes, ``weights`` [N, K] the means ``tanh h``,
    ``mu`` and ``var`` [B, N] the mean and the variance of its pre-activations.
    """

    inputs: Tensor
    weights: Tensor
    mu: Tensor
    var: Tensor


def propagate(h: Tensor, bias: Tensor, mean: Tensor, variance: Tensor | None) -> Moments:
    """Return the moments of ``(W v + b) / sqrt(K + 1)`` for independent ±1 weights.

    ``mean`` [B, K] of the inputs, ``variance`` [B, K] of theirs, None for pixels, which are known:
    ``mu = (tanh(h) m + b) / sqrt(K + 1)`` and
    ``var = (sum variance + (1 - tanh(h)^2) m^2 + 1) / (K + 1)``, the 1 being the bias's own.
    For ±1 units ``m^2 = 1 - variance``.
    """
    k = h.shape[1]
    # tanh h as 2 sigmoid(2h) - 1: a third of the time of tanh, which was half of a step's.
    weights = torch.mul(h, 2).sigmoid_().mul_(2).sub_(1)
    mu = torch.addmm(bias, mean, weights.T).div_(math.sqrt(k + 1))
    var = mean.square() @ torch.addcmul(h.new_ones(()), weights, weights, value=-1).T
    if variance is not None:
        var += variance.sum(1, keepdim=True)
    return Moments(mean, weights, mu, var.add_(1).div_(k + 1))


def unit_moments(layer: Moments) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the sign of a pre-activation: ``p = Phi(mu/sqrt(var))``,
    ``m = 2p - 1``, ``variance = 4(p - p^2)``."""
    p = torch.special.ndtr(layer.mu * layer.var.rsqrt())
    return 2 * p - 1, 4 * (p - p * p)


def density(layer: Moments) -> Tensor:
    """Return ``N(0; mu, var)``, the density of the pre-activation at its threshold."""
    return torch.exp(layer.mu.square().div(layer.var).mul_(-0.5)) * layer.var.rsqrt() / SQRT_2PI


SQRT_2PI = math.sqrt(2 * math.pi)


def output_signal(layer: Moments, targets: Tensor) -> Tensor:
    """Return ``y * 2 N(0; mu, var) / Phi(y mu / sqrt(var)) / sqrt(K + 1)``, targets y of ±1 [B, N].

    The derivative of ``2 log P(sign = y)`` with respect to a pre-activation's sum. As the scaled
    ``erfcx(x) = exp(x^2) erfc(x)`` has it, ``N / Phi = sqrt(2 / (pi var)) / erfcx(-a / sqrt(2))``
    at ``a = y mu / sqrt(var)`` deviations on the right side: torch's Phi has no tail beyond -5.
    """
    root = layer.var.rsqrt()
    scaled: Tensor = torch.special.erfcx(targets * layer.mu * root * -math.sqrt(0.5))
    ratio = math.sqrt(2 / math.pi) * root / scaled
    return targets * ratio * (2 / math.sqrt(layer.inputs.shape[1] + 1))


class Ebp:
    """The rule over a network of sign units in mode ``bnn-det`` (EBP-D): its latent weights are h.

    The other weights are the means (EBP-P): the forward pass of training.
    """

    other_weights = "mean"

    def __init__(self, network: BinaryNetwork, streams: Streams) -> None:
        self.network, self.streams = network, streams
        self._layers = network.binary_layers()
        for layer in self._layers:  # h ~ U(-1/2, 1/2) sqrt(12/K)
            bound = 0.5 * math.sqrt(12 / layer.fan_in)
            with torch.no_grad():
                start = torch.empty(layer.weight.shape)
                layer.weight.copy_(start.uniform_(-bound, bound, generator=streams["init"]))

    def start_epoch(self, epoch: int, fresh: bool) -> None:
        """Return None: there is no learning rate."""

    def forward(self, x: Tensor) -> list[Moments]:
        """Return every layer's moments for the network's input ``x``."""
        first = cast(Block, self.network.blocks[0])
        mean = x.flatten(1)
        if self.network.integer_input:
            mean = mean * first.scale + first.offset
        variance: Tensor | None = None
        found = []
        for layer in self._layers:
            found.append(propagate(layer.weight, layer.bias, mean, variance))
            mean, variance = unit_moments(found[-1])
        return found

    @torch.no_grad()
    def step(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Update ``h += s^T m / 2`` and ``b += sum(s) / 2`` with each layer's signal s.

        The output's is :func:`output_signal`; a hidden layer's is what the layer above sends back
        through its mean weights, times ``2 N(0; mu, var) / sqrt(K + 1)``.
        """
        layers = self.forward(x)
        scores = _scores(layers[-1])
        targets = -torch.ones_like(scores).scatter_(1, labels[:, None], -1.0)
        signal = output_signal(layers[-1], targets)
        for i in range(len(layers) - 1, -1, -1):
            moments, layer = layers[i], self._layers[i]
            layer.weight.addmm_(signal.T, moments.inputs, alpha=0.5)
            layer.bias.add_(signal.sum(0), alpha=0.5)
            if i:
                below = layers[i - 1]
                back = 2 / math.sqrt(below.inputs.shape[1] + 1)
                signal = (signal @ moments.weights) * density(below) * back
        return squared_hinge(scores, labels), (scores.argmax(1) != labels).sum()

    def end_epoch(self) -> nn.Module:
        """Return the network, whose latent weights every step updates."""
        return self.network

    def selectable(self, epoch: int) -> bool:
        """Return True."""
        return True

    @torch.no_grad()
    def other_error_pct(self, images: Resident) -> float:
        """Return the error in percent with the means of the weights, EBP-P."""
        starts = range(0, len(images), EVALUATION_BATCH)
        batches = (images.batch(slice(s, s + EVALUATION_BATCH))[0] for s in starts)
        scores = torch.cat([_scores(self.forward(x)[-1]) for x in batches])
        return error_pct(scores, images.labels)

    def signs(self) -> Tensor:
        """Return the more probable sign of each weight."""
        return flat_signs([layer.weight for layer in self._layers])

    def trained(self) -> Mapping[str, Tensor]:
        """Return h and the biases."""
        return dict(self.network.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return the network."""
        return {"network": self.network.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.network.load_state_dict(state["network"])


def _scores(output: Moments) -> Tensor:
    return output.mu * output.var.rsqrt()  # rises with the probability of +1
