"""The first layer on the GPU: 8-bit pixels u times ±1 weights, as odd integers o = 2u - 255.

The two ways of ``kernels.firstlayer``, for the same int32 dots:

- ``int8``: with s = u - 128, o = 2s + 1: one int8 product on tensor cores, ``2 (s . w) + sum_k w``;
- ``bitplanes``: o = sum_b 2^b p_b over the eight bits of u: eight packed products on CUDA cores,
  summed in registers, ``255 K - 2 sum_b 2^b popc(p_b ^ w)``.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

import torch
import triton
import triton.language as tl

from kernels.base import check_packed, check_real
from kernels.packing import Packed
from kernels.triton import dot
from kernels.triton.base import check_bits
from kernels.triton.bits import pack_columns, popcount
from kernels.triton.device import DEVICE, INTERPRETED
from kernels.triton.pack import unpack_rows
from kernels.triton.tensor import empty_bits, whole_steps

PLANES = 8
PLANE_TILE = (32, 32) if INTERPRETED else (8, 128)
WARPS = 4
PACK_WORDS = 16


def _check_pixels(u: object, k: int) -> torch.Tensor:
    return check_real("pixels", u, torch.uint8, k, DEVICE).contiguous()


class PixelsInt8:
    """Weights ready for products with pixels through int8 tensor cores."""

    def __init__(self, w: Packed) -> None:
        signs = unpack_rows(check_packed("weights", w, DEVICE), torch.int8)
        self.n, self.k, self.signs = w.rows, w.k, whole_steps(signs)
        self.terms = dot.Terms(2, col=signs.sum(1, dtype=torch.int32))

    def product(self, u: torch.Tensor) -> torch.Tensor:
        """Return int32 dots [M, N] of uint8 pixels [M, K]."""
        centred = self._centred(u)
        out = torch.empty(len(centred), self.n, dtype=torch.int32, device=u.device)
        dot.launch(centred, self.signs, out, self.n, self.terms)
        return out

    def product_words(
        self, u: torch.Tensor, threshold: torch.Tensor, flip: torch.Tensor
    ) -> torch.Tensor:
        """Return the bits ``(dot >= threshold) ^ flip``, int32 words [M, W], in one pass."""
        check_bits(threshold, flip, self.n)
        centred = self._centred(u)
        words = empty_bits(len(centred), self.n, u.device)
        dot.launch(centred, self.signs, words, self.n, self.terms, threshold, flip)
        return words

    def _centred(self, u: torch.Tensor) -> torch.Tensor:
        return whole_steps((_check_pixels(u, self.k) ^ 128).view(torch.int8))


@triton.jit
def _planes(u_ptr, words_ptr, rows, k, words, WORDS: tl.constexpr):
    """``words[b, w, m]`` = bits of plane b of 32 pixels of row m."""
    row = tl.program_id(0)
    for start in range(0, words, WORDS):
        col = start * 32 + tl.arange(0, WORDS * 32)
        u = tl.load(u_ptr + row.to(tl.int64) * k + col, mask=col < k, other=0)
        word = start + tl.arange(0, WORDS)
        for plane in tl.static_range(8):
            bits = ((u >> plane) & 1).to(tl.int1)
            packed = pack_columns(bits[None, :], 1, WORDS, 32)
            at = words_ptr + (plane * words + word).to(tl.int64) * rows + row
            keep = (word < words)[None, :]
            tl.store(at[None, :], packed.to(tl.int32, bitcast=True), mask=keep)


@triton.jit
def _plane_product(planes_ptr, w_ptr, out_ptr, m, n, k, words, M: tl.constexpr, N: tl.constexpr):
    rows = tl.program_id(0) * M + tl.arange(0, M)
    cols = tl.program_id(1) * N + tl.arange(0, N)
    used_row, used_col = rows < m, cols < n
    count = tl.zeros((M, N), tl.int32)
    u_at, w_at = planes_ptr + rows, w_ptr + cols
    for _ in range(words):
        w = tl.load(w_at, mask=used_col, other=0)[None, :]
        for plane in tl.static_range(8):
            u = tl.load(u_at + plane * words * m, mask=used_row, other=0)[:, None]
            count += popcount((u ^ w).to(tl.uint32, bitcast=True)) << plane
        u_at += m
        w_at += n
    at = out_ptr + rows.to(tl.int64)[:, None] * n + cols[None, :]
    tl.store(at, 255 * k - 2 * count, mask=used_row[:, None] & used_col[None, :])


class PixelsBitplanes:
    """Weights ready for products with pixels through eight bit planes."""

    def __init__(self, w: Packed) -> None:
        check_packed("weights", w, DEVICE)
        if w.segments != 1:
            raise ValueError(f"weights on pixels must be in one segment, got {w.segments}")
        self.n, self.k = w.rows, w.k
        self.words = w.words.view(torch.int32).T.contiguous()

    def product(self, u: torch.Tensor) -> torch.Tensor:
        """Return int32 dots [M, N] of uint8 pixels [M, K]."""
        u = _check_pixels(u, self.k)
        m, words = int(u.shape[0]), int(self.words.shape[0])
        out = torch.empty(m, self.n, dtype=torch.int32, device=u.device)
        if m == 0 or self.n == 0:
            return out
        planes = torch.empty(PLANES, words, m, dtype=torch.int32, device=u.device)
        _planes[(m,)](u, planes, m, self.k, words, WORDS=PACK_WORDS, num_warps=WARPS)
        high, wide = PLANE_TILE
        _plane_product[(triton.cdiv(m, high), triton.cdiv(self.n, wide))](
            planes, self.words, out, m, self.n, self.k, words, M=high, N=wide, num_warps=WARPS
        )
        return out
