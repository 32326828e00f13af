"""The first layer: 8-bit pixels u times ±1 weights w, as odd integers o = 2u - 255, exact.

Two ways to the same int32 dots ``sum_k o[m, k] * w[n, k]``:

- ``int8``: with s = u - 128, o = 2s + 1, so the dot is ``2 (s . w) + sum_k w``: one int8 product.
- ``bitplanes``: o = sum_b 2^b p_b, where p_b = ±1 is bit b of u (255 = 1 + 2 + ... + 128): eight
  packed products, weighted by powers of two (paper, section 1.5, for inputs in [-1, 1]).
"""

import numpy as np
import torch

from kernels.base import check_packed, check_real
from kernels.packing import (
    Packed,
    pack_bounds,
    pack_rows,
    pack_threshold,
    unpack_rows,
    words_for,
)
from kernels.vendor import int8_product

PLANES = 8
PART_BYTES = 1 << 23  # int32 products of the eight planes held at once: a part of the L3 cache


def _check_pixels(u: object, k: int) -> torch.Tensor:
    return check_real("pixels", u, torch.uint8, k, "cpu").contiguous()


def pixels_by_tables() -> bool:
    """Tell whether pixels are multiplied by tables here: where torch's int8 is slower.

    With VNNI int8 is beaten by tables of 64 alone, and with AMX, by count, by neither.
    """
    from kernels.cpu import vectors

    return not vectors.AMX and (vectors.VBMI or (vectors.AVX2 and not vectors.VNNI))


def convolves_pixels() -> bool:
    """Tell whether convolutions go straight from the image here."""
    from kernels.cpu import vectors

    return vectors.VNNI512 or pixels_by_tables()


def _panels(w: Packed) -> tuple[np.ndarray, np.ndarray] | None:
    if not pixels_by_tables():
        return None
    from kernels.cpu import pixels

    whole = w if w.segments == 1 else pack_rows(unpack_rows(w, torch.int8))
    return pixels.panels(whole), pixels.base_of(whole)


class PixelsInt8:
    """Weights ready for products with pixels through int8, or tables where int8 is slow."""

    def __init__(self, w: Packed) -> None:
        check_packed("weights", w, "cpu")
        self.n, self.k = w.rows, w.k
        self._panels = _panels(w)
        if self._panels is None:
            self.signs = unpack_rows(w, torch.int8)
            self.sums = self.signs.sum(1, dtype=torch.int32)

    def product(self, u: torch.Tensor) -> torch.Tensor:
        """Return int32 [M, N] of ``(2u - 255) . w``: uint8 pixels u [M, K].

        Raises:
            TypeError, ValueError: pixels of another dtype, shape or device.
        """
        u = _check_pixels(u, self.k)
        if self._panels is None:
            centred = (u ^ 128).view(torch.int8)
            return int8_product(centred, self.signs).mul_(2).add_(self.sums)
        from kernels.cpu import pages, pixels

        out = pages.empty(u.shape[0], self.n)
        pixels.product(u.numpy(), *self._panels, out.numpy())
        return out

    def product_bits(self, u: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor) -> Packed:
        """Return ``(product(u) >= threshold) ^ flip`` packed; by tables, with no dots in memory.

        ``threshold`` is int32 [N], ``flip`` bool [N]; raises as ``product`` and ``pack_bounds``.
        """
        if self._panels is None:
            return pack_threshold(self.product(u), threshold, flip)
        from kernels.cpu import pixels

        u = _check_pixels(u, self.k)
        bounds, flips = pack_bounds(threshold, flip, self.n)
        out = torch.empty(u.shape[0], words_for(self.n), dtype=torch.int64)
        pixels.product_bits(u.numpy(), *self._panels, bounds, flips, out.numpy())
        return Packed(out, self.n)


class PixelsBitplanes:
    """Weights ready for products with pixels through eight bit planes."""

    def __init__(self, w: Packed) -> None:
        from kernels.cpu import xnor

        check_packed("weights", w, "cpu")
        if w.segments != 1:
            raise ValueError(f"weights on pixels must be in one segment, got {w.segments}")
        self.n, self.k = w.rows, w.k
        self.panels = xnor.panels(w.words.numpy())

    def product(self, u: torch.Tensor) -> torch.Tensor:
        """Return int32 [M, N] of ``(2u - 255) . w``; raises as ``PixelsInt8.product``."""
        u = _check_pixels(u, self.k)
        out = torch.empty(u.shape[0], self.n, dtype=torch.int32)
        rows = max(PART_BYTES // (4 * PLANES * max(self.n, 1)), 1)
        for begin in range(0, int(u.shape[0]), rows):
            self._part(u[begin : begin + rows], out[begin : begin + rows])
        return out

    def _part(self, u: torch.Tensor, out: torch.Tensor) -> None:
        from kernels.cpu import pack, xnor

        rows = int(u.shape[0])
        words = torch.empty(PLANES * rows, words_for(self.k), dtype=torch.int64)
        dots = torch.empty(PLANES * rows, self.n, dtype=torch.int32)
        pack.planes(u.numpy(), words.numpy())
        xnor.product(words.numpy(), self.panels, self.n, self.k, dots.numpy())
        pack.weigh_planes(dots.numpy(), out.numpy())
