"""3x3 convolutions of 8-bit pixels and ±1 filters by VPDPBUSD, straight from the image.

In an image with a border of zeros and channels side by side the taps of a filter's row are one run
of ``3 C`` bytes. A tile takes four bytes of a run at once, for four positions and 64 filters, into
sums in registers; what follows a run meets weights of 0. With s the sum of ``u w``, the dot of
``2u - 255`` is ``2 s - 255 sum(w)``.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.conv import TAPS
from kernels.cpu.borders import touched
from kernels.cpu.jit import jit
from kernels.cpu.nibbles import PANEL, constant, vector_at
from kernels.cpu.pixels import ALONE
from kernels.cpu.shares import aligned, part
from kernels.cpu.tabled import NO_FLIPS
from kernels.cpu.vectors import load, pointer, splat, store
from kernels.cpu.xnor import copy_edge
from kernels.packing import Packed, unpack_rows

SIDE, QUAD = 3, 4  # of a filter; pixels that an instruction multiplies
ROWS = 4  # positions of a tile: 16 registers of sums
_LANES = 16
_VECTORS = PANEL // _LANES
_STEP_BYTES = PANEL * QUAD
_WORD, _INT = ir.IntType(64), ir.IntType(32)
_INTS = ir.VectorType(_INT, _LANES)


def _multiply(builder: Any, total: Any, pixels: Any, weights: Any) -> Any:
    """Emit ``total`` plus four products of bytes a lane, unsigned and signed."""
    kind = ir.FunctionType(_INTS, [_INTS] * 3)
    name = "llvm.x86.avx512.vpdpbusd.512"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [total, pixels, weights])


def _emit_sums(context: Any, builder: Any, sig: Any, args: Any) -> list[list[Any]]:
    """Emit the sums of ``u w`` of a tile whose arguments begin as those of ``bits_tile``."""
    padded, starts, offsets = (
        pointer(context, builder, sig.args[i], args[i], _WORD(0)) for i in (1, 2, 3)
    )
    source = pointer(context, builder, sig.args[4], args[4], args[5])
    rows = [
        builder.gep(padded, [builder.load(builder.gep(starts, [_WORD(i)]))])
        for i in range(sig.args[0].literal_value)
    ]
    sums = [
        [cgutils.alloca_once_value(builder, constant(_INTS, 0)) for _ in range(_VECTORS)]
        for _ in rows
    ]
    with cgutils.for_range(builder, args[6]) as loop:
        offset = builder.load(builder.gep(offsets, [loop.index]))
        here = builder.gep(source, [builder.mul(loop.index, _WORD(_STEP_BYTES))])
        weights = [vector_at(builder, here, 64 * q, _INTS) for q in range(_VECTORS)]
        for row, totals in zip(rows, sums, strict=True):
            address = builder.bitcast(builder.gep(row, [offset]), _INT.as_pointer())
            pixels = splat(builder, builder.load(address, align=1), _INTS)
            for total, some in zip(totals, weights, strict=True):
                builder.store(_multiply(builder, builder.load(total), pixels, some), total)
    return [[builder.load(total) for total in totals] for totals in sums]


def _numbers(context: Any, builder: Any, sig: Any, args: Any, i: int) -> list[Any]:
    """Emit each row's 64 numbers: argument 7 has them, 8 where a class' begin, 9 a panel's."""
    numbers = pointer(context, builder, sig.args[7], args[7], args[9])
    place = builder.load(pointer(context, builder, sig.args[8], args[8], _WORD(i)))
    at = [builder.add(place, _WORD(_LANES * q)) for q in range(_VECTORS)]
    return [load(builder, builder.gep(numbers, [first]), _INTS, 4) for first in at]


