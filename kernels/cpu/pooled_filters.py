"""The filters' gradient of a 3x3 convolution of ±1 maps behind which 2x2 max-pooling follows.

A window's gradient goes to its winner alone: of the products of ``kernels.cpu.signed_conv`` three
in four are by 0. Here a group of four numbers is a map's winners in one window of four images, and
their signs are gathered where the winners are. Rounding: over 128 windows of a map.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

import numba
import numpy as np

from kernels.cpu.columns import EIGHT, greatest, round_eight, steps_of, whole_columns
from kernels.cpu.gather import WIDE, gather, row_size, spread
from kernels.cpu.jit import jit
from kernels.cpu.lookup import GROUP, LANES, TABLE_BYTES, store_table
from kernels.cpu.shares import aligned
from kernels.cpu.signed_conv import TAPS

MAPS = 16  # output maps whose tables, and whose filters' gradients, a thread keeps in its caches
BLOCK = 32  # groups that share a step
_ALL = np.uint32(0xFFFFFFFF)


@jit(parallel=True)
def _places(words, images, height, width, size, out):
    """Signs of a map with a border of +1, in rows of ``size`` bytes.

    They lie as uint32 [panels of a row, four images, H+2, W+2, GROUP rows].
    """
    quads, tall, wide = (images + GROUP - 1) // GROUP, height + 2, width + 2
    each = size // LANES
    for task in numba.prange(words.shape[1] // 2 // each * quads * tall):
        tile, quad, y = task // tall // quads, task // tall % quads, task % tall - 1
        for x in range(-1, width + 1):
            to = (task * wide + x + 1) * GROUP * size // 4
            for i in range(GROUP):
                image = quad * GROUP + i
                inside = image < images and 0 <= y < height and 0 <= x < width
                p = (image * height + y) * width + x
                for panel in range(each):
                    low, high = _ALL, _ALL
                    if inside:
                        low = words[p, 2 * (tile * each + panel)]
                        high = words[p, 2 * (tile * each + panel) + 1]
                    spread(low, high, i, out, to + (i * each + panel) * (LANES // 4))


@jit(error_model="numpy")
def _round(g, rows, first, count, top, steps, factors, q):
    """Steps of maps ``first..first+count`` over ``rows`` of ``g``; the numbers, [group, 4, MAPS].

    A row of -1 is one of zeros.
    """
    stride, flat, bits = g.shape[1], g.reshape(-1), g.view(np.int32).reshape(-1)
    top[:] = 0
    for row in rows:
        if row >= 0:
            for n in range(0, count, EIGHT):
                greatest(bits, row * stride + first + n, top, n)
    steps_of(top, MAPS, steps, factors)
    for k in range(rows.size):
        if rows[k] >= 0:
            for n in range(0, count, EIGHT):
                round_eight(flat, rows[k] * stride + first + n, factors, n, q, k * MAPS + n)
        else:
            q[k * MAPS : (k + 1) * MAPS] = 0


@jit()
def _winners(winners, rows, corners, wide, place, first, count, places):
    """Write where the winners' signs begin, [MAPS, group, 4]."""
    moves = np.array([0, 1, wide, wide + 1]) * place
    for k in range(rows.size):
        to = np.uint64(k)
        for n in range(count):
            # Where there is no row, places must lie within the signs, too.
            winner = winners[rows[k], first + n] if rows[k] >= 0 else np.uint8(0)
            places[to] = corners[k] + moves[np.uint64(winner)]
            to += np.uint64(rows.size)


