"""XNOR on CUDA cores as kernels: ``xnor-popc``, ``xnor-csa`` and ``xnor-csa7``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from kernels.base import check_lengths, check_packed
from kernels.packing import Packed, words_for
from kernels.triton import outer, pack
from kernels.triton.base import TritonKernel, check_bits, check_operand, check_values
from kernels.triton.device import DEVICE

_REALS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class WordMajor:
    """Packed rows stored word by word.

    Attributes:
        words: int32 [words, rows], both rounded up (``outer.WORD_STEP``, ``outer.ROW_STEP``).
        rows: the true number of rows.
        k: the true number of ±1 values a row.
        width: 64-bit words a row has in ``Packed``, which tells apart how rows are cut in segments.
    """

    words: torch.Tensor
    rows: int
    k: int
    width: int


def word_major(p: Packed) -> WordMajor:
    """Return packed rows word by word."""
    narrow = p.words.view(torch.int32)
    words = outer.empty_words(p.rows, 32 * narrow.shape[1], narrow.device)
    words[: narrow.shape[1], : p.rows] = narrow.T
    words[narrow.shape[1] :] = 0
    return WordMajor(words, p.rows, p.k, int(p.words.shape[1]))


class XnorPopc(TritonKernel):
    """One POPC for each word of 32 products."""

    name = "xnor-popc"
    packed = True
    summary = "packed words on CUDA cores: outer product by words, one POPC each"
    form: ClassVar[str] = "popc"

    def weights(self, p: Packed) -> WordMajor:
        """Return the weights word by word."""
        return word_major(check_packed("weights", p, DEVICE))

    def activations(self, p: Packed) -> WordMajor:
        """Return the activations word by word."""
        return word_major(check_packed("activations", p, DEVICE))

    def activations_from_real(self, x: torch.Tensor) -> WordMajor:
        """Pack real rows [M, K] word by word in one pass."""
        m, k = check_values("x", x, _REALS).shape
        words = outer.empty_words(m, k, x.device)
        pack.pack_into(x, words.T[:m])
        return WordMajor(words, m, k, words_for(k))

    def activations_from_dots(
        self, dots: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor
    ) -> WordMajor:
        """Pack ``(dots >= threshold) ^ flip`` word by word in one pass."""
        m, n = check_values("dots", dots, (torch.int32, torch.float32)).shape
        check_bits(threshold, flip, n)
        words = outer.empty_words(m, n, dots.device)
        pack.pack_into(dots, words.T[:m], threshold=threshold, flip=flip)
        return WordMajor(words, m, n, words_for(n))

    def product(self, a: WordMajor, w: WordMajor) -> torch.Tensor:
        """Return int32 dots [M, N] for any M, N, K."""
        self._check(a, w)
        out = torch.empty(a.rows, w.rows, dtype=torch.int32, device=a.words.device)
        outer.launch(a.words, w.words, out, (a.rows, w.rows, a.k), self.form)
        return out

    def product_bits(
        self, a: WordMajor, w: WordMajor, threshold: torch.Tensor, flip: torch.Tensor
    ) -> WordMajor:
        """Return the hidden layer's bits, packed word by word in the same pass."""
        self._check(a, w)
        check_bits(threshold, flip, w.rows)
        out = outer.empty_words(a.rows, w.rows, a.words.device)
        shape = (a.rows, w.rows, a.k)
        outer.launch(a.words, w.words, out, shape, self.form, threshold, flip)
        return WordMajor(out, a.rows, w.rows, words_for(w.rows))

    def packed_rows(self, hidden: WordMajor) -> Packed:
        """Return the words row by row."""
        words = hidden.words[: 2 * hidden.width, : hidden.rows].T.contiguous()
        return Packed(words.view(torch.int64), hidden.k)

    def bits_on_pixels(
        self, w: Packed
    ) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], WordMajor]:
        """Return the first layer by int8 values with its bits packed in the same pass."""
        from kernels.triton.pixels import PixelsInt8

        first, used = PixelsInt8(w), 2 * words_for(w.rows)

        def bits(u: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor) -> WordMajor:
            words = first.product_words(u, threshold, flip)[:, :used].contiguous()
            return word_major(Packed(words.view(torch.int64), w.rows))

        return bits

    def _check(self, a: object, w: object) -> None:
        check_operand("activations", a, WordMajor, self.name)
        check_operand("weights", w, WordMajor, self.name)
        assert isinstance(a, WordMajor) and isinstance(w, WordMajor)
        check_lengths((a.k, a.width), (w.k, w.width))


class XnorCsa(XnorPopc):
    """Two words a POPC: pairs go through a carry-save adder (3:2)."""

    name = "xnor-csa"
    summary = "packed words on CUDA cores: carry-save adders, a POPC for two words"
    form = "csa3"


class XnorCsa7(XnorPopc):
    """Four words a POPC: two levels of carry-save adders (7:3)."""

    name = "xnor-csa7"
    summary = "packed words on CUDA cores: two levels of adders, a POPC for four words"
    form = "csa7"
