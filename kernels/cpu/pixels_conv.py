"""3x3 convolutions of 8-bit pixels and ±1 filters straight from the image.

By VPDPBUSD (``kernels.cpu.pixels_vnni``), or as ``kernels.cpu.pixels``, with the rows of 32
positions gathered into the cache just before their tables are built: no patches in memory, and
thresholds give bits with no dots in memory either. A pixel beyond the border is 0 there, which
stands for -255: its tap adds back 255 times the sum of its weights, by which borders a position
touches (``kernels.conv.border_classes``).
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated"

import numba
import numpy as np
import torch
import torch.nn.functional as functional

from kernels.conv import TAPS, border_classes
from kernels.cpu import pages
from kernels.cpu.borders import touched
from kernels.cpu.jit import jit
from kernels.cpu.nibbles import PANEL
from kernels.cpu.pixels import ROWS, base_of, bounds_of, meet, panels, room, tables_of
from kernels.cpu.pixels_vnni import VnniConv
from kernels.cpu.shares import part
from kernels.cpu.tabled import NO_FLIPS
from kernels.cpu.vectors import VNNI512
from kernels.packing import Packed, pack_bounds, unpack_rows, words_for

MOST_PIXEL = 255


@jit()
def _gather(padded, shape, first, count, outputs, rows, places):
    """Write the patches of ``count`` positions, [9 C] each, and where their classes' numbers are.

    ``outputs`` is how many numbers a class has.
    """
    channels, height, width = shape
    wide, k = width + 2, TAPS * channels
    for i in range(count):
        image, position = (first + i) // (height * width), (first + i) % (height * width)
        y, x = position // width, position % width
        to = i * k
        for c in range(channels):
            for dy in range(3):
                at = ((image * channels + c) * (height + 2) + y + dy) * wide + x
                for dx in range(3):
                    rows[to + dx] = padded[at + dx]
                to += 3
        places[i] = touched(y, x, height, width) * outputs


@jit()
def _task(padded, shape, first, last, laid, n, bounds, flips, out):
    k, count = TAPS * shape[0], laid.shape[0]
    row, tables, minus, nibbles, picked = room(laid)
    rows, places = np.empty(ROWS * k, dtype=np.uint8), np.empty(ROWS, dtype=np.int64)
    while first < last:
        some = min(ROWS, last - first)
        _gather(padded, shape, first, some, count * PANEL, rows, places)
        tables_of(rows, 0, some, k, laid, row, tables, minus)
        meet(tables, minus, some, laid, 0, count, places, n, bounds, flips, nibbles, picked, out,
             first)  # fmt: skip
        first += some


@jit(parallel=True)
def _tasks(padded, shape, positions, parts, laid, n, bounds, flips, out):
    for task in numba.prange(parts):
        first, last = part(positions, parts, task)
        _task(padded, shape, first, last, laid, n, bounds, flips, out)


class PickedConv:
    """Filters in panels of 64 for tables, on images of one size."""

    def __init__(self, filters: Packed, height: int, width: int) -> None:
        self._n, self._shape = filters.rows, (filters.k // TAPS, height, width)
        self._laid = panels(filters)

    def dots(self, u: torch.Tensor, base: np.ndarray, out: np.ndarray) -> None:
        """Write the dots of images uint8 [B, C, H, W] to int32 [B*H*W, N]; see ``PixelConv3x3``."""
        self._run(u, base, NO_FLIPS, out.reshape(-1))

    def bits(self, u: torch.Tensor, bounds: np.ndarray, flips: np.ndarray, out: np.ndarray) -> None:
        """Write ``(4 P - 2 sum(u) >= bounds) ^ flips`` to int64 [B*H*W, ceil(N/64)]."""
        self._run(u, bounds, flips.view(np.uint64), out.view(np.uint64))

    def _run(self, u: torch.Tensor, bounds: np.ndarray, flips: np.ndarray, out: np.ndarray) -> None:
        padded = functional.pad(u, (1, 1, 1, 1)).numpy().reshape(-1)
        positions = u.numel() // self._shape[0]
        parts = min(-(-positions // ROWS), numba.get_num_threads())
        _tasks(padded, self._shape, positions, parts, self._laid, self._n, bounds.reshape(-1),
               flips, out)  # fmt: skip


class PixelConv3x3:
    """Filters made ready for images of one size, by VPDPBUSD on AVX-512 or by tables on AVX2."""

    def __init__(self, filters: Packed, height: int, width: int) -> None:
        """Prepare packed ``filters``, rows [C, 3, 3] in one segment.

        Raises:
            ValueError: filters in segments, or whose length is no multiple of nine.
        """
        if filters.segments != 1 or filters.k % TAPS:
            raise ValueError(
                f"filters on pixels must be in one segment of 9 C values, got {filters.k} "
                f"in {filters.segments}"
            )
        self.n, self._shape = filters.rows, (filters.k // TAPS, height, width)
        self._way = (VnniConv if VNNI512 else PickedConv)(filters, height, width)
        sums = unpack_rows(filters).view(filters.rows, -1, TAPS).sum(1).int()
        missing = border_classes(sums).numpy()
        self._base = np.tile(base_of(filters), (len(missing), 1))
        self._base[:, : self.n] += MOST_PIXEL * missing

    def __call__(self, u: torch.Tensor) -> torch.Tensor:
        """Return the int32 dots [B*H*W, N] of ``2u - 255``, zero-padded, of u uint8 [B, C, H, W].

        Raises:
            TypeError, ValueError: pixels of another dtype, shape or device.
        """
        out = pages.empty(self._positions(u), self.n)
        if out.numel():
            self._way.dots(u, self._base, out.numpy())
        return out

    def bits(self, u: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
        """Return the packed map of ``(dot >= threshold) ^ flip``, int64 [B, H, W, ceil(N/64)].

        Raises:
            TypeError, ValueError: as ``__call__``, or thresholds that do not fit.
        """
        positions = self._positions(u)
        bounds, flips = pack_bounds(threshold, flip, self.n)
        out = torch.empty(positions, words_for(self.n), dtype=torch.int64)
        if out.numel():
            self._way.bits(u, bounds_of(self._base, bounds), flips, out.numpy())
        return out.view(len(u), *self._shape[1:], words_for(self.n))

    def _positions(self, u: torch.Tensor) -> int:
        """Return the number of positions of images, once they are what they must be."""
        if not isinstance(u, torch.Tensor) or u.dtype != torch.uint8:
            raise TypeError(
                f"pixels must be a torch.uint8 tensor, got {getattr(u, 'dtype', type(u).__name__)}"
            )
        if u.ndim != 4 or tuple(u.shape[1:]) != self._shape:
            raise ValueError(
                f"pixels must have shape [images, {', '.join(map(str, self._shape))}], "
                f"got {list(u.shape)}"
            )
        if u.device.type != "cpu":
            raise ValueError(f"pixels are on device {u.device}; allowed: cpu")
        return len(u) * self._shape[1] * self._shape[2]
