"""A batch norm and the activation behind it, fused (paper, section 1.3).

What ``Block`` does between a layer's products and the next layer's inputs at train time: bias,
batch norm with the batch's statistics, sign with the straight-through estimator. On a GPU with no
wait for it, so that a CUDA graph can hold it; on the CPU for ``precision: fast``, where numba is.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function

from harness.nn import fused, gpu, signed
from harness.nn.batch_norm import BatchNorm

if TYPE_CHECKING:
    from harness.nn.networks import Block


def _dense(x: Tensor) -> Tensor:
    """Return ``x`` in its order in memory, channels last."""
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


def rows_of(name: str, x: Tensor) -> Tensor:
    """Return ``x`` [R, C], or the positions' rows [B * H * W, C] of a channels-last map, as a view.

    Raises:
        ValueError: another number of dimensions, or another order in memory.
    """
    if x.dim() not in (2, 4):
        raise ValueError(f"{name} must be [R, C] or [B, C, H, W], got {list(x.shape)}")
    dense = _dense(x)
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


# How a block's activation is called by the kernels.
FORMS = {"sign": "sign", "stoch": "sign", "none": "value", "relu": "relu"}


def takes(block: "Block", dots: Tensor) -> bool:
    """Return True where :func:`norm_sign` is the block's norm and activation on ``dots``."""
    dense, norm = _dense(dots), block.norm
    if not isinstance(norm, BatchNorm) or not norm.fusable:
        return False
    on_cpu = block.fast and fused.takes(dense)
    return (
        block.training
        and dense.is_contiguous()
        and block.activation in FORMS
        and (on_cpu or gpu.takes(dots))
    )


def apply_block(function: type[Function], block: "Block", x: Tensor) -> Tensor:
    """Return the autograd function of a whole block, batch norm and all, on the block's input."""
    norm, layer = block.norm, block.layer
    assert isinstance(norm, BatchNorm)
    result: Tensor = function.apply(  # type: ignore[no-untyped-call]
        x, layer.weight, layer.bias, norm.weight, norm.bias, block, norm
    )
    return result


class _NormSign(Function):
    @staticmethod
    def forward(
        ctx: Any,
        dots: Tensor,
        bias: Tensor,
        gamma: Tensor,
        beta: Tensor,
        scale: float,
        norm: BatchNorm,
        draws: Tensor | None,
        gated: bool,
        form: str,
        packed: bool,
    ) -> Tensor:
        rows = rows_of("dots", dots)
        drawn = None if draws is None else rows_of("draws", draws)
        operands = (rows, bias, scale, gamma, beta, norm.eps, drawn)
        if gpu.runs_on(dots):
            from kernels.triton.norm import norm_sign as on_gpu

            packed = False
            out, mean, inv_std = on_gpu(*operands, form=form, shift=norm.shift_based)
        else:
            from kernels.cpu.norm import norm_sign as on_cpu

            out, mean, inv_std = on_cpu(*operands, form=form, shift=norm.shift_based, packed=packed)
        norm.average(mean, inv_std, len(rows))
        ctx.save_for_backward(dots, bias, gamma, beta, mean, inv_std)
        ctx.scale, ctx.gated, ctx.relu = scale, gated and form == "sign", form == "relu"
        ctx.shift = norm.shift_based
        return signed.stand_in(out, dots) if packed else _like(out, dots)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dots, bias, gamma, beta, mean, inv_std = ctx.saved_tensors
        form = torch.channels_last if dots.dim() == 4 else torch.contiguous_format
        gradient = rows_of("gradient", gradients[0].contiguous(memory_format=form))
        rows = rows_of("dots", dots)
        operands = (gradient, rows, bias, ctx.scale, gamma, beta, mean, inv_std)
        if gpu.runs_on(dots):
            from kernels.triton.norm_backward import norm_sign_backward as on_gpu

            found = on_gpu(*operands, gated=ctx.gated, shift=ctx.shift, relu=ctx.relu)
        else:
            from kernels.cpu.norm_backward import norm_sign_backward as on_cpu

            found = on_cpu(*operands, gated=ctx.gated, shift=ctx.shift, relu=ctx.relu)
        d_dots, d_gamma, d_beta, d_bias = found
        return _like(d_dots, dots), d_bias, d_gamma, d_beta, None, None, None, None, None, None


def norm_sign(
    dots: Tensor,
    layer_bias: Tensor,
    scale: float,
    norm: BatchNorm,
    draws: Tensor | None = None,
    gated: bool = True,
    form: str = "sign",
    packed: bool = False,
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
        form: ``sign``, or in its place ``value``, the batch norm's values, or ``relu``.
        packed: on a CPU, keep the signs' bits alone, for ``signed.packed_signs``.

    Returns:
        ±1 float32 in the shape and order of ``dots``, or where ``packed`` their stand-in.

    Raises:
        TypeError: another dtype.
        ValueError: another shape, device or order in memory, or ``norm`` not in training.
    """
    if not norm.training:
        raise ValueError("norm_sign takes the batch's statistics: norm must be in training mode")
    result: Tensor = _NormSign.apply(  # type: ignore[no-untyped-call]
        dots, layer_bias, norm.weight, norm.bias, scale, norm, draws, gated, form, packed
    )
    return result
