"""Products of signs by TF32 tensor cores on a GPU: recipe key ``precision: fast`` there.

TF32 keeps 11 significant bits of an operand and sums in float32: products of ±1, and of their
doubles after dropout, lose nothing; the gradient is rounded to those 11 bits backward. On a CPU the
same functions are plain float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def forbid() -> None:
    """Let no convolution of CUDA take TF32 from here on but under ``tf32``; products never do.

    By the same setting as ``tf32``'s: torch raises where it finds this and ``allow_tf32`` mixed.
    """
    cudnn: Any = torch.backends.cudnn
    cudnn.conv.fp32_precision = "ieee"


@contextmanager
def tf32() -> Iterator[None]:
    """Let matrix products and convolutions of CUDA take TF32, and what they took afterwards."""
    cudnn: Any = torch.backends.cudnn
    settings: list[Any] = [torch.backends.cuda.matmul, cudnn.conv]
    before = [part.fp32_precision for part in settings]
    try:
        for part in settings:
            part.fp32_precision = "tf32"
        yield
    finally:
        for part, name in zip(settings, before, strict=True):
            part.fp32_precision = name


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        with tf32():
            return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        with tf32():
            by_input = gradients[0] @ weight if ctx.needs_input_grad[0] else None
            return by_input, gradients[0].t() @ x


class _Conv3x3(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        with tf32():
            return F.conv2d(x, weight, padding=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], True, False]
        with tf32():
            by_input, by_weight, _ = torch.ops.aten.convolution_backward(
                gradients[0], x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
            )
        return by_input, by_weight


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x @ weight.T``, x [B, K] and weight [N, K] of ±1 (or ±2 and 0), exactly."""
    result: Tensor = _Linear.apply(x, weight)  # type: ignore[no-untyped-call]
    return result


def conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """Return the 3x3 convolution, zero padding 1, of ±1 maps [B, C, H, W] and filters, exactly."""
    result: Tensor = _Conv3x3.apply(x, weight)  # type: ignore[no-untyped-call]
    return result
