"""The GPU kernels as the registry lists them, also where triton is not installed."""

from typing import Any

from kernels.base import Kernel, why_no_triton
from kernels.packing import Packed

NAMES = (
    "naive",
    "naive-xnor",
    "xnor-popc",
    "xnor-csa",
    "xnor-csa7",
    "xnor-tensor",
    "xnor-tensor-tma",
    "triton-int8",
)


class Absent(Kernel):
    """A Triton kernel's row where triton cannot be imported."""

    device = "cuda"
    summary = "a Triton kernel"

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.baseline = name, name == "naive"  # type: ignore[misc]
        self.reason = reason

    def why_not(
        self, m: int | None = None, n: int | None = None, k: int | None = None
    ) -> str | None:
        """Return that triton is missing."""
        return self.reason

    def weights(self, p: Packed) -> Any:
        """Raise ImportError."""
        raise ImportError(self.reason)

    def activations(self, p: Packed) -> Any:
        """Raise ImportError."""
        raise ImportError(self.reason)

    def product(self, a: Any, w: Any) -> Any:
        """Raise ImportError."""
        raise ImportError(self.reason)


def gpu_kernels() -> list[Kernel]:
    """Return the Triton kernels, or a row each that says why there are none."""
    try:
        from kernels.triton.kernels import kernels
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "triton":
            raise
        return [Absent(name, why_no_triton() or str(error)) for name in NAMES]
    return kernels()
