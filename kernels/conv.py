"""3x3 convolutions of ±1 maps, stride 1, zero padding 1, by any kernel of the registry.

A packed map is int64 words [B, H, W, ceil(C/64)], channels fastest. Its 3x3 patches are rows of
nine taps, each in whole words, and meet the weights in one matrix product. Outside the map a patch
holds bit 0, which is -1 where the convolution has 0: each tap outside adds back the sum of its
weights (the border correction), so that the result is the zero-padded convolution, exactly.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional

from kernels.base import Kernel
from kernels.packing import Packed, pack_rows, unpack_rows, words_for

TAPS = 9
CLASSES = 16  # bit 0: the first row, 1: the last row, 2: the first column, 3: the last column


def pack_map(x: torch.Tensor) -> torch.Tensor:
    """Return the packed map, int64 [B, H, W, ceil(C/64)], of real x [B, C, H, W].

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device.
    """
    if x.ndim != 4:
        raise ValueError(f"a map must have shape [B, C, H, W], got {list(x.shape)}")
    b, c, h, w = x.shape
    if x.dtype == torch.float32 and x.device.type == "cpu" and x.is_contiguous() and x.numel():
        from kernels.cpu import pack

        words = torch.empty(b * h * w, words_for(c), dtype=torch.int64)
        pack.maps(x.detach().numpy().reshape(b, c, h * w), words.numpy())
        return words.view(b, h, w, -1)
    return pack_rows(x.permute(0, 2, 3, 1).reshape(-1, c)).words.view(b, h, w, words_for(c))


def pack_filters(weight: torch.Tensor) -> Packed:
    """Return real filters [N, C, 3, 3] as N packed rows of nine segments, tap by tap.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device.
    """
    if weight.ndim != 4 or tuple(weight.shape[2:]) != (3, 3):
        raise ValueError(f"filters must have shape [N, C, 3, 3], got {list(weight.shape)}")
    n, c = int(weight.shape[0]), int(weight.shape[1])
    runs = pack_rows(weight.permute(0, 2, 3, 1).reshape(n * TAPS, c)).words
    return Packed(runs.view(n, TAPS * words_for(c)), TAPS * c, TAPS)


def patches(words: torch.Tensor, channels: int) -> Packed:
    """Return the 3x3 patches of a packed map [B, H, W, ceil(C/64)]: B*H*W packed rows, k = 9*C.

    Raises:
        TypeError: ``words`` is no int64 tensor.
        ValueError: its shape does not fit ``channels``.
    """
    b, h, w = check_map(words, channels)
    width = words_for(channels)
    padded = functional.pad(words, (0, 0, 1, 1, 1, 1))
    taps = [padded[:, y : y + h, x : x + w] for y in range(3) for x in range(3)]
    return Packed(torch.stack(taps, 3).reshape(b * h * w, TAPS * width), TAPS * channels, TAPS)


def check_map(words: torch.Tensor, channels: int) -> tuple[int, int, int]:
    """Return B, H and W of a packed map [B, H, W, ceil(C/64)]; raises as ``patches``."""
    if not isinstance(words, torch.Tensor) or words.dtype != torch.int64:
        found = getattr(words, "dtype", type(words).__name__)
        raise TypeError(f"a packed map must be a torch.int64 tensor, got {found}")
    width = words_for(channels)
    if words.ndim != 4 or words.shape[3] != width:
        raise ValueError(
            f"a packed map of {channels} channels must have shape [B, H, W, {width}], "
            f"got {list(words.shape)}"
        )
    return int(words.shape[0]), int(words.shape[1]), int(words.shape[2])


def unpack_map(
    words: torch.Tensor, channels: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return the ±1 values [B, C, H, W] of a packed map, channels last in memory.

    Raises:
        TypeError, ValueError: as ``patches``.
    """
    b, h, w = check_map(words, channels)
    rows = Packed(words.reshape(b * h * w, words.shape[3]).contiguous(), channels)
    return unpack_rows(rows, dtype).view(b, h, w, channels).permute(0, 3, 1, 2)


