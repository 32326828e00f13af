"""3x3 convolutions of packed maps by tables of 16 (``kernels.cpu.tabled``).

In a map padded by a border of zeros the taps of a filter's row are one run of bytes, and those of
the next position begin a position's bytes further on: a tile takes four positions of a line from
the map itself, at three places for nine taps.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated"

import numba
import numpy as np
import torch
import torch.nn.functional as functional

from kernels.conv import TAPS
from kernels.cpu import tabled
from kernels.cpu.borders import touched
from kernels.cpu.jit import jit
from kernels.cpu.nibbles import PANEL, RUN, count_tile, split
from kernels.cpu.shares import aligned, part
from kernels.cpu.tabled import BLOCK, NO_FLIPS, ROWS, put
from kernels.packing import Packed


@jit()
def _room():
    """Return what a task works in: nibbles, counts, places of pieces, classes of positions."""
    nibbles, sums = aligned(RUN * 2 * PANEL), aligned(BLOCK * PANEL * 2).view(np.uint16)
    return nibbles, sums, np.empty((2, BLOCK), dtype=np.int64), np.empty(BLOCK, dtype=np.int64)


@jit()
def _line(padded, at, positions, step, steps, nibbles, table, sums, to):
    x = 0
    while x + ROWS <= positions:
        count_tile(ROWS, 1, padded, at + x * step, step, steps, nibbles, 0, table, sums,
                   to + x * PANEL)  # fmt: skip
        x += ROWS
    while x < positions:
        count_tile(1, 1, padded, at + x * step, step, steps, nibbles, 0, table, sums,
                   to + x * PANEL)  # fmt: skip
        x += 1


@jit()
def _place(unit, units, shape, places, classes):
    """Write where pieces of lines begin in the padded map and in the output, and their classes.

    Returns:
        How many positions the pieces have.
    """
    height, width, step = shape
    wide = min(width, BLOCK)
    pieces, total = (width + wide - 1) // wide, 0
    for i in range(units):
        line, first = (unit + i) // pieces, (unit + i) % pieces * wide
        image, y = line // height, line % height
        places[0, i] = ((image * (height + 2) + y) * (width + 2) + first) * step
        places[1, i] = min(wide, width - first)
        for x in range(first, first + places[1, i]):
            classes[total] = touched(y, x, height, width)
            total += 1
    return total


@jit()
def _count(padded, shape, units, places, laid, panel, table, nibbles, sums):
    """``sums[i, l]`` = ones of the taps of position i of the pieces xor 64 filters l."""
    _, width, step = shape
    flat = laid.reshape(-1)
    sums[:] = 0
    runs = (3 * step + RUN - 1) // RUN
    for dy in range(3):
        for run in range(runs):
            begin, end = 3 * step * run // runs, 3 * step * (run + 1) // runs
            weights = (panel * TAPS + 3 * dy) * step + begin
            split(flat, weights * PANEL, end - begin, nibbles)
            skip, to = dy * (width + 2) * step + begin, 0
            for i in range(units):
                _line(padded, places[0, i] + skip, places[1, i], step, end - begin, nibbles, table,
                      sums, to)  # fmt: skip
                to += places[1, i] * PANEL


@jit()
def _task(padded, shape, unit, unit_end, first, laid, begin, end, n, bounds, flips, table, out):
    nibbles, sums, places, classes = _room()
    while unit < unit_end:
        some = min(BLOCK // min(shape[1], BLOCK), unit_end - unit)
        total = _place(unit, some, shape, places, classes)
        for panel in range(begin, end):
            _count(padded, shape, some, places, laid, panel, table, nibbles, sums)
            for i in range(total):
                at = (classes[i] * laid.shape[0] + panel) * PANEL
                put(False, sums, i, bounds, at, panel, n, flips, out, first + i)
        unit, first = unit + some, first + total


@jit()
def _first(unit, width):
    """Return the position that a piece of a line begins with, over all images."""
    wide = min(width, BLOCK)
    pieces = (width + wide - 1) // wide
    return unit // pieces * width + unit % pieces * wide


@jit(parallel=True)
def _tasks(padded, shape, units, laid, n, bounds, flips, table, unit_parts, panel_parts, out):
    for task in numba.prange(unit_parts * panel_parts):
        unit, unit_end = part(units, unit_parts, task // panel_parts)
        begin, end = part(laid.shape[0], panel_parts, task % panel_parts)
        first = _first(unit, shape[1])
        _task(padded, shape, unit, unit_end, first, laid, begin, end, n, bounds, flips, table, out)


class TabledConv:
    """Filters in panels of 64 for tables, on maps of one size."""

    def __init__(self, filters: Packed, height: int, width: int, missing: np.ndarray) -> None:
        self._size = (height, width)
        taps = filters.words.numpy().view(np.uint8).reshape(filters.rows, TAPS, -1)
        used = np.ascontiguousarray(taps[:, :, : -(-(filters.k // TAPS) // 8)])
        self._shape, self._n = (height, width, int(used.shape[2])), filters.rows
        self._laid = tabled.lay(used.reshape(self._n, TAPS * used.shape[2]))
        self._base = np.zeros((len(missing), len(self._laid) * PANEL), dtype=np.int32)
        self._base[:, : self._n] = filters.k + missing

    def dots(self, words: torch.Tensor, out: np.ndarray) -> None:
        """Write the dots of a map int64 [B, H, W, W'], B >= 1, to int32 [B*H*W, N]."""
        self._run(words, self._base, NO_FLIPS, out.reshape(-1))

    def bits(
        self, words: torch.Tensor, bounds: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        """Write ``(dot >= bound) ^ flip`` to int64 [B*H*W, ceil(N/64)]; see ``pack_bounds``."""
        limits = tabled.limits(self._base, bounds)
        self._run(words, limits, flips.view(np.uint64), out.view(np.uint64))

    def _run(
        self, words: torch.Tensor, bounds: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        octets = words.contiguous().view(torch.uint8)[..., : self._shape[2]]
        padded = functional.pad(octets, (0, 0, 1, 1, 1, 1)).numpy().reshape(-1)
        units = len(words) * self._size[0] * -(-self._size[1] // BLOCK)
        unit_parts = min(units, numba.get_num_threads())
        panel_parts = min(len(self._laid), -(-numba.get_num_threads() // unit_parts))
        _tasks(padded, self._shape, units, self._laid, self._n, bounds.reshape(-1), flips,
               tabled.TABLES, unit_parts, panel_parts, out)  # fmt: skip
