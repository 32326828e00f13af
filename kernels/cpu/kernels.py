"""The numba kernels as the registry knows them: ``naive`` and ``xnor-cpu``."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from kernels.base import Convolution, Kernel, check_packed, check_real_pair
from kernels.packing import Packed, pack_bounds, words_for
from kernels.unpacked import Float32Kernel


class Naive(Float32Kernel):
    """The baseline: a plain float32 triple loop, one output at a time, rows over the threads."""

    name = "naive"
    baseline = True
    summary = "float32 triple loop, one output at a time (the baseline)"

    def product(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Return float32 dots [M, N], exact while K <= 2^24."""
        from kernels.cpu import naive

        check_real_pair(a, w, torch.float32, self.device)
        out = torch.empty(a.shape[0], w.shape[0], dtype=torch.float32)
        naive.product(a.contiguous().numpy(), w.contiguous().numpy(), out.numpy())
        return out


def way_of(k: int) -> Any:
    """Return the module by whose look-ups products of length ``k`` go here, None for popcounts."""
    from kernels.cpu import sliced, tabled

    return next((way for way in (sliced, tabled) if way.usable(k)), None)


@dataclass(frozen=True)
class Panels:
    """Weights of ``xnor-cpu`` in panels: of 8 rows as prefix xors, or of 64 rows for look-ups.

    Attributes:
        laid: as ``kernels.cpu.xnor`` or, uint8, ``way_of(k)`` lays them.
        n: rows.
        k: true length of a row.
        width: words of a row.
        tabled: whether they are for look-ups.
    """

    laid: torch.Tensor
    n: int
    k: int
    width: int
    tabled: bool

    def way(self, rows: int) -> Any:
        """Return ``way_of(k)`` where it takes ``rows`` rows, else None."""
        way = way_of(self.k) if self.tabled else None
        return way if way is not None and rows > way.FEW_ROWS else None

    @cached_property
    def for_few_rows(self) -> np.ndarray:
        """Panels of 8 rows also where ``tabled``: made when few rows first ask for them."""
        from kernels.cpu import xnor

        laid = self.laid.numpy()
        if not self.tabled:
            return laid
        return xnor.panels(way_of(self.k).rows_of_panels(laid, self.n, self.width))


class XnorCpu(Kernel):
    """Xor and popcount on packed words, blocked for registers and caches.

    Where AVX2 is the widest vector, ones are looked up in tables of 16; with AVX-512 VBMI and GFNI
    look-ups meet bit-sliced counters. Elsewhere, for few rows or columns and for K beyond 32767,
    ones are counted by vector popcounts.
    """

    name = "xnor-cpu"
    packed = True
    fused = True
    summary = "packed words, xor and popcount, register- and cache-blocked"

    def weights(self, p: Packed, often: bool = True) -> Panels:
        """Return the weights in panels.

        ``often``: they meet many rows. Indices for bit-sliced counters take 38 times as long to
        make as panels for popcounts (4096 x 4096: 7.4 ms on a Zen 4 core, and 0.2), more than
        a training step saves by them.
        """
        from kernels.cpu import sliced, xnor

        check_packed("weights", p, self.device)
        width, way = int(p.words.shape[1]), way_of(p.k)
        if way is sliced and not often:
            way = None
        tabled = way is not None and p.rows > way.FEW_COLUMNS
        if tabled:
            used = -(-p.k // 8) if p.segments == 1 else 8 * width
            laid = way.panels(p.words.numpy(), used)
        else:
            laid = xnor.panels(p.words.numpy())
        return Panels(torch.from_numpy(laid), p.rows, p.k, width, tabled)

    def activations(self, p: Packed) -> Packed:
        """Return ``p`` itself."""
        return check_packed("activations", p, self.device)

    def product(self, a: Packed, w: Panels) -> torch.Tensor:
        """Return int32 dots [M, N] for any M, N, K."""
        from kernels.cpu import pages, xnor

        self._check(a, w)
        out, way = pages.empty(a.rows, w.n), w.way(a.rows)
        if way is not None and way.dots_usable(w.n, w.k):
            way.product(a.words.numpy(), w.laid.numpy(), w.n, w.k, out.numpy())
        else:
            xnor.product(a.words.numpy(), w.for_few_rows, w.n, w.k, out.numpy())
        return out

    def product_bits(
        self, a: Packed, w: Panels, threshold: torch.Tensor, flip: torch.Tensor
    ) -> Packed:
        """Return ``(dots >= threshold) ^ flip`` packed, from registers: no dots in memory."""
        from kernels.cpu import xnor

        self._check(a, w)
        limits, way = pack_bounds(threshold, flip, w.n), w.way(a.rows)
        if way is not None:
            out = torch.empty(a.rows, words_for(w.n), dtype=torch.int64)
            way.product_bits(a.words.numpy(), w.laid.numpy(), w.n, w.k, *limits, out.numpy())
        else:
            out = torch.zeros(a.rows, words_for(w.n), dtype=torch.int64)
            xnor.product_bits(a.words.numpy(), w.for_few_rows, w.n, w.k, *limits, out.numpy())
        return Packed(out, w.n)

    def bits_on_pixels(
        self, w: Packed
    ) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Packed]:
        """Return the first layer to packed rows, with no dots in memory where it goes by tables."""
        from kernels.firstlayer import PixelsInt8

        return PixelsInt8(w).product_bits

    def convolution(self, filters: Packed, height: int, width: int) -> Convolution:
        """Return the convolution straight from the map."""
        from kernels.cpu.conv import DirectConv3x3

        return DirectConv3x3(check_packed("filters", filters, self.device), height, width)

    def _check(self, a: Packed, w: Panels) -> None:
        check_packed("activations", a, self.device)
        if not isinstance(w, Panels):
            raise TypeError(f"weights must be what xnor-cpu prepares, got {type(w).__name__}")
        if (a.k, a.words.shape[1]) != (w.k, w.width):
            raise ValueError(
                f"activations have K={a.k} in {a.words.shape[1]} words a row, "
                f"the weights K={w.k} in {w.width}"
            )
