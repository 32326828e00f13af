"""A straightforward eager PyTorch port of the paper's networks: what the trainer is timed against.

As people write it: sign in an autograd function, library layers, batch norm, dropout and Adam, a
clamp after each step. No code is shared with the harness.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Sign(torch.autograd.Function):
    """The sign with the straight-through estimator ``g * 1[|x| <= 1]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * (x.abs() <= 1)


def binarize(x: Tensor) -> Tensor:
    result: Tensor = Sign.apply(x)  # type: ignore[no-untyped-call]
    return result


class BinaryLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, binarize(self.weight), self.bias)


class BinaryConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, binarize(self.weight), self.bias, padding=1)


class Binarize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return binarize(x)


def mlp(hidden: Sequence[int], dropouts: tuple[float, float] = (0.2, 0.5)) -> nn.Sequential:
    """Return the MNIST network: dropout, linear, batch norm and sign a layer."""
    layers: list[nn.Module] = [nn.Flatten()]
    width, rate = 784, dropouts[0]
    for units in (*hidden, 10):
        norm = nn.BatchNorm1d(units, eps=1e-4)
        layers += [nn.Dropout(rate), BinaryLinear(width, units), norm, Binarize()]
        width, rate = units, dropouts[1]
    return nn.Sequential(*layers[:-1])


def convnet(w: int, fc: int = 1024) -> nn.Sequential:
    """Return ConvNet(w) for 32 x 32 images in three channels."""
    layers: list[nn.Module] = []
    channels = 3
    for i, maps in enumerate((w, w, 2 * w, 2 * w, 4 * w, 4 * w)):
        layers.append(BinaryConv(channels, maps, 3))
        layers += [nn.MaxPool2d(2)] if i % 2 else []
        layers += [nn.BatchNorm2d(maps, eps=1e-4), Binarize()]
        channels = maps
    layers.append(nn.Flatten())
    width = channels * 16
    for units in (fc, fc, 10):
        layers += [BinaryLinear(width, units), nn.BatchNorm1d(units, eps=1e-4), Binarize()]
        width = units
    return nn.Sequential(*layers[:-1])


class Rival:
    """The network with its optimizer; ``step`` is one training step."""

    def __init__(self, network: nn.Sequential, lr: float = 1e-3) -> None:
        self.network = network.train()
        self.binary = [m for m in network if isinstance(m, BinaryLinear | BinaryConv)]
        for layer in self.binary:
            nn.init.uniform_(layer.weight, -1, 1)
        scaled = [{"params": [m.weight], "lr": lr * self._glorot(m)} for m in self.binary]
        weights = {m.weight for m in self.binary}
        rest = [p for p in network.parameters() if p not in weights]
        self.optimizer = torch.optim.Adam([*scaled, {"params": rest}], lr=lr)

    @staticmethod
    def _glorot(layer: nn.Module) -> float:
        shape = layer.weight.shape  # type: ignore[union-attr]
        area = shape[2:].numel()  # type: ignore[operator, index]
        return float(((shape[0] + shape[1]) * area / 1.5) ** 0.5)  # type: ignore[index, operator]

    def step(self, x: Tensor, labels: Tensor) -> Tensor:
        """Train on ``x`` [B, C, H, W] in [-1, 1] and return the loss."""
        scores = self.network(x)
        targets = 2 * F.one_hot(labels, 10) - 1
        loss = (1 - targets * scores).clamp(min=0).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for layer in self.binary:
                layer.weight.clamp_(-1, 1)
        return loss.detach()
