"""3x3 convolutions of packed maps to bits by bit-sliced counters (``kernels.cpu.slices``).

The eight rows of a tile are positions of one column of the map, in eight parts of one image or in
parts of several: all go up or down a line together, so that the tables of a position serve all
nine taps that meet it. A position is a chain of its own, of as many indices as its channels need;
the parities that its nine taps end with start the count of a tile. Taps beyond the first and the
last column are left out, lines outside the map are zeros.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated"

import numba
import numpy as np
import torch

from kernels.conv import CLASSES, TAPS
from kernels.cpu.borders import touched
from kernels.cpu.chains import INDICES, chain_words, index, indices_for, prepare
from kernels.cpu.jit import jit
from kernels.cpu.octets import LANES
from kernels.cpu.shares import aligned, part
from kernels.cpu.sliced import slices_for, split
from kernels.cpu.slices import KEPT, ROWS, RUN, count_tile, reached_words, start_tile
from kernels.cpu.tabled import ALONE, LONGEST, limits
from kernels.cpu.vectors import GFNI, VBMI
from kernels.packing import Packed

SIDE = 3  # of a filter
_NULL = 0x80  # an index of no ones
TOGETHER = 2  # panels that share the tables in L1
_HALO = 0.3  # of a line's time goes into making its tables


@jit()
def _room(width, channels, steps, planes):
    """Return what a task works in: lines' tables and parities, words, slices, bits, rows."""
    size = SIDE * width * steps * INDICES
    tables, matrices = aligned(size * LANES), aligned(size * 8)
    odds = np.zeros(SIDE * (width + 2), dtype=np.uint8)  # none beyond the columns
    turned = np.zeros((channels + 1) * width * ROWS, dtype=np.uint64)
    chained, found = aligned(steps * ROWS * 8).view(np.uint64), np.empty(ROWS, dtype=np.uint64)
    slices, kept = aligned(width * TOGETHER * planes * LANES), aligned(KEPT * LANES)
    return tables, matrices, odds, turned, chained, slices, kept, found


