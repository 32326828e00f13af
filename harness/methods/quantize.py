"""Quantizers of the two-stage methods, and their straight-through gradients."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from harness.nn.binarize import binary_sign


class _TanhSign(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return binary_sign(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        tanh: Tensor = x.tanh()
        gated: Tensor = gradients[0] * (1 - tanh * tanh)
        return gated


def sign_through_tanh(x: Tensor) -> Tensor:
    """Return ``sign(x)``; the gradient is that of ``tanh x``."""
    result: Tensor = _TanhSign.apply(x)  # type: ignore[no-untyped-call]
    return result


class _StraightThrough(Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, quantized: Tensor) -> Tensor:
        return quantized.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_through(latent: Tensor, quantized: Tensor) -> Tensor:
    """Return ``quantized``; its gradient goes to ``latent`` unchanged."""
    result: Tensor = _StraightThrough.apply(latent, quantized)  # type: ignore[no-untyped-call]
    return result


def zero_threshold(weight: Tensor, zero_fraction: float) -> Tensor:
    """Return beta [] such that ``floor(zero_fraction * n)`` weights have ``|w| < beta``.

    Bitwise networks set those to zero (Kim & Smaragdis, 2016); ties at beta keep their sign.
    """
    # 0.29 * 100 is 28.999... in doubles.
    count = math.floor(round(zero_fraction * weight.numel(), 6))
    magnitudes = weight.detach().abs().flatten()
    if not count:
        return torch.zeros((), dtype=weight.dtype, device=weight.device)
    return magnitudes.kthvalue(count + 1).values


def bitwise_weight(weight: Tensor, beta: Tensor) -> Tensor:
    """Return 0 where ``|w| < beta``, elsewhere the sign, +1 at 0."""
    return binary_sign(weight) * (weight.abs() >= beta)


def least_squares_step(weight: Tensor) -> Tensor:
    """Return the D [] that minimises ``sum (w - q)^2`` over q in {-D, 0, +D} (Hwang & Sung, 2014).

    If the k largest magnitudes are not zero, the best D is their mean and the error is
    ``sum w^2 - (sum of the k)^2 / k``: the best k follows from sorting once. The weights that are
    nearer to zero than to D, ``|w| < D/2``, are then the ones that are zero.
    """
    magnitudes = weight.detach().double().abs().flatten().sort(descending=True).values
    counts = torch.arange(1, len(magnitudes) + 1, dtype=torch.float64, device=weight.device)
    sums = magnitudes.cumsum(0)
    best = (sums.square() / counts).argmax()
    return (sums[best] / counts[best]).to(weight.dtype)


def ternary_weight(weight: Tensor, step: Tensor) -> Tensor:
    """Return the nearest of -D, 0 and +D for the step D; half-way goes outwards."""
    return binary_sign(weight) * (weight.abs() >= step / 2) * step
