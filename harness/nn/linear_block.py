"""A linear block of a training step on a GPU: dropout, product by signs, batch norm, activation.

One autograd function, a few Triton kernels and two products with bfloat16 operands on tensor cores.
Inputs of ±1, odd integers up to 255 or 0 where dropped, and weights (±1) lose nothing in bfloat16,
and sums are integers that float32 holds: forward gives float32's numbers. Real inputs, of binary
weights alone, are split in three bfloat16 pieces, all 24 bits. Backward the float32 gradient is
split in two, 16 bits; of the weights' gradient the optimizer gets the two factors, so that it never
goes to memory. Where inputs have an offset, an image of ones goes with the batch: its dots are the
weights' sums, and its gradient is theirs.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from harness.nn import gpu, norm_sign
from harness.nn.attached import Factors, attachment
from harness.nn.batch_norm import BatchNorm
from harness.nn.layers import Linear

if TYPE_CHECKING:
    from harness.nn.networks import Block

PIECES, REAL_PIECES = 2, 3


class _LinearBlock(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, latent: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor,
        block: "Block", norm: BatchNorm,
    ) -> Tensor:  # fmt: skip
        from kernels.triton import norm as kernels
        from kernels.triton.drop import drop, join

        rate = block.dropout
        kept = block.draws("dropout", x) if rate else None
        columns = drop(x, kept, rate, 1 if block.takes_integers else REAL_PIECES)
        if block.offset:
            columns = F.pad(columns, (0, 0, 0, 1))
            columns[0, -1] = 1
        signs = block.layer.kept_signs()
        dots = gpu.product(columns.flatten(0, 1), signs.t())
        if len(columns) > 1:
            dots = join(dots.view(*columns.shape[:2], -1), None, 0.0)
        bias = block.shifted_bias(dots[-1] if block.offset else None)
        dots = dots[: len(x)]
        ctx.scale, ctx.rate = block.scale / (1 - rate), rate
        chosen = block.draws("activations", dots) if block.activation == "stoch" else None
        form = norm_sign.FORMS[block.activation]
        out: Tensor
        out, mean, inv_std = kernels.norm_sign(
            dots, bias, ctx.scale, gamma, beta, norm.eps, chosen,
            form=form, shift=norm.shift_based,
        )  # fmt: skip
        norm.average(mean, inv_std, len(dots))
        ctx.save_for_backward(columns, signs, kept, dots, bias, gamma, beta, mean, inv_std)
        ctx.latent, ctx.shift, ctx.relu = latent, norm.shift_based, form == "relu"
        ctx.gated, ctx.offset = form == "sign" and block.gated, block.offset
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from kernels.triton.drop import join
        from kernels.triton.norm_backward import norm_sign_backward

        columns, signs, kept, dots, bias, gamma, beta, mean, inv_std = ctx.saved_tensors
        pieces, by_gamma, by_beta, by_bias = norm_sign_backward(
            gradients[0].contiguous(), dots, bias, ctx.scale, gamma, beta, mean, inv_std,
            pieces=PIECES, gated=ctx.gated, shift=ctx.shift, relu=ctx.relu,
        )  # fmt: skip
        by_input = None
        if ctx.needs_input_grad[0]:
            products = gpu.product(pieces.flatten(0, 1), signs)
            by_input = join(products.view(*pieces.shape[:2], -1), kept, ctx.rate)
        if ctx.offset:
            pieces = _with_sums(pieces, ctx.offset * by_bias)
        # Last: the update overwrites the signs.
        attachment(ctx.latent).hand_over(_factors(pieces, columns))
        return by_input, None, by_bias, by_gamma, by_beta, None, None


def _with_sums(pieces: Tensor, by_sums: Tensor) -> Tensor:
    """Return the pieces with those of the gradient by the weights' sums, as the last image's."""
    pieces = F.pad(pieces, (0, 0, 0, 1))
    pieces[0, -1] = by_sums
    pieces[1, -1] = by_sums - pieces[0, -1]
    return pieces


def _factors(rows: Tensor, columns: Tensor) -> Factors:
    """Return the factors of the weights' gradient, rows [2, B, N] and columns [P, B, K] in pieces.

    Of real columns as one product over 3 B: each piece of either by the greatest of the other, to
    2^-16 of each value.
    """
    if len(columns) == 1:
        return rows, columns[0]
    first, second = rows
    return torch.cat([first, second, first]).unsqueeze(0), torch.cat(
        [columns[0], columns[0], columns[1]]
    )


def fits(block: "Block") -> bool:
    """Return True where :func:`forward` may be the block's training step on a GPU."""
    binary = isinstance(block.layer, Linear) and block.layer.is_binary
    return block.fast and binary and not block.pool_last


def takes(block: "Block", x: Tensor) -> bool:
    """Return True where :func:`forward` is the block's training step on ``x``."""
    return fits(block) and norm_sign.takes(block, x) and gpu.takes(block.layer.weight)


def forward(block: "Block", x: Tensor) -> Tensor:
    """Return the block's output [B, N] for x [B, K], before dropout; trains by it.

    ±1 or max(y, 0), or the output layer's scores.
    """
    return norm_sign.apply_block(_LinearBlock, block, x)
