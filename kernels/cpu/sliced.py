"""The packed product by bit-sliced counters (``kernels.cpu.slices``), blocked for the caches.

64 rows meet panels of 64 weights run by run of 64 indices (320 bits of K): a panel's indices of a
run (4 KiB) stay in L1, these rows' tables (36 KiB) and the slices of the counts in L2. Weights are
kept as indices, 8 bits for 5 of K, in the order in which they are read.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated"

import numba
import numpy as np

from kernels.cpu.chains import CHAINS, INDEX, OCTETS, chain, prepare, steps_for
from kernels.cpu.jit import jit
from kernels.cpu.slices import LANES, ROWS, RUN, count_tile, reached_words, read_counts
from kernels.cpu.tabled import ALONE, LINE, LONGEST, NO_FLIPS, aligned, limits, part, parts, put
from kernels.cpu.vectors import GFNI, VBMI

PANEL = LANES  # outputs of a tile, a packed word
BLOCK = 64  # rows that meet a panel together
WIDE = 64  # panels whose slices stay in L2: up to 0.4 MiB
_LEAST = 8  # slices that a run fills
# Where popcounts are as fast on a Zen 4 core. 4096 x 4096 weights by 9, 12 and 16 rows, to bits:
# 130, 185 and 213 us, by slices 178, 173 and 173. 1000 rows of 8192 by 384 and 512 columns: 2.41
# and 3.16 ms, by slices 2.46 and 3.01. 1024 x 1024 x 128: 0.26 ms, by slices 0.23.
FEW_ROWS, FEW_COLUMNS, SHORT = 12, 384, 127


def usable(k: int) -> bool:
    """Tell whether products of length ``k`` to bits go by slices here."""
    return VBMI and GFNI and SHORT < k <= LONGEST


def dots_usable(n: int, k: int) -> bool:
    """Tell whether dots do, too: long ones, as they leave in bursts, past the caches.

    2048^3 takes 6.5 ms on a Zen 4 core (popcounts 7.2), 1024^3 1.04 (0.93).
    """
    return usable(k) and k >= 2048 and n % 16 == 0


def slices_for(k: int) -> int:
    """Return the slices that hold ``h`` of rows of length ``k``: half of the ones."""
    return max(_LEAST, (k // 2).bit_length())


@jit()
def runs_of(steps):
    """Return into how many runs the words of chained rows are cut."""
    return (steps * CHAINS + RUN - 1) // RUN


@jit()
def place(panel, panels, first, last):
    """Return where the indices of words ``first..last``, a run, of a panel begin."""
    return (first * panels + panel * (last - first)) * CHAINS * PANEL


@jit()
def _lay(words, octet, laid, panels):
    """Write the indices of packed rows; bit 0 of a row's last is its parity."""
    steps = laid.size // (panels * CHAINS * PANEL)
    chained, runs = np.empty(steps * ROWS, dtype=np.uint64), runs_of(steps)
    turned = np.empty((words.shape[1] + 2) * ROWS, dtype=np.uint64)
    for n in range(words.shape[0]):
        if n % ROWS == 0:
            odds, at = chain(words, n, words.shape[0] - n, chained, turned), 0
        for run in range(runs):
            first, last = part(steps, runs, run)
            at = place(n // PANEL, panels, first, last) + n % PANEL
            for s in range(first, last):
                word = chained[s * ROWS + n % ROWS]
                for i in range(CHAINS):
                    six = np.uint64(0)
                    for j in range(6):
                        six |= (word >> np.uint64(8 * j + i) & np.uint64(1)) << np.uint64(j)
                    laid[at] = octet[six]
                    at += PANEL
        laid[at - PANEL] |= odds >> n % ROWS & 1


def panels(words: np.ndarray, octets: int) -> np.ndarray:
    """Return the first ``octets`` bytes of packed rows (int64 [N, W]) as indices.

    Returns:
        uint8, flat: for each run, then for each panel of 64 rows, [T, 64], eight indices for five
        bytes; rows of zeros beyond N.
    """
    count = -(-len(words) // PANEL)
    laid = np.full(count * CHAINS * steps_for(octets) * PANEL, INDEX[0], dtype=np.uint8)
    if count:
        _lay(words.view(np.uint64), INDEX, laid, count)
    return laid


def rows_of_panels(laid: np.ndarray, n: int, width: int) -> np.ndarray:
    """Return the packed rows, int64 [n, width], that ``panels`` laid out."""
    count = -(-n // PANEL)
    steps = laid.size // (count * CHAINS * PANEL)
    octets = np.zeros((count, PANEL, max(OCTETS * steps, 8 * width)), dtype=np.uint8)
    for run in range(runs_of(steps)):
        first, last = part(steps, runs_of(steps), run)
        at, end = (place(0, count, s, s) for s in (first, last))
        some = laid[at:end].reshape(count, last - first, CHAINS, PANEL)
        for j in range(OCTETS):
            found = np.packbits(some >> j & 1, axis=2, bitorder="little")[:, :, 0]
            octets[:, :, OCTETS * first + j : OCTETS * last : OCTETS] = found.transpose(0, 2, 1)
    octets[:, :, OCTETS * (steps - 1) :] = 0  # the ends of the chains
    rows = octets.reshape(count * PANEL, -1)[:n, : 8 * width]
    return rows.copy().view(np.int64)


@jit()
def arrange(words, row, some, chained):
    """Chain ``some`` rows for ``prepare``: uint64 [octet, s * 8]; return parities, uint8 [8]."""
    odds = np.zeros(BLOCK // ROWS, dtype=np.uint8)
    turned = np.empty((words.shape[1] + 2) * ROWS, dtype=np.uint64)
    for o in range((some + ROWS - 1) // ROWS):
        first = o * ROWS
        odds[o] = chain(words, row + first, some - first, chained[o], turned)
    return odds


@jit()
def buffers(steps, wide, count):
    """Return what a task works in: chained rows, tables and matrices of a run, slices, counts."""
    octets = BLOCK // ROWS
    chained = aligned(octets * steps * ROWS * 8).view(np.uint64).reshape(octets, steps * ROWS)
    tables, matrices = aligned(octets * RUN * LANES), aligned(octets * RUN * 8)
    slices = aligned(octets * wide * count * PANEL)
    return chained, tables, matrices, slices, aligned(ROWS * LANES * 2).view(np.uint16)


@jit()
def prepare_run(chained, octets, first, last, tables, matrices):
    """Make the tables of words ``first..last`` of up to 8 x 8 rows."""
    for o in range(octets):
        for s in range(first, last):
            to = (o * RUN + (s - first) * CHAINS) * LANES
            prepare(chained[o], s * ROWS, tables, to, matrices)


@jit()
def count(tables, matrices, octets, laid, at, steps, planes, slices, to):
    """Add ``h`` of up to 8 x 8 rows and the panel at ``at`` over ``steps`` words to ``slices``.

    ``slices`` from ``to`` on are [octet, plane, 64], as ``count_tile`` has them.
    """
    for o in range(octets):
        count_tile(tables, o * RUN * LANES, matrices, laid, at, steps * 2, planes, slices,
                   to + o * planes * PANEL)  # fmt: skip


@jit()
def _write(slices, at, planes, odds, laid, last, panel, row, some, n, bounds, flips, stream, sums,
           out):  # fmt: skip
    """Write the panel's dots or words of ``some`` rows: numba compiles the one branch."""
    words = sums[: 4 * ROWS].view(np.uint64)
    for i in range(some):
        o, r = i // ROWS, i % ROWS
        to = at + o * planes * PANEL
        if out.ndim == 2:
            if r == 0:
                limit = panel * (planes + 2) * PANEL
                reached_words(slices, to, planes, odds[o], laid, last, bounds, limit, words)
            out[row + i, panel] = words[r] ^ flips[panel]
        else:
            if r == 0:
                read_counts(slices, to, planes, odds[o], laid, last, sums)
            put(stream, sums, r, bounds, panel * PANEL, panel, n, flips, out, row + i)


@jit()
def _task(words, row, row_end, laid, begin, end, n, planes, bounds, flips, stream, out):
    panels = (n + PANEL - 1) // PANEL
    steps = laid.size // (panels * CHAINS * PANEL)
    chained, tables, matrices, slices, sums = buffers(steps, min(WIDE, end - begin), planes)
    runs = runs_of(steps)
    while row < row_end:
        some = min(BLOCK, row_end - row)
        octets, odds = (some + ROWS - 1) // ROWS, arrange(words, row, some, chained)
        size = octets * planes * PANEL
        for left in range(begin, end, WIDE):
            right = min(left + WIDE, end)
            slices[: (right - left) * size] = 0
            for run in range(runs):
                first, last = part(steps, runs, run)
                prepare_run(chained, octets, first, last, tables, matrices)
                for panel in range(left, right):
                    at, to = place(panel, panels, first, last), (panel - left) * size
                    count(tables, matrices, octets, laid, at, last - first, planes, slices, to)
                    if run + 1 == runs:
                        at += ((last - first) * CHAINS - 1) * PANEL
                        _write(slices, to, planes, odds, laid, at, panel, row, some, n, bounds,
                               flips, stream, sums, out)  # fmt: skip
        row += some


@jit(parallel=True)
def _tasks(words, laid, n, planes, bounds, flips, stream, out, row_parts, panel_parts):
    for task in numba.prange(row_parts * panel_parts):
        tiles = (words.shape[0] + ROWS - 1) // ROWS
        row, row_end = part(tiles, row_parts, task // panel_parts)
        begin, end = part((n + PANEL - 1) // PANEL, panel_parts, task % panel_parts)
        _task(words, row * ROWS, min(row_end * ROWS, words.shape[0]), laid, begin, end, n, planes,
              bounds, flips, stream, out)  # fmt: skip


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
    if len(words) * n * k <= ALONE:
        _task(words, 0, len(words), laid, 0, count, n, planes, bounds, flips, stream, out)
    else:
        cut = parts(len(words), count, BLOCK, ROWS)
        _tasks(words, laid, n, planes, bounds, flips, stream, out, *cut)


@jit()
def _split(most, planes, bounds):
    for n in range(most.size):
        at = n // PANEL * (planes + 2) * PANEL + n % PANEL
        limit = min(max(np.int64(most[n]), 0), (1 << planes + 1) - 1)
        bounds[at] = 255 * (most[n] >= 0)
        for p in range(planes + 1):
            bounds[at + (p + 1) * PANEL] = 255 * (limit >> p & 1)


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
        most = limits(np.full((1, threshold.size), k, dtype=np.int32), threshold).reshape(-1)
        planes = slices_for(k)
        bounds = np.empty(most.size * (planes + 2), dtype=np.uint8)
        _split(most, planes, bounds)
        _run(words, laid, n, k, bounds, flips.view(np.uint64), False, out.view(np.uint64))
