"""Two stages: train a real network, then retrain it with quantized weights and sign units.

``bitwise`` (Kim & Smaragdis, 2016): in the real network weights and biases pass through tanh; the
second stage, noisy backpropagation, takes their signs, or zero below a threshold beta of each
layer, and applies the gradients with the quantized weights to the real copies.
``ternary`` (Hwang & Sung, 2014): a plain real network, then weights of -D, 0, +D with the D of
least squared error in each layer, found once; biases stay real.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from harness.methods.base import flat_signs
from harness.methods.quantize import (
    bitwise_weight,
    least_squares_step,
    sign_through_tanh,
    straight_through,
    ternary_weight,
    zero_threshold,
)
from harness.nn.loss import squared_hinge
from harness.nn.networks import BinaryNetwork, Block
from harness.nn.optim import optimizer_of, set_learning_rate
from harness.nn.streams import Streams
from harness.spec import Mode, Recipe
from harness.train.inputs import Resident

_BOUND = math.sqrt(3)  # of a uniform distribution of unit variance


class _AsNetwork(nn.Module):
    """The first stage's real network, as evaluation calls it."""

    def __init__(self, scores: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x)


class Staged:
    """Real copies of weights and biases, trained in two stages; in mode ``float`` in the first.

    ``network`` is the network at test time. Each stage runs the recipe's schedule from its start,
    with a fresh optimizer. Weights start with unit variance, the same in both modes.
    """

    other_weights = ""

    def __init__(
        self, recipe: Recipe, mode: Mode, network: BinaryNetwork, streams: Streams
    ) -> None:
        self.recipe, self.network, self.streams = recipe, network, streams
        self.bitwise = recipe.method.kind == "bitwise"
        self.stages = 2 if mode.is_bnn else 1
        self.real_epochs = recipe.method.real_epochs if mode.is_bnn else recipe.epochs
        self.blocks = cast(list[Block], list(network.blocks))
        self.weights = [self._start(block.layer.weight) for block in self.blocks]
        self.biases = [nn.Parameter(torch.zeros_like(block.layer.bias)) for block in self.blocks]
        # beta or D of each layer, and the biases' beta
        self.steps = [torch.zeros(2, device=weight.device) for weight in self.weights]
        self.quantized = False
        self._renew_optimizer()

    def _start(self, like: Tensor) -> nn.Parameter:
        start = torch.empty(like.shape).uniform_(-_BOUND, _BOUND, generator=self.streams["init"])
        return nn.Parameter(start.to(like.device))

    def _renew_optimizer(self) -> None:
        groups = [{"params": [*self.weights, *self.biases], "lr_scale": 1.0}]
        self.optimizer = optimizer_of(groups, self.recipe.optimizer, self.recipe.schedule.start)

    def start_epoch(self, epoch: int, fresh: bool) -> float:
        """Set and return the learning rate; begin the second stage where its time has come."""
        if fresh and epoch == self.real_epochs:
            self.quantized = True
            self._renew_optimizer()
        if fresh and self.quantized and (self.bitwise or epoch == self.real_epochs):
            self._find_steps()
        first, last = self.real_epochs, self.recipe.epochs
        in_stage = (epoch - first, last - first) if self.quantized else (epoch, first)
        rate = self.recipe.schedule.rate(*in_stage)
        set_learning_rate(self.optimizer, rate)
        return rate

    def _find_steps(self) -> None:
        """Set beta of each layer anew, or D from the real network's weights."""
        fraction = self.recipe.method.zero_fraction
        for step, weight, bias in zip(self.steps, self.weights, self.biases, strict=True):
            if self.bitwise:
                step[0], step[1] = zero_threshold(weight, fraction), zero_threshold(bias, fraction)
            else:
                step[0] = least_squares_step(weight)

    def used(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the weights and biases that the forward pass takes in this stage."""
        weight, bias, step = self.weights[index], self.biases[index], self.steps[index]
        if self.bitwise and not self.quantized:
            return weight.tanh(), bias.tanh()
        if self.bitwise:
            return (
                straight_through(weight, bitwise_weight(weight.detach(), step[0])),
                straight_through(bias, bitwise_weight(bias.detach(), step[1])),
            )
        if self.quantized:
            return straight_through(weight, ternary_weight(weight.detach(), step[0])), bias
        return weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores [B, 10]: tanh units in the first stage, sign units in the second."""
        unit = sign_through_tanh if self.quantized else torch.tanh
        x = x.flatten(1)
        for i, block in enumerate(self.blocks):
            weight, bias = self.used(i)
            dots = x @ weight.T
            if block.scale != 1.0 or block.offset:
                dots = dots * block.scale + block.offset * weight.sum(1)
            x = block.norm(dots + bias)
            x = x if block.activation == "none" else unit(x)
        return x

    def step(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Update every real copy once."""
        scores = self.forward(x)
        loss = squared_hinge(scores, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach(), (scores.detach().argmax(1) != labels).sum()

    @torch.no_grad()
    def end_epoch(self) -> nn.Module:
        """Copy the weights in use into the network and return it; in the first stage of two
        return the real network, which is only on the way."""
        if self.stages == 2 and not self.quantized:
            return _AsNetwork(self.forward)
        for i, block in enumerate(self.blocks):
            weight, bias = self.used(i)
            block.layer.weight.copy_(weight)
            block.layer.bias.copy_(bias)
        return self.network

    def selectable(self, epoch: int) -> bool:
        """Tell whether ``epoch`` is in the last stage."""
        return self.stages == 1 or epoch >= self.real_epochs

    def other_error_pct(self, images: Resident) -> float:
        """Raise: there are no other weights."""
        raise NotImplementedError("no other weights")

    def signs(self) -> Tensor:
        """Return the signs of the real copies in the second stage."""
        return flat_signs(list(self.weights) if self.quantized else [])

    def trained(self) -> Mapping[str, Tensor]:
        """Return the real copies."""
        named = {f"weights.{i}": weight for i, weight in enumerate(self.weights)}
        return named | {f"biases.{i}": bias for i, bias in enumerate(self.biases)}

    def state_dict(self) -> dict[str, Any]:
        """Return the real copies, the quantizers' steps, the stage and the optimizer."""
        return {
            "trained": {name: tensor.detach() for name, tensor in self.trained().items()},
            "steps": self.steps,
            "quantized": self.quantized,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        with torch.no_grad():
            for name, tensor in self.trained().items():
                tensor.copy_(state["trained"][name])
            for step, saved in zip(self.steps, state["steps"], strict=True):
                step.copy_(saved)
        self.quantized = state["quantized"]
        self.optimizer.load_state_dict(state["optimizer"])
