"""The input's gradient of a 3x3 convolution of ±1 filters behind which 2x2 max-pooling follows.

A pixel's gradient is that of the maps in which it won its window, a quarter of them in the mean. A
group of four numbers is four such maps of a pixel, and their filters' signs are gathered. Rounding
is that of ``kernels.cpu.signed_conv``: over a pixel's maps, up to 512.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

import numba
import numpy as np

from kernels.cpu.gather import WIDE, gather_tile, spread
from kernels.cpu.jit import jit
from kernels.cpu.lookup import BLOCK, GROUP, LANES, TABLE_BYTES, store_table
from kernels.cpu.signed import quantize
from kernels.cpu.signed_conv import TAPS

BAND = 64  # windows whose lists, tables and results a thread keeps in its caches
PAIR = 2 * GROUP  # winners of a list are a multiple of these
MOST = BLOCK * GROUP  # that share a step


@jit(parallel=True)
def _places(words, panels, out):
    """Filters' signs, uint32 [tap, panel, N, LANES / 4], of ``words`` uint32 [N, 9, 2 panels]."""
    maps = words.shape[0]
    for task in numba.prange(TAPS * panels):
        tap, panel = task // panels, task % panels
        for n in range(maps):
            low, high = words[n, tap, 2 * panel], words[n, tap, 2 * panel + 1]
            spread(low, high, 0, out, (task * maps + n) * (LANES // 4))


@jit()
def _lists(g, winners, begin, end, starts, values, places):
    """Write each pixel's maps as places of their signs, with the gradients; 0 at the rest.

    ``starts``: where the list of pixel j of window w begins, at 4 w + j; a multiple of PAIR.
    """
    at = np.uint64(0)
    for window in range(begin, end):
        won, here = winners[window], g[window]
        for j in range(4):
            starts[(window - begin) * 4 + j] = at
            for n in range(won.size):  # what is not won is written over
                values[at] = here[n]
                places[at] = n * LANES
                at += np.uint64(won[n] == j)
            while at % np.uint64(PAIR) != 0:
                values[at] = 0
                places[at] = 0
                at += np.uint64(1)
    starts[(end - begin) * 4] = at


@jit(error_model="numpy")
def _tables(values, begin, end, q, steps, tables):
    """Tables of a list and the steps of each part of it."""
    for part in range((end - begin + MOST - 1) // MOST):
        first = begin + part * MOST
        last = min(first + MOST, end)
        steps[part] = quantize(values, first, last, np.float32(0), q[: last - first])
        for k in range(0, last - first, GROUP):
            store_table(q, k, 1, tables, (first + k) // GROUP * TABLE_BYTES)


@jit(error_model="numpy")
def _tap(
    starts, pixels, first, width, dy, dx, tables, places, steps, signs, s_at, height, out, o_at
):
    """Add a tap's share of a band's pixels to 64 input maps of an image, flat ``out``."""
    columns, flat = out.shape[1], out.reshape(-1)
    for p in range(pixels):
        window = first + p // 4
        y = 2 * (window // width) + p % 4 // 2 + dy
        x = 2 * (window % width) + p % 2 + dx
        if not (0 <= y < 2 * height and 0 <= x < 2 * width):
            continue
        to = (y * 2 * width + x) * columns + o_at
        for part in range((starts[p + 1] - starts[p] + MOST - 1) // MOST):
            begin = starts[p] + part * MOST
            pairs = min(MOST, starts[p + 1] - begin) // PAIR
            gather_tile(0, tables, begin // GROUP * TABLE_BYTES, places, begin, signs, s_at, pairs,
                        steps[p, part], False, flat, to)  # fmt: skip


@jit(parallel=True, error_model="numpy")
def _input(g, winners, signs, height, width, out):
    maps, panels, area = g.shape[1], out.shape[1] // WIDE, height * width
    band = max(BAND // width, 1) * width
    room = band * (maps + 4 * PAIR) + 1  # and one that is written over
    for image in numba.prange(g.shape[0] // area):
        starts = np.empty(band * 4 + 1, dtype=np.int64)
        values, places = np.empty(room, dtype=np.float32), np.empty(room, dtype=np.uint32)
        tables, q = np.empty(room // GROUP * TABLE_BYTES, dtype=np.uint8), np.empty(MOST, np.int16)
        steps = np.empty((band * 4, (maps + MOST - 1) // MOST), dtype=np.float32)
        here = out[image * 4 * area : (image + 1) * 4 * area]
        here[:] = 0
        for first in range(0, area, band):
            some = min(band, area - first)
            begin = image * area + first
            _lists(g, winners, begin, begin + some, starts, values, places)
            for p in range(some * 4):
                _tables(values, starts[p], starts[p + 1], q, steps[p], tables)
            for panel in range(panels):
                for tap in range(TAPS):
                    s_at = (tap * panels + panel) * maps * LANES
                    _tap(starts, some * 4, first, width, tap // 3 - 1, tap % 3 - 1, tables,
                         places, steps, signs, s_at, height, here, panel * WIDE)  # fmt: skip


def input_gradient(
    gradient: np.ndarray, winners: np.ndarray, filters: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Return ``sum gradient[v, n] w[n, tap, c]`` over the v, n and tap with ``p(v, n) + tap = p``.

    Args:
        gradient: of the windows v, float32 [B*H/2*W/2, N].
        winners: the pixel p of each window, uint8 of the same shape (``kernels.cpu.pooled``).
        filters: packed, int64 [N, 9, ceil(C/64)].
        height: H, even, as ``width`` W.

    Returns:
        float32 [B*H*W, columns], C rounded up to a multiple of 64.
    """
    maps, panels = len(filters), filters.shape[2]
    signs = np.empty(TAPS * panels * maps * LANES, dtype=np.uint8)
    _places(filters.view(np.uint32), panels, signs.view(np.uint32))
    out = np.empty((4 * len(gradient), panels * WIDE), dtype=np.float32)
    _input(gradient, winners, signs, height // 2, width // 2, out)
    return out
