"""A convolution block of a training step on a GPU: convolution, max-pool, batch norm and sign.

One autograd function for ``precision: fast``. ±1 maps and filters are float16, which loses nothing,
and dots float32: forward gives float32's numbers. Where single bits run, a map comes with its words
too, and its dots are of those. The gradient of a map passes from block to block as float16 times
``SCALE``, 11 significant bits as in TF32. The filters' gradient is made beside the rest of the
backward pass, for which the optimizer gets the two maps. The first block takes pixels as the batch
has them, integers or 22 bits, and rounds them to 11 for the filters' gradient alone.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function

from harness.nn import gpu, norm_sign, signed
from harness.nn.attached import Maps, attachment
from harness.nn.batch_norm import BatchNorm
from harness.nn.conv_gradients import conv_gradients
from harness.nn.layers import Conv3x3

if TYPE_CHECKING:
    from harness.nn.networks import Block

PIXEL_COLUMNS = 64  # 9C: what kernels.triton.pixel_maps takes


def _rows(x: Tensor) -> Tensor:
    """Return a map [B, C, H, W] channels last in memory, [B, H, W, C] contiguous; a view if so."""
    return x.permute(0, 2, 3, 1).contiguous()


class _ConvBlock(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, latent: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor,
        block: "Block", norm: BatchNorm,
    ) -> Tensor:  # fmt: skip
        from kernels.triton import norm as kernels

        signs = _rows(block.layer.kept_signs())
        ctx.real, ctx.pixels = x.dtype == torch.float32, not block.by_signs
        dots, winners = _dots(block, x, signs)
        x = x.contiguous() if ctx.pixels else _rows(x).half()
        rows = dots.flatten(0, 2)
        drawn = None
        if block.activation == "stoch":
            drawn = _rows(block.draws("activations", dots.permute(0, 3, 1, 2))).flatten(0, 2)
        dtype, words = torch.float16 if block.halves else torch.float32, None
        if _writes_words(block):
            shape = (*dots.shape[:3], dots.shape[3] // 32)
            words = torch.empty(shape, dtype=torch.int32, device=dots.device)
        out, mean, inv_std = kernels.norm_sign(
            rows, bias, block.scale, gamma, beta, norm.eps, drawn, dtype=dtype,
            shift=norm.shift_based, words=None if words is None else words.flatten(0, 2),
        )  # fmt: skip
        norm.average(mean, inv_std, len(rows))
        ctx.save_for_backward(x, signs, dots, winners, bias, gamma, beta, mean, inv_std)
        ctx.latent, ctx.gated, ctx.scale = latent, block.gated, block.scale
        ctx.shift = norm.shift_based
        found = out.view(dots.shape).permute(0, 3, 1, 2)
        found.words = words  # type: ignore[attr-defined]
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from kernels.triton.norm_backward import GREATEST, SCALE, norm_sign_backward

        x, signs, dots, winners, bias, gamma, beta, mean, inv_std = ctx.saved_tensors
        gradient, by_gamma, by_beta, by_bias = norm_sign_backward(
            _rows(gradients[0]).flatten(0, 2), dots.flatten(0, 2), bias, ctx.scale, gamma, beta,
            mean, inv_std, gated=ctx.gated, half=True, winners=winners, shift=ctx.shift,
        )  # fmt: skip
        sides = x.shape[2:] if ctx.pixels else x.shape[1:3]
        gradient = gradient.view(len(x), *sides, -1)
        by_map = None
        if ctx.needs_input_grad[0]:
            by_map = by_input(gradient, x, signs)
            if ctx.real:  # the block before gives float32, and wants the gradient itself
                by_map = by_map.float().clamp_(-GREATEST, GREATEST) / SCALE
        # Last: the update overwrites the signs.
        attachment(ctx.latent).hand_over(Maps(gradient, x, ctx.pixels))
        return by_map, None, by_bias, by_gamma, by_beta, None, None


def _dots(block: "Block", x: Tensor, signs: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the dots [B, H, W, N], and of a pooled block the winners.

    ``x`` [B, C, H, W]: pixels, or signs; their words beside them, or beside what stands for them.
    """
    from kernels.triton import binary_maps, maps, pixel_maps

    if not block.by_signs:
        return pixel_maps.convolve(x.contiguous(), signs, block.takes_integers), None
    words: Tensor | None = getattr(x, "words", None)
    if words is not None and takes_words(block):
        filters = block.layer.kept_filters()
        return binary_maps.convolve(words, filters, block.pool)
    return maps.convolve(_rows(x).half(), signs, block.pool)