def unpack_filters(filters: Packed, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the ±1 values [N, C, 3, 3] of packed filters, channels last in memory."""
    values = unpack_rows(filters, dtype)
    return values.view(filters.rows, 3, 3, filters.k // TAPS).permute(0, 3, 1, 2)


def real_patches(words: torch.Tensor, channels: int) -> torch.Tensor:
    """Return the 3x3 patches of a packed map as ±1 float32 [B*H*W, 9*C], -1 outside the map.

    The map is unpacked once and its values repeated tap by tap: unpacking packed patches would
    spell out the pad bits of every tap, 56 of 64 for a map of 8 channels.

    Raises:
        TypeError, ValueError: as ``patches``.
    """
    b, h, w = check_map(words, channels)
    values = unpack_map(words, channels).permute(0, 2, 3, 1)
    padded = functional.pad(values, (0, 0, 1, 1, 1, 1), value=-1.0)
    taps = [padded[:, y : y + h, x : x + w] for y in range(3) for x in range(3)]
    return torch.stack(taps, 3).view(b * h * w, TAPS * channels)


def tap_sums(filters: Packed) -> torch.Tensor:
    """Return the sum of each filter's weights tap by tap, int32 [N, 9]."""
    channels = filters.k // TAPS
    if filters.words.device.type == "cpu":
        ones = np.bitwise_count(filters.words.numpy().view(np.uint64)).reshape(
            filters.rows, TAPS, -1
        )
        return torch.from_numpy(2 * ones.sum(2, dtype=np.int32) - channels)
    signs = unpack_rows(filters, torch.int8).view(filters.rows, TAPS, channels)
    return signs.sum(2, dtype=torch.int32)


def border_correction(sums: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return what to add to the dots of the patches, int32 [H*W, N]: zero away from the border.

    ``sums`` are the tap sums int32 [N, 9]; element (p, n) is the sum of those whose tap lies
    outside the map at position p.
    """
    inside = functional.pad(torch.ones(1, height, width, dtype=torch.int32), (1, 1, 1, 1))
    outside = 1 - inside.unfold(1, 3, 1).unfold(2, 3, 1).reshape(height * width, TAPS)
    return outside @ sums.T


def border_positions(height: int, width: int) -> torch.Tensor:
    """Return the positions of a map that have a tap outside it, int64, in order."""
    first_or_last = ((0, height - 1), (0, width - 1))
    places = ((y, x) for y in range(height) for x in range(width))
    found = [y * width + x for y, x in places if y in first_or_last[0] or x in first_or_last[1]]
    return torch.tensor(found, dtype=torch.int64)


def _outside(touched: int) -> list[bool]:
    """Return which taps lie outside the map, by the borders that are touched: bits 0 to 3."""
    taps = ((tap // 3, tap % 3) for tap in range(TAPS))
    beyond = [(y == 0, y == 2, x == 0, x == 2) for y, x in taps]
    return [any(sides[b] and touched >> b & 1 for b in range(4)) for sides in beyond]


def border_classes(sums: torch.Tensor) -> torch.Tensor:
    """Return the same by which borders a position touches, int32 [16, N], of tap sums [N, 9]."""
    outside = torch.tensor([[_outside(touched)] for touched in range(CLASSES)], device=sums.device)
    return torch.where(outside, sums, 0).sum(2, dtype=torch.int32)


class Conv3x3:
    """Filters made ready for one kernel and one size of map."""

    def __init__(self, kernel: Kernel, filters: Packed, height: int, width: int) -> None:
        """Prepare packed ``filters`` (``pack_filters``) for maps of ``height`` x ``width``."""
        if filters.segments != TAPS:
            raise ValueError(f"filters must have {TAPS} segments, got {filters.segments}")
        self.kernel, self.size, self.channels = kernel, (height, width), filters.k // TAPS
        self._direct = kernel.convolution(filters, height, width)
        self._real = None if self._direct is not None else kernel.real_convolution(filters)
        if self._direct is not None or self._real is not None:
            return
        self._weights: Any = kernel.weights(filters)
        # On the CPU: CUDA has no product of integer matrices.
        correction = border_correction(tap_sums(filters).cpu(), height, width)
        border, device = border_positions(height, width), filters.words.device
        self._border, self._correction = border.to(device), correction[border].to(device)

    def __call__(self, words: torch.Tensor) -> torch.Tensor:
        """Return the int32 dots [B*H*W, N] of a packed map [B, H, W, ceil(C/64)].

        Raises:
            TypeError, ValueError: a map of another dtype or size.
        """
        return self.dots(self.operand(words)).to(torch.int32)

    def operand(self, words: torch.Tensor) -> torch.Tensor:
        """Return a packed map in the form that :meth:`dots` takes: real for a library's own.

        Raises:
            TypeError, ValueError: a map of another dtype or size.
        """
        if tuple(words.shape[1:3]) != self.size:
            raise ValueError(
                f"the map must be {self.size} high and wide, got {tuple(words.shape[1:3])}"
            )
        if self._real is None:
            return words
        return unpack_map(words, self.channels, self._real.dtype)

    def dots(self, operand: torch.Tensor) -> torch.Tensor:
        """Return the dots [B*H*W, N] of :meth:`operand`'s map: int32, or exact float32."""
        if self._direct is not None:
            return self._direct(operand)
        if self._real is not None:
            return self._real(operand)
        return self._by_patches(operand)

    def _by_patches(self, words: torch.Tensor) -> torch.Tensor:
        rows: Any
        if self.kernel.packed:
            rows = self.kernel.activations(patches(words, self.channels))
        else:
            rows = self.kernel.activations_from_real(real_patches(words, self.channels))
        dots = self.kernel.product(rows, self._weights).to(torch.int32)
        height, width = self.size
        dots.view(len(words), height * width, dots.shape[1])[:, self._border] += self._correction
        return dots


def pool_bits(words: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    """Return the 2x2 max-pool of a packed map whose bits are ``(dot >= threshold) ^ flip``.

    Pooling the dots first would give OR of the four bits where flip is 0 and AND where it is 1.

    Args:
        words: int64 [B, H, W, W'], H and W of any size; a last odd row or column is left out.
        flips: the channels' flips as packed words, int64 [W'].
    """
    b, h, w, width = words.shape
    four = words[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, width)
    upper, lower = four[:, :, 0], four[:, :, 1]
    left, right = upper[:, :, :, 0], upper[:, :, :, 1]
    left_below, right_below = lower[:, :, :, 0], lower[:, :, :, 1]
    rising = left | right | left_below | right_below
    falling = left & right & left_below & right_below
    return (rising & ~flips) | (falling & flips)
