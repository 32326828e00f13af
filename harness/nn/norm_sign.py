"""A vanilla batch norm and the binary activation behind it, fused on a GPU (paper, section 1.3).

What ``Block`` does between a layer's products and the next layer's inputs at train time: bias,
batch norm with the batch's statistics, sign with the straight-through estimator. On tensors of
``kernels.triton.device.DEVICE`` alone, with no wait for the device: a CUDA graph can hold it.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function

from harness.nn import gpu
from harness.nn.norm import VanillaBatchNorm

if TYPE_CHECKING:
    from harness.nn.networks import Block


def rows_of(name: str, x: Tensor) -> Tensor:
    """Return ``x`` [R, C], or the positions' rows [B * H * W, C] of a channels-last map, as a view.

    Raises:
        ValueError: another number of dimensions, or another order in memory.
    """
    if x.dim() not in (2, 4):
        raise ValueError(f"{name} must be [R, C] or [B, C, H, W], got {list(x.shape)}")
    dense = x.permute(0, 2, 3, 1) if x.dim() == 4 else x
    if not dense.is_contiguous():
        wanted = "channels-last" if x.dim() == 4 else "contiguous"
        raise ValueError(f"{name} must be {wanted}, got strides {x.stride()}")
    return dense.view(-1, dense.shape[-1])


def _like(rows: Tensor, x: Tensor) -> Tensor:
    """Return rows in the shape of ``x``: the inverse of :func:`rows_of`."""
    if x.dim() == 2:
        return rows
    batch, _, height, width = x.shape
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)


def takes(block: "Block", dots: Tensor, activations: tuple[str, ...] = ("sign", "stoch")) -> bool:
    """Return True where :func:`norm_sign` is the block's norm and activation on ``dots``."""
    dense = dots.dim() == 2 or dots.is_contiguous(memory_format=torch.channels_last)
    return (
        block.training
        and dense
        and block.activation in activations
        and isinstance(block.norm, VanillaBatchNorm)
        and gpu.takes(dots)
    )


class _NormSign(Function):
    @staticmethod
    def forward(
        ctx: Any,
        dots: Tensor,
        bias: Tensor,
        gamma: Tensor,
        beta: Tensor,
        scale: float,
        norm: VanillaBatchNorm,
        draws: Tensor | None,
        gated: bool,
    ) -> Tensor:
        from kernels.triton.norm import norm_sign

        rows = rows_of("dots", dots)
        drawn = None if draws is None else rows_of("draws", draws)
        signs, mean, inv_std = norm_sign(rows, bias, scale, gamma, beta, norm.eps, drawn)
        norm.average(mean, inv_std, len(rows))
        ctx.save_for_backward(dots, bias, gamma, beta, mean, inv_std)
        ctx.scale, ctx.gated = scale, gated
        return _like(signs, dots)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from kernels.triton.norm_backward import norm_sign_backward

        dots, bias, gamma, beta, mean, inv_std = ctx.saved_tensors
        form = torch.channels_last if dots.dim() == 4 else torch.contiguous_format
        gradient = rows_of("gradient", gradients[0].contiguous(memory_format=form))
        rows, columns = rows_of("dots", dots), (gamma, beta, mean, inv_std)
        d_dots, d_gamma, d_beta, d_bias = norm_sign_backward(
            gradient, rows, bias, ctx.scale, *columns, gated=ctx.gated
        )
        return _like(d_dots, dots), d_bias, d_gamma, d_beta, None, None, None, None


def norm_sign(
    dots: Tensor,
    layer_bias: Tensor,
    scale: float,
    norm: VanillaBatchNorm,
    draws: Tensor | None = None,
    gated: bool = True,
) -> Tensor:
    """Return the signs of ``norm(scale * dots + layer_bias)`` at train time, as ``Block`` does.

    The running averages of ``norm`` take the batch's statistics. With ``draws``, uniform in
    [0, 1), signs are stochastic: +1 where ``2 * draws - 1 < y``. The gradient passes where ``|y| <=
    1``, without ``gated`` everywhere.

    Args:
        dots: float32 products [R, C], or [B, C, H, W] in channels-last order, which is not copied.
        layer_bias: float32 [C], with a gradient: for an integer layer ``bias + offset * row_sums``.
        scale: of the products.
        norm: in training mode.
        draws: float32 in the shape and order of ``dots``.
        gated: the straight-through estimator's gate.

    Returns:
        ±1 float32 in the shape and order of ``dots``.

    Raises:
        TypeError: another dtype.
        ValueError: another shape, device or order in memory, or ``norm`` not in training.
    """
    if not norm.training:
        raise ValueError("norm_sign takes the batch's statistics: norm must be in training mode")
    result: Tensor = _NormSign.apply(  # type: ignore[no-untyped-call]
        dots, layer_bias, norm.weight, norm.bias, scale, norm, draws, gated
    )
    return result
