"""THE bit convention of packed ±1 matrices.

Bit 1 stands for +1, which is ``x >= 0``: -0.0 packs to 1, NaN to 0. A row of K values fills 64-bit
words from their lowest bit (column j is bit ``j % 64`` of word ``j // 64``), held as torch.int64,
for torch's unsigned words lack shifts. Pad bits are 0 in **both** operands, so that

    dot(a, b) = K - 2 * popcount(a ^ b)

holds with the true K, wherever the pads are.
"""

from dataclasses import dataclass

import numpy as np
import torch

WORD_BITS = 64
_DEVICES = ("cpu", "cuda")
_REALS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)


def words_for(k: int) -> int:
    """Return the number of 64-bit words that hold ``k`` bits: ``ceil(k / 64)``."""
    return -(-k // WORD_BITS)


@dataclass(frozen=True)
class Packed:
    """Rows of ±1 values as bits.

    Attributes:
        words: int64 [rows, segments * words_for(k / segments)], contiguous.
        k: the true number of ±1 values a row.
        segments: a row is this many runs of ``k / segments`` values, each padded to whole words (a
            3x3 convolution has one run a tap: 9).

    Raises:
        TypeError: ``words`` is no int64 tensor.
        ValueError: its shape does not fit ``k`` and ``segments``, or it is not contiguous.
    """

    words: torch.Tensor
    k: int
    segments: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.words, torch.Tensor) or self.words.dtype != torch.int64:
            found = getattr(self.words, "dtype", type(self.words).__name__)
            raise TypeError(f"packed words must be a torch.int64 tensor, got {found}")
        if self.k < 1 or self.segments < 1 or self.k % self.segments:
            raise ValueError(
                "k must be a positive multiple of segments, "
                f"got k={self.k}, segments={self.segments}"
            )
        width = self.segments * words_for(self.k // self.segments)
        if self.words.ndim != 2 or self.words.shape[1] != width:
            raise ValueError(
                f"packed words for k={self.k}, segments={self.segments} must have shape "
                f"[rows, {width}], got {list(self.words.shape)}"
            )
        if not self.words.is_contiguous():
            raise ValueError("packed words must be contiguous; call .contiguous()")

    def to(self, device: str | torch.device) -> "Packed":
        """Return the same rows on ``device``."""
        return Packed(self.words.to(device), self.k, self.segments)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.words.shape[0])


def _matrix(name: str, x: torch.Tensor, allowed: tuple[torch.dtype, ...]) -> torch.Tensor:
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(x).__name__}")
    if x.dtype not in allowed:
        names = ", ".join(str(dtype) for dtype in allowed)
        raise TypeError(f"{name} has dtype {x.dtype}; allowed: {names}")
    if x.ndim != 2 or x.shape[1] < 1:
        raise ValueError(f"{name} must have shape [rows, K] with K >= 1, got {list(x.shape)}")
    if x.device.type not in _DEVICES:
        raise ValueError(f"{name} is on device {x.device}; packing runs on: {', '.join(_DEVICES)}")
    return x.detach()


def pack_rows(x: torch.Tensor) -> Packed:
    """Pack real, signed integer or bool rows [rows, K]: bit = (x >= 0), for bool the value itself.

    Raises:
        TypeError: another dtype (uint8 has no sign, so all of it would be +1).
        ValueError: not a matrix with K >= 1, or on another device than the CPU or a GPU.
    """
    x = _matrix("x", x, (*_REALS, *_INTEGERS, torch.bool))
    if x.is_cuda:
        from kernels.triton import pack as gpu

        return gpu.pack_rows(x)
    from kernels.cpu import pack

    x = x.contiguous()
    words = torch.empty(x.shape[0], words_for(x.shape[1]), dtype=torch.int64)
    if x.dtype == torch.float32:
        pack.reals(x.numpy(), words.numpy())
    else:
        bits = x if x.dtype == torch.bool else x >= 0
        pack.bools(bits.view(torch.uint8).numpy(), words.numpy())
    return Packed(words, int(x.shape[1]))


def check_threshold(
    threshold: torch.Tensor, flip: torch.Tensor, n: int, device: torch.device
) -> None:
    """Check a threshold int32 [n] and a flip bool [n] on ``device``.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device.
    """
    for name, given, dtype in (("threshold", threshold, torch.int32), ("flip", flip, torch.bool)):
        if given.dtype != dtype:
            raise TypeError(f"{name} has dtype {given.dtype}; allowed: {dtype}")
        if tuple(given.shape) != (n,) or given.device != device:
            raise ValueError(
                f"{name} must have shape [{n}] on {device}, "
                f"got {list(given.shape)} on {given.device}"
            )


def pack_bounds(
    threshold: torch.Tensor, flip: torch.Tensor, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what makes pad bits 0: thresholds padded past every dot, and flips as packed words.

    For the CPU's kernels, which take arrays: views of tensors would take as long as the rest.

    Returns:
        int32 [ceil(n/64) * 64], and int64 [ceil(n/64)].

    Raises:
        TypeError, ValueError: as ``check_threshold``.
    """
    check_threshold(threshold, flip, n, torch.device("cpu"))
    from kernels.cpu import pack

    bounds = np.empty(words_for(n) * WORD_BITS, dtype=np.int32)
    flips = np.empty(words_for(n), dtype=np.int64)
    pack.bounds(threshold.contiguous().numpy(), flip.contiguous().numpy(), bounds, flips)
    return bounds, flips


def pack_threshold(dots: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor) -> Packed:
    """Pack ``bit[m, n] = (dots[m, n] >= threshold[n]) ^ flip[n]`` in one pass.

    Args:
        dots: int32, or float32 holding exact integers, [M, N].
        threshold: int32 [N].
        flip: bool [N].

    Raises:
        TypeError, ValueError: a wrong dtype, shape or device.
    """
    dots = _matrix("dots", dots, (torch.int32, torch.float32))
    n = int(dots.shape[1])
    check_threshold(threshold, flip, n, dots.device)
    if dots.is_cuda:
        from kernels.triton import pack as gpu

        return gpu.pack_threshold(dots, threshold, flip)
    from kernels.cpu import pack

    dots = dots.contiguous()
    words = torch.empty(dots.shape[0], words_for(n), dtype=torch.int64)
    flips = pack_rows(flip.reshape(1, n)).words[0]
    integers = dots if dots.dtype == torch.int32 else dots.to(torch.int32)
    pack.thresholds(integers.numpy(), threshold.contiguous().numpy(), flips.numpy(), words.numpy())
    return Packed(words, n)


def unpack_rows(p: Packed, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the ±1 values [rows, k] of packed rows in ``dtype``; pads are left out."""
    if p.words.is_cuda:
        from kernels.triton import pack as gpu

        return gpu.unpack_rows(p, dtype)
    return unpack_by_torch(p, dtype)


def unpack_by_torch(p: Packed, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return what ``unpack_rows`` does on any device by torch's own operations: a reference."""
    run = p.k // p.segments
    padded = p.words.shape[1] // p.segments * WORD_BITS
    octets = p.words.view(torch.uint8)
    shifts = torch.arange(8, dtype=torch.uint8, device=octets.device)
    bits = (octets.unsqueeze(-1) >> shifts) & 1
    bits = bits.reshape(p.rows, p.segments, padded)[:, :, :run].reshape(p.rows, p.k)
    return bits.to(dtype).mul_(2).sub_(1)
