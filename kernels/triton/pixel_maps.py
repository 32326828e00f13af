"""The first 3x3 convolution of a training step and its filters' gradient, straight from pixels.

Images stay float32 [B, C, H, W], as a batch is fetched. So few channels make one step of a product:
row p is a position, column ``tap * C + channel`` one of the 9C pixels around it, gathered with the
lanes along a row of the image. Integers to 2048 are exact in float16. Reals are two pieces,
``hi = float16(a)`` and ``lo = float16(a - hi)``: 22 of 24 bits; sums are kept in float32.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

import torch
import triton
import triton.language as tl

from kernels.triton.device import processors
from kernels.triton.maps import HALF, check, check_filters
from kernels.triton.norm_backward import SCALE

MOST_COLUMNS = 64  # 9C: channels up to 7
# Of a program: with 128 maps it would want 8 warps of more registers than two of them have.
MAPS, POSITIONS, WARPS = 64, 128, 4
STEP, STEP_WARPS = 256, 8  # positions of a step of the filters' gradient: one or few a program
# Fetched ahead, pixels would lie in shared memory with the lanes of a warp in one bank.
STAGES = 1
PROGRAMS = 2  # of the gradient, a processor
MOST_PIECES = 8  # that the optimizer's update adds up; more are summed here


@triton.jit
def _around(x_ptr, p, used, height, width, area, C: tl.constexpr, K: tl.constexpr):
    """Return the pixels around positions p as float32 [P, K], 0 outside the images.

    A position is its image's start plus its place there: at sizes of a multiple of 16 the compiler
    sees that neighbours lie side by side.
    """
    column = tl.arange(0, K)
    tap, channel = column // C, column % C
    dy, dx = (tap // 3 - 1)[None, :], (tap % 3 - 1)[None, :]
    image, place = p // area, p % area
    y, x = (place // width)[:, None] + dy, (place % width)[:, None] + dx
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    inside &= used[:, None] & (column < 9 * C)[None, :]
    at = (image * (C * area) + place)[:, None] + ((channel * area)[None, :] + dy * width + dx)
    return tl.load(x_ptr + at, mask=inside, other=0.0)


@triton.jit
def _conv(
    x_ptr, filter_ptr, out_ptr, positions, n, height, width, area, INTEGERS: tl.constexpr,
    C: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * M + tl.arange(0, M)
    cols = tl.program_id(1) * N + tl.arange(0, N)
    row = tl.arange(0, K)
    used, wanted = p < positions, (cols < n)[None, :]
    filter_at = filter_ptr + row[:, None] + cols[None, :] * (9 * C)
    b = tl.load(filter_at, mask=(row < 9 * C)[:, None] & wanted, other=0.0)
    a = _around(x_ptr, p, used, height, width, area, C, K)
    high = a.to(tl.float16)
    acc = tl.zeros((M, N), tl.float32)
    if not INTEGERS:
        acc = tl.dot((a - high.to(tl.float32)).to(tl.float16), b, acc)
    acc = tl.dot(high, b, acc)
    at = out_ptr + p.to(tl.int64)[:, None] * n + cols[None, :]
    tl.store(at, acc, mask=used[:, None] & wanted)


@triton.jit
def _by_filters(
    gradient_ptr, x_ptr, out_ptr, positions, n, height, width, area, piece, unscale,
    C: tl.constexpr, N: tl.constexpr, K: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Write a piece's gradient: out is [pieces, n, 9C].

    Program (piece of the positions, N maps).
    """
    rows = tl.program_id(1) * N + tl.arange(0, N)
    first = tl.program_id(0) * piece
    last = tl.minimum(first + piece, positions)
    acc = tl.zeros((N, K), tl.float32)
    for start in range(first, last, P):
        p = start + tl.arange(0, P)
        used = p < last
        gradient_at = gradient_ptr + p[:, None] * n + rows[None, :]
        g = tl.load(gradient_at, mask=used[:, None] & (rows < n)[None, :], other=0.0)
        a = _around(x_ptr, p, used, height, width, area, C, K)
        acc = tl.dot(tl.trans(g), a.to(tl.float16), acc)
    column = tl.arange(0, K)
    out_ptr += tl.program_id(0).to(tl.int64) * n * (9 * C)
    at = out_ptr + rows[:, None] * (9 * C) + column[None, :]
    tl.store(at, acc * unscale, mask=(rows < n)[:, None] & (column < 9 * C)[None, :])


