"""Products of real maps and signs in 3x3 convolutions: the backward ones, gradients in 12 bits.

Of ±1 maps and filters both are here. Of real maps and ±1 filters the way forward is the product of
the input's gradient with filters turned around, in two pieces of 12 bits.

Maps are channels last: gradients float32 [B*H*W, N], packed maps [B*H*W, ceil(C/64)], packed
filters [N, 9, ceil(C/64)]; tap ``3 (dy + 1) + (dx + 1)``, stride 1, zero padding 1. Rounding is
that of ``kernels.cpu.signed``: for the input over a pixel's maps, for the filters over 512 pixels.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

import numba
import numpy as np
import torch

from kernels.cpu import pages
from kernels.cpu.columns import EIGHT, greatest, round_eight, steps_of, whole_columns
from kernels.cpu.jit import jit
from kernels.cpu.lookup import LANES
from kernels.cpu.shares import aligned
from kernels.cpu.signed import check_pieces, index, quantize, rest_of, width_for
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

TAPS = 9
MAPS = 16  # output maps whose tables, and whose filters' gradients, a thread keeps in its caches
_ALL = np.uint32(0xFFFFFFFF)
_STEP, _BLOCK, _TABLES, _PATTERNS = STEP[1], BLOCK[1], TABLES[1], PATTERNS[1]


@jit(error_model="numpy")
def _image_tables(g, first, count, rest, tables, scales):
    """Tables of an image's pixels; what rounding leaves goes to the rows of ``rest``, if any."""
    length = g.shape[1]
    steps = steps_for(length, 1)
    q = np.empty(_BLOCK * _STEP, dtype=np.int16)
    for p in range(count):
        for block in range(scales.shape[1]):
            begin = block * SHARED
            end = min(begin + SHARED, length)
            scales[p, block] = quantize(g[first + p], begin, end, np.float32(0), q)
            if len(rest):
                rest_of(g[first + p], begin, end, scales[p, block], q, rest[p, begin:end])
            for t in range(min(_BLOCK, steps - block * _BLOCK)):
                store_step(1, q, t * _STEP, 1, tables, (p * steps + block * _BLOCK + t) * _TABLES)


@jit(error_model="numpy")
def _tap_of_image(tables, scales, index, i_at, wide, steps, dy, dx, height, width, out, o_at):
    """Add one tap's share to 32 or 64 input maps of an image: ``out`` flat, from ``o_at`` on."""
    stride, flat, blocks = out.shape[1], out.reshape(-1), scales.shape[1]
    by_row, end = scales.reshape(-1), width + min(dx, 0)
    for y in range(max(dy, 0), height + min(dy, 0)):
        for x in range(max(dx, 0), end, ROWS):
            source = (y - dy) * width + x - dx
            to = (y * width + x) * stride + o_at
            for block in range(blocks):
                some = min(_BLOCK, steps - block * _BLOCK)
                lookup(
                    min(ROWS, end - x), wide, 1,
                    tables, (source * steps + block * _BLOCK) * _TABLES, steps * _TABLES,
                    index, i_at + block * _BLOCK * _PATTERNS, steps * _PATTERNS, some,
                    by_row, source * blocks + block, blocks, False, flat, to, stride,
                )  # fmt: skip


@jit(error_model="numpy")
def _add_image(tables, scales, index, panels, steps, height, width, out):
    for panel in range(0, panels, 2):
        for tap in range(TAPS):
            i_at = (tap * panels + panel) * steps * _PATTERNS
            _tap_of_image(
                tables, scales, index, i_at, panel + 1 < panels, steps,
                tap // 3 - 1, tap % 3 - 1, height, width, out, panel * LANES,
            )  # fmt: skip


