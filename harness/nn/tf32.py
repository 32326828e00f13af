"""Products of signs by TF32 tensor cores on a GPU: recipe key ``precision: fast`` there.

TF32 keeps 11 significant bits of an operand and sums in float32: products of ±1, and of their
doubles after dropout, lose nothing; the gradient is rounded to those 11 bits backward. On a CPU the
same functions are plain float32.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from harness.nn.attached import attachment
from harness.nn.conv_gradients import conv_gradients
from kernels.precision import float32_precision

PATCHED, CHECKED = 256, 16  # images
_exact: dict[tuple[int, ...], bool] = {}  # the library's convolution, by its choice and shapes
_log = logging.getLogger("harness.nn")


def forbid() -> None:
    """Let no convolution of CUDA take TF32 from here on but under ``tf32``; products never do.

    By the same setting as ``tf32``'s: torch raises where it finds this and ``allow_tf32`` mixed.
    """
    cudnn: Any = torch.backends.cudnn
    cudnn.conv.fp32_precision = "ieee"


def tf32() -> AbstractContextManager[None]:
    """Let matrix products and convolutions of CUDA take TF32, and what they took afterwards."""
    return float32_precision("tf32")


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, handed: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.latent = weight if handed else None
        with tf32():
            return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        with tf32():
            by_input = gradients[0] @ weight if ctx.needs_input_grad[0] else None
            by_weight = gradients[0].t() @ x
        if ctx.latent is None:
            return by_input, by_weight, None
        # Last: the update overwrites the weights.
        attachment(ctx.latent).hand_over(by_weight)
        return by_input, None, None


def by_patches(x: Tensor, weight: Tensor) -> Tensor:
    """Return the 3x3 convolution, zero padding 1, as a float32 product of patches: exact integers.

    Channels last, like the library's. The patches of ``PATCHED`` images are in memory at once.
    """
    filters = weight.flatten(1).t()
    parts = []
    for part in torch.split(x, PATCHED):
        # Windows [B, H, W, C, 3, 3] are a view, copied at once: F.unfold goes image by image.
        windows = F.pad(part, (1, 1, 1, 1)).permute(0, 2, 3, 1).unfold(1, 3, 1).unfold(2, 3, 1)
        parts.append(windows.flatten(3) @ filters)
    return torch.cat(parts).permute(0, 3, 1, 2)


def _library(x: Tensor, weight: Tensor) -> Tensor:
    with tf32():
        return F.conv2d(x, weight, padding=1)


def integer_conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """Return the 3x3 convolution, padding 1, of integers up to 2047 and filters of ±1, exactly.

    By the library where its algorithm for these shapes is exact, which the first call finds out on
    some images: one that transforms its operands (Winograd, FFT) is not. Else by patches.
    """
    # By time or by rule, the library may choose otherwise.
    shapes = (int(torch.backends.cudnn.benchmark), *x.shape, *weight.shape)
    if shapes not in _exact:
        with torch.no_grad():
            part, signs = x[:CHECKED].detach(), weight.detach()
            found = _library(x.detach(), signs)[:CHECKED]
            _exact[shapes] = torch.equal(found, by_patches(part, signs))
        if not _exact[shapes]:
            _log.warning(
                "the library's convolution of %s is not exact here: by patches", shapes[1:]
            )
    return _library(x, weight) if _exact[shapes] else by_patches(x, weight)


class _Conv3x3(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, fast: bool, integers: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.fast = fast
        return integer_conv3x3(x, weight) if integers else _library(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        with tf32() if ctx.fast else nullcontext():
            return *_backward(ctx, gradients[0]), None, None


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
    x, weight = ctx.saved_tensors
    by_input, by_weight = conv_gradients(gradient, x, weight, ctx.needs_input_grad[0], True)
    assert by_weight is not None
    return by_input, by_weight


class _SignedConv3x3(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, latent: Tensor, signs: Tensor) -> Tensor:
        ctx.save_for_backward(x, signs)
        ctx.latent = latent
        return integer_conv3x3(x, signs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        with tf32():
            by_input, by_weight = _backward(ctx, gradients[0])
        # Last: the update overwrites the signs.
        attachment(ctx.latent).hand_over(by_weight)
        return by_input, None, None


def linear(x: Tensor, weight: Tensor, shared: bool = False) -> Tensor:
    """Return ``x @ weight.T``, x [B, K] and weight [N, K]: exactly if of ±1, ±2 and 0.

    A weight that the optimizer updates as soon as its gradient is there hands it over, unless it is
    ``shared``: with another use in the step, whose gradient autograd adds.
    """
    handed = not shared and attachment(weight).update is not None
    result: Tensor = _Linear.apply(x, weight, handed)  # type: ignore[no-untyped-call]
    return result


def signed_conv3x3(x: Tensor, latent: Tensor, signs: Tensor) -> Tensor:
    """Return :func:`integer_conv3x3` of x and the signs of ``latent``, which a step trains.

    The gradient, in TF32, goes to the latent weights' attachment, for the optimizer of a GPU.
    """
    result: Tensor = _SignedConv3x3.apply(x, latent, signs)  # type: ignore[no-untyped-call]
    return result


def conv3x3(x: Tensor, weight: Tensor, fast: bool = True, integers: bool = True) -> Tensor:
    """Return :func:`integer_conv3x3`, of reals the library's; the gradient takes TF32 if ``fast``.

    Without ``integers`` operands are rounded to TF32's 11 bits.
    """
    result: Tensor = _Conv3x3.apply(x, weight, fast, integers)  # type: ignore[no-untyped-call]
    return result
