"""The 1-bit product of ``dot`` with its tiles fetched by the tensor memory accelerator.

One thread asks for a whole tile, by a descriptor of the operand, where ``dot`` computes an address
for every 16 bytes: 186 registers instead of 194 with packed output, and rows beyond the last come
as zeros.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.triton import dot, onebit
from kernels.triton.device import INTERPRETED


@triton.jit
def _product(
    a_desc,
    b_desc,
    out_ptr,
    row_ptr,
    col_ptr,
    threshold_ptr,
    flip_ptr,
    m,
    n,
    row_bytes,
    out_stride,
    out_words,
    WAY: tl.constexpr,
    SCALE: tl.constexpr,
    ROW_SCALE: tl.constexpr,
    PACKED: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    BYTES: tl.constexpr,
    GROUP: tl.constexpr,
):
    tl.assume(row_bytes > 0)
    columns = out_words * 32 if PACKED else n
    tile_m, tile_n = dot.swizzle(m, columns, M, N, GROUP)
    acc = tl.zeros((M, N), tl.float32 if WAY == "bits" else tl.int32)
    for byte in range(0, row_bytes, BYTES):
        a = a_desc.load([tile_m * M, byte])
        b = b_desc.load([tile_n * N, byte])
        acc = dot.multiply(a, b.T, acc, WAY)
    out, place = (out_ptr, out_stride, out_words), (tile_m, tile_n, m, n)
    terms, layer = (row_ptr, col_ptr), (threshold_ptr, flip_ptr)
    dot.finish(acc, out, terms, layer, place, SCALE, ROW_SCALE, True, PACKED, M, N)


def launch(
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor,
    n: int,
    terms: dot.Terms,
    threshold: torch.Tensor | None = None,
    flip: torch.Tensor | None = None,
) -> None:
    """Write the dots of packed a [M, B] and b [N, B], or their bits, to ``out``: see ``dot``."""
    m, row_bytes = a.shape
    if m == 0 or n == 0:
        return
    packed = threshold is not None
    columns = out.shape[1] * 32 if packed else n
    tile = dot.choose_tile(m, columns, row_bytes)
    carrier = torch.uint8 if INTERPRETED else torch.float8_e4m3fn
    left, right = (
        TensorDescriptor.from_tensor(x.view(carrier), [rows, tile.bytes])
        for x, rows in ((a, tile.m), (b, tile.n))
    )
    with nullcontext() if INTERPRETED else onebit.rewriting():
        kernel = _product[(triton.cdiv(m, tile.m) * triton.cdiv(columns, tile.n),)](
            left,
            right,
            out,
            terms.row,
            terms.col,
            threshold,
            flip if flip is None else flip.view(torch.uint8),
            m,
            n,
            row_bytes,
            out.stride(0),
            out.shape[1] if packed else 0,
            WAY="emulated" if INTERPRETED else "bits",
            SCALE=terms.scale,
            ROW_SCALE=terms.row_scale,
            PACKED=packed,
            M=tile.m,
            N=tile.n,
            BYTES=tile.bytes,
            GROUP=dot.GROUP,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    if not INTERPRETED:
        onebit.check(kernel)
