"""Layers whose inputs and weights are ±1, by packed products: ``precision: fast`` on the CPU.

Forward, XNOR and popcount give the integers that float32 gives: not a bit moves. Backward, the
gradient is rounded to 12 bits where it meets signs (``kernels.cpu.signed``).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function

from harness.nn import fused
from harness.nn.attached import attachment
from kernels.conv import Conv3x3, pack_filters, pack_map
from kernels.cpu.threads import follow_torch
from kernels.packing import Packed, pack_rows

if TYPE_CHECKING:
    import numpy as np

    from harness.nn.layers import WeightedLayer


def available(device: torch.device | str) -> bool:
    """Return True where ``precision: fast`` can run: on a GPU, or on a CPU with AVX2 and numba."""
    if torch.device(device).type != "cpu":
        return True
    if not fused.AVAILABLE:
        return False
    from kernels.cpu.signed import AVAILABLE

    return AVAILABLE


def stand_in(words: Tensor, like: Tensor) -> Tensor:
    """Return what stands for signs among autograd's tensors where only their bits are in memory.

    It has the shape of ``like``, ``words`` beside it, and no values: NaN. On a CPU words are int64
    [R, ceil(C/64)], on a GPU, of maps, int32 [B, H, W, C/32].
    """
    found = torch.full((), torch.nan, device=like.device).expand(like.shape)
    found.words = words  # type: ignore[attr-defined]
    return found


def packed_signs(x: Tensor) -> Tensor:
    """Return the packed signs of rows [B, K] or a map [B, K, H, W]: int64 [..., ceil(K/64)].

    They are those beside a stand-in: two planes of rows after :func:`drop`.
    """
    words: Tensor | None = getattr(x, "words", None)
    if x.dim() == 2:
        return pack_rows(x).words if words is None else words
    batch, _, height, width = x.shape
    return pack_map(x) if words is None else words.view(batch, height, width, -1)


class _Drop(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(kept)
        words, dropped = packed_signs(x), pack_rows(kept == 0).words
        return stand_in(torch.stack([words | dropped, words & ~dropped]), x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return gradients[0] * kept, None


def drop(x: Tensor, kept: Tensor) -> Tensor:
    """Return the stand-in of ``x * kept``, which :func:`linear` takes.

    Beside it are two planes of signs, int64 [2, B, ceil(K/64)], in which zeros count as +1 and as
    -1: half the planes' sum is the sign of x, 0 where it is dropped.

    Args:
        x: ±1, or their stand-in.
        kept: float32 [B, K], 0 or ``1 / (1 - rate)``.
    """
    result: Tensor = _Drop.apply(x, kept)  # type: ignore[no-untyped-call]
    return result


def sign_planes(x: Tensor, dropped: bool) -> Tensor:
    """Return the packed signs of rows x [B, K], int64 [planes, B, ceil(K/64)].

    Two planes after :func:`drop`, and where x itself holds zeros (``dropped``).
    """
    words = packed_signs(x)
    if words.dim() == 3:
        return words
    return torch.stack([words, pack_rows(x > 0).words]) if dropped else words.unsqueeze(0)


def _multiply(planes: Tensor, k: int, weights: Tensor) -> Tensor:
    """Return the dots of signs [planes, B, W] and packed weights [N, W], summed over planes."""
    from kernels.cpu.kernels import XnorCpu

    kernel = XnorCpu()
    rows = Packed(planes.reshape(-1, planes.shape[-1]), k)
    dots = kernel.product(rows, kernel.weights(Packed(weights, k), often=False))
    dots = dots.view(len(planes), -1, len(weights))
    return dots[0] + dots[1] if len(planes) == 2 else dots[0]


def times_signs(real: Tensor, planes: Tensor, columns: int, out: Tensor | None = None) -> Tensor:
    """Return ``real [M, K] @ signs [K, N]``, summed over packed planes [planes, K, ceil(N/64)]."""
    from kernels.cpu import signed

    width = signed.width_for(columns)
    if out is None or width != columns:
        out = torch.empty(len(real), width)
    patterns = signed.index(planes.numpy(), columns)
    signed.product(real.contiguous().numpy(), patterns, len(planes), out.numpy())
    return out if width == columns else out[:, :columns].contiguous()


def times_rows(x: Tensor, weights: Tensor, unit: float = 0.0, pieces: int = 1) -> Tensor:
    """Return ``x @ signs.T`` for real x [B, K] and packed signs [N, ceil(K/64)].

    ``unit`` and ``pieces``: how x is rounded, as ``kernels.cpu.signed.tables`` has them.
    """
    from kernels.cpu import signed

    patterns = signed.index_of_rows(weights.numpy(), x.shape[1])
    out = torch.empty(len(x), signed.width_for(len(weights)))
    signed.product(x.contiguous().numpy(), patterns, 1, out.numpy(), unit, pieces)
    return out[:, : len(weights)].contiguous()


def set_gradient(layer: "WeightedLayer", gradient: Tensor) -> None:
    """Add to the gradient of the layer's weights."""
    weight = layer.weight
    weight.grad = gradient if weight.grad is None else weight.grad + gradient


