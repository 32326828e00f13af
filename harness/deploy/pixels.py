"""The first layer on 8-bit pixels: products with the odd integers 2u - 255, zero padding exact."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from harness.deploy.fold import MAX_PIXEL
from kernels.conv import TAPS, border_correction
from kernels.firstlayer import PixelsBitplanes, PixelsInt8
from kernels.packing import Packed, unpack_rows

PIXEL_PRODUCTS: dict[str, Callable[[Packed], PixelsInt8 | PixelsBitplanes]] = {
    "int8": PixelsInt8,
    "bitplanes": PixelsBitplanes,
}


def pixel_patches(pixels: Tensor) -> Tensor:
    """Return the 3x3 patches of uint8 [n, c, h, w], [n*h*w, c*9] as filters [c, 3, 3] lie.

    Beyond the border a patch holds 0.
    """
    n, c, h, w = pixels.shape
    windows = F.pad(pixels, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
    return windows.permute(0, 2, 3, 1, 4, 5).reshape(n * h * w, c * TAPS)


def linear_on_pixels(weights: Packed, way: str) -> Callable[[Tensor], Tensor]:
    """Return the map of uint8 [n, c, h, w] to int32 [n, N], the dots of all pixels."""
    prepared = PIXEL_PRODUCTS[way](weights)
    return lambda pixels: prepared.product(pixels.flatten(1))


def conv_on_pixels(
    weights: Packed, way: str, height: int, width: int
) -> Callable[[Tensor], Tensor]:
    """Return the map of uint8 [n, c, h, w] to int32 [n*h*w, N], the zero-padded convolution.

    A pixel of 0 stands for -255 where the convolution has 0: each tap beyond the border adds back
    255 times the sum of its weights.
    """
    prepared = PIXEL_PRODUCTS[way](weights)
    sums = unpack_rows(weights).view(weights.rows, -1, TAPS).sum(1).int()
    correction = MAX_PIXEL * border_correction(sums, height, width)

    def product(pixels: Tensor) -> Tensor:
        dots = prepared.product(pixel_patches(pixels))
        dots.view(len(pixels), height * width, -1).add_(correction)
        return dots

    return product
