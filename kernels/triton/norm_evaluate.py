"""Batch norm at test time and sign, in one pass over a convolution's dots.

The three rounded operations of ``harness.nn.norm``, in their order, so that the signs are those
that an export's thresholds give.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

import torch
import triton
import triton.language as tl

from kernels.triton.device import DEVICE
from kernels.triton.norm import (
    BLOCK,
    ROUNDED,
    check_columns,
    check_rows,
    in_columns,
    places,
    store_words,
)
from kernels.triton.rules import SIGN_DTYPES, check_kind


@triton.jit
def _signs(
    dots_ptr, bias_ptr, mean_ptr, factor_ptr, beta_ptr, out_ptr, rows, c, scale,
    WORDS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    col = tl.program_id(1) * COLS + tl.arange(0, COLS)
    at, inside = places(row, rows, col, c)
    z = tl.load(dots_ptr + at, mask=inside, other=0.0) * scale + in_columns(bias_ptr, col, c)
    centred = z - in_columns(mean_ptr, col, c)
    y = centred * in_columns(factor_ptr, col, c) + in_columns(beta_ptr, col, c)
    if WORDS:
        store_words(out_ptr, y >= 0, row, rows, tl.program_id(1), c, COLS)
    else:
        signs = tl.where(y >= 0, 1.0, -1.0).to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + at, signs, mask=inside)


def signs_at_test_time(
    dots: torch.Tensor,
    bias: torch.Tensor,
    scale: float,
    mean: torch.Tensor,
    factor: torch.Tensor,
    beta: torch.Tensor,
    dtype: torch.dtype | None = torch.float32,
) -> torch.Tensor:
    """Return the signs of ``(scale * dots + bias - mean) * factor + beta``; NaN gives -1.

    Args:
        dots: float32 [R, C], contiguous.
        bias: float32 [C], contiguous, as are ``mean``, ``factor`` and ``beta``.
        scale: of the products.
        mean: of the running average.
        factor: the norm's scale over its deviation.
        beta: the norm's shift.
        dtype: of the signs [R, C]: float32, bfloat16 or float16; None returns their bits, 1 for +1,
            as int32 [R, C / 32], for which C must be a multiple of 32.

    Raises:
        TypeError: no tensor, or another dtype.
        ValueError: another shape, device or order in memory.
    """
    rows, c = check_rows("dots", dots).shape
    check_columns(c, bias=bias, mean=mean, factor=factor, beta=beta)
    if dtype is None:
        if c % 32:
            raise ValueError(f"dots must have a multiple of 32 columns for words, got {c}")
        out = torch.empty(rows, c // 32, dtype=torch.int32, device=DEVICE)
    else:
        out = torch.empty(rows, c, dtype=dtype, device=DEVICE)
        check_kind("out", out, *SIGN_DTYPES)
    _signs[(triton.cdiv(rows, BLOCK.rows), triton.cdiv(c, BLOCK.cols))](
        dots, bias, mean, factor, beta, out, rows, c, scale, WORDS=dtype is None,
        ROWS=BLOCK.rows, COLS=BLOCK.cols, num_warps=BLOCK.warps, **ROUNDED,
    )  # fmt: skip
    return out
