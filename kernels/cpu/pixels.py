"""8-bit pixels times ±1 weights on x86 without VNNI, by tables (``kernels.cpu.picks``).

With P the sum of the pixels whose weight is +1, of which there are p, the dot of ``2u - 255`` is
``4 P - 2 sum(u) + 255 (K - 2 p)``. ``torch._int_mm`` has no fast way on such a CPU: it gives 0.001
TOP/s on a Zen 3 core. A task builds the tables of 32 rows, then goes over its panels of 64 outputs.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated"

import numba
import numpy as np

from kernels.cpu import tabled
from kernels.cpu.jit import jit
from kernels.cpu.nibbles import PANEL, split
from kernels.cpu.pack import reached_word
from kernels.cpu.picks import LONGEST, QUAD, STEP, TABLE_BYTES, add_dots, pick_tile, store_tables
from kernels.cpu.tabled import NO_FLIPS, aligned, part

ROWS = 32  # whose tables, 8 bytes a pixel, lie in L2: 196 KiB at 784 pixels
_NIBBLES = 2 * PANEL  # bytes of a panel's weights for 8 pixels


@jit()
def room(k):
    """Return what a task works in: tables of rows, their starts, nibbles and dots of a panel."""
    tables, minus = aligned(ROWS * k // QUAD * TABLE_BYTES), np.empty(ROWS, dtype=np.int32)
    nibbles, picked = aligned(k // 8 * _NIBBLES), aligned(4 * PANEL).view(np.int32)
    return tables, minus, nibbles, picked


@jit()
def pick(tables, row, k, nibbles, minus, picked):
    """``picked[lane] = minus + 4 P`` of a row and a panel: P as at the head of this module."""
    for lane in range(PANEL):
        picked[lane] = minus
    for begin in range(0, k, LONGEST):
        steps = min(LONGEST, k - begin) // STEP
        at = (row * k + begin) // QUAD * TABLE_BYTES
        pick_tile(tables, at, steps, nibbles, begin // 8 * _NIBBLES, picked, 0)


@jit()
def tables_of(u, first, rows, k, tables, minus):
    """Build the tables of ``rows`` rows; ``minus[i]`` = -2 times the sum of row i's pixels."""
    store_tables(u, first * k, rows * k // QUAD, tables, 0)
    for i in range(rows):
        total = np.int32(0)
        for pixel in u[(first + i) * k : (first + i + 1) * k]:
            total += np.int32(pixel)
        minus[i] = -2 * total


@jit()
def put(picked, bounds, at, panel, n, flips, out, row):
    """Write 64 dots or their word of row ``row``, as ``kernels.cpu.tabled.put`` does."""
    begin = panel * PANEL
    if out.ndim == 2:
        out[row, panel] = reached_word(picked, 0, bounds, at) ^ flips[panel]
        return
    if begin + PANEL <= n:
        add_dots(picked, 0, bounds, at, out, row * n + begin)
        return
    for lane in range(n - begin):
        out[row * n + begin + lane] = picked[lane] + bounds[at + lane]


@jit()
def _task(u, k, row, row_end, laid, begin, end, n, bounds, flips, out):
    tables, minus, nibbles, picked = room(k)
    flat = laid.reshape(-1)
    while row < row_end:
        some = min(ROWS, row_end - row)
        tables_of(u, row, some, k, tables, minus)
        for panel in range(begin, end):
            split(flat, panel * (k // 8) * PANEL, k // 8, nibbles)
            for i in range(some):
                pick(tables, i, k, nibbles, minus[i], picked)
                put(picked, bounds, panel * PANEL, panel, n, flips, out, row + i)
        row += some


@jit(parallel=True)
def _tasks(u, k, rows, laid, n, bounds, flips, row_parts, panel_parts, out):
    for task in numba.prange(row_parts * panel_parts):
        row, row_end = part(rows, row_parts, task // panel_parts)
        begin, end = part(laid.shape[0], panel_parts, task % panel_parts)
        _task(u, k, row, row_end, laid, begin, end, n, bounds, flips, out)


def panels(words: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay packed weights (int64 [N, ceil(K/64)]) out as ``product`` takes them.

    Returns:
        uint8 [ceil(N/64), 2 ceil(K/16), 64], zeros beyond N and K; and ``255 (K - 2 p)`` of p
        weights +1, int32 [ceil(N/64) * 64].
    """
    laid = tabled.panels(words, STEP // 8 * -(-k // STEP))
    ones = np.zeros(len(laid) * PANEL, dtype=np.int32)
    ones[: len(words)] = np.bitwise_count(words.view(np.uint64)).sum(1)
    return laid, 255 * (k - 2 * ones)


def bounds_of(base: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Return the least sums of ``pick`` that reach a threshold, int32 as ``base`` [..., N']."""
    most = np.iinfo(np.int32)
    bounds: np.ndarray = (threshold.astype(np.int64) - base).clip(most.min, most.max)
    return bounds.astype(np.int32)


def _ready(u: np.ndarray, laid: np.ndarray) -> np.ndarray:
    k = 8 * laid.shape[1]
    return u if u.shape[1] == k else np.pad(u, ((0, 0), (0, k - u.shape[1])))


def product(u: np.ndarray, laid: np.ndarray, base: np.ndarray, out: np.ndarray) -> None:
    """Write ``(2u - 255) . w`` of uint8 u [M, K] to ``out`` int32 [M, N], both contiguous."""
    u, (rows, n) = _ready(u, laid), out.shape
    if rows and n:
        parts = tabled.parts(rows, len(laid), ROWS, 1)
        _tasks(u.reshape(-1), u.shape[1], rows, laid, n, base, NO_FLIPS, *parts, out.reshape(-1))


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
        laid: and ``base``, of ``panels``.
        threshold: int32 [N] padded to a whole number of 64 by the greatest int32.
        flips: int64 [ceil(N/64)], packed, pads 0.
        out: int64 [M, ceil(N/64)].
    """
    u, rows = _ready(u, laid), len(out)
    if rows and len(laid):
        bounds = bounds_of(base, threshold)
        flips, parts = flips.view(np.uint64), tabled.parts(rows, len(laid), ROWS, 1)
        n, words = base.size, out.view(np.uint64)
        _tasks(u.reshape(-1), u.shape[1], rows, laid, n, bounds, flips, *parts, words)
