"""The first layer on 8-bit pixels: products with the odd integers 2u - 255, zero padding exact."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from harness.deploy.fold import MAX_PIXEL
from kernels.conv import TAPS, border_correction
from kernels.firstlayer import PixelsBitplanes, PixelsInt8, convolves_pixels, pixels_by_tables
from kernels.packing import Packed, unpack_rows

if TYPE_CHECKING:
    from kernels.cpu.pixels_conv import PixelConv3x3

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


def _direct(weights: Packed, way: str, height: int, width: int) -> "PixelConv3x3 | None":
    """Return the convolution straight from the image, where there is one."""
    if way != "int8" or not convolves_pixels():
        return None
    from kernels.cpu.pixels_conv import PixelConv3x3

    return PixelConv3x3(weights, height, width)


def bits_on_pixels(
    weights: Packed, way: str, size: tuple[int, int] | None
) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """Return (u, threshold, flip) to the layer's bits, with no dots in memory; None: by dots.

    ``size`` is that of a convolution's maps, whose bits are int64 [n, h, w, W]; None for a linear
    layer, [n, W].
    """
    if size is not None:
        direct = _direct(weights, way, *size)
        return None if direct is None else direct.bits
    if way != "int8" or not pixels_by_tables():
        return None
    prepared = PixelsInt8(weights)
    return lambda u, threshold, flip: prepared.product_bits(u.flatten(1), threshold, flip).words


def conv_on_pixels(
    weights: Packed, way: str, height: int, width: int
) -> Callable[[Tensor], Tensor]:
    """Return the map of uint8 [n, c, h, w] to int32 [n*h*w, N], the zero-padded convolution.

    A pixel of 0 stands for -255 where the convolution has 0: each tap beyond the border adds back
    255 times the sum of its weights.
    """
    if (direct := _direct(weights, way, height, width)) is not None:
        return direct
    prepared = PIXEL_PRODUCTS[way](weights)
    sums = unpack_rows(weights).view(weights.rows, -1, TAPS).sum(1).int()
    correction = MAX_PIXEL * border_correction(sums, height, width)

    def product(pixels: Tensor) -> Tensor:
        dots = prepared.product(pixel_patches(pixels))
        dots.view(len(pixels), height * width, -1).add_(correction)
        return dots

    return product
