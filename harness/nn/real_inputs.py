"""Layers with real inputs and ±1 weights on the CPU, by ``precision: fast``.

BinaryConnect's, and a BNN's first layer where preprocessing leaves no integers. Forward, the inputs
are cut in two pieces of 12 bits, some 24 in all, whose sums by the weights' signs are looked up;
backward so is the gradient by the input, in one piece (``kernels.cpu.signed``). The weights'
gradient has two real factors: it is the library's.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from harness.nn import gpu, signed
from harness.nn.conv_gradients import conv_gradients
from harness.nn.layers import Conv3x3
from kernels.conv import pack_filters
from kernels.cpu.threads import follow_torch

if TYPE_CHECKING:
    from harness.nn.layers import WeightedLayer
    from harness.nn.networks import Block

PIECES = 2
# Of the inputs of a unit, or of a filter's tap: below, the library's products are as fast.
FEWEST = 128


def takes(block: "Block", x: Tensor) -> bool:
    """Return True where :func:`product` is the block's product on ``x``."""
    layer = block.layer
    by_signs = block.fast and block.training and layer.binarization != "real"
    wide = layer.weight.shape[1] >= FEWEST
    return by_signs and wide and not gpu.holds(x)


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, latent: Tensor, layer: "WeightedLayer") -> Tensor:
        follow_torch()
        weights = layer.packed_signs()
        ctx.save_for_backward(x, weights)
        ctx.layer = layer
        return signed.times_rows(x, weights, pieces=PIECES)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        follow_torch()
        x, weights = ctx.saved_tensors
        gradient, layer = gradients[0], ctx.layer
        by_weight = torch.mm(gradient.t(), x, out=layer.gradient_buffer())
        signed.set_gradient(layer, by_weight)
        if not ctx.needs_input_grad[0]:
            return None, None, None
        return signed.times_signs(gradient, weights.unsqueeze(0), x.shape[1]), None, None


class _Conv(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, latent: Tensor, layer: "WeightedLayer", pool: bool) -> Tensor:
        from kernels.cpu import signed_conv

        follow_torch()
        _, channels, height, width = x.shape
        weight = layer.signed_weight()
        turned = pack_filters(signed_conv.turn(weight)).words.view(channels, signed_conv.TAPS, -1)
        maps = len(weight)
        dots = signed_conv.product(signed.rows_of_map(x), turned.numpy(), maps, height, width)
        ctx.layer = layer
        out, ctx.winners = signed.pooled_map(np.ascontiguousarray(dots[:, :maps]), x.shape, pool)
        ctx.save_for_backward(x, pack_filters(weight).words)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        from kernels.cpu import pooled

        follow_torch()
        x, filters = ctx.saved_tensors
        rows = signed.rows_of_map(gradients[0])
        whole = rows
        if ctx.winners is not None:
            whole = pooled.unpool(rows, ctx.winners, *x.shape[2:])
        gradient = torch.from_numpy(whole).view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
        signed.set_gradient(ctx.layer, _filter_gradient(gradient, x, ctx.layer.weight))
        by_input = None
        if ctx.needs_input_grad[0]:
            by_input = signed.input_gradient(rows, ctx.winners, filters, x.shape)
        return by_input, None, None, None


def _filter_gradient(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient by the filters, like ``weight``, by the library."""
    last = torch.channels_last
    operands = (gradient, x.contiguous(memory_format=last), weight.contiguous(memory_format=last))
    _, found = conv_gradients(*operands, by_input=False, by_weight=True)
    assert found is not None
    return found.contiguous()


def product(x: Tensor, layer: "WeightedLayer", pool: bool) -> Tensor:
    """Return the layer's product with ``sign(weight)``, or signs drawn from it; trains by it.

    x: [B, K], or a map [B, C, H, W], of which ``pool`` is the product's 2x2 max-pool. The weights'
    gradient goes straight to ``layer.weight.grad``.

    Raises:
        ValueError: pooling of rows, or of an odd height or width.
    """
    result: Tensor
    if isinstance(layer, Conv3x3):
        signed.check_pool(x, pool)
        result = _Conv.apply(x, layer.weight, layer, pool)  # type: ignore[no-untyped-call]
        return result
    if pool:
        raise ValueError("only a convolution's products are pooled")
    result = _Linear.apply(x, layer.weight, layer)  # type: ignore[no-untyped-call]
    return result
