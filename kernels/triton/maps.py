"""3x3 convolutions of a training step, and their filters' gradients, in float16 on tensor cores.

Channels last, zero padding 1, no patches in memory: row p of an implicit product is a position of
the map, and K runs over the channels of its nine taps. ±1 lose nothing in float16 and sums are kept
in float32, so dots are exact integers; a 2x2 max-pool keeps the greatest of four and which it was.
Gradients come as float16 times ``SCALE``, 11 significant bits as in TF32. The filters' gradient is
summed in pieces of the positions, for the optimizer to add up.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.triton.conv import position_of, store_greatest
from kernels.triton.device import DEVICE, processors
from kernels.triton.norm_backward import SCALE


class Tile(NamedTuple):
    """Rows and columns of a program's outputs, products of a step, warps, and steps in flight."""

    m: int
    n: int
    k: int
    warps: int
    stages: int


# Tiles, each with the programs a processor that it wants. On an H200 at batch 50, layers 2 to 6 of
# ConvNet(64) and (128) take 8 to 44 us, 3 % off the fastest of nine tiles, two forward 7 and 14 %.
WIDE = (Tile(128, 128, 64, 8, 3), 0.75), (Tile(64, 128, 64, 4, 4), 0.75)  # from 128 columns on
NARROW = ((Tile(128, 64, 64, 4, 4), 2.0),)
SMALL = Tile(64, 64, 128, 4, 3)  # where none has its programs
FILTER_TILE = Tile(64, 64, 64, 4, 3)  # maps, channels of each of three taps, positions
PROGRAMS = 2  # of the filters' gradient, a processor
MOST_PIECES = 32
HALF = (torch.float16,)


@triton.jit
def _conv(
    map_ptr, filter_ptr, out_ptr, winner_ptr, positions, n, height, width, C: tl.constexpr,
    POOL: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * M + tl.arange(0, M)
    cols = tl.program_id(1) * N + tl.arange(0, N)
    image, y, x = position_of(p, height, width, POOL)
    centre = (image * height + y) * width + x
    used, wanted = p < positions, (cols < n)[None, :]
    acc = tl.zeros((M, N), tl.float32)
    CHUNKS: tl.constexpr = (C + K - 1) // K
    for step in range(0, 9 * CHUNKS):
        tap, channel = step // CHUNKS, step % CHUNKS * K + tl.arange(0, K)
        dy, dx = tap // 3 - 1, tap % 3 - 1
        inside = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width) & used
        map_at = map_ptr + ((centre + dy * width + dx) * C)[:, None] + channel[None, :]
        filter_at = filter_ptr + (tap * C + channel)[:, None] + cols[None, :] * (9 * C)
        if C % K == 0:
            a = tl.load(map_at, mask=inside[:, None], other=0.0)
            b = tl.load(filter_at, mask=wanted, other=0.0)
        else:
            a = tl.load(map_at, mask=inside[:, None] & (channel < C)[None, :], other=0.0)
            b = tl.load(filter_at, mask=wanted & (channel < C)[:, None], other=0.0)
        acc = tl.dot(a, b, acc)
    if POOL:
        store_greatest(out_ptr, winner_ptr, acc.to(tl.int32), p, positions, cols, n, M, N)
    else:
        at = out_ptr + p.to(tl.int64)[:, None] * n + cols[None, :]
        tl.store(at, acc, mask=used[:, None] & wanted)


