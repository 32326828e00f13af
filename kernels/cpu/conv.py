"""3x3 convolutions of packed maps by tables, straight from the map: no patches, no dots in memory.

In a map padded by a border of zeros the taps of a filter's row are one run of bytes, and those of
the next position begin a position's bytes further on: a tile takes four positions of a line from
the map itself, at three places for nine taps. What a filter must add back at the border, where 0
stands for -1, depends on which borders a position touches: 16 classes
(``kernels.conv.border_classes``), each with its own dots to start from or limits for the counts.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated"

import numba
import numpy as np
import torch
import torch.nn.functional as functional

from kernels.conv import TAPS, border_classes, check_map, tap_sums
from kernels.cpu import pages, tabled
from kernels.cpu.jit import jit
from kernels.cpu.nibbles import PANEL, RUN, count_tile, split
from kernels.cpu.tabled import BLOCK, NO_FLIPS, ROWS, aligned, part, put
from kernels.packing import Packed, pack_bounds, words_for


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
            classes[total] = (y == 0) + 2 * (y == height - 1) + 4 * (x == 0) + 8 * (x == width - 1)
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


@jit(parallel=True)
def _pool(words, flips, out):
    for line in numba.prange(out.shape[0] * out.shape[1]):
        b, y = line // out.shape[1], line % out.shape[1]
        for x in range(out.shape[2]):
            for t in range(out.shape[3]):
                first, second = words[b, 2 * y, 2 * x, t], words[b, 2 * y, 2 * x + 1, t]
                third, fourth = words[b, 2 * y + 1, 2 * x, t], words[b, 2 * y + 1, 2 * x + 1, t]
                rising, falling = first | second | third | fourth, first & second & third & fourth
                out[b, y, x, t] = (rising & ~flips[t]) | (falling & flips[t])


class DirectConv3x3:
    """Filters made ready for maps of one size."""

    def __init__(self, filters: Packed, height: int, width: int) -> None:
        """Prepare packed ``filters`` (``kernels.conv.pack_filters``), ``tabled.usable`` ones.

        Raises:
            ValueError: filters that are not in nine segments.
        """
        if filters.segments != TAPS:
            raise ValueError(f"filters must have {TAPS} segments, got {filters.segments}")
        self.size, self.n, self.channels = (height, width), filters.rows, filters.k // TAPS
        taps = filters.words.numpy().view(np.uint8).reshape(self.n, TAPS, -1)
        used = np.ascontiguousarray(taps[:, :, : -(-self.channels // 8)])
        self._shape = (height, width, int(used.shape[2]))
        self._laid = tabled.lay(used.reshape(self.n, TAPS * used.shape[2]))
        missing = border_classes(tap_sums(filters)).numpy()
        self._base = np.zeros((len(missing), len(self._laid) * PANEL), dtype=np.int32)
        self._base[:, : self.n] = filters.k + missing

    def __call__(self, words: torch.Tensor) -> torch.Tensor:
        """Return the int32 dots [B*H*W, N] of a packed map int64 [B, H, W, ceil(C/64)].

        Raises:
            TypeError, ValueError: a map of another dtype, size or device.
        """
        padded, units = self._padded(words)
        rows = len(words) * self.size[0] * self.size[1]
        out = pages.empty(rows, self.n)
        if rows and self.n:
            self._run(padded, units, self._base, NO_FLIPS, out.numpy().reshape(-1))
        return out

    def bits(
        self, words: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor, pool: bool = False
    ) -> torch.Tensor:
        """Return the packed map of ``(dot >= threshold) ^ flip``, pooled 2x2 before if ``pool``.

        The largest of four dots reaches a threshold where any does: pooled bits are the OR of four,
        or the AND where they are flipped.

        Returns:
            int64 [B, H, W, ceil(N/64)], or [B, H//2, W//2, ceil(N/64)].

        Raises:
            TypeError, ValueError: as ``__call__``, or thresholds that do not fit.
        """
        padded, units = self._padded(words)
        bounds, flips = pack_bounds(threshold, flip, self.n)
        whole = torch.empty(len(words), *self.size, words_for(self.n), dtype=torch.int64)
        flipped = flips.view(np.uint64)
        if whole.numel():
            limits = tabled.limits(self._base, bounds)
            out = whole.view(-1, whole.shape[3]).numpy().view(np.uint64)
            self._run(padded, units, limits, flipped, out)
        if not pool:
            return whole
        height, width = (side // 2 for side in self.size)
        pooled = torch.empty(len(words), height, width, words_for(self.n), dtype=torch.int64)
        _pool(whole.numpy().view(np.uint64), flipped, pooled.numpy().view(np.uint64))
        return pooled

    def _padded(self, words: torch.Tensor) -> tuple[np.ndarray, int]:
        """Return a map's bytes with a border of zeros, and the number of its pieces of lines."""
        b, *size = check_map(words, self.channels)
        if tuple(size) != self.size:
            raise ValueError(f"the map must be {self.size} high and wide, got {tuple(size)}")
        if words.device.type != "cpu":
            raise ValueError(f"the map is on device {words.device}; allowed: cpu")
        octets = words.contiguous().view(torch.uint8)[..., : self._shape[2]]
        padded = functional.pad(octets, (0, 0, 1, 1, 1, 1)).numpy().reshape(-1)
        return padded, b * size[0] * -(-size[1] // BLOCK)

    def _run(
        self, padded: np.ndarray, units: int, bounds: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        unit_parts = min(units, numba.get_num_threads())
        panel_parts = min(len(self._laid), -(-numba.get_num_threads() // unit_parts))
        _tasks(padded, self._shape, units, self._laid, self.n, bounds.reshape(-1), flips,
               tabled.TABLES, unit_parts, panel_parts, out)  # fmt: skip
