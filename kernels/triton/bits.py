"""Bits inside a Triton kernel: popcounts, comparisons packed to words."""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

import triton
import triton.language as tl


@triton.jit
def popcount(x):
    """Return the ones of each uint32 as int32.

    Ends in ``(x * 0x01010101) >> 24``, which LLVM takes for ``llvm.ctpop``: one POPC. A factor on
    the result hides the pattern, so callers add first and scale their sums.
    """
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ((x * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def pack_columns(bits, ROWS: tl.constexpr, WORDS: tl.constexpr, WIDTH: tl.constexpr):
    """Return int1 [ROWS, WORDS * WIDTH] as uint32 [ROWS, WORDS], column j at bit j % WIDTH."""
    place = (tl.arange(0, WORDS * WIDTH) % WIDTH).to(tl.uint32)
    placed = bits.to(tl.uint32) << place[None, :]
    return tl.sum(tl.reshape(placed, (ROWS, WORDS, WIDTH)), axis=2)


@triton.jit
def fires(dots, threshold_ptr, flip_ptr, cols, n):
    """Return int1 ``(dots >= threshold) ^ flip`` of int32 dots [M, N]; False where cols >= n."""
    used = cols < n
    threshold = tl.load(threshold_ptr + cols, mask=used, other=0)
    flip = tl.load(flip_ptr + cols, mask=used, other=0) != 0
    return ((dots >= threshold[None, :]) ^ flip[None, :]) & used[None, :]


@triton.jit
def pack_fires(sums, col, threshold_ptr, flip_ptr, first, n, ROWS: tl.constexpr, N: tl.constexpr):
    """Return ``(sums + col >= threshold) ^ flip`` of sums [ROWS, N] as uint32 [ROWS, N // 32].

    Column ``first`` and those after it, False from column n on. What belongs to a column is done
    once a column, and flips once a word: a comparison, a selection and an addition are left of each
    sum. A threshold beyond 2^30 is as good as that, as dots are less.
    """
    cols = first + tl.arange(0, N)
    used = cols < n
    bound = tl.load(threshold_ptr + cols, mask=used, other=0)
    bound = tl.minimum(tl.maximum(bound, -(1 << 30)), 1 << 30) - col
    bound = tl.where(used, bound, 0x7FFFFFFF)
    place = tl.full((N,), 1, tl.uint32) << (tl.arange(0, N) % 32).to(tl.uint32)
    placed = tl.where(sums >= bound[None, :], place[None, :], 0)
    packed = tl.sum(tl.reshape(placed, (ROWS, N // 32, 32)), axis=2)
    # Read as words of their own, or each thread would pack those of all its columns.
    bit = tl.arange(0, 32)
    at = first + tl.arange(0, N // 32)[:, None] * 32 + bit[None, :]
    flip = tl.load(flip_ptr + at, mask=at < n, other=0) != 0
    flips = tl.sum(flip.to(tl.uint32) << bit.to(tl.uint32)[None, :], axis=1)
    return packed ^ flips[None, :]