@triton.jit
def _by_filters(
    gradient_ptr, map_ptr, out_ptr, positions, n, height, width, piece, unscale, C: tl.constexpr,
    N: tl.constexpr, K: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Write a piece's gradient of the three taps of a row of the filter: out is [pieces, n, 9, C].

    Program (row of taps and K channels, N maps, piece of the positions).
    """
    CHUNKS: tl.constexpr = (C + K - 1) // K
    dy = tl.program_id(0) // CHUNKS - 1
    channel = tl.program_id(0) % CHUNKS * K + tl.arange(0, K)
    rows = tl.program_id(1) * N + tl.arange(0, N)
    first = tl.program_id(2) * piece
    last = tl.minimum(first + piece, positions)
    left = tl.zeros((N, K), tl.float32)
    middle = tl.zeros((N, K), tl.float32)
    right = tl.zeros((N, K), tl.float32)
    for start in range(first, last, P):
        p = start + tl.arange(0, P)
        used = p < last
        y, x = p // width % height, p % width
        used_row = used & (y + dy >= 0) & (y + dy < height)
        gradient_at = gradient_ptr + p[:, None] * n + rows[None, :]
        g = tl.load(gradient_at, mask=used[:, None] & (rows < n)[None, :], other=0.0)
        g = tl.trans(g)
        at = map_ptr + ((p + dy * width) * C)[:, None] + channel[None, :]
        real = (channel < C)[None, :]
        a = tl.load(at - C, mask=(used_row & (x > 0))[:, None] & real, other=0.0)
        left = tl.dot(g, a, left)
        a = tl.load(at, mask=used_row[:, None] & real, other=0.0)
        middle = tl.dot(g, a, middle)
        a = tl.load(at + C, mask=(used_row & (x < width - 1))[:, None] & real, other=0.0)
        right = tl.dot(g, a, right)
    out_ptr += tl.program_id(2).to(tl.int64) * n * 9 * C
    out_at = out_ptr + (rows * 9 + (dy + 1) * 3)[:, None] * C + channel[None, :]
    inside = (rows < n)[:, None] & (channel < C)[None, :]
    tl.store(out_at, left * unscale, mask=inside)
    tl.store(out_at + C, middle * unscale, mask=inside)
    tl.store(out_at + 2 * C, right * unscale, mask=inside)


def check(name: str, x: object, dtypes: tuple[torch.dtype, ...]) -> torch.Tensor:
    """Return ``x`` if it is contiguous, of 4 dimensions, one of ``dtypes`` and on ``DEVICE``."""
    if not isinstance(x, torch.Tensor) or x.dtype not in dtypes:
        allowed = " or ".join(map(str, dtypes))
        raise TypeError(f"{name} must be {allowed}, got {getattr(x, 'dtype', type(x).__name__)}")
    if x.device.type != DEVICE:
        raise ValueError(f"{name} is on device {x.device}; allowed: {DEVICE}")
    if x.ndim != 4 or not x.is_contiguous() or x.numel() >= 2**31:
        raise ValueError(
            f"{name} must be contiguous, of 4 dimensions and under 2^31 values, "
            f"got {list(x.shape)} with strides {x.stride()}"
        )
    return x


def check_filters(filters: object, channels: int) -> torch.Tensor:
    """Return ``filters`` if they are float16 [N, 3, 3, channels]."""
    found = check("filters", filters, HALF)
    if tuple(found.shape[1:]) != (3, 3, channels):
        raise ValueError(f"filters must have shape [N, 3, 3, {channels}], got {list(found.shape)}")
    return found


def empty_dots(
    places: tuple[int, int, int], n: int, pool: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return memory for the dots at places B, H, W, float32, and for ``pool`` for the winners.

    Raises:
        ValueError: windows that do not fill H and W.
    """
    batch, height, width = places
    if not pool:
        return torch.empty(*places, n, dtype=torch.float32, device=DEVICE), None
    if height % 2 or width % 2:
        raise ValueError(f"to pool, H and W must be even, got {height} x {width}")
    shape = (batch, height // 2, width // 2, n)
    out = torch.empty(shape, dtype=torch.float32, device=DEVICE)
    return out, torch.empty(shape, dtype=torch.uint8, device=DEVICE)


def choose_tile(rows: int, columns: int, channels: int) -> Tile:
    """Return the tile for a product of ``rows`` positions, nine times ``channels`` deep."""
    for tile, programs in WIDE if columns >= 128 else NARROW:
        found = triton.cdiv(rows, tile.m) * triton.cdiv(columns, tile.n)
        if found >= programs * processors():
            return tile
    return SMALL if channels % SMALL.k == 0 else SMALL._replace(k=64, stages=4)


def convolve(
    x: torch.Tensor, filters: torch.Tensor, pool: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the dots of a map and filters of ±1, 3x3, zero padding 1: exact in float32.

    Args:
        x: float16 [B, H, W, C] of ±1, contiguous; for ``pool`` H and W are even.
        filters: float16 [N, 3, 3, C] of ±1, contiguous.
        pool: return the greatest dot of each window of 2 x 2, the first of ties.

    Returns:
        float32 [B, H, W, N] and None, or float32 [B, H/2, W/2, N] and which corner of its window
        won, uint8 of 0 to 3, row by row.

    Raises:
        TypeError: another dtype.
        ValueError: another shape, device or order in memory.
    """
    batch, height, width, channels = check("x", x, HALF).shape
    n = len(check_filters(filters, channels))
    out, winners = empty_dots((batch, height, width), n, pool)
    positions, tile = batch * height * width, choose_tile(batch * height * width, n, channels)
    if out.numel():
        _conv[(triton.cdiv(positions, tile.m), triton.cdiv(n, tile.n))](
            x, filters, out, winners, positions, n, height, width, C=channels, POOL=pool,
            M=tile.m, N=tile.n, K=tile.k, num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return out, winners


def pieces_for(positions: int, programs: int) -> int:
    """Return in how many pieces the positions are summed, ``programs`` to a piece.

    As many as run at once: of one more, a few programs would wait for all others to end. At least
    two, if so only a second round's work is shared out.
    """
    wanted = PROGRAMS * processors() // max(programs, 1)
    steps = triton.cdiv(positions, FILTER_TILE.k)
    return max(1, min(max(2, wanted), int(steps), MOST_PIECES))


def by_filters(gradient: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the gradient by the filters in pieces, float32 [pieces, N, 3, 3, C], to be added up.

    Args:
        gradient: by the dots, times ``SCALE``, float16 [B, H, W, N], contiguous.
        x: float16 [B, H, W, C], contiguous.

    Raises:
        TypeError, ValueError: as :func:`convolve`.
    """
    batch, height, width, n = check("gradient", gradient, HALF).shape
    channels = int(check("x", x, HALF).shape[3])
    if x.shape[:3] != gradient.shape[:3]:
        raise ValueError(f"x must have shape {[*gradient.shape[:3], 'C']}, got {list(x.shape)}")
    positions, tile = batch * height * width, FILTER_TILE
    width_k = min(tile.n, max(16, int(triton.next_power_of_2(channels))))
    grid = 3 * triton.cdiv(channels, width_k), triton.cdiv(n, tile.m)
    pieces = pieces_for(positions, grid[0] * grid[1])
    piece = triton.cdiv(triton.cdiv(positions, pieces), tile.k) * tile.k
    pieces = max(1, triton.cdiv(positions, piece)) if piece else 1
    out = torch.empty(pieces, n, 3, 3, channels, dtype=torch.float32, device=gradient.device)
    if out.numel():
        _by_filters[(*grid, pieces)](
            gradient, x, out, positions, n, height, width, piece, 1 / SCALE, C=channels, N=tile.m,
            K=width_k, P=tile.k, num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return out