@jit()
def _rows(unit, parts, images, height, line):
    """Return at which line of all images each row of a tile is, -1 for none: int64 [8].

    Row b is line ``line`` of part ``b % parts`` of an image.
    """
    wide, lines = (height + parts - 1) // parts, np.full(ROWS, -1)
    for b in range(ROWS):
        image, y = unit * (ROWS // parts) + b // parts, b % parts * wide + line
        if image < images and 0 <= y < height:
            lines[b] = image * height + y
    return lines


@jit()
def _prepare_line(words, lines, slot, last, room):
    """Make the tables of all positions of eight lines, words uint64 [lines, width, channels]."""
    tables, matrices, odds, turned, chained, _, _, _ = room
    _, width, channels = words.shape
    for b in range(ROWS):
        for t in range(channels):
            for x in range(width):
                one = words[lines[b], x, t] if lines[b] >= 0 else np.uint64(0)
                turned[(t * width + x) * ROWS + b] = one
    steps = chained.size // ROWS
    for x in range(width):
        odd = chain_words(turned, x * ROWS, width * ROWS, steps, last, chained)
        odds[slot * (width + 2) + x + 1] = odd
        for s in range(steps):
            to = ((slot * width + x) * steps + s) * INDICES
            prepare(chained, s * ROWS, tables, to, matrices)


@jit()
def _count(left, right, width, filters, turn, planes, room):
    """Count the ones of a line's tiles and of panels ``left..right`` of 64 filters."""
    laid, odd, places, ends, _ = filters
    tables, matrices, odds, _, chained, slices, kept, _ = room
    stride, column = chained.size, places.shape[1] // SIDE  # eight indices a word, as rows
    size, wide = planes * LANES, right - left
    for i in range(width * wide):
        start_tile(9, odds, i // wide, ends[turn], odd, (left + i % wide) * TAPS * LANES, slices,
                   i * size, planes)  # fmt: skip
    runs = (column + RUN - 1) // RUN
    for dx in range(SIDE):
        for run in range(runs):
            first, end = part(column // 4, runs, run)
            at = dx * column + first * 4
            kept[(end - first) * LANES :] = 0
            for x in range(dx == 0, width - (dx == 2)):
                for panel in range(left, right):
                    count_tile(
                        tables, (x + dx - 1) * stride, matrices, places[turn], at, laid,
                        (panel * places.shape[1] + at) * LANES, end - first, kept, slices,
                        (x * wide + panel - left) * size, planes,
                    )  # fmt: skip


@jit()
def _tile_class(y, x, height, width, wide):
    return (y == 0) + 2 * (y == (height - 1) % wide) + touched(1, x, 3, width)


@jit()
def _write(left, right, width, y, height, wide, lines, planes, bounds, flips, room, out):
    slices, found = room[5], room[7]
    for x in range(width):
        tile = _tile_class(y, x, height, width, wide)
        for panel in range(left, right):
            at = (tile * out.shape[1] + panel) * (planes + 1) * LANES
            i = x * (right - left) + panel - left
            reached_words(slices, i * planes * LANES, planes, bounds, at, found)
            for b in range(ROWS):
                if lines[b] >= 0:
                    out[lines[b] * width + x, panel] = found[b] ^ flips[panel]


@jit()
def _task(words, height, unit, unit_end, parts, filters, begin, end, planes, bounds, flips, out):
    _, width, channels = words.shape
    count, images, wide = filters[4], words.shape[0] // height, (height + parts - 1) // parts
    steps = (count + INDICES - 1) // INDICES
    last = count - (steps - 1) * INDICES
    room = _room(width, channels, steps, planes)
    for one in range(unit, unit_end):
        for line in range(-1, wide + 1):
            lines = _rows(one, parts, images, height, line)
            _prepare_line(words, lines, (line + 1) % SIDE, last, room)
            if line < 1:
                continue
            y, lines = line - 1, _rows(one, parts, images, height, line - 1)
            for left in range(begin, end, TOGETHER):
                right = min(left + TOGETHER, end)
                _count(left, right, width, filters, y % SIDE, planes, room)
                _write(left, right, width, y, height, wide, lines, planes, bounds, flips, room, out)


@jit()
def _row_classes(parts, height, width):
    """Return which rows of a tile are of which class of border, uint8 [16, 16].

    A tile's own class says whether its line is a first or a last one of any image.
    """
    wide, found = (height + parts - 1) // parts, np.zeros((CLASSES, CLASSES), dtype=np.uint8)
    for y in range(wide):
        for x in range(width):
            tile = _tile_class(y, x, height, width, wide)
            found[tile] = 0
            for b in range(ROWS):
                found[tile, touched(b % parts * wide + y, x, height, width)] |= 1 << b
    return found


@jit(parallel=True)
def _tasks(words, height, units, parts, filters, planes, bounds, flips, out, unit_parts,
           panel_parts):  # fmt: skip
    for task in numba.prange(unit_parts * panel_parts):
        unit, unit_end = part(units, unit_parts, task // panel_parts)
        begin, end = part(out.shape[1], panel_parts, task % panel_parts)
        _task(words, height, unit, unit_end, parts, filters, begin, end, planes, bounds, flips, out)


def usable(n: int, k: int) -> bool:
    """Tell whether ``n`` filters of length ``k`` go by slices here: they fill most of their panels.

    50 maps of 32 x 32 x 128 by 32, 48 and 64 filters take 2.55, 2.59 and 2.61 ms on a Zen 4 core,
    by popcounts 1.94, 2.76 and 3.59.
    """
    return VBMI and GFNI and k <= LONGEST and 4 * n >= 3 * LANES * -(-n // LANES)


def parts_for(images: int, height: int) -> int:
    """Return into how many parts to cut an image for the rows of tiles: 1, 2, 4 or 8.

    The fewest lines of tiles for a thread; at the ends of its parts a line's tables are made twice.
    """
    threads = numba.get_num_threads()

    def cost(parts: int) -> float:
        units = -(-images * parts // ROWS)
        return -(-units // threads) * (-(-height // parts) + 2 * _HALO)

    return min((8, 4, 2, 1), key=cost)


class SlicedConv:
    """Filters in panels of 64 as indices, column of taps by column, on maps of one size."""

    def __init__(self, filters: Packed, height: int, width: int, missing: np.ndarray) -> None:
        self._n, self._k = filters.rows, filters.k
        count = indices_for(filters.k // TAPS)
        column, self._panels = -(-SIDE * count // 4) * 4, -(-self._n // LANES)
        whole = np.zeros((self._panels * LANES, filters.words.shape[1]), dtype=np.int64)
        whole[: self._n] = filters.words.numpy()
        rows = whole.reshape(self._panels, LANES, TAPS, -1).swapaxes(1, 2)
        found, odd = index(rows.reshape(self._panels * TAPS * LANES, -1), count)
        found = found.reshape(self._panels, SIDE, SIDE, count, LANES).swapaxes(1, 2)
        laid = np.full((self._panels, SIDE, column, LANES), _NULL, dtype=np.uint8)
        laid[:, :, : SIDE * count] = found.reshape(self._panels, SIDE, SIDE * count, LANES)
        places, ends = self._places(count, column, width)
        self._filters = laid.reshape(-1), odd.reshape(-1), places, ends, count
        self._base = np.zeros((CLASSES, self._panels * LANES), dtype=np.int32)
        self._base[:, : self._n] = filters.k + missing - 2 * self._left_out(filters)

    @staticmethod
    def _places(count: int, column: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where tables and parities of the taps lie from a position's on, int64.

        [3, t] and [3, 9]: line y's tables are in slot ``(y + 1) % 3`` of three. A null index meets
        one of zeros, behind the last of a position.
        """
        stride = -(-count // INDICES) * INDICES
        slots = (np.arange(SIDE)[:, None] + np.arange(SIDE)) % SIDE  # of y % 3, dy
        lines = slots[:, :, None] * width * stride + np.arange(count)
        nulls = np.full((SIDE, column - SIDE * count), count)
        places = np.concatenate([lines.reshape(SIDE, -1), nulls], axis=1)
        ends = slots[:, :, None] * (width + 2) + np.arange(SIDE)
        return np.tile(places, SIDE), ends.reshape(SIDE, TAPS)

    @staticmethod
    def _left_out(filters: Packed) -> np.ndarray:
        """Return the ones of taps beyond the columns that are not counted, int64 [16, N].

        Their parities are.
        """
        ones = np.bitwise_count(filters.words.numpy().view(np.uint64)).astype(np.int64)
        ones = ones.reshape(filters.rows, SIDE, SIDE, -1).sum(3) // 2 * 2
        left, right = ones[:, :, 0].sum(1), ones[:, :, 2].sum(1)
        classes = np.arange(CLASSES)[:, None]
        found: np.ndarray = (classes >> 2 & 1) * left + (classes >> 3 & 1) * right
        return found

    def bits(
        self, words: torch.Tensor, bounds: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        """Write ``(dot >= bound) ^ flip`` to int64 [B*H*W, ceil(N/64)]; see ``pack_bounds``."""
        images, height, width, channels = words.shape
        parts, planes = parts_for(images, height), slices_for(self._k)
        most = limits(self._base, bounds)
        limited = split(most, _row_classes(parts, height, width), planes)
        lines = words.contiguous().numpy().view(np.uint64).reshape(-1, width, channels)
        rest = planes, limited, flips.view(np.uint64), out.view(np.uint64)
        units, threads = -(-images * parts // ROWS), numba.get_num_threads()
        if len(out) * self._n * self._k <= ALONE:
            _task(lines, height, 0, units, parts, self._filters, 0, self._panels, *rest)
            return
        unit_parts = min(units, threads)
        cut = unit_parts, min(self._panels, -(-threads // unit_parts))
        _tasks(lines, height, units, parts, self._filters, *rest, *cut)