def _check_pixels(x: object) -> torch.Tensor:
    found = check("x", x, (torch.float32,))
    if 9 * found.shape[1] > MOST_COLUMNS:
        raise ValueError(f"x must have up to {MOST_COLUMNS // 9} channels, got {list(found.shape)}")
    return found


def columns_of(channels: int) -> int:
    """Return the columns of a product with nine taps of the channels."""
    return max(16, int(triton.next_power_of_2(9 * channels)))


def convolve(x: torch.Tensor, filters: torch.Tensor, integers: bool) -> torch.Tensor:
    """Return the dots of pixels and filters of ±1, 3x3, zero padding 1, float32 [B, H, W, N].

    Args:
        x: float32 [B, C, H, W], contiguous, 9C <= 64, below float16's greatest, 65504.
        filters: float16 [N, 3, 3, C] of ±1, contiguous.
        integers: x are integers up to 2048: one product, exact; else two, with 22 bits of x (below
            2^-3 to 2^-25).

    Raises:
        TypeError: another dtype.
        ValueError: another shape, device or order in memory.
    """
    batch, channels, height, width = _check_pixels(x).shape
    n = len(check_filters(filters, channels))
    out = torch.empty(batch, height, width, n, dtype=torch.float32, device=x.device)
    positions = batch * height * width
    if out.numel():
        _conv[(triton.cdiv(positions, POSITIONS), triton.cdiv(n, MAPS))](
            x, filters, out, positions, n, height, width, height * width, INTEGERS=integers,
            C=channels, M=POSITIONS, N=MAPS, K=columns_of(channels), num_warps=WARPS,
        )  # fmt: skip
    return out


def pieces_for(positions: int, programs: int) -> int:
    """Return in how many pieces the positions are summed, ``programs`` to a piece."""
    wanted = triton.cdiv(PROGRAMS * processors(), max(programs, 1))
    return max(1, min(int(wanted), int(triton.cdiv(positions, STEP))))


def by_filters(gradient: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the gradient by the filters in pieces, float32 [pieces, N, 3, 3, C], to be added up.

    Args:
        gradient: by the dots, times ``SCALE``, float16 [B, H, W, N], contiguous.
        x: float32 [B, C, H, W], contiguous, 9C <= 64; rounded to float16.

    Raises:
        TypeError, ValueError: as :func:`convolve`.
    """
    batch, channels, height, width = _check_pixels(x).shape
    shape = check("gradient", gradient, HALF).shape
    if shape[:3] != (batch, height, width):
        wanted = [batch, height, width, "N"]
        raise ValueError(f"gradient must have shape {wanted}, got {list(shape)}")
    n, positions = int(shape[3]), batch * height * width
    programs = triton.cdiv(n, MAPS)
    steps = triton.cdiv(triton.cdiv(positions, STEP), pieces_for(positions, programs))
    piece = max(1, steps) * STEP
    pieces = max(1, triton.cdiv(positions, piece))
    out = torch.empty(pieces, n, 3, 3, channels, dtype=torch.float32, device=gradient.device)
    if out.numel():
        _by_filters[(pieces, programs)](
            gradient, x, out, positions, n, height, width, height * width, piece, 1 / SCALE,
            C=channels, N=MAPS, K=columns_of(channels), P=STEP, num_warps=STEP_WARPS,
            num_stages=STAGES,
        )  # fmt: skip
    return out if pieces <= MOST_PIECES else out.sum(0, keepdim=True)
