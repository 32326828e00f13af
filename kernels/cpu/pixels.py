"""8-bit pixels times ±1 weights by tables: of 64 on AVX-512 VBMI, of 16 on other x86 without VNNI.

With P the sum of the pixels whose weight is +1, of which there are p, the dot of ``2u - 255`` is
``4 P - 2 sum(u) + 255 (K - 2 p)``. A task builds the tables of 32 rows, then goes over its panels
of 64 outputs, in one way or the other (``kernels.cpu.picks64``, ``kernels.cpu.picks``): weights
that are laid out in four dimensions are for tables of 64.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated"

import numba
import numpy as np

from kernels.cpu import picks, picks64, tabled
from kernels.cpu.jit import jit
from kernels.cpu.nibbles import PANEL, split
from kernels.cpu.pack import reached_word
from kernels.cpu.shares import aligned, part
from kernels.cpu.tabled import NO_FLIPS
from kernels.cpu.vectors import VBMI
from kernels.packing import Packed

ROWS = 32  # whose tables, 8 bytes a pixel, or 22 those of 64, lie in L2: 196 or 528 KiB at 784
ALONE = 1 << 23  # products that one thread makes in 23 us: a start of the others may take more
_MOST = np.iinfo(np.int32).max
_NIBBLES = 2 * PANEL  # bytes of a panel's weights for 8 pixels


@jit()
def _sizes(laid):
    """Return the pixels of a row, in whole steps, and the bytes of its tables."""
    if laid.ndim == 4:
        return picks64.STEP * laid.shape[1], picks64.STEP_BYTES * laid.shape[1]
    return 8 * laid.shape[1], 8 // picks.QUAD * picks.TABLE_BYTES * laid.shape[1]


@jit()
def room(laid):
    """Return what a task works in: a row, tables of rows, their starts, nibbles and dots."""
    k, size = _sizes(laid)
    tables, minus = aligned(ROWS * size), np.empty(ROWS, dtype=np.int32)
    nibbles, picked = aligned(k // 8 * _NIBBLES), aligned(4 * picks64.ROOM).view(np.int32)
    return np.zeros(k, dtype=np.uint8), tables, minus, nibbles, picked


@jit()
def tables_of(u, first, rows, k, laid, row, tables, minus):
    """Build the tables of ``rows`` rows; ``minus[i]`` = -2 times the sum of row i's pixels."""
    length, size = _sizes(laid)
    for i in range(rows):
        total, begin = np.int32(0), (first + i) * k
        for j in range(k):  # numba copies slices byte by byte
            row[j] = u[begin + j]
            total += np.int32(u[begin + j])
        minus[i] = -2 * total
        if laid.ndim == 4:
            picks64.store_tables(row, 0, length // picks64.GROUP, tables, i * size)
        else:
            picks.store_tables(row, 0, length // picks.QUAD, tables, i * size)


@jit()
def _together(laid, left):
    """Return how many of the ``left`` panels meet a row together."""
    if laid.ndim == 4:
        return picks64.TOGETHER if left >= picks64.TOGETHER else 2 if left >= 2 else 1
    return 1


@jit()
def _put(picked, at, bounds, bounds_at, panel, n, flips, out, row):
    """Write 64 dots or their word of row ``row``, as ``kernels.cpu.tabled.put`` does."""
    begin = panel * PANEL
    if out.ndim == 2:
        out[row, panel] = reached_word(picked, at, bounds, bounds_at) ^ flips[panel]
        return
    if begin + PANEL <= n:
        picks.add_dots(picked, at, bounds, bounds_at, out, row * n + begin)
        return
    for lane in range(n - begin):
        out[row * n + begin + lane] = picked[at + lane] + bounds[bounds_at + lane]


@jit()
def meet(tables, minus, rows, laid, begin, end, places, n, bounds, flips, nibbles, picked, out, to):
    """Write dots or words of ``rows`` rows with tables and panels ``begin..end`` from row ``to``.

    Row i's numbers in ``bounds`` are those of a panel from ``places[i]`` on.
    """
    (k, size), steps, flat = _sizes(laid), laid.shape[1], laid.reshape(-1)
    panel = begin
    while panel < end:
        count = _together(laid, end - panel)
        if laid.ndim == 3:
            split(flat, panel * (k // 8) * PANEL, k // 8, nibbles)
        for i in range(rows):
            if laid.ndim == 4:
                picks64.pick(tables, i * size, steps, flat, panel, count, minus[i], picked)
            else:
                picks.pick(tables, i * size, k, nibbles, minus[i], picked)
            for v in range(panel, panel + count):
                at = (v - panel) * PANEL
                _put(picked, at, bounds, places[i] + v * PANEL, v, n, flips, out, to + i)
        panel += count


@jit()
def _task(u, k, row, row_end, laid, begin, end, n, bounds, flips, out):
    padded, tables, minus, nibbles, picked = room(laid)
    places = np.zeros(ROWS, dtype=np.int64)
    while row < row_end:
        some = min(ROWS, row_end - row)
        tables_of(u, row, some, k, laid, padded, tables, minus)
        meet(tables, minus, some, laid, begin, end, places, n, bounds, flips, nibbles, picked, out,
             row)  # fmt: skip
        row += some


@jit(parallel=True)
def _tasks(u, k, rows, laid, n, bounds, flips, row_parts, panel_parts, out):
    for task in numba.prange(row_parts * panel_parts):
        row, row_end = part(rows, row_parts, task // panel_parts)
        begin, end = part(laid.shape[0], panel_parts, task % panel_parts)
        _task(u, k, row, row_end, laid, begin, end, n, bounds, flips, out)


def panels(w: Packed) -> np.ndarray:
    """Lay packed weights, rows in one segment, out as ``product`` takes them.

    Returns:
        uint8 [ceil(N/64), 2 ceil(K/16), 64] or ``kernels.cpu.picks64.panels``, zeros beyond N and
        K.
    """
    words = w.words.numpy()
    if not VBMI:
        return tabled.panels(words, picks.STEP // 8 * -(-w.k // picks.STEP))
    signs = np.unpackbits(words.view(np.uint8), axis=1, count=w.k, bitorder="little")
    patterns = picks64.panels(signs)
    laid: np.ndarray = aligned(patterns.size).reshape(patterns.shape)
    laid[:] = patterns
    return laid


def base_of(w: Packed) -> np.ndarray:
    """Return -255 times the sum of each row's weights, int32 [ceil(N/64) * 64]."""
    ones = np.zeros(-(-w.rows // PANEL) * PANEL, dtype=np.int32)
    ones[: w.rows] = np.bitwise_count(w.words.numpy().view(np.uint64)).sum(1)
    return 255 * (w.k - 2 * ones)


@jit()
def _bounds(base, threshold, bounds):
    for row in range(base.shape[0]):
        for n in range(base.shape[1]):
            least = np.int64(threshold[n]) - np.int64(base[row, n])
            bounds[row, n] = min(max(least, np.int64(-_MOST - 1)), np.int64(_MOST))


def bounds_of(base: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Return the least sums that reach a threshold, int32 as ``base`` [classes, N']."""
    bounds = np.empty_like(base)
    _bounds(base, threshold, bounds)
    return bounds


def _run(
    u: np.ndarray, laid: np.ndarray, n: int, bounds: np.ndarray, flips: np.ndarray, out: np.ndarray
) -> None:
    rows, k = u.shape
    if rows * n * k <= ALONE:
        _task(u.reshape(-1), k, 0, rows, laid, 0, len(laid), n, bounds, flips, out)
    else:
        parts = tabled.parts(rows, len(laid), ROWS, 1)
        _tasks(u.reshape(-1), k, rows, laid, n, bounds, flips, *parts, out)


def product(u: np.ndarray, laid: np.ndarray, base: np.ndarray, out: np.ndarray) -> None:
    """Write ``(2u - 255) . w`` of uint8 u [M, K] to ``out`` int32 [M, N], both contiguous."""
    if out.size:
        _run(u, laid, out.shape[1], base, NO_FLIPS, out.reshape(-1))


def product_bits(
    u: np.ndarray,
    laid: np.ndarray,
    base: np.ndarray,
    threshold: np.ndarray,
    flips: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write ``((2u - 255) . w >= threshold) ^ flips`` as packed rows: no dots in memory.

    Args:
        u: uint8 [M, K] contiguous.
        laid: of ``panels``.
        base: of ``base_of``.
        threshold: int32 [N] padded to a whole number of 64 by the greatest int32.
        flips: int64 [ceil(N/64)], packed, pads 0.
        out: int64 [M, ceil(N/64)].
    """
    if out.size:
        bounds = bounds_of(base[None], threshold).reshape(-1)
        _run(u, laid, base.size, bounds, flips.view(np.uint64), out.view(np.uint64))
