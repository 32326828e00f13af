"""The packed CPU product: xor and popcount on 64-bit words, blocked for registers and caches.

With ``x_t = a_t ^ b_t`` the product needs ``sum_t popc(x_t)``. Let ``y_t = x_1 ^ ... ^ x_t``: it is
the xor of the two rows' own prefix xors, which are formed once a row. In each bit position the ones
among ``x_1..x_T`` are the changes along ``y_0 = 0, y_1, ..., y_T``, so

    sum_t popc(x_t) = 2 * (number of 1 -> 0 changes) + popc(y_T),

and two steps hold at most one 1 -> 0 change: ``falls = (y0 & ~y1) | (y1 & ~y2)``, one three-input
logic instruction. Two words thus cost xor, xor, logic, popcount, add: 5 vector instructions and one
popcount, where ``popc(a ^ b)`` word by word costs 6 and two.

The vector runs over 8 outputs (8 rows of the weights, stored word by word): no horizontal sum, no
waste at small K. Tiles are written as LLVM vectors (``kernels.cpu.tile``): VPOPCNTQ and VPTERNLOGQ
on AVX-512; on AVX2 LLVM counts by a table of nibbles, on NEON by CNT.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

import numba
import numpy as np

from kernels.cpu.counts import LANES
from kernels.cpu.jit import jit
from kernels.cpu.shares import part
from kernels.cpu.tile import TILE_ROWS, bits_tile, dots_tile

ALONE = 1 << 23  # products that one thread makes in 23 us: a start of the others may take more
PANEL_BYTES = 1 << 18  # weights that a thread goes over before it takes new rows: a part of L2


@jit()
def prefix_rows(words, first, count, alpha):
    """``alpha[t, i] = words[first+i, 0] ^ ... ^ words[first+i, t]``; an odd end is repeated."""
    total = words.shape[1]
    for i in range(count):
        state = np.uint64(0)
        for t in range(total):
            state ^= words[first + i, t]
            alpha[t * count + i] = state
        if total % 2:
            alpha[total * count + i] = state


@jit()
def _panels_of(words):
    """Lay packed rows [N, W] out as prefix xors [ceil(N/8), W rounded up to even, 8], flat."""
    rows, total = words.shape
    even = total + total % 2
    count = (rows + LANES - 1) // LANES
    panels = np.zeros(count * even * LANES, dtype=np.uint64)
    for n in range(rows):
        base = (n // LANES) * even * LANES + n % LANES
        state = np.uint64(0)
        for t in range(even):
            if t < total:
                state ^= words[n, t]
            panels[base + t * LANES] = state
    return panels


@jit()
def copy_edge(edge, count, left, wide, out, at, n):
    """Copy the first ``left`` of ``wide`` dots of ``count`` rows to ``out``, a row every ``n``."""
    for i in range(count):
        for lane in range(left):
            out[at + i * n + lane] = edge[i * wide + lane]


@jit()
def dots_rows(words, first, count, panels, begin, end, n, k, alpha, edge, out):
    """Rows ``first..first+count`` (TILE_ROWS or 1) times panels ``begin..end``, to dots."""
    even = words.shape[1] + words.shape[1] % 2
    prefix_rows(words, first, count, alpha)
    for panel in range(begin, end):
        at = panel * even * LANES
        left = n - panel * LANES
        whole = left >= LANES
        target = out if whole else edge
        out_at = first * n + panel * LANES if whole else 0
        stride = n if whole else LANES
        if count == TILE_ROWS:
            dots_tile(TILE_ROWS, alpha, panels, at, even, k, target, out_at, stride)
        else:
            dots_tile(1, alpha, panels, at, even, k, target, out_at, stride)
        if not whole:
            copy_edge(edge, count, left, LANES, out, first * n + panel * LANES, n)


@jit()
def _bits_rows(words, first, count, panels, begin, end, k, threshold, flips, alpha, out, stride):
    """Rows ``first..first+count`` (TILE_ROWS or 1) times panels ``begin..end``, to bytes."""
    even = words.shape[1] + words.shape[1] % 2
    prefix_rows(words, first, count, alpha)
    for panel in range(begin, end):
        at = panel * even * LANES
        to = first * stride + panel
        if count == TILE_ROWS:
            bits_tile(
                TILE_ROWS, alpha, panels, at, even, k, threshold, flips, panel, out, to, stride
            )
        else:
            bits_tile(1, alpha, panels, at, even, k, threshold, flips, panel, out, to, stride)


@jit()
def _dots_task(words, row, row_end, panels, begin, end, n, k, out):
    alpha = np.empty((words.shape[1] + 1) * TILE_ROWS, dtype=np.uint64)
    edge = np.empty(TILE_ROWS * LANES, dtype=np.int32)
    while row < row_end:
        some = TILE_ROWS if row + TILE_ROWS <= row_end else 1
        dots_rows(words, row, some, panels, begin, end, n, k, alpha, edge, out)
        row += some


@jit()
def _bits_task(words, row, row_end, panels, begin, end, k, threshold, flips, out, stride):
    alpha = np.empty((words.shape[1] + 1) * TILE_ROWS, dtype=np.uint64)
    while row < row_end:
        some = TILE_ROWS if row + TILE_ROWS <= row_end else 1
        _bits_rows(words, row, some, panels, begin, end, k, threshold, flips, alpha, out, stride)
        row += some


@jit()
def task_of(rows, n, row_parts, panel_parts, task):
    """Return begin and end of the rows, in whole tiles, and of the panels of a task."""
    blocks, count = (rows + TILE_ROWS - 1) // TILE_ROWS, (n + LANES - 1) // LANES
    row, row_end = part(blocks, row_parts, task // panel_parts)
    begin, end = part(count, panel_parts, task % panel_parts)
    return row * TILE_ROWS, min(row_end * TILE_ROWS, rows), begin, end


@jit(parallel=True)
def _dots(words, panels, n, k, row_parts, panel_parts, out):
    for task in numba.prange(row_parts * panel_parts):
        row, row_end, begin, end = task_of(len(words), n, row_parts, panel_parts, task)
        _dots_task(words, row, row_end, panels, begin, end, n, k, out)


@jit(parallel=True)
def _bits(words, panels, n, k, threshold, flips, row_parts, panel_parts, out, stride):
    for task in numba.prange(row_parts * panel_parts):
        row, row_end, begin, end = task_of(len(words), n, row_parts, panel_parts, task)
        _bits_task(words, row, row_end, panels, begin, end, k, threshold, flips, out, stride)


def panels(words: np.ndarray) -> np.ndarray:
    """Return packed rows (int64 [N, W]) as the panels that ``product`` takes (int64, flat)."""
    laid: np.ndarray = _panels_of(words.view(np.uint64))
    return laid.view(np.int64)


def parts(rows: int, total: int, n: int) -> tuple[int, int]:
    """Return into how many parts rows and panels are cut: a task is one part of each.

    Rows go over the threads, panels by ``PANEL_BYTES``; too few rows for the threads are made up
    for by more cuts of the panels.
    """
    blocks, count = -(-rows // TILE_ROWS), -(-n // LANES)
    threads = numba.get_num_threads()
    row_parts = min(blocks, threads)
    by_cache = -(-count * total * LANES * 8 // PANEL_BYTES)
    return row_parts, min(count, max(by_cache, -(-threads // row_parts)))


def product(words: np.ndarray, panels: np.ndarray, n: int, k: int, out: np.ndarray) -> None:
    """Write the dots of packed rows (int64 [M, W]) and panels of N rows to ``out`` int32 [M, N]."""
    rows, total = words.shape
    if rows and n:
        words, panels = words.view(np.uint64), panels.view(np.uint64)
        if rows * panels.size * 64 <= ALONE:
            _dots_task(words, 0, rows, panels, 0, -(-n // LANES), n, k, out.reshape(-1))
        else:
            _dots(words, panels, n, k, *parts(rows, total, n), out.reshape(-1))


def product_bits(
    words: np.ndarray,
    panels: np.ndarray,
    n: int,
    k: int,
    threshold: np.ndarray,
    flips: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write ``(dots >= threshold) ^ flips`` as packed rows: no dots in memory.

    Args:
        words: int64 [M, W].
        panels: of N rows.
        n: N.
        k: true length of a row.
        threshold: int32 [N] padded to a whole number of 64 by the greatest int32.
        flips: int64 [ceil(N/64)], packed, pads 0.
        out: int64 [M, ceil(N/64)], zeros.
    """
    rows, total = words.shape
    if rows and n:
        octets, flips = out.view(np.uint8), flips.view(np.uint8)
        words, panels = words.view(np.uint64), panels.view(np.uint64)
        to = octets.reshape(-1), octets.shape[1]
        if rows * panels.size * 64 <= ALONE:
            _bits_task(words, 0, rows, panels, 0, -(-n // LANES), k, threshold, flips, *to)
        else:
            _bits(words, panels, n, k, threshold, flips, *parts(rows, total, n), *to)
