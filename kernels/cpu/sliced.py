"""The packed product by bit-sliced counters (``kernels.cpu.slices``), blocked for the caches.

64 rows meet panels of 64 weights run by run of 80 indices (400 bits of K): a panel's indices of a
run (5 KiB) stay in L1, these rows' tables (45 KiB) and the slices of the counts in L2. Weights are
kept as indices, 8 bits for 5 of K, in the order in which they are read.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated"

import numba
import numpy as np

from kernels.cpu.chains import FIVE, INDICES, chain_words, index, prepare
from kernels.cpu.jit import jit
from kernels.cpu.octets import LANES
from kernels.cpu.shares import LINE, aligned, part
from kernels.cpu.slices import (
    KEPT,
    LEAST,
    ROWS,
    RUN,
    count_tile,
    reached_words,
    read_counts,
    start_tile,
)
from kernels.cpu.tabled import ALONE, LONGEST, NO_FLIPS, limits, parts, put
from kernels.cpu.vectors import GFNI, VBMI, WIDE_VPOPCNT

PANEL = LANES  # outputs of a tile, a packed word
BLOCK = 64  # rows that meet a panel together
WIDE = 64  # panels whose slices stay in L2: up to 0.4 MiB
IN_ORDER = np.arange(RUN)  # places of a run's tables
_FIRST = np.zeros(1, dtype=np.int64)
ALL_ROWS = np.full((1, 1), 255, dtype=np.uint8)  # of a tile are of one class
# Where popcounts are as fast on a Zen 4 core. 4096 x 4096 weights by 9, 12 and 16 rows, to bits:
# 129, 186 and 211 us, by slices 184, 185 and 186. 384 columns of K = 1024 by 1000 rows: 348 us, by
# slices 279; 256 columns by 1000 rows 237 and 213, but by 20 rows 7 and 11.
FEW_ROWS, FEW_COLUMNS = 12, 384


def usable(k: int) -> bool:
    """Tell whether products of length ``k`` to bits go by slices here.

    4096^3 takes 38 ms on a Zen 4 core by slices, 54 by popcounts. A Zen 5 core has twice the
    popcounts: 29.6 and 25.4 ms, 8192^3 319 and 216. Its convolutions still go by slices.
    """
    return VBMI and GFNI and k <= LONGEST and not WIDE_VPOPCNT


def dots_usable(n: int, k: int) -> bool:
    """Tell whether dots do, too: long ones, as they leave in bursts, past the caches.

    2048^3 takes 6.5 ms on a Zen 4 core (popcounts 7.2), 1024^3 1.04 (0.93).
    """
    return usable(k) and k >= 2048 and n % 16 == 0


def slices_for(k: int) -> int:
    """Return the slices that hold the ones of rows of length ``k``."""
    return max(LEAST, k.bit_length())


@jit()
def runs_of(steps):
    """Return into how many runs the words of indices of a row are cut."""
    return (steps * INDICES + RUN - 1) // RUN


@jit()
def place(panel, panels, first, last):
    """Return where the indices of words ``first..last``, a run, of a panel begin."""
    return (first * panels + panel * (last - first)) * INDICES * PANEL


def panels(words: np.ndarray, octets: int) -> np.ndarray:
    """Return the first ``octets`` bytes of packed rows (int64 [N, W]) as indices.

    Returns:
        uint8, flat: for each run, then for each panel of 64 rows, [T, 64], eight indices for five
        bytes; then the parities of rows, 255 for odd. Rows of zeros beyond N.
    """
    steps = -(-octets // FIVE)
    found, odd = index(words, INDICES * steps)
    cuts = [part(steps, runs_of(steps), run)[1] * INDICES for run in range(runs_of(steps))]
    runs = np.split(found, cuts[:-1], axis=1)
    return np.concatenate([*(run.reshape(-1) for run in runs), odd.reshape(-1)])


def steps_of(laid: np.ndarray, count: int) -> int:
    """Return the words of a row's indices in ``count`` panels."""
    return (laid.size // (count * PANEL) - 1) // INDICES


def rows_of_panels(laid: np.ndarray, n: int, width: int) -> np.ndarray:
    """Return the packed rows, int64 [n, width], that ``panels`` laid out."""
    count = -(-n // PANEL)
    steps = steps_of(laid, count)
    octets = np.zeros((count, PANEL, max(FIVE * steps, 8 * width)), dtype=np.uint8)
    for run in range(runs_of(steps)):
        first, last = part(steps, runs_of(steps), run)
        at, end = (place(0, count, s, s) for s in (first, last))
        some = laid[at:end].reshape(count, last - first, INDICES, PANEL)
        for j in range(FIVE):
            found = np.packbits(some >> j & 1, axis=2, bitorder="little")[:, :, 0]
            octets[:, :, FIVE * first + j : FIVE * last : FIVE] = found.transpose(0, 2, 1)
    rows = octets.reshape(count * PANEL, -1)[:n, : 8 * width]
    return rows.copy().view(np.int64)


@jit()
def arrange(words, row, some, chained):
    """Chain ``some`` rows for ``prepare``: uint64 [octet, s * 8]; return parities, uint8 [8]."""
    odds = np.zeros(BLOCK // ROWS, dtype=np.uint8)
    width = words.shape[1]
    turned = np.zeros((width + 2) * ROWS, dtype=np.uint64)
    for i in range((some + ROWS - 1) // ROWS * ROWS):
        for t in range(width):
            turned[t * ROWS + i % ROWS] = words[row + i, t] if i < some else np.uint64(0)
        if i % ROWS == ROWS - 1:
            to = chained[i // ROWS]
            odds[i // ROWS] = chain_words(turned, 0, ROWS, to.size // ROWS, INDICES, to)
    return odds


@jit()
def buffers(steps, wide, planes):
    """Return what a task works in: chained rows, tables and matrices of a run, slices, counts."""
    octets = BLOCK // ROWS
    chained = aligned(octets * steps * ROWS * 8).view(np.uint64).reshape(octets, steps * ROWS)
    tables, matrices = aligned(octets * RUN * LANES), aligned(octets * RUN * 8)
    slices, kept = aligned(octets * wide * planes * PANEL), aligned(KEPT * LANES)
    return chained, tables, matrices, slices, kept, aligned(ROWS * LANES * 2).view(np.uint16)


@jit()
def prepare_run(chained, octets, first, last, tables, matrices, kept):
    """Make the tables of words ``first..last`` of up to 8 x 8 rows."""
    for o in range(octets):
        for s in range(first, last):
            prepare(chained[o], s * ROWS, tables, o * RUN + (s - first) * INDICES, matrices)
    kept[:] = 0


@jit()
def count(tables, matrices, octets, places, laid, at, steps, kept, slices, to, planes):
    """Add ``h`` of up to 8 x 8 rows and the panel at ``at`` over ``steps`` words to ``slices``.

    ``slices`` from ``to`` on are [octet, plane, 64], as ``count_tile`` has them.
    """
    for o in range(octets):
        count_tile(tables, o * RUN, matrices, places, 0, laid, at, steps * 2, kept, slices,
                   to + o * planes * PANEL, planes)  # fmt: skip


@jit()
def _write(slices, at, planes, panel, row, some, n, bounds, flips, stream, sums, out):
    """Write the panel's dots or words of ``some`` rows: numba compiles the one branch."""
    words = sums[: 4 * ROWS].view(np.uint64)
    for i in range(some):
        o, r = i // ROWS, i % ROWS
        to = at + o * planes * PANEL
        if out.ndim == 2:
            if r == 0:
                limit = panel * (planes + 1) * PANEL
                reached_words(slices, to, planes, bounds, limit, words)
            out[row + i, panel] = words[r] ^ flips[panel]
        else:
            if r == 0:
                read_counts(slices, to, planes, sums)
            put(stream, sums, r, bounds, panel * PANEL, panel, n, flips, out, row + i)


@jit()
def _task(words, row, row_end, laid, steps, begin, end, n, planes, bounds, flips, stream, out):
    panels = (n + PANEL - 1) // PANEL
    odd = steps * INDICES * panels * PANEL  # where the panels' parities begin
    chained, tables, matrices, slices, kept, sums = buffers(steps, min(WIDE, end - begin), planes)
    runs = runs_of(steps)
    while row < row_end:
        some = min(BLOCK, row_end - row)
        octets, odds = (some + ROWS - 1) // ROWS, arrange(words, row, some, chained)
        size = octets * planes * PANEL
        for left in range(begin, end, WIDE):
            right = min(left + WIDE, end)
            for i in range((right - left) * octets):
                start_tile(1, odds, i % octets, _FIRST, laid, odd + (left + i // octets) * PANEL,
                           slices, i * planes * PANEL, planes)  # fmt: skip
            for run in range(runs):
                first, last = part(steps, runs, run)
                prepare_run(chained, octets, first, last, tables, matrices, kept)
                for panel in range(left, right):
                    at, to = place(panel, panels, first, last), (panel - left) * size
                    count(tables, matrices, octets, IN_ORDER, laid, at, last - first, kept, slices,
                          to, planes)  # fmt: skip
                    if run + 1 == runs:
                        _write(slices, to, planes, panel, row, some, n, bounds, flips, stream, sums,
                               out)  # fmt: skip
        row += some


@jit(parallel=True)
def _tasks(words, laid, steps, n, planes, bounds, flips, stream, out, row_parts, panel_parts):
    for task in numba.prange(row_parts * panel_parts):
        tiles = (words.shape[0] + ROWS - 1) // ROWS
        row, row_end = part(tiles, row_parts, task // panel_parts)
        begin, end = part((n + PANEL - 1) // PANEL, panel_parts, task % panel_parts)
        _task(words, row * ROWS, min(row_end * ROWS, words.shape[0]), laid, steps, begin, end, n,
              planes, bounds, flips, stream, out)  # fmt: skip


def _run(
    words: np.ndarray,
    laid: np.ndarray,
    n: int,
    k: int,
    bounds: np.ndarray,
    flips: np.ndarray,
    stream: bool,
    out: np.ndarray,
) -> None:
    words, planes, count = words.view(np.uint64), slices_for(k), -(-n // PANEL)
    steps = steps_of(laid, count)
    if len(words) * n * k <= ALONE:
        _task(words, 0, len(words), laid, steps, 0, count, n, planes, bounds, flips, stream, out)
    else:
        cut = parts(len(words), count, BLOCK, ROWS)
        _tasks(words, laid, steps, n, planes, bounds, flips, stream, out, *cut)


@jit()
def _split(most, rows, planes, bounds):
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            mask = rows[i, j]
            if mask:
                for panel in range(most.shape[1] // PANEL):
                    bits, limits = bounds[i, panel], most[j, panel * PANEL : (panel + 1) * PANEL]
                    for lane in range(PANEL):
                        bits[0, lane] |= mask if limits[lane] >= 0 else 0
                    for p in range(planes):
                        for lane in range(PANEL):
                            limit = min(max(limits[lane], 0), (1 << planes) - 1)
                            bits[p + 1, lane] |= mask * (limit >> p & 1)


def split(most: np.ndarray, rows: np.ndarray, planes: int) -> np.ndarray:
    """Return limits, int16 [classes, N], bit by bit for ``reached_words``.

    Args:
        most: N is whole panels.
        rows: uint8 [sets, classes]: which rows of a tile are of which class.
        planes: slices.

    Returns:
        uint8, flat, [sets, N / 64, planes + 1, 64].
    """
    panels = most.shape[1] // PANEL
    bounds = np.zeros((len(rows), panels, planes + 1, PANEL), dtype=np.uint8)
    _split(most, rows, planes, bounds)
    return bounds.reshape(-1)


def product(words: np.ndarray, laid: np.ndarray, n: int, k: int, out: np.ndarray) -> None:
    """Write the dots of packed rows (int64 [M, W]) and panels of N rows to ``out`` int32 [M, N]."""
    if len(words) and n:
        base = np.full(-(-n // PANEL) * PANEL, k, dtype=np.int32)
        whole = n % 16 == 0 and out.ctypes.data % LINE == 0
        _run(words, laid, n, k, base, NO_FLIPS, whole, out.reshape(-1))


def product_bits(
    words: np.ndarray,
    laid: np.ndarray,
    n: int,
    k: int,
    threshold: np.ndarray,
    flips: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write ``(dots >= threshold) ^ flips`` as packed rows: as ``tabled.product_bits``."""
    if len(words) and n:
        most = limits(np.full((1, threshold.size), k, dtype=np.int32), threshold)
        bounds = split(most, ALL_ROWS, slices_for(k))
        _run(words, laid, n, k, bounds, flips.view(np.uint64), False, out.view(np.uint64))
