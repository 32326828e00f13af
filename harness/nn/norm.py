"""Vanilla batch normalisation in Lasagne's form and in torch's (paper, section 2)."""

import math

import torch
from torch import Tensor, nn

from harness.nn.batch_norm import BatchNorm
from harness.nn.shift import ShiftBatchNorm
from harness.spec import NormSpec


class VanillaBatchNorm(BatchNorm):
    """Batch normalisation ``y = gamma (x - mean) / sqrt(var + eps) + beta`` over batch and space.

    ``form="lasagne"`` keeps running averages of the mean and of ``1/sqrt(var + eps)`` with the
    biased variance; ``form="torch"`` of the mean and of the unbiased variance. ``momentum`` is the
    weight of the newest batch. Input ``[B, C]`` or ``[B, C, H, W]``.
    """

    def __init__(self, features: int, form: str, eps: float, momentum: float) -> None:
        if form not in ("lasagne", "torch"):
            raise ValueError(f"form must be 'lasagne' or 'torch', found {form!r}")
        spread = "running_inv_std" if form == "lasagne" else "running_var"
        super().__init__(features, eps, momentum, spread)
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.evaluate(x, 1)
        y, mean, inv_std = torch.native_batch_norm(
            x, self.weight, self.bias, None, None, True, 0.0, self.eps
        )
        self.average(mean, inv_std, x.numel() // x.shape[1])
        return y

    def spread_of(self, inv_std: Tensor, n: int) -> Tensor:
        """Return the inverse deviation, or the unbiased variance, of ``n`` values a channel."""
        if self.form == "lasagne":
            return inv_std
        return (inv_std.pow(-2) - self.eps) * (n / max(n - 1, 1))

    def test_factor(self) -> Tensor:
        """Return ``gamma / sqrt(var + eps)``, [C]."""
        inv_std = self.get_buffer(self._spread)
        if self.form == "torch":
            inv_std = torch.rsqrt(inv_std + self.eps)
        return self.weight * inv_std


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
