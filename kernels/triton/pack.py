"""Signs and thresholds to words on the GPU, and back: one pass over the data each.

Bound by memory: 4 bytes read and an eighth of a byte written a float32 value, about 12 instructions
for four values of a lane. Words are 32 bits here, two to each of ``Packed``'s, lowest first.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

import torch
import triton
import triton.language as tl

from kernels.packing import Packed, words_for
from kernels.triton.bits import fires, pack_columns, popcount

ROWS, WORDS = 2, 16  # of a program's step: 1024 values, 16 bytes of float32 a lane
WARPS = 4


@triton.jit
def _pack(
    x_ptr,
    threshold_ptr,
    flip_ptr,
    words_ptr,
    ones_ptr,
    rows,
    k,
    words,
    x_row,
    x_col,
    words_row,
    words_col,
    MODE: tl.constexpr,
    COUNT: tl.constexpr,
    ROWS: tl.constexpr,
    WORDS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    used = row < rows
    x_at = x_ptr + row.to(tl.int64)[:, None] * x_row
    words_at = words_ptr + row.to(tl.int64)[:, None] * words_row
    ones = tl.zeros((ROWS,), tl.int32)
    for start in range(0, words, WORDS):
        col = start * 32 + tl.arange(0, WORDS * 32)
        inside = used[:, None] & (col < k)[None, :]
        x = tl.load(x_at + col.to(tl.int64)[None, :] * x_col, mask=inside, other=0)
        if MODE == "sign":
            bits = (x >= 0) & inside
        elif MODE == "set":
            bits = (x != 0) & inside
        else:
            bits = fires(x.to(tl.int32), threshold_ptr, flip_ptr, col, k) & inside
        packed = pack_columns(bits, ROWS, WORDS, 32)
        word = start + tl.arange(0, WORDS)
        keep = used[:, None] & (word < words)[None, :]
        at = words_at + word.to(tl.int64)[None, :] * words_col
        tl.store(at, packed.to(tl.int32, bitcast=True), mask=keep)
        if COUNT:
            ones += tl.sum(popcount(packed), axis=1)
    if COUNT:
        tl.store(ones_ptr + row, ones, mask=used)


@triton.jit
def _ones(words_ptr, ones_ptr, rows, words, ROWS: tl.constexpr, WORDS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    used = row < rows
    ones = tl.zeros((ROWS,), tl.int32)
    for start in range(0, words, WORDS):
        word = start + tl.arange(0, WORDS)
        at = words_ptr + row.to(tl.int64)[:, None] * words + word[None, :]
        x = tl.load(at, mask=used[:, None] & (word < words)[None, :], other=0)
        ones += tl.sum(popcount(x.to(tl.uint32, bitcast=True)), axis=1)
    tl.store(ones_ptr + row, ones, mask=used)


@triton.jit
def _unpack(
    words_ptr,
    out_ptr,
    rows,
    k,
    run,
    run_words,
    words,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    col = tl.program_id(1) * COLS + tl.arange(0, COLS)
    inside = (row < rows)[:, None] & (col < k)[None, :]
    word = col // run * run_words + col % run // 32
    x = tl.load(words_ptr + row[:, None] * words + word[None, :], mask=inside, other=0)
    bit = (x.to(tl.uint32, bitcast=True) >> (col % run % 32).to(tl.uint32)[None, :]) & 1
    signs = bit.to(tl.int32) * 2 - 1
    at = out_ptr + row[:, None] * k + col[None, :]
    tl.store(at, signs.to(out_ptr.dtype.element_ty), mask=inside)


def pack_into(
    x: torch.Tensor,
    words: torch.Tensor,
    ones: torch.Tensor | None = None,
    threshold: torch.Tensor | None = None,
    flip: torch.Tensor | None = None,
) -> None:
    """Write the bits of ``x`` [M, K], of any strides, to ``words`` (int32 [M, W], any strides).

    bit = ``x >= 0``; for bool the value itself; with ``threshold`` (int32 [K]) and ``flip`` (bool
    [K]) ``(x >= threshold) ^ flip``. Words and bits beyond K are written as 0. ``ones`` (int32 [M])
    takes each row's popcount.
    """
    rows, k = x.shape
    assert words.dtype == torch.int32 and words.shape[1] * 32 >= k
    if rows == 0:
        return
    mode = "set" if x.dtype == torch.bool else "sign"
    if threshold is not None:
        assert flip is not None
        mode, threshold, flip = "threshold", threshold.contiguous(), flip.contiguous()
    values = x.view(torch.uint8) if x.dtype == torch.bool else x
    _pack[(triton.cdiv(rows, ROWS),)](
        values,
        threshold,
        flip if flip is None else flip.view(torch.uint8),
        words,
        ones,
        rows,
        k,
        words.shape[1],
        *values.stride(),
        *words.stride(),
        MODE=mode,
        COUNT=ones is not None,
        ROWS=ROWS,
        WORDS=WORDS,
        num_warps=WARPS,
    )


def pack_rows(x: torch.Tensor) -> Packed:
    """Return ``x`` [M, K] packed; ``kernels.packing.pack_rows`` checks it."""
    words = torch.empty(x.shape[0], words_for(x.shape[1]), dtype=torch.int64, device=x.device)
    pack_into(x, words.view(torch.int32))
    return Packed(words, int(x.shape[1]))


def pack_threshold(dots: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor) -> Packed:
    """Return ``(dots >= threshold) ^ flip`` packed; ``kernels.packing`` checks the operands."""
    m, n = dots.shape
    words = torch.empty(m, words_for(n), dtype=torch.int64, device=dots.device)
    pack_into(dots, words.view(torch.int32), threshold=threshold, flip=flip)
    return Packed(words, int(n))


def row_ones(words: torch.Tensor) -> torch.Tensor:
    """Return the popcount of each row, int32 [M], of contiguous words (int32 or int64 [M, W])."""
    narrow = words.view(torch.int32)
    ones = torch.empty(narrow.shape[0], dtype=torch.int32, device=words.device)
    if narrow.shape[0]:
        grid = (triton.cdiv(narrow.shape[0], 4),)
        _ones[grid](narrow, ones, *narrow.shape, ROWS=4, WORDS=128, num_warps=WARPS)
    return ones


def unpack_rows(p: Packed, dtype: torch.dtype) -> torch.Tensor:
    """Return the ±1 values [M, K] of packed rows in ``dtype``."""
    out = torch.empty(p.rows, p.k, dtype=dtype, device=p.words.device)
    run = p.k // p.segments
    words = p.words.view(torch.int32)
    if p.rows:
        grid = (triton.cdiv(p.rows, 4), triton.cdiv(p.k, 256))
        sizes = (p.rows, p.k, run, 2 * words_for(run), words.shape[1])
        _unpack[grid](words, out, *sizes, ROWS=4, COLS=256, num_warps=WARPS)
    return out
