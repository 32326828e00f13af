"""3x3 convolutions of packed maps by vector popcounts (``kernels.cpu.counts``).

A tile of the product reads its rows as prefix xors alone. Those of a position's nine taps come
straight from a map padded by a border of zeros, where the taps of a filter's row are one run of
words.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"

import numba
import numpy as np
import torch
import torch.nn.functional as functional

from kernels.cpu import pixels, xnor
from kernels.cpu.borders import touched
from kernels.cpu.counts import LANES
from kernels.cpu.jit import jit
from kernels.cpu.tile import TILE_ROWS, bordered_bits_tile, bordered_dots_tile
from kernels.packing import WORD_BITS, Packed, words_for

ROWS = 3  # of taps
NO_FLIPS = np.empty(0, dtype=np.uint8)


@jit()
def _prefixes(padded, shape, first, count, alpha, places, padded_n):
    """Write prefix xors of ``count`` positions' taps, and where their classes' numbers begin."""
    height, width, step = shape
    run, line, words = ROWS * step, (width + 2) * step, ROWS * ROWS * step
    for i in range(count):
        image, position = (first + i) // (height * width), (first + i) % (height * width)
        y, x = position // width, position % width
        places[i] = touched(y, x, height, width) * padded_n
        at, to, state = (image * (height + 2) + y) * line + x * step, i, np.uint64(0)
        for _ in range(ROWS):
            for t in range(at, at + run):
                state ^= padded[t]
                alpha[to] = state
                to += count
            at += line
        if words % 2:
            alpha[to] = state


@jit()
def _dots_tile(count, alpha, panels, words, k, missing, places, panel, n, row, edge, out):
    left, at = n - panel * LANES, panel * words * LANES
    whole = left >= LANES
    target, to, stride = (out, row * n + panel * LANES, n) if whole else (edge, 0, LANES)
    if count == TILE_ROWS:
        bordered_dots_tile(TILE_ROWS, alpha, panels, at, words, k, missing, places, panel, target,
                           to, stride)  # fmt: skip
    else:
        bordered_dots_tile(1, alpha, panels, at, words, k, missing, places, panel, target, to,
                           stride)  # fmt: skip
    if not whole:
        for i in range(count):
            for lane in range(left):
                out[(row + i) * n + panel * LANES + lane] = edge[i * LANES + lane]


@jit()
def _bits_tile(count, alpha, panels, words, k, bounds, places, panel, flips, row, out):
    stride = out.shape[1]
    at, to = panel * words * LANES, row * stride + panel
    if count == TILE_ROWS:
        bordered_bits_tile(TILE_ROWS, alpha, panels, at, words, k, bounds, places, panel, flips,
                           out, to, stride)  # fmt: skip
    else:
        bordered_bits_tile(1, alpha, panels, at, words, k, bounds, places, panel, flips, out, to,
                           stride)  # fmt: skip


@jit()
def _task(padded, shape, row, row_end, panels, begin, end, n, k, bounds, padded_n, flips, out):
    words = ROWS * ROWS * shape[2]
    words += words % 2
    alpha, places = np.empty(words * TILE_ROWS, dtype=np.uint64), np.empty(TILE_ROWS, np.int64)
    edge = np.empty(TILE_ROWS * LANES, dtype=np.int32)
    while row < row_end:
        some = TILE_ROWS if row + TILE_ROWS <= row_end else 1
        _prefixes(padded, shape, row, some, alpha, places, padded_n)
        for panel in range(begin, end):
            if out.ndim == 2:
                _bits_tile(some, alpha, panels, words, k, bounds, places, panel, flips, row, out)
            else:
                _dots_tile(some, alpha, panels, words, k, bounds, places, panel, n, row, edge, out)
        row += some


@jit(parallel=True)
def _tasks(padded, shape, rows, panels, n, k, bounds, padded_n, flips, row_parts, panel_parts, out):
    for task in numba.prange(row_parts * panel_parts):
        row, row_end, begin, end = xnor.task_of(rows, n, row_parts, panel_parts, task)
        _task(padded, shape, row, row_end, panels, begin, end, n, k, bounds, padded_n, flips, out)


class CountedConv:
    """Filters in panels of 8 as prefix xors, on maps of one size."""

    def __init__(self, filters: Packed, height: int, width: int, missing: np.ndarray) -> None:
        self._n, self._k = filters.rows, filters.k
        self._shape = (height, width, int(filters.words.shape[1]) // ROWS**2)
        self._panels = xnor.panels(filters.words.numpy()).view(np.uint64)
        padded_n = words_for(self._n) * WORD_BITS
        self._missing = np.zeros((len(missing), padded_n), dtype=np.int32)
        self._missing[:, : self._n] = missing

    def dots(self, words: torch.Tensor, out: np.ndarray) -> None:
        """Write the dots of a map int64 [B, H, W, W'], B >= 1, to int32 [B*H*W, N]."""
        self._run(words, self._missing, NO_FLIPS, out.reshape(-1))

    def bits(
        self, words: torch.Tensor, bounds: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        """Write ``(dot >= bound) ^ flip`` to int64 [B*H*W, ceil(N/64)]; see ``pack_bounds``."""
        least = pixels.bounds_of(self._missing, bounds)
        self._run(words, least, flips.view(np.uint8), out.view(np.uint8))

    def _run(
        self, words: torch.Tensor, bounds: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        padded = functional.pad(words, (0, 0, 1, 1, 1, 1)).numpy().view(np.uint64).reshape(-1)
        rows, padded_n = words.numel() // self._shape[2], bounds.shape[1]
        operands = padded, self._shape
        numbers = self._n, self._k, bounds.reshape(-1), padded_n, flips
        if rows * self._panels.size * 64 <= xnor.ALONE:
            whole = 0, rows, self._panels, 0, -(-self._n // LANES)
            _task(*operands, *whole, *numbers, out)
        else:
            parts = xnor.parts(rows, ROWS**2 * self._shape[2], self._n)
            _tasks(*operands, rows, self._panels, *numbers, *parts, out)
