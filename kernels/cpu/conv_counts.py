"""3x3 convolutions of packed maps by vector popcounts (``kernels.cpu.counts``).

A tile of the product reads its rows as prefix xors alone, and those of the nine taps of positions
in a line come straight from a map with a border of zeros: it lies word by word of the channels,
positions of a line side by side, so that a vector takes a word of all rows of a tile.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"

import numba
import numpy as np
import torch

from kernels.cpu import xnor
from kernels.cpu.borders import touched
from kernels.cpu.counts import LANES
from kernels.cpu.jit import jit
from kernels.cpu.tile import TILE_ROWS, bordered_bits_tile, bordered_dots_tile, prefix_tile
from kernels.packing import WORD_BITS, Packed, words_for

SIDE = 3  # of a filter
NO_FLIPS = np.empty(0, dtype=np.uint8)


@jit()
def _bordered(words, padded):
    """Lay words [B, H, W, C] out as [B, H+2, C, W+2], zeros around."""
    images, height, width, channels = words.shape
    for line in range(images * (height + 2)):
        image, y = line // (height + 2), line % (height + 2) - 1
        for c in range(channels):
            target = padded[image, y + 1, c]
            target[0], target[width + 1] = 0, 0
            if y < 0 or y == height:
                target[:] = 0
            else:
                for x in range(width):
                    target[x + 1] = words[image, y, x, c]


@jit()
def _prefixes(padded, shape, first, count, offsets, numbers, alpha, places):
    """Write prefix xors of ``count`` positions' taps, and where their classes' numbers begin.

    ``numbers`` is how many a class has.
    """
    height, width, channels = shape
    wide = width + 2
    line, x = first // width, first % width
    if count == TILE_ROWS and x + TILE_ROWS <= width:
        image, y = line // height, line % height
        at = (image * (height + 2) + y) * channels * wide + x
        prefix_tile(TILE_ROWS, padded, at, offsets, offsets.size, alpha)
        for i in range(count):
            places[i] = touched(y, x + i, height, width) * numbers
        return
    for i in range(count):
        line, x = (first + i) // width, (first + i) % width
        image, y = line // height, line % height
        at, state = (image * (height + 2) + y) * channels * wide + x, np.uint64(0)
        for t in range(offsets.size):
            state ^= padded[at + offsets[t]]
            alpha[t * count + i] = state
        alpha[offsets.size * count + i] = state
        places[i] = touched(y, x, height, width) * numbers


@jit()
def _dots_tile(count, alpha, panels, words, lengths, places, panel, n, row, edge, out):
    left, at = n - panel * LANES, panel * words * LANES
    whole = left >= LANES
    target, to, stride = (out, row * n + panel * LANES, n) if whole else (edge, 0, LANES)
    if count == TILE_ROWS:
        bordered_dots_tile(TILE_ROWS, alpha, panels, at, words, lengths, places, panel, target, to,
                           stride)  # fmt: skip
    else:
        bordered_dots_tile(1, alpha, panels, at, words, lengths, places, panel, target, to, stride)
    if not whole:
        xnor.copy_edge(edge, count, left, LANES, out, row * n + panel * LANES, n)


@jit()
def _bits_tile(count, alpha, panels, words, most, places, panel, flips, row, out):
    stride = out.shape[1]
    at, to = panel * words * LANES, row * stride + panel
    if count == TILE_ROWS:
        bordered_bits_tile(TILE_ROWS, alpha, panels, at, words, most, places, panel, flips, out, to,
                           stride)  # fmt: skip
    else:
        bordered_bits_tile(1, alpha, panels, at, words, most, places, panel, flips, out, to, stride)


@jit()
def _task(padded, shape, offsets, row, row_end, panels, begin, end, n, numbers, flips, out):
    words = offsets.size + offsets.size % 2
    alpha = np.empty((offsets.size + 1) * TILE_ROWS, dtype=np.uint64)
    places, edge = np.empty(TILE_ROWS, np.int64), np.empty(TILE_ROWS * LANES, dtype=np.int32)
    flat = numbers.reshape(-1)
    while row < row_end:
        some = TILE_ROWS if row + TILE_ROWS <= row_end else 1
        _prefixes(padded, shape, row, some, offsets, numbers.shape[1], alpha, places)
        for panel in range(begin, end):
            if out.ndim == 2:
                _bits_tile(some, alpha, panels, words, flat, places, panel, flips, row, out)
            else:
                _dots_tile(some, alpha, panels, words, flat, places, panel, n, row, edge, out)
        row += some


@jit(parallel=True)
def _tasks(padded, shape, offsets, rows, panels, n, numbers, flips, row_parts, panel_parts, out):
    for task in numba.prange(row_parts * panel_parts):
        row, row_end, begin, end = xnor.task_of(rows, n, row_parts, panel_parts, task)
        _task(padded, shape, offsets, row, row_end, panels, begin, end, n, numbers, flips, out)


class CountedConv:
    """Filters in panels of 8 as prefix xors, on maps of one size."""

    def __init__(self, filters: Packed, height: int, width: int, missing: np.ndarray) -> None:
        channels = int(filters.words.shape[1]) // SIDE**2
        self._n, self._shape = filters.rows, (height, width, channels)
        self._panels = xnor.panels(filters.words.numpy()).view(np.uint64)
        dy, dx, c = np.ogrid[:SIDE, :SIDE, :channels]
        self._offsets = ((dy * channels + c) * (width + 2) + dx).reshape(-1)
        self._lengths = np.full((len(missing), words_for(self._n) * WORD_BITS), filters.k)
        self._lengths[:, : self._n] += missing

    def dots(self, words: torch.Tensor, out: np.ndarray) -> None:
        """Write the dots of a map int64 [B, H, W, W'], B >= 1, to int32 [B*H*W, N]."""
        self._run(words, self._lengths, NO_FLIPS, out.reshape(-1))

    def bits(
        self, words: torch.Tensor, bounds: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        """Write ``(dot >= bound) ^ flip`` to int64 [B*H*W, ceil(N/64)]; see ``pack_bounds``."""
        most = (self._lengths - bounds) >> 1
        self._run(words, most, flips.view(np.uint8), out.view(np.uint8))

    def _run(
        self, words: torch.Tensor, numbers: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        height, width, channels = self._shape
        padded = np.empty((len(words), height + 2, channels, width + 2), dtype=np.uint64)
        _bordered(words.contiguous().numpy().view(np.uint64), padded)
        operands = padded.reshape(-1), self._shape, self._offsets
        rows, rest = len(words) * height * width, (self._n, numbers, flips)
        if rows * self._panels.size * WORD_BITS <= xnor.ALONE:
            _task(*operands, 0, rows, self._panels, 0, -(-self._n // LANES), *rest, out)
        else:
            parts = xnor.parts(rows, len(self._offsets), self._n)
            _tasks(*operands, rows, self._panels, *rest, *parts, out)
