"""Products on tensor cores: bytes of eight sign bits (1-bit ``wgmma``) or int8 values.

One jit kernel, three ways to multiply a tile, chosen by ``way``:

- ``bits``: packed bytes through ``tl.dot``, rewritten to ``b1.and.popc`` (see ``onebit``);
- ``emulated``: the same sums by AND and popcount, for the interpreter;
- ``int8``: ±1 or pixels as int8, int32 sums: the clean comparison for what single bits gain.

Both operands are zero-padded to whole steps of K, so no load is masked. The result is
``scale * (a . b) + row[m] + col[n]``; with the popcounts pa, pb of the rows
``dot = K - 2*pa - 2*pb + 4 * popc(a & b)``, as only AND is native on Hopper.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from contextlib import nullcontext
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.triton import onebit
from kernels.triton.bits import pack_fires, popcount
from kernels.triton.device import INTERPRETED, processors

BYTE_STEP = 64  # bytes of an operand's row are a multiple of it, 0 beyond K
GROUP = 8  # row tiles that share their columns in the L2 cache
SHARED_BYTES = 227 * 1024  # of one program on Hopper


class Tile(NamedTuple):
    """Outputs of a program, bytes of K a step, warps, and steps in flight."""

    m: int
    n: int
    bytes: int
    warps: int
    stages: int


# From large to small: the first that gives every processor a program. 128 x 256 reads the fewest
# bytes an operation that registers allow (128 accumulators a thread); Triton 3.6 serialises 256 x
# 128. The narrow ones are for batches of up to 64 rows.
TILES = (Tile(128, 256, 128, 8, 3), Tile(128, 128, 128, 8, 4), Tile(64, 64, 128, 4, 4))
INTERPRETED_TILE = Tile(64, 64, 64, 4, 1)


def is_valid(tile: Tile) -> bool:
    """Return whether ``tile`` is whole ``wgmma`` (64 x 8n x 32 bytes) and fits on Hopper."""
    whole = tile.m % 64 == 0 and tile.n % 32 == 0 and tile.bytes % BYTE_STEP == 0
    groups = tile.warps % 4 == 0 and tile.m % (16 * tile.warps) == 0
    accumulators = tile.m * tile.n // (32 * tile.warps)
    shared = (tile.m + tile.n) * tile.bytes * tile.stages
    return whole and groups and accumulators <= 128 and shared <= SHARED_BYTES


def choose_tile(m: int, n: int, row_bytes: int) -> Tile:
    """Return the largest tile that gives every processor a program, else the smallest."""
    chosen = INTERPRETED_TILE if INTERPRETED else TILES[-1]
    for tile in () if INTERPRETED else TILES:
        if triton.cdiv(m, tile.m) * triton.cdiv(n, tile.n) >= processors():
            chosen = tile
            break
    divides = row_bytes % chosen.bytes == 0
    return chosen if divides else chosen._replace(bytes=BYTE_STEP)


@triton.jit
def multiply(a, b, acc, WAY: tl.constexpr):
    """Return ``acc`` plus the product of tiles a [M, bytes] and b [bytes, N]."""
    if WAY == "emulated":
        both = a.to(tl.uint32)[:, :, None] & b.to(tl.uint32)[None, :, :]
        return acc + tl.sum(popcount(both), axis=1)
    else:
        return tl.dot(a, b, acc, out_dtype=acc.dtype)


@triton.jit
def swizzle(m, n, M: tl.constexpr, N: tl.constexpr, GROUP: tl.constexpr):
    """Return this program's row and column tile: GROUP row tiles go over the columns together."""
    tiles_m, tiles_n = tl.cdiv(m, M), tl.cdiv(n, N)
    program = tl.program_id(0)
    first = program // (GROUP * tiles_n) * GROUP
    height = min(tiles_m - first, GROUP)
    within = program % (GROUP * tiles_n)
    return first + within % height, within // height