@intrinsic(prefer_literal=True)
def bits_tile(
    typingctx, rows, padded, starts, offsets, laid, laid_at, steps, least, places, panel_at, flips,
    out, out_at, stride,
):  # fmt: skip
    """``out[out_at + i*stride]`` = the word of ``(sum >= least) ^ flips`` of rows i, 64 filters.

    Row i's pixels are ``padded[starts[i] + offsets[t] ...]``, four for each t < ``steps``; its
    bounds are ``least[places[i] + panel_at ...]``, int32. ``rows`` is a literal.
    """
    if not isinstance(rows, types.IntegerLiteral):
        return None
    place = types.intp
    signature = types.void(
        rows, padded, starts, offsets, laid, place, place, least, places, place, types.uint64, out,
        place, place,
    )  # fmt: skip

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base = pointer(context, builder, sig.args[11], args[11], args[12])
        for i, sums in enumerate(_emit_sums(context, builder, sig, args)):
            word = args[10]
            least = _numbers(context, builder, sig, args, i)
            for q, pair in enumerate(zip(sums, least, strict=True)):
                some = builder.bitcast(builder.icmp_signed(">=", *pair), ir.IntType(_LANES))
                some = builder.shl(builder.zext(some, _WORD), _WORD(_LANES * q))
                word = builder.xor(word, some)
            builder.store(word, builder.gep(base, [builder.mul(args[13], _WORD(i))]))
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def dots_tile(
    typingctx, rows, padded, starts, offsets, laid, laid_at, steps, base, places, panel_at, out,
    out_at, stride,
):  # fmt: skip
    """As ``bits_tile``, to dots: ``out[out_at + i*stride + l] = 2 * sum + base``."""
    if not isinstance(rows, types.IntegerLiteral):
        return None
    place = types.intp
    signature = types.void(
        rows, padded, starts, offsets, laid, place, place, base, places, place, out, place, place
    )

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target = pointer(context, builder, sig.args[10], args[10], args[11])
        for i, sums in enumerate(_emit_sums(context, builder, sig, args)):
            row = builder.gep(target, [builder.mul(args[12], _WORD(i))])
            base = _numbers(context, builder, sig, args, i)
            for q, (total, number) in enumerate(zip(sums, base, strict=True)):
                dots = builder.add(builder.shl(total, constant(_INTS, 1)), number)
                store(builder, dots, builder.gep(row, [_WORD(_LANES * q)]), 4)
        return context.get_dummy_value()

    return signature, generate


@jit()
def _interleave(u, image, padded):
    """Lay an image's pixels [C, H, W] out as [H+2, W+2, C], within a border that is there."""
    channels, height, width = u.shape[1:]
    for y in range(height):
        for c in range(channels):
            for x in range(width):
                padded[image, y + 1, x + 1, c] = u[image, c, y, x]


@jit(parallel=True)
def _interleave_all(u, padded):
    for image in numba.prange(len(u)):
        _interleave(u, image, padded)


@jit()
def _place(shape, first, count, numbers, starts, places):
    """Write where positions' pixels and their classes' ``numbers`` begin."""
    channels, height, width = shape
    line, x = first // width, first % width
    image, y = line // height, line % height
    for i in range(count):
        starts[i] = ((image * (height + 2) + y) * (width + 2) + x) * channels
        places[i] = touched(y, x, height, width) * numbers
        x += 1
        if x == width:
            x, y = 0, y + 1
        if y == height:
            y, image = 0, image + 1


@jit()
def _put_dots(count, padded, starts, offsets, laid, at, numbers, places, panel, n, row, edge, out):
    left, steps = n - panel * PANEL, offsets.size
    whole = left >= PANEL
    target, to, stride = (out, row * n + panel * PANEL, n) if whole else (edge, 0, PANEL)
    if count == ROWS:
        dots_tile(ROWS, padded, starts, offsets, laid, at, steps, numbers, places, panel * PANEL,
                  target, to, stride)  # fmt: skip
    else:
        dots_tile(1, padded, starts, offsets, laid, at, steps, numbers, places, panel * PANEL,
                  target, to, stride)  # fmt: skip
    if not whole:
        copy_edge(edge, count, left, PANEL, out, row * n + panel * PANEL, n)