def _hand_over(layer: "WeightedLayer", rows: Tensor, planes: Tensor, columns: int) -> None:
    """Give the gradient ``rows @ signs`` to the optimizer, by its factors where it takes them."""
    from kernels.cpu.signed_update import fits

    beside = attachment(layer.weight)
    if beside.wanted and fits(columns) and layer.weight.grad is None:
        beside.hand_over((rows, planes))
    else:
        set_gradient(layer, times_signs(rows, planes, columns, layer.gradient_buffer()))


class _SignedLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, latent: Tensor, layer: "WeightedLayer", rate: float) -> Tensor:
        follow_torch()
        planes = sign_planes(x, rate > 0)
        weights = layer.packed_signs()
        ctx.scale = 1 / (1 - rate) / len(planes)
        ctx.save_for_backward(planes, weights)
        ctx.layer, ctx.length = layer, x.shape[1]
        return _multiply(planes, ctx.length, weights).to(torch.float32).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        follow_torch()
        planes, weights = ctx.saved_tensors
        gradient = gradients[0]
        _hand_over(ctx.layer, (gradient * ctx.scale).t().contiguous(), planes, ctx.length)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        return times_signs(gradient, weights.unsqueeze(0), ctx.length), None, None, None


class _IntegerLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, latent: Tensor, layer: "WeightedLayer", unit: float) -> Tensor:
        follow_torch()
        ctx.save_for_backward(x)
        ctx.layer = layer
        return times_rows(x, layer.packed_signs(), unit)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None, None]:
        (x,) = ctx.saved_tensors
        set_gradient(ctx.layer, torch.mm(gradients[0].t(), x, out=ctx.layer.gradient_buffer()))
        return None, None, None, None


def pooled_map(
    dots: "np.ndarray", shape: Sequence[int], pool: bool
) -> tuple[Tensor, "np.ndarray | None"]:
    """Return the products' map [B, N, H, W], float32, or its 2x2 max-pool and the windows' winners.

    dots: [B*H*W, N], of a map of ``shape`` [B, C, H, W].
    """
    from kernels.cpu import pooled

    (batch, _, height, width), winners = shape, None
    if pool:
        dots, winners = pooled.pool(dots, height, width)
        height, width = height // 2, width // 2
    by_pixel = torch.from_numpy(dots).to(torch.float32)
    return by_pixel.view(batch, height, width, -1).permute(0, 3, 1, 2), winners


def rows_of_map(x: Tensor) -> "np.ndarray":
    """Return a map [B, C, H, W] as its pixels' rows, float32 [B*H*W, C]."""
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    return rows.contiguous().numpy()


