"""Vanilla batch normalisation in Lasagne's form and in torch's (paper, section 2)."""

import math

import torch
from torch import Tensor, nn

from harness.nn.shift import ShiftBatchNorm
from harness.spec import NormSpec

Averages = list[tuple[Tensor, Tensor]]


class VanillaBatchNorm(nn.Module):
    """Batch normalisation ``y = gamma (x - mean) / sqrt(var + eps) + beta`` over batch and space.

    ``form="lasagne"`` keeps running averages of the mean and of ``1/sqrt(var + eps)`` with the
    biased variance; ``form="torch"`` of the mean and of the unbiased variance. ``momentum`` is the
    weight of the newest batch. Input ``[B, C]`` or ``[B, C, H, W]``.
    """

    running_mean: Tensor
    # By momentum, where the running averages of a whole network are taken together.
    waiting: dict[float, Averages] | None = None

    def __init__(self, features: int, form: str, eps: float, momentum: float) -> None:
        super().__init__()
        if form not in ("lasagne", "torch"):
            raise ValueError(f"form must be 'lasagne' or 'torch', found {form!r}")
        self.form, self.eps, self.momentum = form, eps, momentum
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        spread = "running_inv_std" if form == "lasagne" else "running_var"
        self.register_buffer(spread, torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.evaluate(x, 1)
        y, mean, inv_std = torch.native_batch_norm(
            x, self.weight, self.bias, None, None, True, 0.0, self.eps
        )
        self.average(mean, inv_std, x.numel() // x.shape[1])
        return y

    @torch.no_grad()
    def average(self, mean: Tensor, inv_std: Tensor, n: int) -> None:
        """Average in the mean and ``1/sqrt(var + eps)`` of a batch of ``n`` values a channel."""
        if self.form == "lasagne":
            spread, newest = self.get_buffer("running_inv_std"), inv_std
        else:
            spread = self.get_buffer("running_var")
            newest = (inv_std.pow(-2) - self.eps) * (n / max(n - 1, 1))
        pairs = [(self.running_mean, mean), (spread, newest)]
        if self.waiting is None:
            average_in(pairs, self.momentum)
        else:
            self.waiting.setdefault(self.momentum, []).extend(pairs)

    def evaluate(self, x: Tensor, channel_dim: int) -> Tensor:
        """Return the test-time output; channels lie along ``channel_dim`` of ``x``.

        Three rounded operations, each monotone in ``x``: export relies on that.
        """
        shape = [-1 if i == channel_dim % x.dim() else 1 for i in range(x.dim())]
        if self.form == "lasagne":
            inv_std = self.get_buffer("running_inv_std")
        else:
            inv_std = torch.rsqrt(self.get_buffer("running_var") + self.eps)
        scale = self.weight * inv_std
        return (x - self.running_mean.view(shape)) * scale.view(shape) + self.bias.view(shape)


@torch.no_grad()
def average_in(pairs: Averages, momentum: float) -> None:
    """Average a newest value in to each running one: one launch on a GPU for all."""
    running, newest = zip(*pairs, strict=True)
    torch._foreach_lerp_(list(running), list(newest), momentum)


class FanInScale(nn.Module):
    """``y = x / sqrt(K + 1)`` for a product over K inputs and a bias: no batch norm at all."""

    def __init__(self, fan_in: int) -> None:
        super().__init__()
        self.factor = 1 / math.sqrt(fan_in + 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def evaluate(self, x: Tensor, channel_dim: int) -> Tensor:
        """Return the same as :meth:`forward`: monotone in ``x``."""
        return x * self.factor


def build_norm(
    spec: NormSpec, features: int, fan_in: int
) -> VanillaBatchNorm | ShiftBatchNorm | FanInScale:
    """Return the norm that ``spec`` names, over ``features`` channels of ``fan_in`` inputs each."""
    if spec.kind == "fan-in":
        return FanInScale(fan_in)
    if spec.kind == "shift":
        return ShiftBatchNorm(features, spec.eps, spec.momentum, spec.running)
    return VanillaBatchNorm(features, spec.kind, spec.eps, spec.momentum)
