"""Products on tensor cores as kernels: ``xnor-tensor`` and its comparison ``triton-int8``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from kernels.base import Convolution, check_lengths, check_packed, signs_from_dots
from kernels.packing import Packed, words_for
from kernels.triton import dot, pack, tma
from kernels.triton.base import TritonKernel, check_bits, check_operand, check_values
from kernels.triton.device import DEVICE, HOPPER, why_no_gpu
from kernels.triton.outer import padded

_REALS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Counted:
    """Packed rows with their popcounts.

    Attributes:
        bits: uint8 [rows, bytes], bytes rounded up to ``dot.BYTE_STEP`` and 0 beyond K.
        ones: int32 [rows], the bits set in each.
        k: the true number of ±1 values a row.
        width: 64-bit words a row has in ``Packed``.
    """

    bits: torch.Tensor
    ones: torch.Tensor
    k: int
    width: int


@dataclass(frozen=True)
class CountedWeights(Counted):
    """Weights: with ``col`` = K - 2 * ones, int32 [N], the part of a dot that is theirs alone."""

    col: torch.Tensor


def empty_bits(rows: int, k: int, device: torch.device | str) -> torch.Tensor:
    """Return words to fill, int32 [rows, words] in whole steps."""
    words = padded(-(-k // 8), dot.BYTE_STEP) // 4
    return torch.empty(rows, words, dtype=torch.int32, device=device)


def counted(p: Packed) -> Counted:
    """Return packed rows in whole steps, with their popcounts."""
    narrow = p.words.view(torch.int32)
    words = empty_bits(p.rows, 32 * narrow.shape[1], narrow.device)
    words[:, : narrow.shape[1]] = narrow
    words[:, narrow.shape[1] :] = 0
    return Counted(words.view(torch.uint8), pack.row_ones(words), p.k, int(p.words.shape[1]))


class XnorTensor(TritonKernel):
    """Single bits on Hopper's tensor cores (AND form), corrected by the rows' popcounts."""

    name = "xnor-tensor"
    packed = True
    summary = "1-bit tensor cores (wgmma b1 and.popc), Hopper only"

    def why_not(
        self, m: int | None = None, n: int | None = None, k: int | None = None
    ) -> str | None:
        """Return a reason where the GPU is no Hopper: later ones emulate single bits."""
        return why_no_gpu(HOPPER, exactly=True)

    def weights(self, p: Packed) -> CountedWeights:
        """Return the weights with their popcounts."""
        rows = counted(check_packed("weights", p, DEVICE))
        return CountedWeights(rows.bits, rows.ones, rows.k, rows.width, rows.k - 2 * rows.ones)

    def activations(self, p: Packed) -> Counted:
        """Return the activations with their popcounts."""
        return counted(check_packed("activations", p, DEVICE))

    def activations_from_real(self, x: torch.Tensor) -> Counted:
        """Pack and count real rows [M, K] in one pass."""
        return self._pack(check_values("x", x, _REALS), None, None)

    def activations_from_dots(
        self, dots: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor
    ) -> Counted:
        """Pack and count ``(dots >= threshold) ^ flip`` in one pass."""
        check_values("dots", dots, (torch.int32, torch.float32))
        check_bits(threshold, flip, int(dots.shape[1]))
        return self._pack(dots, threshold, flip)

    def _pack(
        self, x: torch.Tensor, threshold: torch.Tensor | None, flip: torch.Tensor | None
    ) -> Counted:
        m, k = x.shape
        words = empty_bits(m, k, x.device)
        ones = torch.empty(m, dtype=torch.int32, device=x.device)
        pack.pack_into(x, words, ones, threshold, flip)
        return Counted(words.view(torch.uint8), ones, k, words_for(k))

    def product(self, a: Counted, w: CountedWeights) -> torch.Tensor:
        """Return int32 dots [M, N] for any M, N, K."""
        self._check(a, w)
        n = len(w.ones)
        out = torch.empty(len(a.ones), n, dtype=torch.int32, device=a.bits.device)
        self._launch(a.bits, w.bits, out, n, dot.Terms(4, -2, a.ones, w.col))
        return out

    def product_bits(
        self, a: Counted, w: CountedWeights, threshold: torch.Tensor, flip: torch.Tensor
    ) -> Counted:
        """Return the hidden layer's bits, packed in the same pass and counted in a second."""
        self._check(a, w)
        n = len(w.ones)
        check_bits(threshold, flip, n)
        words = empty_bits(len(a.ones), n, a.bits.device)
        self._launch(a.bits, w.bits, words, n, dot.Terms(4, -2, a.ones, w.col), threshold, flip)
        return Counted(words.view(torch.uint8), pack.row_ones(words), n, words_for(n))

    def packed_rows(self, hidden: Counted) -> Packed:
        """Return the words alone, without what fills the last step."""
        words = hidden.bits[:, : 8 * hidden.width].contiguous()
        return Packed(words.view(torch.int64), hidden.k)

    def _launch(self, *operands: Any) -> None:
        dot.launch(*operands)

    def bits_on_pixels(
        self, w: Packed
    ) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Counted]:
        """Return the first layer by int8 values with its bits packed in the same pass."""
        from kernels.triton.pixels import PixelsInt8

        first = PixelsInt8(w)

        def bits(u: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor) -> Counted:
            words = first.product_words(u, threshold, flip)
            ones = pack.row_ones(words)
            return Counted(words.view(torch.uint8), ones, w.rows, words_for(w.rows))

        return bits

    def convolution(self, filters: Packed, height: int, width: int) -> Convolution:
        """Return the convolution straight from the map."""
        from kernels.triton.conv import DirectConv3x3

        return DirectConv3x3(filters, height, width)

    def _check(self, a: object, w: object) -> None:
        check_operand("activations", a, Counted, self.name)
        check_operand("weights", w, CountedWeights, self.name)
        assert isinstance(a, Counted) and isinstance(w, Counted)
        check_lengths((a.k, a.width), (w.k, w.width))


