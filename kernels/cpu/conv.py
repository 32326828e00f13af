"""3x3 convolutions of packed maps straight from the map: no patches, no dots in memory.

What a filter must add back at the border, where 0 stands for -1, depends on which borders a
position touches: 16 classes (``kernels.conv.border_classes``), each with its own dots to start from
or thresholds.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def"

from functools import cached_property
from typing import Any

import numba
import numpy as np
import torch

from kernels.conv import TAPS, border_classes, check_map, tap_sums
from kernels.cpu import conv_sliced, pages, tabled
from kernels.cpu.conv_counts import CountedConv
from kernels.cpu.conv_tabled import TabledConv
from kernels.cpu.jit import jit
from kernels.packing import Packed, pack_bounds, words_for


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
    """Filters made ready for maps of one size: for tables where these are usable, or popcounts.

    Bits go by bit-sliced counters where these are usable.
    """

    def __init__(self, filters: Packed, height: int, width: int) -> None:
        """Prepare packed ``filters`` (``kernels.conv.pack_filters``).

        Raises:
            ValueError: filters that are not in nine segments.
        """
        if filters.segments != TAPS:
            raise ValueError(f"filters must have {TAPS} segments, got {filters.segments}")
        self.size, self.n, self.channels = (height, width), filters.rows, filters.k // TAPS
        way = TabledConv if tabled.usable(filters.k) else CountedConv
        self._filters, self._missing = filters, border_classes(tap_sums(filters)).numpy()
        self._way = way(filters, height, width, self._missing)

    @cached_property
    def _to_bits(self) -> Any:
        """Made when bits are first asked for: a training step asks for dots of other filters."""
        if not conv_sliced.usable(self.n, self._filters.k):
            return self._way
        return conv_sliced.SlicedConv(self._filters, *self.size, self._missing)

    def __call__(self, words: torch.Tensor) -> torch.Tensor:
        """Return the int32 dots [B*H*W, N] of a packed map int64 [B, H, W, ceil(C/64)].

        Raises:
            TypeError, ValueError: a map of another dtype, size or device.
        """
        self._check(words)
        out = pages.empty(len(words) * self.size[0] * self.size[1], self.n)
        if out.numel():
            self._way.dots(words, out.numpy())
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
        self._check(words)
        bounds, flips = pack_bounds(threshold, flip, self.n)
        whole = torch.zeros(len(words), *self.size, words_for(self.n), dtype=torch.int64)
        if whole.numel():
            self._to_bits.bits(words, bounds, flips, whole.view(-1, whole.shape[3]).numpy())
        if not pool:
            return whole
        height, width = (side // 2 for side in self.size)
        pooled = torch.empty(len(words), height, width, words_for(self.n), dtype=torch.int64)
        _pool(whole.numpy().view(np.uint64), flips.view(np.uint64), pooled.numpy().view(np.uint64))
        return pooled

    def _check(self, words: torch.Tensor) -> None:
        _, *size = check_map(words, self.channels)
        if tuple(size) != self.size:
            raise ValueError(f"the map must be {self.size} high and wide, got {tuple(size)}")
        if words.device.type != "cpu":
            raise ValueError(f"the map is on device {words.device}; allowed: cpu")