@triton.jit
def finish(
    acc,
    out,
    terms,
    layer,
    place,
    SCALE: tl.constexpr,
    ROW_SCALE: tl.constexpr,
    COL: tl.constexpr,
    PACKED: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    """Store ``SCALE*acc + ROW_SCALE*row + col``, or its bits.

    Tuples: ``out`` is pointer, stride and words of a row; ``terms`` the pointers of row and col;
    ``layer`` those of threshold and flip; ``place`` the tile's number among rows and among columns
    and the ends of both.
    """
    out_ptr, out_stride, out_words = out
    row_ptr, col_ptr = terms
    threshold_ptr, flip_ptr = layer
    tile_m, tile_n, m, n = place
    rows, cols = tile_m * M + tl.arange(0, M), tile_n * N + tl.arange(0, N)
    dots = SCALE * acc.to(tl.int32, bitcast=True)  # float32 only by its carrier
    if ROW_SCALE != 0:
        dots += ROW_SCALE * tl.load(row_ptr + rows, mask=rows < m, other=0)[:, None]
    col = tl.zeros((N,), tl.int32)
    if COL:
        col = tl.load(col_ptr + cols, mask=cols < n, other=0)
    inside = (rows < m)[:, None]
    out_at = out_ptr + rows.to(tl.int64)[:, None] * out_stride
    if PACKED:
        packed = pack_fires(dots, col, threshold_ptr, flip_ptr, tile_n * N, n, M, N)
        word = tile_n * (N // 32) + tl.arange(0, N // 32)
        keep = inside & (word < out_words)[None, :]
        tl.store(out_at + word[None, :], packed.to(tl.int32, bitcast=True), mask=keep)
    else:
        tl.store(out_at + cols[None, :], dots + col[None, :], mask=inside & (cols < n)[None, :])


@triton.jit
def _product(
    a_ptr,
    b_ptr,
    out_ptr,
    row_ptr,
    col_ptr,
    threshold_ptr,
    flip_ptr,
    m,
    n,
    row_bytes,
    a_stride,
    b_stride,
    out_stride,
    out_words,
    WAY: tl.constexpr,
    SCALE: tl.constexpr,
    ROW_SCALE: tl.constexpr,
    COL: tl.constexpr,
    PACKED: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    BYTES: tl.constexpr,
    GROUP: tl.constexpr,
):
    tl.assume(row_bytes > 0)  # else Triton 3.6's branch past the loop serialises wgmma
    columns = out_words * 32 if PACKED else n
    tile_m, tile_n = swizzle(m, columns, M, N, GROUP)
    rows, cols = tile_m * M + tl.arange(0, M), tile_n * N + tl.arange(0, N)
    step = tl.arange(0, BYTES)
    # Beyond the last row a tile reads rows from the first on again, and never stores them.
    a_at = a_ptr + (rows % m).to(tl.int64)[:, None] * a_stride + step[None, :]
    b_at = b_ptr + (cols % n).to(tl.int64)[None, :] * b_stride + step[:, None]
    acc = tl.zeros((M, N), tl.float32 if WAY == "bits" else tl.int32)
    for _ in range(0, row_bytes, BYTES):
        acc = multiply(tl.load(a_at), tl.load(b_at), acc, WAY)
        a_at += BYTES
        b_at += BYTES
    out, place = (out_ptr, out_stride, out_words), (tile_m, tile_n, m, n)
    terms, layer = (row_ptr, col_ptr), (threshold_ptr, flip_ptr)
    finish(acc, out, terms, layer, place, SCALE, ROW_SCALE, COL, PACKED, M, N)


class Terms(NamedTuple):
    """What makes sums dots: ``scale * sum + row_scale * row[m] + col[n]``; int32 vectors."""

    scale: int = 1
    row_scale: int = 0
    row: torch.Tensor | None = None
    col: torch.Tensor | None = None


def launch(
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor,
    n: int,
    terms: Terms,
    threshold: torch.Tensor | None = None,
    flip: torch.Tensor | None = None,
    tile: Tile | None = None,
) -> None:
    """Write the dots of a [M, B] and b [N, B] to ``out`` [M, N] int32.

    uint8 operands are packed bits, int8 ones values; B is a multiple of ``BYTE_STEP``. With
    ``threshold`` (int32 [N]) and ``flip`` (bool [N]) ``out`` takes the bits of
    ``(dot >= threshold) ^ flip`` instead: int32 words [M, W], words beyond N as 0.
    """
    m, row_bytes = a.shape
    if m == 0 or n == 0:
        return
    assert a.dtype == b.dtype and row_bytes == b.shape[1] and row_bytes % BYTE_STEP == 0
    packed = threshold is not None
    columns = out.shape[1] * 32 if packed else n
    tile = tile or choose_tile(m, columns, row_bytes)
    assert is_valid(tile)
    way = "int8" if a.dtype == torch.int8 else "emulated" if INTERPRETED else "bits"
    if way == "bits":
        a, b = a.view(torch.float8_e4m3fn), b.view(torch.float8_e4m3fn)
    with onebit.rewriting() if way == "bits" else nullcontext():
        kernel = _product[(triton.cdiv(m, tile.m) * triton.cdiv(columns, tile.n),)](
            a,
            b,
            out,
            terms.row,
            terms.col,
            threshold,
            flip if flip is None else flip.view(torch.uint8),
            m,
            n,
            row_bytes,
            a.stride(0),
            b.stride(0),
            out.stride(0),
            out.shape[1] if packed else 0,
            WAY=way,
            SCALE=terms.scale,
            ROW_SCALE=terms.row_scale,
            COL=terms.col is not None,
            PACKED=packed,
            M=tile.m,
            N=tile.n,
            BYTES=tile.bytes,
            GROUP=GROUP,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    if way == "bits":
        onebit.check(kernel)
