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
from kernels.cpu.vectors import AVX2, AVX512

LINE = 64  # bytes of a cache line
LARGE_BYTES = 1 << 25  # a result that no cache holds
LONGEST = (1 << 15) - 1  # K: counts are compared as signed 16-bit integers
BLOCK, ROWS = 64, 4  # rows that meet a panel together; rows of a tile
STRIDE = 32  # bytes of a run in a block
TABLES, _LANES = tables().reshape(-1), lanes()


def usable(k: int) -> bool:
    """Tell whether products of length ``k`` go by tables here: VPOPCNTQ is faster."""
    return AVX2 and not AVX512 and k <= LONGEST


@jit()
def aligned(size):
    """Return uint8 [size] that begins with a cache line."""
    some = np.empty(size + LINE, dtype=np.uint8)
    first = -some.ctypes.data % LINE
    return some[first : first + size]


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
def put_dots(stream, sums, row, base, base_at, panel, n, out, out_at):
    """Write ``base - 2 * sums`` of one row and panel to ``out[out_at ...]``, n outputs a row."""
    begin = panel * PANEL
    if begin + PANEL <= n:
        if stream:
            store_dots(1, sums, row * PANEL, base, base_at + begin, out, out_at + begin)
        else:
            store_dots(0, sums, row * PANEL, base, base_at + begin, out, out_at + begin)
        return
    for lane in range(n - begin):
        out[out_at + begin + lane] = base[base_at + begin + lane] - 2 * np.int32(
            sums[row * PANEL + lane]
        )


@jit()
def part(total, parts, index):
    """Return begin and end of part ``index`` of ``parts`` of 0..total."""
    return total * index // parts, total * (index + 1) // parts


@jit()
def rows_of(rows, parts, index):
    """Return begin and end of part ``index`` of ``rows`` rows, in whole tiles."""
    begin, end = part((rows + ROWS - 1) // ROWS, parts, index)
    return begin * ROWS, min(end * ROWS, rows)


@jit()
def _dots_task(octets, stride, row, row_end, laid, begin, end, n, base, table, stream, out):
    block, nibbles, sums = buffers(laid.shape[1])
    while row < row_end:
        some = min(BLOCK, row_end - row)
        for i in range(some):
            arrange(octets, (row + i) * stride, laid.shape[1], i, block)
        for panel in range(begin, end):
            count(block, some, laid, panel, table, nibbles, sums)
            for i in range(some):
                put_dots(stream, sums, i, base, 0, panel, n, out, (row + i) * n)
        row += some


@jit()
def _bits_task(octets, stride, row, row_end, laid, begin, end, limits, flips, table, out):
    block, nibbles, sums = buffers(laid.shape[1])
    while row < row_end:
        some = min(BLOCK, row_end - row)
        for i in range(some):
            arrange(octets, (row + i) * stride, laid.shape[1], i, block)
        for panel in range(begin, end):
            count(block, some, laid, panel, table, nibbles, sums)
            for i in range(some):
                word = reached_word(sums, i * PANEL, limits, panel * PANEL)
                out[row + i, panel] = word ^ flips[panel]
        row += some


@jit(parallel=True)
def _dots(octets, stride, rows, laid, n, base, table, row_parts, panel_parts, stream, out):
    for task in numba.prange(row_parts * panel_parts):
        row, row_end = rows_of(rows, row_parts, task // panel_parts)
        begin, end = part(laid.shape[0], panel_parts, task % panel_parts)
        _dots_task(octets, stride, row, row_end, laid, begin, end, n, base, table, stream, out)


@jit(parallel=True)
def _bits(octets, stride, rows, laid, limits, flips, table, row_parts, panel_parts, out):
    for task in numba.prange(row_parts * panel_parts):
        row, row_end = rows_of(rows, row_parts, task // panel_parts)
        begin, end = part(laid.shape[0], panel_parts, task % panel_parts)
        _bits_task(octets, stride, row, row_end, laid, begin, end, limits, flips, table, out)


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


def limits(base: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Return the greatest counts with ``base - 2 * count >= threshold``, int16, -1 for none.

    Args:
        base: int32 [..., ceil(N/64) * 64].
        threshold: int32 [ceil(N/64) * 64].
    """
    lowest = np.int32(-4 * LONGEST)  # below every dot: the difference stays within 32 bits
    most: np.ndarray = np.clip((base - np.maximum(threshold, lowest)) >> 1, -1, LONGEST)
    return most.astype(np.int16)


def product(words: np.ndarray, laid: np.ndarray, n: int, k: int, out: np.ndarray) -> None:
    """Write the dots of packed rows (int64 [M, W]) and panels of N rows to ``out`` int32 [M, N]."""
    rows, width = words.shape
    if rows and n:
        base = np.full(len(laid) * PANEL, k, dtype=np.int32)
        octets, cut = words.view(np.uint8).reshape(-1), parts(rows, len(laid))
        _dots(octets, 8 * width, rows, laid, n, base, TABLES, *cut, streams(out), out.reshape(-1))


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
    rows, width = words.shape
    if rows and n:
        most = limits(np.full(threshold.size, k, dtype=np.int32), threshold)
        octets, cut = words.view(np.uint8).reshape(-1), parts(rows, len(laid))
        _bits(
            octets, 8 * width, rows, laid, most, flips.view(np.uint64), TABLES, *cut,
            out.view(np.uint64),
        )  # fmt: skip