@jit(parallel=True, error_model="numpy")
def _input(g, index, height, width, pieces, out):
    area, panels, steps = height * width, out.shape[1] // LANES, steps_for(g.shape[1], 1)
    for image in numba.prange(g.shape[0] // area):
        tables = aligned(area * steps * _TABLES)
        scales = np.empty((area, (g.shape[1] + SHARED - 1) // SHARED), dtype=np.float32)
        rest = np.empty((area if pieces == 2 else 0, g.shape[1]), dtype=np.float32)
        here = out[image * area : (image + 1) * area]
        here[:] = 0
        _image_tables(g, image * area, area, rest, tables, scales)
        _add_image(tables, scales, index, panels, steps, height, width, here)
        if pieces == 2:
            _image_tables(rest, 0, area, rest[:0], tables, scales)
            _add_image(tables, scales, index, panels, steps, height, width, here)


@jit(parallel=True)
def _shifted_index(words, height, width, panels, out):
    """Patterns of the nine shifted maps: [tap, panel, steps over pixels]; +1 outside."""
    pixels, size = words.shape[0], _PATTERNS // 4
    steps = steps_for(pixels, 1)
    for task in numba.prange(TAPS * panels):
        tap, panel = task // panels, task % panels
        dy, dx = tap // 3 - 1, tap % 3 - 1
        out[task * steps * size : (task + 1) * steps * size] = 0
        for step in range(steps):
            to = (task * steps + step) * size
            block, within = step // _BLOCK, step % _BLOCK * _STEP
            begin = block * SHARED + within
            for j in range(min(_STEP, min(SHARED - within, pixels - begin))):
                p = begin + j
                y, x = p // width % height + dy, p % width + dx
                inside = 0 <= y < height and 0 <= x < width
                word = words[p + dy * width + dx, panel] if inside else _ALL
                add_signs(word, j, 1, 0, out, to)


@jit(error_model="numpy")
def _map_tables(g, begin, end, first, count, steps, q, tables, top, scales, factors):
    """Tables of maps ``first..first+count`` over pixels ``begin..end``, ``steps`` of them."""
    stride, flat, bits = g.shape[1], g.reshape(-1), g.view(np.int32).reshape(-1)
    top[:] = 0
    for p in range(begin, end):
        for n in range(0, count, EIGHT):
            greatest(bits, p * stride + first + n, top, n)
    steps_of(top, MAPS, scales, factors)
    for p in range(begin, end):
        for n in range(0, count, EIGHT):
            round_eight(flat, p * stride + first + n, factors, n, q, (p - begin) * MAPS + n)
    q[(end - begin) * MAPS : steps * _STEP * MAPS] = 0
    for n in range(count):
        for t in range(steps):
            at = (n * _BLOCK + t) * _TABLES
            store_step(1, q, t * _STEP * MAPS + n, MAPS, tables, at)


@jit(parallel=True, error_model="numpy")
def _filters(g, index, out):
    """``out`` [N, 9, columns]: sums over all pixels, the outside of the maps taken as +1."""
    pixels, maps, columns = g.shape[0], out.shape[0], out.shape[2]
    panels, flat, steps = columns // LANES, out.reshape(-1), steps_for(pixels, 1)
    for task in numba.prange((maps + MAPS - 1) // MAPS):
        first = task * MAPS
        count = min(MAPS, maps - first)
        q = np.empty(_BLOCK * _STEP * MAPS, dtype=np.int16)
        tables = aligned(MAPS * _BLOCK * _TABLES)
        top, scales = np.empty(MAPS, dtype=np.int32), np.empty(MAPS, dtype=np.float32)
        factors = np.empty(MAPS, dtype=np.float32)
        for block in range((steps + _BLOCK - 1) // _BLOCK):
            begin = block * SHARED
            some = min(_BLOCK, steps - block * _BLOCK)
            end = min(begin + SHARED, pixels)
            _map_tables(g, begin, end, first, count, some, q, tables, top, scales, factors)
            for tap in range(TAPS):
                for panel in range(0, panels, 2):
                    i_at = ((tap * panels + panel) * steps + block * _BLOCK) * _PATTERNS
                    for n in range(0, count, ROWS):
                        to = ((first + n) * TAPS + tap) * columns + panel * LANES
                        lookup(
                            min(ROWS, count - n), panel + 1 < panels, 1,
                            tables, n * _BLOCK * _TABLES, _BLOCK * _TABLES,
                            index, i_at, steps * _PATTERNS, some,
                            scales, n, 1, block == 0, flat, to, TAPS * columns,
                        )  # fmt: skip


def input_gradient(
    gradient: np.ndarray,
    filters: np.ndarray,
    channels: int,
    height: int,
    width: int,
    pieces: int = 1,
) -> np.ndarray:
    """Return ``sum_{n, tap} gradient[p - tap, n] w[n, tap, c]``, float32 [B*H*W, columns].

    gradient: float32 [B*H*W, N]; filters: packed, int64 [N, 9, ceil(C/64)]; columns: C channels
    rounded up to a multiple of 32; pieces: of 12 bits each, 1 or 2.

    Raises:
        ValueError: another number of pieces.
    """
    check_pieces(pieces)
    taps = [np.ascontiguousarray(filters[None, :, tap]) for tap in range(TAPS)]
    by_tap = [index(tap, channels) for tap in taps]
    out: np.ndarray = pages.empty(len(gradient), width_for(channels), torch.float32).numpy()
    patterns = np.concatenate(by_tap, out=aligned(TAPS * by_tap[0].size))
    _input(gradient, patterns, height, width, pieces, out)
    return out


def product(x: np.ndarray, turned: np.ndarray, maps: int, height: int, width: int) -> np.ndarray:
    """Return ``sum_{c, tap} x[p + tap, c] w[n, tap, c]``, float32 [B*H*W, columns].

    x: float32 [B*H*W, C], in two pieces; turned: what :func:`turn` makes of the filters, packed;
    columns: N maps rounded up to a multiple of 32.
    """
    return input_gradient(x, turned, maps, height, width, pieces=2)


def turn(filters: torch.Tensor) -> torch.Tensor:
    """Return filters [N, C, 3, 3] as :func:`product` wants them packed: [C, N, 3, 3], each turned
    by half a circle."""
    return filters.transpose(0, 1).flip(2, 3)


def filter_gradient(
    gradient: np.ndarray, words: np.ndarray, channels: int, height: int, width: int
) -> np.ndarray:
    """Return ``sum_p gradient[p, n] x[p + tap, c]``, float32 [N, 9, columns], x being 0 outside.

    gradient: float32 [B*H*W, N]; words: the packed map, int64 [B*H*W, ceil(C/64)]; columns: C
    channels rounded up to a multiple of 32.
    """
    maps, columns = gradient.shape[1], width_for(channels)
    panels = columns // LANES
    patterns = aligned(TAPS * panels * steps_for(len(gradient), 1) * _PATTERNS)
    _shifted_index(words.view(np.uint32), height, width, panels, patterns.view(np.uint32))
    out = np.empty((maps, TAPS, columns), dtype=np.float32)
    _filters(whole_columns(gradient), patterns, out)
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
