"""A linear block of a training step on a GPU: dropout, product of signs, batch norm and sign.

One autograd function, a few Triton kernels and two products with bfloat16 operands on tensor cores.
Inputs (±1, odd integers up to 255, 0 where dropped) and weights (±1) lose nothing in bfloat16, and
sums are integers that float32 holds: forward gives float32's numbers. Backward the float32
gradient is split in two bfloat16 pieces, 16 bits of its 24; of the weights' gradient the optimizer
gets the two factors, so that it never goes to memory.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.autograd import Function

from harness.nn import gpu, norm_sign
from harness.nn.attached import attachment
from harness.nn.batch_norm import BatchNorm
from harness.nn.layers import Linear

if TYPE_CHECKING:
    from harness.nn.networks import Block

PIECES = 2


class _LinearBlock(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, latent: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor,
        block: "Block", norm: BatchNorm,
    ) -> Tensor:  # fmt: skip
        from kernels.triton import norm as kernels
        from kernels.triton.drop import drop

        rate = block.dropout
        kept = block.draws("dropout", x) if rate else None
        columns, signs = drop(x, kept, rate), block.layer.kept_signs()
        dots = gpu.product(columns, signs.t())
        ctx.scale, ctx.rate = block.scale / (1 - rate), rate
        chosen = block.draws("activations", dots) if block.activation == "stoch" else None
        signed = block.activation != "none"  # the output layer has no sign
        out: Tensor
        out, mean, inv_std = kernels.norm_sign(
            dots, bias, ctx.scale, gamma, beta, norm.eps, chosen,
            signs=signed, shift=norm.shift_based,
        )  # fmt: skip
        norm.average(mean, inv_std, len(dots))
        ctx.save_for_backward(columns, signs, kept, dots, bias, gamma, beta, mean, inv_std)
        ctx.latent, ctx.gated, ctx.shift = latent, signed and block.gated, norm.shift_based
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from kernels.triton.drop import join
        from kernels.triton.norm_backward import norm_sign_backward

        columns, signs, kept, dots, bias, gamma, beta, mean, inv_std = ctx.saved_tensors
        pieces, by_gamma, by_beta, by_bias = norm_sign_backward(
            gradients[0].contiguous(), dots, bias, ctx.scale, gamma, beta, mean, inv_std,
            pieces=PIECES, gated=ctx.gated, shift=ctx.shift,
        )  # fmt: skip
        by_input = None
        if ctx.needs_input_grad[0]:
            products = gpu.product(pieces.flatten(0, 1), signs)
            by_input = join(products.view(PIECES, *columns.shape), kept, ctx.rate)
        # Last: the update overwrites the signs.
        attachment(ctx.latent).hand_over((pieces, columns))
        return by_input, None, by_bias, by_gamma, by_beta, None, None


def takes(block: "Block", x: Tensor) -> bool:
    """Return True where :func:`forward` is the block's training step on ``x``."""
    return (
        block.by_signs
        and isinstance(block.layer, Linear)
        and norm_sign.takes(block, x, ("sign", "stoch", "none"))
        and gpu.takes(block.layer.weight)
    )


def forward(block: "Block", x: Tensor) -> Tensor:
    """Return the block's output [B, N] for x [B, K], before dropout; trains by it.

    ±1, or the output layer's scores.
    """
    return norm_sign.apply_block(_LinearBlock, block, x)