def by_input(gradient: Tensor, x: Tensor, signs: Tensor) -> Tensor:
    """Return the gradient by the map x, float16 [B, C, H, W], of rows, by the library.

    Summed in float32 and rounded. cuDNN takes two thirds of the time of the kernel that ``maps``
    has for the way forward, where cuDNN would round dots to float16. Beyond 65504 it is infinite,
    which those that read it take as 65504.
    """
    half = [rows.permute(0, 3, 1, 2) for rows in (gradient, x, signs)]
    first, second, third = half if gradient.is_cuda else [operand.float() for operand in half]
    found, _ = conv_gradients(first, second, third, by_input=True, by_weight=False)
    assert found is not None
    return found.half()


def _takes_pixels(block: "Block") -> bool:
    few = 9 * block.layer.weight.shape[1] <= PIXEL_COLUMNS
    return few and not (block.pool or block.binary_input)


def fits(block: "Block") -> bool:
    """Return True where :func:`forward` is the block's training step on a GPU.

    Of a block by signs; without, where the inputs are pixels, which want no gradient, of few
    channels.
    """
    return (
        isinstance(block.layer, Conv3x3)
        and block.fast
        and block.layer.is_binary
        and (block.by_signs or _takes_pixels(block))
        and not (block.pool_last or block.dropout)
        and block.activation in ("sign", "stoch")
        and block.layer.test_weights == "det"
        and isinstance(block.norm, BatchNorm)
        and block.norm.fusable
    )


def takes_words(block: "Block") -> bool:
    """Return True where the block's products on a GPU are of single bits."""
    from kernels.triton import binary_maps

    layer = block.layer
    kept = fits(block) and block.by_signs and layer.train_weights == "det"
    return kept and binary_maps.runs(layer.weight.shape[1])


def _writes_words(block: "Block") -> bool:
    """Return True where the next block takes words."""
    from kernels.triton import binary_maps

    return block.words and binary_maps.runs(len(block.layer.weight))


def takes(block: "Block", x: Tensor) -> bool:
    """Return True where :func:`forward` is the block's training step on ``x``."""
    fitting = fits(block) and block.training and (block.by_signs or not x.requires_grad)
    return fitting and gpu.takes(block.layer.weight) and gpu.runs_on(x)


def forward(block: "Block", x: Tensor) -> Tensor:
    """Return the block's signs [B, N, H, W], channels last, for x [B, C, H, W]; trains by it.

    float16 where ``block.halves``, and then their gradient comes as float16 times ``SCALE``.
    """
    return norm_sign.apply_block(_ConvBlock, block, x)


def evaluates(block: "Block", x: Tensor) -> bool:
    """Return True where :func:`evaluate` is the block at test time."""
    exact = fits(block) and (block.by_signs or block.takes_integers)
    test = not (block.training or torch.is_grad_enabled())
    return exact and test and gpu.takes(block.layer.weight) and gpu.runs_on(x)


def evaluate(block: "Block", x: Tensor) -> Tensor:
    """Return the block's signs at test time, bit for bit those of the library's operations.

    Only their words, beside a stand-in, where the next block takes these.
    """
    from kernels.triton.norm_evaluate import signs_at_test_time

    norm = block.norm
    assert isinstance(norm, BatchNorm)
    dots, _ = _dots(block, x, _rows(block.layer.kept_signs()))
    dtype = None if _writes_words(block) else torch.float16 if block.halves else torch.float32
    columns = (norm.running_mean, norm.test_factor(), norm.bias)
    found = signs_at_test_time(
        dots.flatten(0, 2), block.layer.bias, block.scale, *columns, dtype
    ).view(*dots.shape[:3], -1)
    if dtype is None:
        return signed.stand_in(found, dots.permute(0, 3, 1, 2))
    return found.permute(0, 3, 1, 2)
