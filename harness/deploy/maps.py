"""Packed feature maps: patches of 3x3 convolutions, their border, and 2x2 max-pooling on bits.

A map is int64 words [n, h, w, ceil(C/64)], channels fastest, or uint8 pixels [n, c, h, w].
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def word_patches(words: Tensor) -> Tensor:
    """Return the 3x3 patches of a packed map, [n*h*w, 9*W] tap by tap; zero words outside."""
    n, h, w, width = words.shape
    padded = F.pad(words, (0, 0, 1, 1, 1, 1))
    taps = [padded[:, y : y + h, x : x + w] for y in range(3) for x in range(3)]
    return torch.stack(taps, 3).reshape(n * h * w, 9 * width)


def pixel_patches(pixels: Tensor) -> Tensor:
    """Return the 3x3 patches of uint8 pixels, [n*h*w, c*9] as weights [c, 3, 3] lie; 0 outside."""
    n, c, h, w = pixels.shape
    windows = F.pad(pixels, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
    return windows.permute(0, 2, 3, 1, 4, 5).reshape(n * h * w, c * 9)


def border_correction(tap_sums: Tensor, height: int, width: int, outside: int) -> Tensor:
    """Return what to add to the products of zero-padded patches, int32 [h*w, N].

    A patch holds ``-outside`` where the convolution has 0: bit 0 is -1, pixel 0 is -255. So each
    tap outside the map adds back ``outside`` times the sum of its weights, ``tap_sums`` [N, 9].
    """
    inside = F.pad(torch.ones(1, height, width, dtype=torch.int32), (1, 1, 1, 1))
    beyond = 1 - inside.unfold(1, 3, 1).unfold(2, 3, 1).reshape(height * width, 9)
    return outside * (beyond @ tap_sums.to(torch.int32).T)


def pool_bits(words: Tensor, falling: Tensor) -> Tensor:
    """Return the 2x2 max-pooling of a packed map whose bits are thresholds of the dots.

    A bit that rises with its dot is 1 where any of the four is: OR. One that falls (``falling``,
    packed [W]) is 1 only where all four are: AND. A border that does not fill a 2x2 is dropped.
    """
    n, h, w, width = words.shape
    four = words[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, width)
    a, b, c, d = four[:, :, 0, :, 0], four[:, :, 0, :, 1], four[:, :, 1, :, 0], four[:, :, 1, :, 1]
    any_set, all_set = a | b | c | d, a & b & c & d
    return (any_set & ~falling) | (all_set & falling)
