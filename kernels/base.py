"""What a kernel is: a name, a device, what it needs, and a product of prepared operands."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol

import torch

from kernels.packing import Packed, pack_rows, pack_threshold


def why_no_triton() -> str | None:
    """Return a reason where triton, which packs and unpacks on a GPU, is not installed."""
    found = sys.modules["triton"] if "triton" in sys.modules else find_spec("triton")
    return None if found else "triton is not installed: pip install --group gpu"


class Convolution(Protocol):
    """A 3x3 convolution straight from packed maps int64 [B, H, W, ceil(C/64)]."""

    def __call__(self, words: torch.Tensor) -> torch.Tensor:
        """Return the int32 dots [B*H*W, N]."""

    def bits(
        self, words: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor, pool: bool = False
    ) -> torch.Tensor:
        """Return the packed map of ``(dot >= threshold) ^ flip``, pooled 2x2 before if ``pool``."""


class RealConvolution(Protocol):
    """A library's 3x3 convolution, zero padding 1, of ±1 maps [B, C, H, W], channels last."""

    dtype: torch.dtype  # of the maps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the dots [B*H*W, N]: int32, or float32 whose ``.to(torch.int32)`` is exact."""


class Kernel(ABC):
    """A way to multiply ±1 matrices: ``product(a, w)[m, n] = sum_k a[m, k] * w[n, k]``, exact.

    A new kernel is a subclass in its own file and one line in ``kernels.registry``.

    Attributes:
        name: as in the registry, tables and commands.
        device: "cpu" or "cuda".
        baseline: the one kernel of its device that the others are compared with.
        packed: its activations are packed words (so that layers can hand bits to each other).
        fused: ``product_bits`` makes bits in the product itself, with no dots in memory.
        takes_reals: multiplies float32 activations as they are, with nothing to pack or convert.
        first_layer: how ``on_pixels`` multiplies: "int8" or "float32".
        summary: one line for people.
    """

    name: ClassVar[str]
    device: ClassVar[str] = "cpu"
    baseline: ClassVar[bool] = False
    packed: ClassVar[bool] = False
    fused: ClassVar[bool] = False
    takes_reals: ClassVar[bool] = False
    first_layer: ClassVar[str] = "int8"
    summary: ClassVar[str]

    @property
    def place(self) -> str:
        """Return the device type that operands lie on: ``device``, if nothing stands in for it."""
        return self.device

    def why_not(
        self, m: int | None = None, n: int | None = None, k: int | None = None
    ) -> str | None:
        """Return why the kernel cannot run here, or on an M x N x K product; None if it can."""
        return None

    @abstractmethod
    def weights(self, p: Packed) -> Any:
        """Return packed weights [N, K] in the form that ``product`` takes (outside any clock)."""

    @abstractmethod
    def activations(self, p: Packed) -> Any:
        """Return packed activations [M, K] in the form that ``product`` takes."""

    def activations_from_real(self, x: torch.Tensor) -> Any:
        """Return float32 ±1 activations [M, K] in the form that ``product`` takes."""
        return self.activations(pack_rows(x))

    def activations_from_dots(
        self, dots: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor
    ) -> Any:
        """Return ``(dots >= threshold) ^ flip``, a hidden layer's bits, as ``product`` takes them.

        ``dots`` [M, N] are a product's, ``threshold`` is int32 [N], ``flip`` bool [N].
        """
        return self.activations(pack_threshold(dots, threshold, flip))

    def product_bits(self, a: Any, w: Any, threshold: torch.Tensor, flip: torch.Tensor) -> Any:
        """Return ``(product(a, w) >= threshold) ^ flip`` as the next ``product`` takes it.

        A hidden layer of a packed network in one call (paper, Algorithm 5). ``threshold`` is int32
        [N], ``flip`` bool [N], both on the kernel's device.
        """
        return self.activations_from_dots(self.product(a, w), threshold, flip)

    def packed_rows(self, hidden: Any) -> Packed:
        """Return what ``product_bits`` made, in whatever form, as packed rows on its device."""
        return check_packed("hidden", hidden, self.place)

    def on_pixels(self, w: Packed) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the first layer with weights ``w`` ready: uint8 u [M, K] to dots (2u - 255)·w."""
        from kernels.firstlayer import PixelsInt8

        return PixelsInt8(w).product

    def bits_on_pixels(
        self, w: Packed
    ) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Any]:
        """Return the first layer to bits: (u, threshold, flip) to what ``product`` takes next."""
        dots = self.on_pixels(w)
        return lambda u, threshold, flip: self.activations_from_dots(dots(u), threshold, flip)

    def convolution(self, filters: Packed, height: int, width: int) -> Convolution | None:
        """Return a direct 3x3 convolution of packed maps, if the kernel has one.

        ``filters`` are ``kernels.conv.pack_filters``'s; see ``kernels.conv.Conv3x3``.
        """
        return None

    def real_convolution(self, filters: Packed) -> RealConvolution | None:
        """Return the library's own 3x3 convolution of unpacked maps, if it has an exact one.

        A kernel with neither convolution goes by patches and :meth:`product`.
        """
        return None

    @abstractmethod
    def product(self, a: Any, w: Any) -> torch.Tensor:
        """Return the dots [M, N]: int32, or float32 whose ``.to(torch.int32)`` is exact.

        Raises:
            TypeError, ValueError: an operand of another kind, or two that do not fit.
        """


def signs_from_dots(
    dots: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Return the ±1 values of ``(dots >= threshold) ^ flip`` in ``dtype``, in two passes."""
    reached = torch.where(flip, -1, 1).to(dtype)
    return torch.where(dots >= threshold.to(dots.dtype), reached, -reached)


def check_packed(name: str, p: object, device: str) -> Packed:
    """Return ``p`` if it is a ``Packed`` on ``device``.

    Raises:
        TypeError: it is something else.
        ValueError: it is elsewhere.
    """
    if not isinstance(p, Packed):
        raise TypeError(
            f"{name} must be Packed (see kernels.packing.pack_rows), got {type(p).__name__}"
        )
    if p.words.device.type != device:
        raise ValueError(f"{name} is on device {p.words.device}; allowed: {device}")
    return p


def check_real(name: str, x: object, dtype: torch.dtype, k: int, device: str) -> torch.Tensor:
    """Return ``x`` if it is a matrix [rows, k] of ``dtype`` on ``device``.

    Raises:
        TypeError: no tensor, or another dtype.
        ValueError: another shape or device.
    """
    if not isinstance(x, torch.Tensor) or x.dtype != dtype:
        raise TypeError(
            f"{name} must be a {dtype} tensor, got {getattr(x, 'dtype', type(x).__name__)}"
        )
    if x.ndim != 2 or x.shape[1] != k:
        raise ValueError(f"{name} must have shape [rows, {k}], got {list(x.shape)}")
    if x.device.type != device:
        raise ValueError(f"{name} is on device {x.device}; allowed: {device}")
    return x


def check_real_pair(a: object, w: object, dtype: torch.dtype, device: str) -> None:
    """Check unpacked operands [M, K] and [N, K]; raises as ``check_real``."""
    k = int(w.shape[1]) if isinstance(w, torch.Tensor) and w.ndim == 2 else 0
    check_real("weights", w, dtype, k, device)
    check_real("activations", a, dtype, k, device)


def check_lengths(a: tuple[int, int], w: tuple[int, int]) -> None:
    """Check that packed activations and weights, each (K, words a row), fit together.

    Raises:
        ValueError: they differ.
    """
    if a != w:
        raise ValueError(
            f"activations have K={a[0]} in {a[1]} words a row, the weights K={w[0]} in {w[1]}"
        )