def input_gradient(
    rows: "np.ndarray", winners: "np.ndarray | None", filters: Tensor, shape: Sequence[int]
) -> Tensor:
    """Return the gradient by a map of ``shape`` [B, C, H, W] of a convolution, pooled or not.

    rows: the gradient by the products' map, or by its pool beside the ``winners``, as
    :func:`pooled_map` has them; filters: packed, int64 [N, 9 ceil(C/64)].
    """
    from kernels.cpu import pooled_input, signed_conv

    batch, channels, height, width = shape
    taps, size = filters.view(len(filters), signed_conv.TAPS, -1).numpy(), (height, width)
    if winners is None:
        found = signed_conv.input_gradient(rows, taps, channels, *size)
    else:
        found = pooled_input.input_gradient(rows, winners, taps, *size)
    by_pixel = torch.from_numpy(found).view(batch, *size, -1)[..., :channels]
    return by_pixel.permute(0, 3, 1, 2)


class _SignedConv(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, latent: Tensor, layer: "WeightedLayer", pool: bool) -> Tensor:
        from kernels.cpu.kernels import XnorCpu

        follow_torch()
        words, filters = packed_signs(x), pack_filters(layer.signed_weight())
        dots = Conv3x3(XnorCpu(), filters, *x.shape[2:])(words)
        ctx.layer, ctx.shape = layer, x.shape
        ctx.save_for_backward(words, filters.words)
        out, ctx.winners = pooled_map(dots.numpy(), x.shape, pool)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        from kernels.cpu import pooled_filters, signed_conv

        follow_torch()
        words, filters = ctx.saved_tensors
        _, channels, *size = ctx.shape
        rows, signs = rows_of_map(gradients[0]), words.flatten(0, 2).numpy()
        if ctx.winners is None:
            found = signed_conv.filter_gradient(rows, signs, channels, *size)
        else:
            found = pooled_filters.filter_gradient(rows, ctx.winners, signs, *size)
        buffer = ctx.layer.gradient_buffer()
        buffer.view(len(buffer), channels, -1).copy_(torch.from_numpy(found)[:, :, :channels].mT)
        set_gradient(ctx.layer, buffer)
        by_input = None
        if ctx.needs_input_grad[0]:
            by_input = input_gradient(rows, ctx.winners, filters, ctx.shape)
        return by_input, None, None, None


def linear(x: Tensor, layer: "WeightedLayer", rate: float) -> Tensor:
    """Return ``x @ sign(weight).T`` for x [B, K] of ±1, or of 0 and ``±1 / (1 - rate)`` after
    dropout at ``rate``. The weights' gradient goes straight to ``layer.weight.grad``."""
    result: Tensor = _SignedLinear.apply(x, layer.weight, layer, rate)  # type: ignore[no-untyped-call]
    return result


def integer_linear(x: Tensor, layer: "WeightedLayer", rate: float) -> Tensor:
    """Return ``x @ sign(weight).T`` for x [B, K] of integers up to 255, or of 0 and such over
    ``1 - rate`` after dropout; x takes no gradient, the weights' goes to ``layer.weight.grad``.

    Sums are exact; float32's are where ``1 / (1 - rate)`` is a short binary fraction (5/4).
    """
    unit = 1 / (1 - rate)
    result: Tensor = _IntegerLinear.apply(x, layer.weight, layer, unit)  # type: ignore[no-untyped-call]
    return result


def check_pool(x: Tensor, pool: bool) -> None:
    """Raise ``ValueError`` if a map of odd height or width is to be pooled."""
    if pool and (x.shape[2] % 2 or x.shape[3] % 2):
        raise ValueError(f"pooling takes an even height and width, got {list(x.shape[2:])}")


def conv3x3(x: Tensor, layer: "WeightedLayer", pool: bool = False) -> Tensor:
    """Return the 3x3 convolution of x [B, C, H, W] of ±1 with ``sign(weight)``, zero padding 1.

    Its 2x2 max-pool if ``pool``; among equals the first takes the gradient. Channels last; the
    weights' gradient goes straight to ``layer.weight.grad``.

    Raises:
        ValueError: pooling of an odd height or width.
    """
    check_pool(x, pool)
    result: Tensor = _SignedConv.apply(x, layer.weight, layer, pool)  # type: ignore[no-untyped-call]
    return result
