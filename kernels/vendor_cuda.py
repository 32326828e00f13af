"""Matrix products of NVIDIA's library through torch, a kernel a precision; exact on ±1.

Sums of ±1 are integers, so a product is exact where its accumulator holds K: float32 ones to 2^24,
int32 ones always. fp8 alone may not be: the tensor cores keep fewer bits of a running sum, which
the gate of a bench finds out in each case.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
import torch.nn.functional as functional

from kernels.base import Kernel, check_packed, signs_from_dots, why_no_triton
from kernels.packing import Packed, unpack_rows
from kernels.precision import float32_precision
from kernels.vendor import RealConv3x3

_FP8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Values:
    """A matrix in a library's dtype, padded with zeros as it asks; zeros add nothing to a dot.

    Attributes:
        padded: [rows or more, K or more].
        rows: the true number of rows.
        k: the true number of values a row.
    """

    padded: torch.Tensor
    rows: int
    k: int


class Float32Conv3x3(RealConv3x3):
    """``torch.conv2d`` in float32 by cuDNN, as ``ieee`` or ``tf32``, rounded to integers.

    cuDNN may choose an algorithm that transforms its operands (Winograd): off by far less than 1/2.
    """

    def __init__(self, filters: Packed, precision: str) -> None:
        super().__init__(filters, torch.float32)
        self._precision = precision

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the float32 dots [B*H*W, N] of ±1 maps [B, C, H, W], float32."""
        with float32_precision(self._precision):
            return super().__call__(x).round_()


