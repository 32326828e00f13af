"""The packed product by tables of 16 (``kernels.cpu.nibbles``), blocked for the caches of AVX2.

64 rows meet a panel of 64 weights run by run of 31 bytes: the counts of the block (8 KiB, 16 bits
each), the panel's nibbles of that run (4 KiB) and the tables (8 KiB) stay in L1. Weights are kept
packed, as bytes by their place in the row: a run is split into nibbles once for all rows.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated"

import numba
import numpy as np

from kernels.cpu.jit import jit
from kernels.cpu.nibbles import (
    PANEL,
    RUN,
    copy_vector,
    count_tile,
    lanes,
    reached_word,
    split,
    store_dots,
    tables,
)
from kernels.cpu.shares import LINE, aligned, part
from kernels.cpu.vectors import AVX2, AVX512

LONGEST = (1 << 15) - 1  # K: counts are compared as signed 16-bit integers
BLOCK, ROWS = 64, 4  # rows that meet a panel together; rows of a tile
STRIDE = 32  # bytes of a run in a block
LARGE_BYTES = 1 << 25  # of a result that overflows the caches
ALONE = 1 << 23  # products that one thread makes in 14 us: a start of the others may take more
# Where popcounts beat tables on a Zen 3 core. 4096 x 4096 weights by 1, 2, 3 and 4 rows: 60, 106,
# 164 and 204 us, by tables 78, 125, 183 and 204. 1000 rows of 8192 by 40 and 48 columns: 0.96 and
# 1.14 ms, by tables 1.06 and 1.09.
FEW_ROWS, FEW_COLUMNS = 3, 40
TABLES, _LANES = tables().reshape(-1), lanes()
NO_FLIPS = np.empty(0, dtype=np.uint64)


def usable(k: int) -> bool:
    """Tell whether products of length ``k`` go by tables here: VPOPCNTQ is faster."""
    return AVX2 and not AVX512 and k <= LONGEST


@jit()
def buffers(length):
    """Return what a task works in: a block of rows, a run's nibbles, and counts uint16."""
    runs = (length + RUN - 1) // RUN
    block = aligned(runs * BLOCK * STRIDE)
    return block, aligned(RUN * 2 * PANEL), aligned(BLOCK * PANEL * 2).view(np.uint16)


@jit()
def _lay(octets, lane_of, laid):
    rows, length = octets.shape[0], laid.shape[1]
    for panel in range(laid.shape[0]):
        for lane in range(PANEL):
            row = panel * PANEL + lane_of[lane]
            if row < rows:
                for t in range(length):
                    laid[panel, t, lane] = octets[row, t]


