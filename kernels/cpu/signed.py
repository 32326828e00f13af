"""Products of real numbers, rounded to 12 bits, and ±1 on the CPU: training's backward.

``C[m, n] = sum_k A[m, k] S[k, n]`` with A float32 and S of ±1, packed. The numbers of a row of A
are rounded, 512 at a time, to multiples of 1/2047 of the greatest magnitude among them; the sums of
these are exact (``kernels.cpu.sums``). Thus an element is off by at most half a step a number:

    |C - C_exact| <= sum over blocks of (numbers in the block) * (greatest in the block) / 4094

and, as roundings do not agree, by some ``sqrt(K / 12)`` steps in the mean. bf16 would round each
number to 1/256 of itself. With two pieces what rounding leaves is rounded likewise and multiplied
too: to some 24 bits, which is all that float32 has.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc, var-annotated"

import numba
import numpy as np

from kernels.cpu.jit import jit
from kernels.cpu.lookup import LANES, LEVELS
from kernels.cpu.shares import aligned
from kernels.cpu.steps import float_of
from kernels.cpu.sums import (
    BLOCK,
    PATTERNS,
    ROWS,
    SHARED,
    STEP,
    TABLES,
    add_signs,
    lookup,
    steps_for,
    store_step,
)
from kernels.cpu.vectors import AVX2

AVAILABLE = AVX2
KEPT = 64  # rows of A whose tables of a block a thread keeps in its caches: 4 to 7 KB each
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


@jit(error_model="numpy")
def rest_of(row, begin, end, step, q, rest):
    """Write what :func:`quantize` left of ``row[begin:end]`` to the first places of ``rest``."""
    for k in range(end - begin):
        rest[k] = row[begin + k] - step * np.float32(q[k])


@jit(parallel=True, error_model="numpy")
def _tables(a, planes, unit, pieces, tables, scales):
    rows, length = a.shape
    all_steps, size = steps_for(length, planes), TABLES[planes]
    for m in numba.prange(rows):
        q = np.empty(BLOCK[planes] * STEP[planes], dtype=np.int16)
        rest = np.empty(SHARED, dtype=np.float32)
        for block in range(scales.shape[1]):
            begin, first = block * SHARED, block * BLOCK[planes]
            end = min(begin + SHARED, length)
            for piece in range(pieces):
                if piece == 0:
                    unit_here = quantize(a[m], begin, end, unit, q)
                else:
                    rest_of(a[m], begin, end, unit_here, q, rest)
                    unit_here = quantize(rest, 0, end - begin, np.float32(0), q)
                line = piece * rows + m
                scales[line, block] = unit_here
                for step in range(min(BLOCK[planes], all_steps - first)):
                    to = (line * all_steps + first + step) * size
                    store_step(planes, q, step * STEP[planes], 1, tables, to)


@jit(parallel=True)
def _index(words, length, panels, out):
    """Patterns from packed rows: ``words`` uint32 [planes, K, at least ``panels``]."""
    planes = words.shape[0]
    steps, size, numbers = steps_for(length, planes), PATTERNS[planes] // 4, STEP[planes]
    for panel in numba.prange(panels):
        out[panel * steps * size : (panel + 1) * steps * size] = 0
        for step in range(steps):
            to = (panel * steps + step) * size
            block, within = step // BLOCK[planes], step % BLOCK[planes] * numbers
            begin = block * SHARED + within
            some = min(numbers, min(SHARED - within, length - begin))
            for plane in range(planes):
                for j in range(some):
                    add_signs(words[plane, begin + j, panel], j, planes, plane, out, to)


@jit(parallel=True)
def _transposed(words, out):
    """``out[k, panel]``: the signs k of 32 rows of ``words`` [columns, ceil(K/64)], uint32."""
    columns = words.shape[0]
    for panel in numba.prange(out.shape[1]):
        bits = np.empty(64, dtype=np.uint32)
        for t in range(words.shape[1]):
            bits[:] = 0
            for lane in range(min(LANES, columns - panel * LANES)):
                word = words[panel * LANES + lane, t]
                for k in range(64):
                    bits[k] |= np.uint32((word >> np.uint64(k)) & np.uint64(1)) << np.uint32(lane)
            for k in range(64):
                out[t * 64 + k, panel] = bits[k]


@jit(error_model="numpy")
def multiply(tables, scales, index, planes, length, row, row_end, duo, duo_end, width, out, first):
    """Write rows ``row`` to ``row_end`` of the product to ``out``, whose first row is ``first``.

    Columns go from 64 times ``duo`` to 64 times ``duo_end``; ``out`` is flat.
    """
    blocks, steps = scales.shape[1], steps_for(length, planes)
    flat, i_gap, t_gap = scales.reshape(-1), steps * PATTERNS[planes], steps * TABLES[planes]
    for block in range(blocks):
        begin = block * BLOCK[planes]
        here = min(BLOCK[planes], steps - begin)
        for pair in range(duo, duo_end):
            i_at = 2 * pair * i_gap + begin * PATTERNS[planes]
            both = 2 * pair + 1 < width // LANES
            for m in range(row, row_end, ROWS):
                t_at = m * t_gap + begin * TABLES[planes]
                to = (m - first) * width + 2 * pair * LANES
                lookup(
                    min(ROWS, row_end - m), both, planes, tables, t_at, t_gap, index, i_at, i_gap,
                    here, flat, m * blocks + block, blocks, block == 0, out, to, width,
                )  # fmt: skip


@jit()
def part_of(rows, part, parts):
    """Return where part ``part`` of ``rows`` begins, a multiple of ROWS."""
    return min((rows + ROWS - 1) // ROWS * part // parts * ROWS, rows)


@jit(parallel=True, error_model="numpy")
def _product(tables, scales, index, planes, length, row_parts, panel_parts, out):
    rows, width = out.shape
    flat, duos = out.reshape(-1), (width // LANES + 1) // 2
    for task in numba.prange(row_parts * panel_parts):
        part = task // panel_parts
        row, row_end = part_of(rows, part, row_parts), part_of(rows, part + 1, row_parts)
        part = task % panel_parts
        duo, duo_end = duos * part // panel_parts, duos * (part + 1) // panel_parts
        multiply(tables, scales, index, planes, length, row, row_end, duo, duo_end, width, flat, 0)


def width_for(columns: int) -> int:
    """Return ``columns`` rounded up to whole vectors: what a row of results takes."""
    return -(-columns // LANES) * LANES


def index(words: np.ndarray, columns: int) -> np.ndarray:
    """Return the patterns of packed signs: int64 words [planes, K, ceil(N/64)] -> uint8, flat."""
    planes, length = words.shape[:2]
    panels = width_for(columns) // LANES
    out: np.ndarray = aligned(panels * steps_for(length, planes) * PATTERNS[planes])
    _index(words.view(np.uint32), length, panels, out.view(np.uint32))
    return out


def index_of_rows(words: np.ndarray, length: int) -> np.ndarray:
    """Return the patterns of signs packed by column: int64 words [N, ceil(K/64)] -> uint8, flat."""
    panels = width_for(len(words)) // LANES
    by_number = np.empty((words.shape[1] * 64, panels), dtype=np.uint32)
    _transposed(words.view(np.uint64), by_number)
    out: np.ndarray = aligned(panels * steps_for(length, 1) * PATTERNS[1])
    _index(by_number[None], length, panels, out.view(np.uint32))
    return out


def check_pieces(pieces: int) -> None:
    """Raise ``ValueError`` unless there are one or two."""
    if pieces not in (1, 2):
        raise ValueError(f"pieces must be 1 or 2, got {pieces}")


def tables(
    a: np.ndarray, planes: int, unit: float = 0.0, pieces: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tables of real rows [M, K] for ``planes``, and the step of each row and block.

    ``unit``: the step of all where they are its multiples up to LEVELS, so that nothing is rounded.
    ``pieces``: 1, or 2: M rows more, of what rounding leaves.

    Raises:
        ValueError: another number of pieces.
    """
    check_pieces(pieces)
    rows, length = a.shape
    found: np.ndarray = aligned(pieces * rows * steps_for(length, planes) * TABLES[planes])
    scales = np.empty((pieces * rows, -(-length // SHARED)), dtype=np.float32)
    _tables(a, planes, np.float32(unit), pieces, found, scales)
    return found, scales


def product(
    a: np.ndarray,
    patterns: np.ndarray,
    planes: int,
    out: np.ndarray,
    unit: float = 0.0,
    pieces: int = 1,
) -> None:
    """``out[m, n] = sum_k a[m, k] s[k, n]``, summed over the planes of ``s`` (:func:`index`).

    a: float32 [M, K]; out: float32 [M, N], N rounded up by :func:`width_for`; unit and pieces: see
    :func:`tables`.
    """
    found, scales = tables(a, planes, unit, pieces)
    threads = numba.get_num_threads()
    width = out.shape[1]
    sums = out if pieces == 1 else np.empty((len(scales), width), dtype=np.float32)
    if len(sums) >= KEPT * threads // 2:
        parts = max(-(-len(sums) // KEPT), threads), 1
    else:
        parts = 1, min(threads, -(-width // (2 * LANES)))
    _product(found, scales, patterns, planes, a.shape[1], *parts, sums)
    if pieces == 2:
        np.add(sums[: len(out)], sums[len(out) :], out=out)