class XnorTensorTma(XnorTensor):
    """``xnor-tensor`` with tiles fetched by the tensor memory accelerator."""

    name = "xnor-tensor-tma"
    summary = "1-bit tensor cores, tiles fetched by descriptors (TMA), Hopper only"

    def _launch(self, *operands: Any) -> None:
        tma.launch(*operands)


@dataclass(frozen=True)
class Bytes:
    """±1 values as int8 [rows, bytes]: bytes rounded up to ``dot.BYTE_STEP``, 0 beyond K."""

    values: torch.Tensor
    k: int


def whole_steps(x: torch.Tensor) -> torch.Tensor:
    """Return int8 [rows, K] with zeros up to a whole step of K."""
    beyond = padded(int(x.shape[1]), dot.BYTE_STEP) - int(x.shape[1])
    return torch.nn.functional.pad(x, (0, beyond)).contiguous()


class TritonInt8(TritonKernel):
    """The kernel of ``xnor-tensor`` on int8 values: what single bits gain, alike in all else."""

    name = "triton-int8"
    fused = False
    summary = "int8 tensor cores by the kernel of xnor-tensor, not rewritten"

    def why_not(
        self, m: int | None = None, n: int | None = None, k: int | None = None
    ) -> str | None:
        """Return a reason where the GPU is older than Hopper, for which the tiles are made."""
        return why_no_gpu(HOPPER)

    def weights(self, p: Packed) -> Bytes:
        """Return ±1 int8 [N, K] in whole steps."""
        return Bytes(
            whole_steps(pack.unpack_rows(check_packed("weights", p, DEVICE), torch.int8)), p.k
        )

    def activations(self, p: Packed) -> Bytes:
        """Return ±1 int8 [M, K] in whole steps."""
        signs = pack.unpack_rows(check_packed("activations", p, DEVICE), torch.int8)
        return Bytes(whole_steps(signs), p.k)

    def activations_from_real(self, x: torch.Tensor) -> Bytes:
        """Return ``x`` as int8."""
        return Bytes(whole_steps(check_values("x", x, _REALS).to(torch.int8)), int(x.shape[1]))

    def activations_from_dots(
        self, dots: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor
    ) -> Bytes:
        """Return ±1 int8 [M, N]: nothing is packed."""
        n = int(check_values("dots", dots, (torch.int32, torch.float32)).shape[1])
        check_bits(threshold, flip, n)
        return Bytes(whole_steps(signs_from_dots(dots, threshold, flip, torch.int8)), n)

    def packed_rows(self, hidden: Bytes) -> Packed:
        """Return the ±1 values as bits."""
        return pack.pack_rows(hidden.values[:, : hidden.k].contiguous())

    def product(self, a: Bytes, w: Bytes) -> torch.Tensor:
        """Return int32 dots [M, N]."""
        check_operand("activations", a, Bytes, self.name)
        check_operand("weights", w, Bytes, self.name)
        if a.k != w.k:
            raise ValueError(f"activations have K={a.k}, the weights K={w.k}")
        n = len(w.values)
        out = torch.empty(len(a.values), n, dtype=torch.int32, device=a.values.device)
        dot.launch(a.values, w.values, out, n, dot.Terms())
        return out
