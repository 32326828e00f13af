"""Kernels whose operands are plain ±1 matrices in a dtype: nothing is packed."""

from collections.abc import Callable
from typing import ClassVar

import torch

from kernels.base import Kernel, check_packed, signs_from_dots
from kernels.packing import Packed, pack_rows, unpack_rows


class UnpackedKernel(Kernel):
    """A kernel on ±1 matrices [rows, K] in ``dtype``; a subclass multiplies them."""

    dtype: ClassVar[torch.dtype]

    def weights(self, p: Packed) -> torch.Tensor:
        """Return ±1 [N, K] in the kernel's dtype."""
        return unpack_rows(check_packed("weights", p, self.place), self.dtype)

    def activations(self, p: Packed) -> torch.Tensor:
        """Return ±1 [M, K] in the kernel's dtype."""
        return unpack_rows(check_packed("activations", p, self.place), self.dtype)

    def activations_from_real(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` in the kernel's dtype, ``x`` itself where it has that."""
        return x.to(self.dtype)

    def activations_from_dots(
        self, dots: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor
    ) -> torch.Tensor:
        """Return ±1 [M, N] in the kernel's dtype: nothing is packed."""
        return signs_from_dots(dots, threshold, flip, self.dtype)

    def packed_rows(self, hidden: torch.Tensor) -> Packed:
        """Return the ±1 values as bits."""
        return pack_rows(hidden)


class Float32Kernel(UnpackedKernel):
    """A kernel on float32, first layer included: exact while K <= 2^24 (pixels: K <= 2^16)."""

    dtype = torch.float32
    takes_reals = True
    first_layer = "float32"

    def on_pixels(self, w: Packed) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a product with 2u - 255 in float32, on this kernel as in the paper."""
        weights = self.weights(w)
        return lambda u: self.product(u.to(torch.float32).mul_(2).sub_(255), weights)
