"""The first layer on the GPU: 8-bit pixels u times ±1 weights, as odd integers o = 2u - 255.

With s = u - 128, o = 2s + 1: one int8 product on tensor cores, ``2 (s . w) + sum_k w``, to the
int32 dots of ``kernels.firstlayer``.
"""

import torch

from kernels.base import check_packed, check_real
from kernels.packing import Packed
from kernels.triton import dot
from kernels.triton.base import check_bits
from kernels.triton.device import DEVICE
from kernels.triton.pack import unpack_rows
from kernels.triton.tensor import empty_bits, whole_steps


def _check_pixels(u: object, k: int) -> torch.Tensor:
    return check_real("pixels", u, torch.uint8, k, DEVICE).contiguous()


class PixelsInt8:
    """Weights ready for products with pixels through int8 tensor cores."""

    def __init__(self, w: Packed) -> None:
        signs = unpack_rows(check_packed("weights", w, DEVICE), torch.int8)
        self.n, self.k, self.signs = w.rows, w.k, whole_steps(signs)
        self.terms = dot.Terms(2, col=signs.sum(1, dtype=torch.int32))

    def product(self, u: torch.Tensor) -> torch.Tensor:
        """Return int32 dots [M, N] of uint8 pixels [M, K]."""
        centred = self._centred(u)
        out = torch.empty(len(centred), self.n, dtype=torch.int32, device=u.device)
        dot.launch(centred, self.signs, out, self.n, self.terms)
        return out

    def product_words(
        self, u: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor
    ) -> torch.Tensor:
        """Return the bits ``(dot >= threshold) ^ flip``, int32 words [M, W], in one pass."""
        check_bits(threshold, flip, self.n)
        centred = self._centred(u)
        words = empty_bits(len(centred), self.n, u.device)
        dot.launch(centred, self.signs, words, self.n, self.terms, threshold, flip)
        return words

    def _centred(self, u: torch.Tensor) -> torch.Tensor:
        return whole_steps((_check_pixels(u, self.k) ^ 128).view(torch.int8))
