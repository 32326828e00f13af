"""The input's gradient of a 3x3 convolution of ±1 filters behind which 2x2 max-pooling follows.

A pixel's gradient is that of the maps in which it won its window, a quarter of them in the mean. A
group of four numbers is four such maps of a pixel, and their filters' signs are gathered. Rounding
is that of ``kernels.cpu.signed_conv``: over a pixel's maps, up to 512.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

import numba
import numpy as np
import torch

from kernels.cpu import pages
from kernels.cpu.compress import SIXTEEN, chosen
from kernels.cpu.gather import WIDE, gather, row_size, spread
from kernels.cpu.jit import jit
from kernels.cpu.lookup import BLOCK, GROUP, LANES, TABLE_BYTES, store_table
from kernels.cpu.shares import aligned
from kernels.cpu.signed import quantize
from kernels.cpu.signed_conv import TAPS

BAND = 64  # windows whose lists, tables and results a thread keeps in its caches
PAIR = 2 * GROUP  # winners of a list are a multiple of these
MOST = BLOCK * GROUP  # that share a step


@jit(parallel=True)
def _places(words, size, out):
    """Filters' signs in rows of ``size`` bytes, uint32, of ``words`` uint32 [N, 9, 2 panels].

    They lie as [tap, panels of a row, N, size / 4].
    """
    maps, each = words.shape[0], size // LANES
    tiles = words.shape[2] // 2 // each
    for task in numba.prange(TAPS * tiles):
        tap, tile = task // tiles, task % tiles
        for n in range(maps):
            for i in range(each):
                low, high = (
                    words[n, tap, 2 * (tile * each + i)],
                    words[n, tap, 2 * (tile * each + i) + 1],
                )
                spread(low, high, 0, out, ((task * maps + n) * each + i) * (LANES // 4))


@jit()
def _lists(g, winners, begin, end, size, starts, values, places):
    """Write each pixel's maps as places of their signs, with the gradients; 0 at the rest.

    ``starts``: where the list of pixel j of window w begins, at 4 w + j; a multiple of PAIR.
    """
    at = 0
    for window in range(begin, end):
        won, here = winners[window], g[window]
        for j in range(4):
            starts[(window - begin) * 4 + j] = at
            at = chosen(won, j, here, size, values, places, at)
            while at % PAIR != 0:
                values[at] = 0
                places[at] = 0
                at += 1
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
    starts,
    pixels,
    first,
    width,
    dy,
    dx,
    tables,
    places,
    steps,
    signs,
    size,
    s_at,
    height,
    out,
    o_at,
):
    """Add a tap's share of a band's pixels to 64 or 128 input maps of an image, flat ``out``."""
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
            gather(0, size, tables, begin // GROUP * TABLE_BYTES, places, begin, signs, s_at, pairs,
                   steps[p, part], False, flat, to)  # fmt: skip


@jit(parallel=True, error_model="numpy")
def _input(g, winners, signs, size, height, width, out):
    maps, tiles, area = g.shape[1], out.shape[1] // (2 * size), height * width
    band = max(BAND // width, 1) * width
    room = band * (maps + 4 * PAIR) + SIXTEEN  # and those that are written over
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
            _lists(g, winners, begin, begin + some, size, starts, values, places)
            for p in range(some * 4):
                _tables(values, starts[p], starts[p + 1], q, steps[p], tables)
            for tile in range(tiles):
                for tap in range(TAPS):
                    s_at = (tap * tiles + tile) * maps * size
                    _tap(
                        starts, some * 4, first, width, tap // 3 - 1, tap % 3 - 1, tables, places,
                        steps, signs, size, s_at, height, here, tile * 2 * size,
                    )  # fmt: skip


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
    size = row_size(panels)
    signs = aligned(TAPS * panels * maps * LANES)
    _places(filters.view(np.uint32), size, signs.view(np.uint32))
    out: np.ndarray = pages.empty(4 * len(gradient), panels * WIDE, torch.float32).numpy()
    _input(gradient, winners, signs, size, height // 2, width // 2, out)
    return out