class VendorCuda(Kernel):
    """What the precisions share; a subclass multiplies padded operands."""

    device = "cuda"
    dtype: ClassVar[torch.dtype]
    step: ClassVar[int] = 1  # K and N are padded to a multiple of it
    least_rows: ClassVar[int] = 0
    needs: ClassVar[tuple[int, int]] = (0, 0)  # compute capability

    def why_not(
        self, m: int | None = None, n: int | None = None, k: int | None = None
    ) -> str | None:
        """Return a reason where there is no GPU, one too old, or no triton to unpack bits."""
        if not torch.cuda.is_available():
            return "torch finds no CUDA device"
        found = torch.cuda.get_device_capability()
        if found < self.needs:
            return (
                f"{self.dtype} products need compute capability {self.needs[0]}.{self.needs[1]} "
                f"or higher, this GPU has {found[0]}.{found[1]}"
            )
        return why_no_triton()

    def weights(self, p: Packed) -> Values:
        """Return ±1 [N, K] in the kernel's dtype."""
        signs = unpack_rows(check_packed("weights", p, self.device))
        return self._padded(signs, -(-p.rows // self.step) * self.step)

    def activations(self, p: Packed) -> Values:
        """Return ±1 [M, K] in the kernel's dtype."""
        return self._values(unpack_rows(check_packed("activations", p, self.device)))

    def activations_from_real(self, x: torch.Tensor) -> Values:
        """Return ``x`` in the kernel's dtype."""
        return self._values(x)

    def activations_from_dots(
        self, dots: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor
    ) -> Values:
        """Return ±1 [M, N] in the kernel's dtype: nothing is packed."""
        small = torch.int8 if self.dtype == _FP8 else self.dtype
        return self._values(signs_from_dots(dots, threshold, flip, small))

    def on_pixels(self, w: Packed) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the product with pixels by the library's int8."""
        integers = VendorInt8()
        weights = integers.weights(w)
        sums = weights.padded[: w.rows].sum(1, dtype=torch.int32)

        def product(u: torch.Tensor) -> torch.Tensor:
            centred = integers._values((u ^ 128).view(torch.int8))
            return integers.product(centred, weights).mul(2).add_(sums)

        return product

    def product(self, a: Values, w: Values) -> torch.Tensor:
        """Return dots [M, N]: int32, or float32.

        Raises:
            TypeError: an operand that this kernel did not make.
            ValueError: operands of different K.
        """
        for name, given in (("activations", a), ("weights", w)):
            if not isinstance(given, Values) or given.padded.dtype != self.dtype:
                raise TypeError(f"{name} must be what {self.name}'s {name}() returns, got {given}")
        if a.k != w.k:
            raise ValueError(f"activations have K={a.k}, the weights K={w.k}")
        if a.rows == 0:
            kind = torch.int32 if self.dtype == torch.int8 else torch.float32
            return torch.empty(0, w.rows, dtype=kind, device=a.padded.device)
        return self._multiply(a.padded, w.padded)[: a.rows, : w.rows]

    def _values(self, x: torch.Tensor) -> Values:
        return self._padded(x, max(int(x.shape[0]), self.least_rows))

    def _padded(self, x: torch.Tensor, wanted: int) -> Values:
        rows, k = (int(size) for size in x.shape)
        beyond = (0, -(-k // self.step) * self.step - k, 0, wanted - rows)
        x = functional.pad(x, beyond) if any(beyond) else x
        return Values(x.to(self.dtype), rows, k)

    def _multiply(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Return ``a @ w.T`` of padded operands."""
        raise NotImplementedError


class VendorFp32(VendorCuda):
    """``torch.mm`` in float32, TF32 off: the paper's cuBLAS."""

    name = "vendor-fp32"
    summary = "torch.mm in float32 (cuBLAS), TF32 off"
    dtype = torch.float32
    takes_reals = True

    def _multiply(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        with float32_precision("ieee"):
            return torch.mm(a, w.T)

    def real_convolution(self, filters: Packed) -> Float32Conv3x3:
        """Return ``torch.conv2d`` in float32, TF32 off."""
        return Float32Conv3x3(filters, "ieee")


class VendorTf32(VendorCuda):
    """``torch.mm`` in float32 through TF32 tensor cores; ±1 is exact in TF32."""

    name = "vendor-tf32"
    summary = "torch.mm in float32 (cuBLAS), TF32 tensor cores"
    dtype = torch.float32
    takes_reals = True
    needs = (8, 0)

    def _multiply(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        with float32_precision("tf32"):
            return torch.mm(a, w.T)

    def real_convolution(self, filters: Packed) -> Float32Conv3x3:
        """Return ``torch.conv2d`` in float32 through TF32 tensor cores."""
        return Float32Conv3x3(filters, "tf32")


class VendorFp16(VendorCuda):
    """``torch.mm`` of float16 with float32 sums and output."""

    name = "vendor-fp16"
    summary = "torch.mm of float16 to float32 (cuBLAS)"
    dtype = torch.float16
    needs = (7, 0)

    def _multiply(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.mm(a, w.T, out_dtype=torch.float32)


class VendorBf16(VendorCuda):
    """``torch.mm`` of bfloat16 with float32 sums and output."""

    name = "vendor-bf16"
    summary = "torch.mm of bfloat16 to float32 (cuBLAS)"
    dtype = torch.bfloat16
    needs = (8, 0)

    def _multiply(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.mm(a, w.T, out_dtype=torch.float32)


class VendorInt8(VendorCuda):
    """``torch._int_mm``: more than 16 rows, K and N multiples of 8, or padded to that."""

    name = "vendor-int8"
    summary = "torch._int_mm, int8 to int32 (cuBLASLt)"
    dtype = torch.int8
    step = 8
    least_rows = 17
    needs = (7, 5)

    def _multiply(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch._int_mm(a, w.T)


@cache
def one(device: torch.device) -> torch.Tensor:
    """Return the scale 1, made once: filled in each call it would cost a launch beside it."""
    return torch.ones((), dtype=torch.float32, device=device)


class VendorFp8(VendorCuda):
    """``torch._scaled_mm`` of float8 e4m3, without fast accumulation; K and N in steps of 16."""

    name = "vendor-fp8"
    summary = "torch._scaled_mm, float8 e4m3 to float32 (cuBLASLt)"
    dtype = _FP8
    step = 16
    needs = (8, 9)
    fast: ClassVar[bool] = False

    def _multiply(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        scale, kind = one(a.device), torch.float32
        return torch._scaled_mm(a, w.T, scale, scale, out_dtype=kind, use_fast_accum=self.fast)


class VendorFp8Fast(VendorFp8):
    """The same with fast accumulation, the library's fastest: sums stay in the tensor cores.

    They keep 14 bits or so, enough for dots of random ±1: exact as far as the gate finds it so.
    """

    name = "vendor-fp8-fast"
    summary = "torch._scaled_mm, float8 e4m3, fast accumulation (cuBLASLt)"
    fast = True


def vendor_kernels() -> list[Kernel]:
    """Return an instance of each."""
    exact = [VendorFp32(), VendorTf32(), VendorFp16(), VendorBf16(), VendorInt8()]
    return [*exact, VendorFp8(), VendorFp8Fast()]
