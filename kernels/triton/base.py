"""What the Triton kernels share: where they run, and checks of their operands."""

from collections.abc import Callable

import torch

from kernels.base import Kernel
from kernels.packing import Packed
from kernels.triton.device import DEVICE, why_no_gpu


class TritonKernel(Kernel):
    """A kernel on a CUDA device (``DEVICE``: the CPU under the interpreter)."""

    device = "cuda"
    fused = True

    @property
    def place(self) -> str:
        """Return ``DEVICE``."""
        return DEVICE

    def why_not(
        self, m: int | None = None, n: int | None = None, k: int | None = None
    ) -> str | None:
        """Return a reason where there is no GPU."""
        return why_no_gpu()

    def on_pixels(self, w: Packed) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the product with pixels by int8 values on tensor cores."""
        from kernels.triton.pixels import PixelsInt8

        return PixelsInt8(w).product


def check_bits(threshold: object, flip: object, n: int) -> None:
    """Check the threshold int32 [n] and the flip bool [n] of a hidden layer.

    Raises:
        TypeError: no tensor, or another dtype.
        ValueError: another shape or device.
    """
    check_vector("threshold", threshold, torch.int32, n)
    check_vector("flip", flip, torch.bool, n)


def check_vector(name: str, given: object, dtype: torch.dtype, n: int) -> None:
    """Check that ``given`` is a tensor of ``dtype`` [n] on ``DEVICE``.

    Raises:
        TypeError: no tensor, or another dtype.
        ValueError: another shape or device.
    """
    if not isinstance(given, torch.Tensor) or given.dtype != dtype:
        found = getattr(given, "dtype", type(given).__name__)
        raise TypeError(f"{name} must be a {dtype} tensor, got {found}")
    if tuple(given.shape) != (n,) or given.device.type != DEVICE:
        raise ValueError(
            f"{name} must have shape [{n}] on {DEVICE}, got {list(given.shape)} on {given.device}"
        )


def check_values(name: str, x: object, dtypes: tuple[torch.dtype, ...]) -> torch.Tensor:
    """Return ``x`` if it is a matrix [M, K >= 1] of one of ``dtypes`` on ``DEVICE``.

    Raises:
        TypeError: no tensor, or another dtype.
        ValueError: another shape or device.
    """
    if not isinstance(x, torch.Tensor) or x.dtype not in dtypes:
        allowed = ", ".join(str(dtype) for dtype in dtypes)
        found = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"{name} must be a tensor of {allowed}, got {found}")
    if x.ndim != 2 or x.shape[1] < 1:
        raise ValueError(f"{name} must have shape [rows, K] with K >= 1, got {list(x.shape)}")
    if x.device.type != DEVICE:
        raise ValueError(f"{name} is on device {x.device}; allowed: {DEVICE}")
    return x


def check_operand(name: str, given: object, kind: type, of: str) -> None:
    """Raise ``TypeError`` unless ``given`` is a ``kind``, which kernel ``of`` makes."""
    if not isinstance(given, kind):
        raise TypeError(f"{name} must be what {of}'s {name}() returns, got {type(given).__name__}")