def lay(octets: np.ndarray) -> np.ndarray:
    """Lay weights as bytes, uint8 [N, T], out as ``count`` takes them.

    Returns:
        uint8 [ceil(N/64), T, 64], zeros beyond N.
    """
    laid = np.zeros((-(-len(octets) // PANEL), octets.shape[1], PANEL), dtype=np.uint8)
    _lay(octets, _LANES, laid)
    return laid


def panels(words: np.ndarray, length: int) -> np.ndarray:
    """Return ``lay`` of the first ``length`` bytes of packed rows (int64 [N, W])."""
    return lay(np.ascontiguousarray(words.view(np.uint8)[:, :length]))


def rows_of_panels(laid: np.ndarray, n: int, width: int) -> np.ndarray:
    """Return the packed rows, int64 [n, width], that ``panels`` laid out."""
    octets = np.zeros((len(laid) * PANEL, 8 * width), dtype=np.uint8)
    order = (np.arange(len(laid))[:, None] * PANEL + _LANES).reshape(-1)
    octets[order, : laid.shape[1]] = laid.transpose(0, 2, 1).reshape(len(order), -1)
    return octets[:n].view(np.int64)


@jit()
def arrange(octets, at, length, row, block):
    """Copy ``length`` bytes from ``at`` on as row ``row`` of a block: [runs, BLOCK, 32]."""
    runs = (length + RUN - 1) // RUN
    for run in range(runs):
        begin, end = length * run // runs, length * (run + 1) // runs
        to = (run * BLOCK + row) * STRIDE
        if at + begin + STRIDE <= octets.size:
            copy_vector(octets, at + begin, block, to)
        else:
            for t in range(end - begin):
                block[to + t] = octets[at + begin + t]


@jit()
def count(block, rows, laid, panel, table, nibbles, sums):
    """``sums[i, l]`` = ones of ``rows`` (up to BLOCK) rows, as arranged, xor 64 weights l."""
    length = laid.shape[1]
    flat = laid.reshape(-1)
    sums[: rows * PANEL] = 0
    runs = (length + RUN - 1) // RUN
    for run in range(runs):
        begin, end = length * run // runs, length * (run + 1) // runs
        steps, at = end - begin, (panel * length + begin) * PANEL
        row, first = 0, run * BLOCK * STRIDE
        if rows < ROWS:
            for one in range(rows):
                count_tile(1, 0, block, first + one * STRIDE, STRIDE, steps, flat, at, table, sums,
                           one * PANEL)  # fmt: skip
            continue
        split(flat, at, steps, nibbles)
        while row + ROWS <= rows:
            count_tile(ROWS, 1, block, first + row * STRIDE, STRIDE, steps, nibbles, 0, table, sums,
                       row * PANEL)  # fmt: skip
            row += ROWS
        while row < rows:
            count_tile(1, 1, block, first + row * STRIDE, STRIDE, steps, nibbles, 0, table, sums,
                       row * PANEL)  # fmt: skip
            row += 1


@jit()
def put(stream, sums, i, bounds, at, panel, n, flips, out, row):
    """Write row ``i`` of ``sums`` as 64 dots, or as one word, of row ``row`` of ``out``.

    Args:
        stream: whether dots go past the caches.
        bounds: what dots start from, int32, or the greatest counts of bits 1, int16: those of the
            panel from ``at`` on.
        n: outputs a row.
        flips: uint64 [ceil(N/64)], for words.
        out: dots, int32 [M * N], or words, uint64 [M, ceil(N/64)]: numba compiles the one branch.
    """
    if out.ndim == 2:
        out[row, panel] = reached_word(sums, i * PANEL, bounds, at) ^ flips[panel]
        return
    to = row * n + panel * PANEL
    left = n - panel * PANEL
    if left >= PANEL:
        if stream:
            store_dots(PANEL, 1, sums, i * PANEL, bounds, at, out, to)
        else:
            store_dots(PANEL, 0, sums, i * PANEL, bounds, at, out, to)
        return
    for lane in range(0, left - 7, 8):
        store_dots(8, 0, sums, i * PANEL + lane, bounds, at + lane, out, to + lane)
    for lane in range(left // 8 * 8, left):
        out[to + lane] = bounds[at + lane] - 2 * np.int32(sums[i * PANEL + lane])


@jit()
def rows_of(rows, parts, index):
    """Return begin and end of part ``index`` of ``rows`` rows, in whole tiles."""
    begin, end = part((rows + ROWS - 1) // ROWS, parts, index)
    return begin * ROWS, min(end * ROWS, rows)


@jit()
def _task(octets, stride, row, row_end, laid, begin, end, n, bounds, flips, table, stream, out):
    block, nibbles, sums = buffers(laid.shape[1])
    while row < row_end:
        some = min(BLOCK, row_end - row)
        for i in range(some):
            arrange(octets, (row + i) * stride, laid.shape[1], i, block)
        for panel in range(begin, end):
            count(block, some, laid, panel, table, nibbles, sums)
            for i in range(some):
                put(stream, sums, i, bounds, panel * PANEL, panel, n, flips, out, row + i)
        row += some


@jit(parallel=True)
def _tasks(
    octets, stride, rows, laid, n, bounds, flips, table, stream, out, row_parts, panel_parts
):
    for task in numba.prange(row_parts * panel_parts):
        row, row_end = rows_of(rows, row_parts, task // panel_parts)
        begin, end = part(laid.shape[0], panel_parts, task % panel_parts)
        _task(octets, stride, row, row_end, laid, begin, end, n, bounds, flips, table, stream, out)


def _run(
    words: np.ndarray,
    laid: np.ndarray,
    n: int,
    bounds: np.ndarray,
    flips: np.ndarray,
    stream: bool,
    out: np.ndarray,
) -> None:
    rows, stride = len(words), 8 * words.shape[1]
    octets = words.view(np.uint8).reshape(-1)
    if rows * laid.size * 8 <= ALONE:
        whole = 0, rows, laid, 0, len(laid)
        _task(octets, stride, *whole, n, bounds, flips, TABLES, stream, out)
    else:
        cut = parts(rows, len(laid))
        _tasks(octets, stride, rows, laid, n, bounds, flips, TABLES, stream, out, *cut)


def parts(rows: int, count: int, block: int = BLOCK, tile: int = ROWS) -> tuple[int, int]:
    """Return into how many parts rows and panels are cut: a task is one part of each.

    A task splits its weights into nibbles block by block of rows: few rows are not cut further
    while there are panels for the threads. No part cuts a tile of rows.
    """
    threads = numba.get_num_threads()
    if rows <= threads * block and count >= 2 * threads:
        return 1, threads
    row_parts = min(-(-rows // tile), threads)
    return row_parts, min(count, -(-threads // row_parts))


def streams(out: np.ndarray) -> bool:
    """Tell whether to write int32 ``out`` past the caches, which it overflows: whole lines do."""
    return out.nbytes >= LARGE_BYTES and out.shape[1] % 16 == 0 and out.ctypes.data % LINE == 0


@jit()
def _limits(base, threshold, most):
    for row in range(base.shape[0]):
        for n in range(base.shape[1]):
            reached = max(np.int64(threshold[n]), np.int64(-4 * LONGEST))  # below every dot
            count = (np.int64(base[row, n]) - reached) >> 1
            most[row, n] = min(max(count, np.int64(-1)), np.int64(LONGEST))


def limits(base: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Return the greatest counts with ``base - 2 * count >= threshold``, int16, -1 for none.

    Args:
        base: int32 [classes, ceil(N/64) * 64].
        threshold: int32 [ceil(N/64) * 64].
    """
    most = np.empty(base.shape, dtype=np.int16)
    _limits(base, threshold, most)
    return most


def dots_usable(n: int, k: int) -> bool:
    """Tell whether products of length ``k`` to ``n`` dots a row go by tables here."""
    return usable(k)


def product(words: np.ndarray, laid: np.ndarray, n: int, k: int, out: np.ndarray) -> None:
    """Write the dots of packed rows (int64 [M, W]) and panels of N rows to ``out`` int32 [M, N]."""
    if len(words) and n:
        base = np.full(len(laid) * PANEL, k, dtype=np.int32)
        _run(words, laid, n, base, NO_FLIPS, streams(out), out.reshape(-1))


def product_bits(
    words: np.ndarray,
    laid: np.ndarray,
    n: int,
    k: int,
    threshold: np.ndarray,
    flips: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write ``(dots >= threshold) ^ flips`` as packed rows: no dots in memory.

    Args:
        words: int64 [M, W].
        laid: panels of N rows.
        n: N.
        k: true length of a row.
        threshold: int32 [N] padded to a whole number of 64 by the greatest int32.
        flips: int64 [ceil(N/64)], packed, pads 0.
        out: int64 [M, ceil(N/64)].
    """
    if len(words) and n:
        most = limits(np.full((1, threshold.size), k, dtype=np.int32), threshold).reshape(-1)
        _run(words, laid, n, most, flips.view(np.uint64), False, out.view(np.uint64))