@jit()
def _put_bits(count, padded, starts, offsets, laid, at, numbers, places, panel, flip, row, out):
    steps, stride = offsets.size, out.shape[1]
    to = row * stride + panel
    if count == ROWS:
        bits_tile(ROWS, padded, starts, offsets, laid, at, steps, numbers, places, panel * PANEL,
                  flip, out, to, stride)  # fmt: skip
    else:
        bits_tile(1, padded, starts, offsets, laid, at, steps, numbers, places, panel * PANEL, flip,
                  out, to, stride)  # fmt: skip


@jit()
def _task(padded, shape, offsets, row, last, laid, n, numbers, flips, out):
    flat, total = numbers.reshape(-1), numbers.shape[1]
    starts, places = np.empty(ROWS, dtype=np.int64), np.empty(ROWS, dtype=np.int64)
    edge = np.empty(ROWS * PANEL, dtype=np.int32)
    while row < last:
        some = ROWS if row + ROWS <= last else 1
        _place(shape, row, some, total, starts, places)
        for panel in range(total // PANEL):
            at = panel * offsets.size * PANEL * QUAD
            if out.ndim == 2:
                _put_bits(some, padded, starts, offsets, laid, at, flat, places, panel,
                          flips[panel], row, out)  # fmt: skip
            else:
                _put_dots(some, padded, starts, offsets, laid, at, flat, places, panel, n, row,
                          edge, out)  # fmt: skip
        row += some


@jit(parallel=True)
def _tasks(padded, shape, offsets, positions, parts, laid, n, numbers, flips, out):
    for task in numba.prange(parts):
        first, last = part(positions, parts, task)
        _task(padded, shape, offsets, first, last, laid, n, numbers, flips, out)


class VnniConv:
    """Filters as bytes in panels of 64, on images of one size."""

    def __init__(self, filters: Packed, height: int, width: int) -> None:
        n, channels = filters.rows, filters.k // TAPS
        self._n, self._shape = n, (channels, height, width)
        quads = -(-SIDE * channels // QUAD)  # of a run
        signs = unpack_rows(filters, torch.int8).numpy().reshape(n, channels, SIDE, SIDE)
        runs = signs.transpose(0, 2, 3, 1).reshape(n, SIDE, SIDE * channels)
        taps = np.zeros((-(-n // PANEL) * PANEL, SIDE, quads * QUAD), dtype=np.int8)
        taps[:n, :, : SIDE * channels] = runs
        panels = taps.reshape(-1, PANEL, SIDE * quads, QUAD).transpose(0, 2, 1, 3)
        self._laid = aligned(taps.size).view(np.int8)
        self._laid[:] = panels.reshape(-1)
        dy, quad = np.ogrid[:SIDE, :quads]
        self._offsets = (dy * (width + 2) * channels + quad * QUAD).reshape(-1)

    def dots(self, u: torch.Tensor, base: np.ndarray, out: np.ndarray) -> None:
        """Write the dots of images uint8 [B, C, H, W] to int32 [B*H*W, N]; see ``PixelConv3x3``."""
        self._run(u, base, NO_FLIPS, out.reshape(-1))

    def bits(self, u: torch.Tensor, bounds: np.ndarray, flips: np.ndarray, out: np.ndarray) -> None:
        """Write ``(2 s >= bounds) ^ flips`` to int64 [B*H*W, ceil(N/64)]."""
        self._run(u, (bounds >> 1) + (bounds & 1), flips.view(np.uint64), out.view(np.uint64))

    def _run(
        self, u: torch.Tensor, numbers: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        channels, height, width = self._shape
        size = len(u) * (height + 2) * (width + 2) * channels
        padded = np.zeros(size + QUAD, dtype=np.uint8)  # the last run's quads end beyond it
        images = padded[:size].reshape(len(u), height + 2, width + 2, channels)
        positions, pixels = len(u) * height * width, u.contiguous().numpy()
        operands = padded, self._shape, self._offsets
        rest = self._laid, self._n, numbers, flips, out
        if positions * self._laid.size <= ALONE:
            for image in range(len(u)):
                _interleave(pixels, image, images)
            _task(*operands, 0, positions, *rest)
        else:
            _interleave_all(pixels, images)
            parts = min(-(-positions // ROWS), numba.get_num_threads())
            _tasks(*operands, positions, parts, *rest)
