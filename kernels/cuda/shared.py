"""``naive-shared`` and ``naive-shared-xnor``: the textbook product through shared memory.

What a first course in CUDA makes of ``naive``: a tile of each operand is read once by a block of 16
x 16 threads, a sixteenth of the reads. See ``shared.cu``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from kernels.base import Kernel, check_lengths, check_packed, check_real_pair, why_no_triton
from kernels.packing import Packed
from kernels.unpacked import Float32Kernel

SOURCE = Path(__file__).with_name("shared.cu")
TILE = 16
MAX_ROWS = 65_535 * TILE  # of a grid's second dimension


@contextmanager
def _some_toolkit() -> Iterator[None]:
    """Name a folder as CUDA's where no toolkit is: torch wants its headers, which nothing uses."""
    from torch.utils import cpp_extension  # takes a second, and most processes never come here

    before = cpp_extension.CUDA_HOME
    cpp_extension.CUDA_HOME = before or str(SOURCE.parent)
    try:
        yield
    finally:
        cpp_extension.CUDA_HOME = before


@cache
def _compiled(name: str) -> Any:
    """Return the function of ``shared.cu``, compiled for the current device."""
    with _some_toolkit():
        return torch.cuda._compile_kernel(SOURCE.read_text(), name)


class _Shared(Kernel):
    device = "cuda"

    def why_not(
        self, m: int | None = None, n: int | None = None, k: int | None = None
    ) -> str | None:
        """Return a reason where there is no GPU, compiler or triton, or too many rows."""
        if not torch.cuda.is_available():
            return "torch finds no CUDA device"
        if not hasattr(torch.cuda, "_compile_kernel"):
            return f"torch {torch.__version__} compiles no CUDA C at run time"
        if m is not None and m > MAX_ROWS:
            return f"{m} rows; allowed: up to {MAX_ROWS}, a grid's second dimension"
        return why_no_triton()

    def _launch(self, name: str, operands: list[Any], m: int, n: int, *sizes: int) -> None:
        if m and n:
            grid = (-(-n // TILE), -(-m // TILE), 1)
            _compiled(name)(grid=grid, block=(TILE, TILE, 1), args=[*operands, m, n, *sizes])


class NaiveShared(_Shared, Float32Kernel):
    """Float32 through shared memory, exact while K <= 2^24."""

    name = "naive-shared"
    summary = "float32 in CUDA C, 16 x 16 tiles in shared memory"

    def product(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Return float32 dots [M, N]."""
        check_real_pair(a, w, torch.float32, self.device)
        m, n, k = len(a), len(w), int(a.shape[1])
        out = torch.empty(m, n, dtype=torch.float32, device=a.device)
        self._launch("shared_fp32", [a.contiguous(), w.contiguous(), out], m, n, k)
        return out


class NaiveSharedXnor(_Shared):
    """Words of 32 signs through shared memory."""

    name = "naive-shared-xnor"
    packed = True
    first_layer = "float32"
    summary = "packed words in CUDA C, 16 x 16 tiles in shared memory"

    def weights(self, p: Packed) -> Packed:
        """Return ``p`` itself."""
        return check_packed("weights", p, self.device)

    def activations(self, p: Packed) -> Packed:
        """Return ``p`` itself."""
        return check_packed("activations", p, self.device)

    def on_pixels(self, w: Packed) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the product of ``naive-shared`` with 2u - 255: pixels are no words."""
        return NaiveShared().on_pixels(w)

    def product(self, a: Packed, w: Packed) -> torch.Tensor:
        """Return int32 dots [M, N]."""
        check_packed("activations", a, self.device)
        check_packed("weights", w, self.device)
        check_lengths((a.k, int(a.words.shape[1])), (w.k, int(w.words.shape[1])))
        out = torch.empty(a.rows, w.rows, dtype=torch.int32, device=a.words.device)
        words = [a.words.view(torch.int32), w.words.view(torch.int32)]
        width = int(words[0].shape[1])
        self._launch("shared_xnor", [*words, out], a.rows, w.rows, width, a.k)
        return out
