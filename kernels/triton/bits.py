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