@jit()
def _windows(block, groups, images, height, width, place, rows, corners):
    """Rows of the block's numbers in the gradient, and where their windows' signs begin.

    Returns:
        The place of the first four images' signs, from which on ``corners`` count.
    """
    area, wide = height * width, 2 * width + 2
    size = (2 * height + 2) * wide * place
    origin = block * BLOCK // area * size
    for k in range(BLOCK * GROUP):
        group = block * BLOCK + k // GROUP
        quad, window = group // area, group % area
        image = quad * GROUP + k % GROUP
        rows[k], corners[k] = -1, 0
        if group < groups and image < images:
            rows[k] = image * area + window
            corner = 2 * (window // width) * wide + 2 * (window % width)
            corners[k] = quad * size - origin + corner * place
    return origin


@jit(parallel=True, error_model="numpy")
def _filters(g, winners, signs, size, images, height, width, out):
    """``out`` [N, 9, columns]: sums over all windows, the outside of the maps taken as +1."""
    maps, columns = out.shape[0], out.shape[2]
    flat, tiles, wide = out.reshape(-1), columns // (2 * size), 2 * width + 2
    place = GROUP * size
    groups = (images + GROUP - 1) // GROUP * height * width
    for task in numba.prange((maps + MAPS - 1) // MAPS):
        first = task * MAPS
        count = min(MAPS, maps - first)
        q = np.empty(BLOCK * GROUP * MAPS, dtype=np.int16)
        places = np.empty(MAPS * BLOCK * GROUP, dtype=np.uint32)
        tables = np.empty(MAPS * BLOCK * TABLE_BYTES, dtype=np.uint8)
        rows, corners = np.empty(BLOCK * GROUP, dtype=np.int64), np.empty(BLOCK * GROUP, np.int64)
        top = np.empty(MAPS, dtype=np.int32)
        steps, factors = np.empty(MAPS, dtype=np.float32), np.empty(MAPS, dtype=np.float32)
        for block in range((groups + BLOCK - 1) // BLOCK):
            origin = _windows(block, groups, images, height, width, place, rows, corners)
            _round(g, rows, first, count, top, steps, factors, q)
            _winners(winners, rows, corners, wide, place, first, count, places)
            for n in range(count):
                for t in range(BLOCK):
                    at = (n * BLOCK + t) * TABLE_BYTES
                    store_table(q, t * GROUP * MAPS + n, MAPS, tables, at)
            pairs = (min(BLOCK, groups - block * BLOCK) + 1) // 2
            for tile in range(tiles):
                for tap in range(TAPS):
                    s_at = tile * (signs.size // tiles) + origin
                    s_at += (tap // 3 * wide + tap % 3) * place
                    for n in range(count):
                        to = ((first + n) * TAPS + tap) * columns + tile * 2 * size
                        gather(
                            1, size, tables, n * BLOCK * TABLE_BYTES, places, n * BLOCK * GROUP,
                            signs, s_at, pairs, steps[n], block == 0, flat, to,
                        )  # fmt: skip


@jit()
def _outside_places(y, x, height, width, tap):
    """Return the bits of the places 0 to 3 in window (y, x) whose tap lies outside the map."""
    dy, dx = tap // 3, tap % 3
    bits = 0
    if (y == 0 and dy == 0) or (y == height - 1 and dy == 2):
        bits |= 0b0011 << dy
    if (x == 0 and dx == 0) or (x == width - 1 and dx == 2):
        bits |= 0b0101 << dx // 2
    return bits


@jit(parallel=True, error_model="numpy")
def _outside(g, winners, height, width, out):
    """Sums over the winners whose tap lies outside the map: ``out`` [9, N]."""
    for tap in numba.prange(TAPS):
        sums = out[tap]
        sums[:] = 0
        for row in range(g.shape[0]):
            bits = _outside_places(row // width % height, row % width, height, width, tap)
            if bits:
                won, here = winners[row], g[row]
                for n in range(sums.size):
                    outside = (np.uint32(bits) >> np.uint32(won[n])) & np.uint32(1)
                    sums[n] += here[n] if outside else np.float32(0)


def filter_gradient(
    gradient: np.ndarray, winners: np.ndarray, words: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Return ``sum_v gradient[v, n] x[p(v, n) + tap, c]``, float32 [N, 9, columns].

    Args:
        gradient: of the windows v, float32 [B*H/2*W/2, N].
        winners: the pixel p of each window, uint8 of the same shape (``kernels.cpu.pooled``).
        words: the packed map x, int64 [B*H*W, ceil(C/64)]; 0 outside.
        height: H, even, as ``width`` W.

    Returns:
        ``columns``: C channels rounded up to a multiple of 64.
    """
    images, panels = len(words) // (height * width), words.shape[1]
    quads = -(-images // GROUP)
    size = row_size(panels)
    signs = aligned(panels * quads * (height + 2) * (width + 2) * GROUP * LANES)
    _places(words.view(np.uint32), images, height, width, size, signs.view(np.uint32))
    out = np.empty((gradient.shape[1], TAPS, panels * WIDE), dtype=np.float32)
    _filters(whole_columns(gradient), winners, signs, size, images, height // 2, width // 2, out)
    outside = np.empty((TAPS, gradient.shape[1]), dtype=np.float32)
    _outside(gradient, winners, height // 2, width // 2, outside)
    out -= outside.T[:, :, None]
    return out
