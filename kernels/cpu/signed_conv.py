"""The two backward products of a 3x3 convolution of ±1 maps and filters, gradients in 12 bits.

Maps are channels last: gradients float32 [B*H*W, N], packed maps [B*H*W, ceil(C/64)], packed
filters [N, 9, ceil(C/64)]; tap ``3 (dy + 1) + (dx + 1)``, stride 1, zero padding 1. Rounding is
that of ``kernels.cpu.signed``: for the input over a pixel's maps, for the filters over 512 pixels.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

import numba
import numpy as np

from kernels.cpu.columns import EIGHT, greatest, round_eight, steps_of, whole_columns
from kernels.cpu.jit import jit
from kernels.cpu.lookup import BLOCK, GROUP, LANES, TABLE_BYTES, lookup, store_table
from kernels.cpu.signed import groups_for, index, place_bits, quantize, width_for

TAPS = 9
MAPS = 16  # output maps whose tables, and whose filters' gradients, a thread keeps in its caches
_ALL = np.uint32(0xFFFFFFFF)


@jit(error_model="numpy")
def _image_tables(g, first, count, groups, tables, steps):
    blocks, each = steps.shape[1], min(groups, BLOCK)
    q = np.empty(each * GROUP, dtype=np.int16)
    for p in range(count):
        for block in range(blocks):
            begin = block * BLOCK * GROUP
            end = min(begin + BLOCK * GROUP, g.shape[1])
            steps[p, block] = quantize(g[first + p], begin, end, np.float32(0), q)
            at = (p * groups + block * BLOCK) * TABLE_BYTES
            for t in range(min(BLOCK, groups - block * BLOCK)):
                store_table(q, t * GROUP, 1, tables, at + t * TABLE_BYTES)


@jit(error_model="numpy")
def _tap_of_image(tables, steps, index, i_at, gap, wide, groups, dy, dx, height, width, out, o_at):
    """Add one tap's share to 32 or 64 input maps of an image: ``out`` flat, from ``o_at`` on."""
    stride, flat = out.shape[1], out.reshape(-1)
    for y in range(max(dy, 0), height + min(dy, 0)):
        for x in range(max(dx, 0), width + min(dx, 0)):
            source = (y - dy) * width + x - dx
            to = (y * width + x) * stride + o_at
            for block in range(steps.shape[1]):
                some = min(BLOCK, groups - block * BLOCK)
                t_at = (source * groups + block * BLOCK) * TABLE_BYTES
                at = i_at + block * BLOCK * LANES
                scale = steps[source, block]
                lookup(wide, 1, tables, t_at, index, at, gap, some, scale, False, flat, to)


