"""Products of real numbers, rounded to 12 bits, and ±1 on the CPU: training's backward.

``C[m, n] = sum_k A[m, k] S[k, n]`` with A float32 and S of ±1, packed. The numbers of a row of A
are rounded, 512 at a time, to multiples of 1/2047 of the greatest magnitude among them; the sums of
these are exact (``kernels.cpu.lookup``). Thus an element is off by at most half a step a number:

    |C - C_exact| <= sum over blocks of (numbers in the block) * (greatest in the block) / 4094

and, as roundings do not agree, by some ``sqrt(K / 12)`` steps in the mean. bf16 would round each
number to 1/256 of itself.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc, var-annotated"

import numba
import numpy as np

from kernels.cpu.jit import jit
from kernels.cpu.lookup import BLOCK, GROUP, LANES, LEVELS, TABLE_BYTES, lookup, store_table
from kernels.cpu.steps import float_of
from kernels.cpu.vectors import AVX2

AVAILABLE = AVX2
ROWS = 8  # rows of A whose tables, and whose results, a thread keeps in its caches
_ABSOLUTE, _INFINITE = np.int32(0x7FFFFFFF), np.int32(0x7F800000)
SMALLEST = np.float32(1e-30)  # below, numbers count as 0: the step's inverse must be finite


@jit(error_model="numpy")
def quantize(row, begin, end, unit, q):
    """Round ``row[begin:end]`` to ``q`` (zeros beyond) and return the step; NaN if one is.

    The step is ``unit``, or, where that is 0, by the greatest magnitude.
    """
    bits, top = row.view(np.int32), np.int32(0)  # magnitudes are ordered as their bits, NaN last
    for k in range(begin, end):
        top = max(top, np.int32(bits[k] & _ABSOLUTE))
    q[:] = 0
    if top >= _INFINITE:
        return np.float32(np.nan)
    largest = float_of(top)
    if largest < SMALLEST:
        return np.float32(0)
    factor = np.float32(LEVELS) / largest if unit == 0 else np.float32(1) / unit
    for k in range(begin, end):
        q[k - begin] = np.int16(np.rint(row[k] * factor))
    return largest / np.float32(LEVELS) if unit == 0 else unit


@jit(parallel=True, error_model="numpy")
def _tables(a, groups, unit, tables, steps):
    rows, length = a.shape
    blocks = steps.shape[1]
    each = min(groups, BLOCK)
    for m in numba.prange(rows):
        q = np.empty(each * GROUP, dtype=np.int16)
        for block in range(blocks):
            begin = block * BLOCK * GROUP
            here = min(BLOCK, groups - block * BLOCK)
            end = min(begin + BLOCK * GROUP, length)
            steps[m, block] = quantize(a[m], begin, end, unit, q)
            at = (block * rows + m) * each * TABLE_BYTES
            for g in range(here):
                store_table(q, g * GROUP, 1, tables, at + g * TABLE_BYTES)


@jit()
def place_bits(word, j, out, at):
    """Set bit ``j`` of 32 patterns to the bits of ``word``: 8 ``q + lane`` to byte q of a lane.

    So lie the columns in the sums that ``kernels.cpu.lookup`` splits into four vectors of 8.
    """
    for lane in range(8):
        bits = (word >> np.uint32(lane)) & np.uint32(0x01010101)
        out[at + lane] |= bits << np.uint32(j)


@jit(parallel=True)
def _index(words, planes, groups, panels, out):
    """Patterns from packed rows: ``words`` uint32 [planes, K, at least ``panels``]."""
    length = words.shape[1]
    for panel in numba.prange(panels):
        for g in range(groups):
            for plane in range(planes):
                to = ((panel * groups + g) * planes + plane) * 8
                for lane in range(8):
                    out[to + lane] = 0
                for j in range(min(GROUP, max(length - g * GROUP, 0))):
                    place_bits(words[plane, g * GROUP + j, panel], j, out, to)


@jit(parallel=True)
def _index_of_rows(words, groups, out):
    """Patterns of signs packed along ``k``: ``words`` uint64 [columns, ceil(K/64)]."""
    columns = words.shape[0]
    for panel in numba.prange((columns + LANES - 1) // LANES):
        for lane in range(8):
            for g in range(groups):
                out[(panel * groups + g) * 8 + lane] = 0
            for q in range(4):
                column = panel * LANES + 8 * q + lane
                if column < columns:
                    for g in range(min(groups, words.shape[1] * 16)):
                        bits = words[column, g // 16] >> np.uint64(4 * (g % 16))
                        to = (panel * groups + g) * 8 + lane
                        out[to] |= np.uint32(bits & np.uint64(15)) << np.uint32(8 * q)


@jit(error_model="numpy")
def multiply(tables, steps, index, groups, planes, row, row_end, duo, duo_end, width, out, first):
    """Write rows ``row`` to ``row_end`` of the product to ``out``, whose first row is ``first``.

    Columns go from 64 times ``duo`` to 64 times ``duo_end``; ``out`` is flat.
    """
    rows, blocks = steps.shape
    each, gap = min(groups, BLOCK), groups * planes * LANES
    for block in range(blocks):
        here = min(BLOCK, groups - block * BLOCK)
        for pair in range(duo, duo_end):
            i_at = 2 * pair * gap + block * BLOCK * planes * LANES
            both = 2 * pair + 1 < width // LANES
            for m in range(row, row_end):
                t_at = (block * rows + m) * each * TABLE_BYTES
                to = (m - first) * width + 2 * pair * LANES
                scale = steps[m, block]
                lookup(both, planes, tables, t_at, index, i_at, gap, here, scale,
                       block == 0, out, to)  # fmt: skip


@jit(parallel=True, error_model="numpy")
def _product(tables, steps, index, groups, planes, row_parts, panel_parts, out):
    rows, width = out.shape
    flat, duos = out.reshape(-1), (width // LANES + 1) // 2
    for task in numba.prange(row_parts * panel_parts):
        part = task // panel_parts
        row, row_end = rows * part // row_parts, rows * (part + 1) // row_parts
        part = task % panel_parts
        duo, duo_end = duos * part // panel_parts, duos * (part + 1) // panel_parts
        multiply(
            tables, steps, index, groups, planes, row, row_end, duo, duo_end, width, flat, 0
        )  # fmt: skip


def groups_for(length: int) -> int:
    """Return the number of groups of four that K numbers take, rounded up to an even one."""
    return -(-length // (2 * GROUP)) * 2


def width_for(columns: int) -> int:
    """Return ``columns`` rounded up to whole vectors: what a row of results takes."""
    return -(-columns // LANES) * LANES


def index(words: np.ndarray, columns: int) -> np.ndarray:
    """Return the patterns of packed signs: int64 words [planes, K, ceil(N/64)] -> uint8, flat."""
    planes, length = words.shape[:2]
    groups, panels = groups_for(length), width_for(columns) // LANES
    out = np.empty(panels * groups * planes * 8, dtype=np.uint32)
    _index(words.view(np.uint32), planes, groups, panels, out)
    return out.view(np.uint8)


def index_of_rows(words: np.ndarray, length: int) -> np.ndarray:
    """Return the patterns of signs packed by column: int64 words [N, ceil(K/64)] -> uint8, flat."""
    groups = groups_for(length)
    out = np.empty(width_for(len(words)) // LANES * 8 * groups, dtype=np.uint32)
    _index_of_rows(words.view(np.uint64), groups, out)
    return out.view(np.uint8)


def tables(a: np.ndarray, unit: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the tables of real rows [M, K] and the step of each row and block.

    ``unit``: the step of all where they are its multiples up to LEVELS, so that nothing is rounded.
    """
    rows, length = a.shape
    groups = groups_for(length)
    blocks = -(-groups // BLOCK)
    found = np.empty(blocks * rows * min(groups, BLOCK) * TABLE_BYTES, dtype=np.uint8)
    steps = np.empty((rows, blocks), dtype=np.float32)
    _tables(a, groups, np.float32(unit), found, steps)
    return found, steps


def product(
    a: np.ndarray, patterns: np.ndarray, planes: int, out: np.ndarray, unit: float = 0.0
) -> None:
    """``out[m, n] = sum_k a[m, k] s[k, n]``, summed over the planes of ``s`` (:func:`index`).

    a: float32 [M, K]; out: float32 [M, N], N rounded up by :func:`width_for`; unit: see
    :func:`tables`.
    """
    found, steps = tables(a, unit)
    threads = numba.get_num_threads()
    rows, width = out.shape
    many = rows >= 4 * ROWS * threads
    parts = (-(-rows // ROWS), 1) if many else (1, min(threads, -(-width // (2 * LANES))))
    _product(found, steps, patterns, groups_for(a.shape[1]), planes, *parts, out)
