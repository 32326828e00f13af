"""Matrix products of the vendor's library through torch, a kernel a precision; exact on ±1."""

from collections.abc import Iterator

import torch

from kernels.base import check_real_pair
from kernels.conv import TAPS, unpack_filters
from kernels.packing import Packed
from kernels.unpacked import Float32Kernel, UnpackedKernel

_BF16_RUN = 512  # a dot of an even number of ±1 is even: bfloat16's 8 bits hold it up to 512
_BF16_ODD_RUN = 256  # an odd one up to 256
_BF16_SUMS = 1 << 21  # float32 sums in the making at once: 8 MiB, a part of the L3 cache


class RealConv3x3:
    """``torch.conv2d`` in ``dtype``, zero padding 1, over runs of channels that its output holds.

    Each run of up to ``run`` channels is a convolution of its own; more than one are summed in
    float32.
    """

    def __init__(self, filters: Packed, dtype: torch.dtype, run: int = 0) -> None:
        self.dtype, self._run = dtype, run or filters.k // TAPS
        parts = torch.split(unpack_filters(filters, dtype), self._run, dim=1)
        self._parts = [part.contiguous(memory_format=torch.channels_last) for part in parts]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the float32 dots [B*H*W, N] of ±1 maps [B, C, H, W] in the dtype."""
        runs = zip(torch.split(x, self._run, dim=1), self._parts, strict=True)
        found = (torch.conv2d(values, part, padding=1) for values, part in runs)
        sums = next(found).float()
        for dots in found:
            sums.add_(dots)
        return sums.permute(0, 2, 3, 1).reshape(-1, sums.shape[1])


class VendorFp32(Float32Kernel):
    """``torch.mm`` in float32: exact while K <= 2^24."""

    name = "vendor-fp32"
    summary = "torch.mm and conv2d in float32 (oneDNN or MKL)"

    def product(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Return float32 dots [M, N]."""
        check_real_pair(a, w, self.dtype, self.device)
        return torch.mm(a, w.T)

    def real_convolution(self, filters: Packed) -> RealConv3x3:
        """Return ``torch.conv2d`` in float32."""
        return RealConv3x3(filters, self.dtype)


def exact_runs(k: int) -> Iterator[tuple[int, int]]:
    """Yield the runs (begin, end) of 0..K whose ±1 dots bfloat16 holds exactly."""
    begin = 0
    while begin < k:
        left = k - begin
        if left >= _BF16_RUN:
            end = begin + _BF16_RUN
        elif left % 2 == 0 or left <= _BF16_ODD_RUN:
            end = k
        else:
            end = begin + _BF16_ODD_RUN
        yield begin, end
        begin = end


class VendorBf16(UnpackedKernel):
    """``torch.mm`` in bfloat16 over runs of K that its 8-bit output holds, summed in float32.

    On the CPU torch gives no float32 output to a bfloat16 product. One product over all K is wrong
    as soon as a dot passes 512 (256, for an odd K), and 1.1 to 1.2 times as fast at 1024^3 to
    4096^3 on a Zen 4: the sums of some rows at a time stay in the cache.
    """

    name = "vendor-bf16"
    summary = "torch.mm in bfloat16, exact: runs of K <= 512 summed in float32"
    dtype = torch.bfloat16

    def product(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Return float32 dots [M, N]."""
        check_real_pair(a, w, self.dtype, self.device)
        out = (torch.empty if a.shape[1] else torch.zeros)(a.shape[0], w.shape[0])
        rows = max(_BF16_SUMS // max(w.shape[0], 1), 1)
        for first in range(0, a.shape[0], rows):
            some, sums = a[first : first + rows], out[first : first + rows]
            for begin, end in exact_runs(int(a.shape[1])):
                part = torch.mm(some[:, begin:end], w[:, begin:end].T)
                sums.copy_(part) if begin == 0 else sums.add_(part)
        return out

    def real_convolution(self, filters: Packed) -> RealConv3x3:
        """Return ``torch.conv2d`` in bfloat16 over runs of channels, 9 values each, exact."""
        even = filters.k // TAPS % 2 == 0
        return RealConv3x3(filters, self.dtype, (_BF16_RUN if even else _BF16_ODD_RUN) // TAPS)


def int8_product(a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Return ``a @ w.T`` in int32, exact for any int8 [M, K] and [N, K]."""
    if (
        a.shape[1] == 1
    ):  # torch 2.13 takes the strides of a [1, N] operand wrong and reads beyond it
        return a.to(torch.int32) * w.to(torch.int32).T
    return torch._int_mm(a, w.T)


class VendorInt8(UnpackedKernel):
    """``torch._int_mm``: int8 operands, int32 dots."""

    name = "vendor-int8"
    summary = "torch._int_mm, int8 to int32"
    dtype = torch.int8

    def why_not(
        self, m: int | None = None, n: int | None = None, k: int | None = None
    ) -> str | None:
        """Return a reason where torch has no ``_int_mm``."""
        if not hasattr(torch, "_int_mm"):
            return f"torch {torch.__version__} has no torch._int_mm"
        return None

    def product(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Return int32 dots [M, N]."""
        check_real_pair(a, w, self.dtype, self.device)
        return int8_product(a, w)