@jit(parallel=True, error_model="numpy")
def _input(g, index, groups, height, width, out):
    area, panels = height * width, out.shape[1] // LANES
    gap = groups * LANES
    for image in numba.prange(g.shape[0] // area):
        tables = np.empty(area * groups * TABLE_BYTES, dtype=np.uint8)
        steps = np.empty((area, (groups + BLOCK - 1) // BLOCK), dtype=np.float32)
        _image_tables(g, image * area, area, groups, tables, steps)
        here = out[image * area : (image + 1) * area]
        here[:] = 0
        for panel in range(0, panels, 2):
            for tap in range(TAPS):
                i_at = (tap * panels + panel) * gap
                _tap_of_image(
                    tables, steps, index, i_at, gap, panel + 1 < panels, groups,
                    tap // 3 - 1, tap % 3 - 1, height, width, here, panel * LANES,
                )  # fmt: skip


@jit(parallel=True)
def _shifted_index(words, height, width, groups, panels, out):
    """Patterns of the nine shifted maps: [tap, panel, groups over pixels, 32]; +1 outside."""
    pixels = words.shape[0]
    for task in numba.prange(TAPS * panels):
        tap, panel = task // panels, task % panels
        dy, dx = tap // 3 - 1, tap % 3 - 1
        for g in range(groups):
            to = (task * groups + g) * 8
            for lane in range(8):
                out[to + lane] = 0
            for j in range(min(GROUP, max(pixels - g * GROUP, 0))):
                p = g * GROUP + j
                y, x = p // width % height + dy, p % width + dx
                inside = 0 <= y < height and 0 <= x < width
                word = words[p + dy * width + dx, panel] if inside else _ALL
                place_bits(word, j, out, to)


@jit(error_model="numpy")
def _map_tables(g, begin, end, first, count, groups, q, tables, top, steps, factors):
    """Tables of maps ``first..first+count`` over pixels ``begin..end``, ``groups`` of them."""
    stride, flat, bits = g.shape[1], g.reshape(-1), g.view(np.int32).reshape(-1)
    top[:] = 0
    for p in range(begin, end):
        for n in range(0, count, EIGHT):
            greatest(bits, p * stride + first + n, top, n)
    steps_of(top, MAPS, steps, factors)
    for p in range(begin, end):
        for n in range(0, count, EIGHT):
            round_eight(flat, p * stride + first + n, factors, n, q, (p - begin) * MAPS + n)
    q[(end - begin) * MAPS : groups * GROUP * MAPS] = 0
    for n in range(count):
        for t in range(groups):
            at = (n * BLOCK + t) * TABLE_BYTES
            store_table(q, t * GROUP * MAPS + n, MAPS, tables, at)


@jit(parallel=True, error_model="numpy")
def _filters(g, index, groups, out):
    """``out`` [N, 9, columns]: sums over all pixels, the outside of the maps taken as +1."""
    pixels, maps, columns = g.shape[0], out.shape[0], out.shape[2]
    panels, flat, gap = columns // LANES, out.reshape(-1), groups * LANES
    for task in numba.prange((maps + MAPS - 1) // MAPS):
        first = task * MAPS
        count = min(MAPS, maps - first)
        q = np.empty(BLOCK * GROUP * MAPS, dtype=np.int16)
        tables = np.empty(MAPS * BLOCK * TABLE_BYTES, dtype=np.uint8)
        top, steps = np.empty(MAPS, dtype=np.int32), np.empty(MAPS, dtype=np.float32)
        factors = np.empty(MAPS, dtype=np.float32)
        for block in range((groups + BLOCK - 1) // BLOCK):
            begin = block * BLOCK * GROUP
            end = min(begin + BLOCK * GROUP, pixels)
            some = min(BLOCK, groups - block * BLOCK)
            _map_tables(g, begin, end, first, count, some, q, tables, top, steps, factors)
            for tap in range(TAPS):
                for panel in range(0, panels, 2):
                    i_at = (tap * panels + panel) * gap + block * BLOCK * LANES
                    for n in range(count):
                        to = ((first + n) * TAPS + tap) * columns + panel * LANES
                        t_at = n * BLOCK * TABLE_BYTES
                        lookup(panel + 1 < panels, 1, tables, t_at, index, i_at, gap, some,
                               steps[n], block == 0, flat, to)  # fmt: skip


def input_gradient(
    gradient: np.ndarray, filters: np.ndarray, channels: int, height: int, width: int
) -> np.ndarray:
    """Return ``sum_{n, tap} gradient[p - tap, n] w[n, tap, c]``, float32 [B*H*W, columns].

    gradient: float32 [B*H*W, N]; filters: packed, int64 [N, 9, ceil(C/64)]; columns: C channels
    rounded up to a multiple of 32.
    """
    taps = [np.ascontiguousarray(filters[None, :, tap]) for tap in range(TAPS)]
    by_tap = [index(tap, channels) for tap in taps]
    out = np.empty((len(gradient), width_for(channels)), dtype=np.float32)
    groups = groups_for(gradient.shape[1])
    _input(gradient, np.concatenate(by_tap), groups, height, width, out)
    return out


def filter_gradient(
    gradient: np.ndarray, words: np.ndarray, channels: int, height: int, width: int
) -> np.ndarray:
    """Return ``sum_p gradient[p, n] x[p + tap, c]``, float32 [N, 9, columns], x being 0 outside.

    gradient: float32 [B*H*W, N]; words: the packed map, int64 [B*H*W, ceil(C/64)]; columns: C
    channels rounded up to a multiple of 32.
    """
    maps, groups = gradient.shape[1], groups_for(len(gradient))
    columns = width_for(channels)
    patterns = np.empty(TAPS * columns // LANES * groups * 8, dtype=np.uint32)
    _shifted_index(words.view(np.uint32), height, width, groups, columns // LANES, patterns)
    out = np.empty((maps, TAPS, columns), dtype=np.float32)
    _filters(whole_columns(gradient), patterns.view(np.uint8), groups, out)
    out -= outside_sums(gradient, height, width)[:, :, None]
    return out


def outside_sums(gradient: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the sum over the pixels whose tap lies outside the map, float32 [N, 9]."""
    images = gradient.reshape(-1, height, width, gradient.shape[1])
    found = np.zeros((gradient.shape[1], TAPS), dtype=np.float32)
    for tap in range(TAPS):
        row = {0: 0, 2: height - 1}.get(tap // 3)
        column = {0: 0, 2: width - 1}.get(tap % 3)
        if row is not None:
            found[:, tap] += images[:, row].sum((0, 1))
        if column is not None:
            rest = images[:, :, column] if row is None else np.delete(images[:, :, column], row, 1)
            found[:, tap] += rest.sum((0, 1))
    return found
