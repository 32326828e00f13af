"""The GPU baselines in the spirit of the paper's: 16 x 16 outputs a block, one output a thread.

Section 4 of the paper compares its XNOR kernel with "an unoptimized matrix multiplication kernel".
Each thread goes along K alone, reads both operands from memory and keeps one sum; ``naive`` in
float32, ``naive-xnor`` on words of 32 bits. Nothing is reused but by the caches: two reads an FMA,
or two reads a popcount of 32 products.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

import torch
import triton
import triton.language as tl

from kernels.base import check_lengths, check_packed, check_real_pair
from kernels.packing import Packed, words_for
from kernels.triton.base import TritonKernel, check_bits
from kernels.triton.bits import fires, pack_columns, popcount
from kernels.triton.device import DEVICE
from kernels.unpacked import Float32Kernel

TILE = 16
WARPS = 8  # 256 threads for 256 outputs


@triton.jit(do_not_specialize=["m", "n", "k"])
def _naive(
    a_ptr,
    b_ptr,
    out_ptr,
    threshold_ptr,
    flip_ptr,
    m,
    n,
    k,
    words,
    out_stride,
    XNOR: tl.constexpr,
    BITS: tl.constexpr,
    TILE: tl.constexpr,
):
    rows = tl.program_id(0) * TILE + tl.arange(0, TILE)
    cols = tl.program_id(1) * TILE + tl.arange(0, TILE)
    used_row, used_col = rows < m, cols < n
    a_at = a_ptr + rows.to(tl.int64) * words
    b_at = b_ptr + cols.to(tl.int64) * words
    total = tl.zeros((TILE, TILE), tl.int32 if XNOR else tl.float32)
    for _ in range(words):
        a = tl.load(a_at, mask=used_row, other=0)[:, None]
        b = tl.load(b_at, mask=used_col, other=0)[None, :]
        total += popcount((a ^ b).to(tl.uint32, bitcast=True)) if XNOR else a * b
        a_at += 1
        b_at += 1
    dots = k - 2 * total if XNOR else total
    out_at = out_ptr + rows.to(tl.int64)[:, None] * out_stride
    if BITS:
        bits = fires(dots.to(tl.int32), threshold_ptr, flip_ptr, cols, n)
        if XNOR:
            half = tl.program_id(1) + tl.arange(0, 1)
            packed = pack_columns(bits, TILE, 1, TILE).to(tl.int16)
            keep = used_row[:, None] & (half < out_stride)[None, :]
            tl.store(out_at + half[None, :], packed, mask=keep)
        else:
            signs = tl.where(bits, 1.0, -1.0)
            tl.store(out_at + cols[None, :], signs, mask=used_row[:, None] & used_col[None, :])
    else:
        tl.store(out_at + cols[None, :], dots, mask=used_row[:, None] & used_col[None, :])


def launch(
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor,
    n: int,
    k: int,
    threshold: torch.Tensor | None = None,
    flip: torch.Tensor | None = None,
) -> None:
    """Write the dots of contiguous a [M, W] and b [N, W] to ``out``: float32, or int32 words.

    With ``threshold`` and ``flip`` ``out`` takes ``(dot >= threshold) ^ flip``: ±1 float32 [M, N],
    or halves of words, int16 [M, H], those beyond N as 0.
    """
    m = a.shape[0]
    if m == 0 or n == 0:
        return
    xnor = a.dtype == torch.int32
    columns = out.shape[1] * TILE if out.dtype == torch.int16 else n
    _naive[(triton.cdiv(m, TILE), triton.cdiv(columns, TILE))](
        a,
        b,
        out,
        threshold,
        flip if flip is None else flip.view(torch.uint8),
        m,
        n,
        k,
        a.shape[1],
        out.stride(0),
        XNOR=xnor,
        BITS=threshold is not None,
        TILE=TILE,
        num_warps=WARPS,
    )


class Naive(Float32Kernel, TritonKernel):
    """The baseline of CUDA devices: float32, one output a thread, exact while K <= 2^24."""

    name = "naive"
    baseline = True
    summary = "float32, 16 x 16 outputs a block, one a thread (the baseline)"

    def product(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Return float32 dots [M, N]."""
        check_real_pair(a, w, torch.float32, DEVICE)
        out = torch.empty(a.shape[0], w.shape[0], dtype=torch.float32, device=a.device)
        launch(a.contiguous(), w.contiguous(), out, int(w.shape[0]), int(a.shape[1]))
        return out

    def product_bits(
        self, a: torch.Tensor, w: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor
    ) -> torch.Tensor:
        """Return ±1 float32 [M, N] in one pass."""
        check_real_pair(a, w, torch.float32, DEVICE)
        n = int(w.shape[0])
        check_bits(threshold, flip, n)
        out = torch.empty(a.shape[0], n, dtype=torch.float32, device=a.device)
        launch(a.contiguous(), w.contiguous(), out, n, int(a.shape[1]), threshold, flip)
        return out


class NaiveXnor(TritonKernel):
    """The paper's XNOR kernel in spirit: as ``naive``, with a popcount for 32 products."""

    name = "naive-xnor"
    packed = True
    summary = "packed words, 16 x 16 outputs a block, one a thread"

    def weights(self, p: Packed) -> Packed:
        """Return ``p`` itself."""
        return check_packed("weights", p, DEVICE)

    def activations(self, p: Packed) -> Packed:
        """Return ``p`` itself."""
        return check_packed("activations", p, DEVICE)

    def product(self, a: Packed, w: Packed) -> torch.Tensor:
        """Return int32 dots [M, N]."""
        check_pair(a, w)
        out = torch.empty(a.rows, w.rows, dtype=torch.int32, device=a.words.device)
        launch(a.words.view(torch.int32), w.words.view(torch.int32), out, w.rows, a.k)
        return out

    def product_bits(
        self, a: Packed, w: Packed, threshold: torch.Tensor, flip: torch.Tensor
    ) -> Packed:
        """Return the hidden layer's bits, packed in the same pass."""
        check_pair(a, w)
        check_bits(threshold, flip, w.rows)
        out = torch.empty(a.rows, words_for(w.rows), dtype=torch.int64, device=a.words.device)
        words = a.words.view(torch.int32), w.words.view(torch.int32)
        launch(*words, out.view(torch.int16), w.rows, a.k, threshold, flip)
        return Packed(out, w.rows)


def check_pair(a: object, w: object) -> None:
    """Check packed operands of one K.

    Raises:
        TypeError, ValueError: an operand of another kind or device, or two that do not fit.
    """
    left, right = check_packed("activations", a, DEVICE), check_packed("weights", w, DEVICE)
    check_lengths((left.k, int(left.words.shape[1])), (right.k, int(right.words.shape[1])))
