"""Batch norm with batch statistics and sign, forward, in one launch, two or three.

``z = scale * dots + bias`` and ``y = gamma * (z - mean) / sqrt(var + eps) + beta`` live in
registers alone: dots are read once (a time a launch) and signs written once. Up to
``STRIP_ROWS`` rows a program holds all rows of a strip of columns; of more rows, a first launch
makes statistics of blocks and a second merges them and writes. Shift-based batch norm (``SHIFT``)
needs the mean before it can sum what its variance is made of: a launch between the two. No atomics
and no cut that depends on the machine: the same bits on every run. Each operation is rounded by
itself (``ROUNDED``), so that z is the layer's and the backward's y is this y, bit for bit.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.triton.base import check_values, check_vector
from kernels.triton.device import DEVICE
from kernels.triton.rules import SIGN_DTYPES, ap2, check_kind


class Tile(NamedTuple):
    """Rows and columns of a program's step, and its warps."""

    rows: int
    cols: int
    warps: int


# A strip of 16 float32 columns is two sectors of 32 bytes a row, and 4096 columns are 256 programs.
STRIP_ROWS, STRIP_COLS, STRIP_WARPS = 256, 16, 4
# A step in flight is 16 KiB; three programs a processor have the 25 KiB under way that the memory's
# latency asks for. Each program of the second launch reads its columns' statistics of all blocks
# (at most 32 KiB from L2), so blocks are few.
BLOCK, PROGRAMS, MOST_BLOCKS = Tile(128, 32, 8), 384, 128
ROUNDED = {"enable_fp_fusion": False}
FORMS = ("sign", "value", "relu")


@triton.jit
def in_columns(ptr, col, c):
    """Return values of ``col`` as a row [1, COLS], 0 beyond the ``c`` columns."""
    return tl.load(ptr + col, mask=col < c, other=0.0)[None, :]


@triton.jit
def factor_of(x, SHIFT: tl.constexpr):
    """Return a factor of the norm: x, or AP2(x) where the norm is shift-based."""
    return ap2(x) if SHIFT else x


@triton.jit
def places(row, rows, col, c):
    """Return the offsets [ROWS, COLS] in a matrix of ``c`` columns, and which lie inside it."""
    return row.to(tl.int64)[:, None] * c + col[None, :], (row < rows)[:, None] & (col < c)[None, :]


@triton.jit
def block_of(rows, block_rows, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Return the program's block and their number, its rows' begin and end; a step's row, col."""
    block = tl.program_id(1)
    first = block * block_rows
    row, col = tl.arange(0, ROWS), tl.program_id(0) * COLS + tl.arange(0, COLS)
    return block, tl.num_programs(1), first, tl.minimum(first + block_rows, rows), row, col


@triton.jit
def inverse(squares, rows, eps):
    """Return ``1 / sqrt(var + eps)`` of ``rows`` values whose squared deviations sum to this."""
    variance = tl.div_rn(squares, rows * 1.0)
    return tl.div_rn(tl.full(squares.shape, 1.0, tl.float32), tl.sqrt_rn(variance + eps))


@triton.jit
def merged_mean(means, counts, origin, rows):
    """Return the mean [COLS] of groups [GROUPS, COLS] with ``counts`` [GROUPS, 1] values each.

    Summed as distances from ``origin`` [1, COLS], one of them: equal values have themselves as
    mean, and far from 0 no bits are lost.
    """
    total = tl.sum((means - origin) * counts, axis=0)
    return tl.sum(origin, axis=0) + tl.div_rn(total, tl.full(total.shape, 1.0, tl.float32) * rows)


@triton.jit
def merged_blocks(partial_ptr, col, c, rows, block_rows, blocks, BLOCKS: tl.constexpr):
    """Return what ``_statistics`` wrote of the columns: the mean [COLS] of all rows, and of blocks
    means and sums [BLOCKS, COLS] and their counts [BLOCKS, 1], 0 beyond the last."""
    each = tl.arange(0, BLOCKS)
    part, used = places(each, blocks, col, c)
    means = tl.load(partial_ptr + part, mask=used, other=0.0)
    sums = tl.load(partial_ptr + blocks.to(tl.int64) * c + part, mask=used, other=0.0)
    counts = tl.minimum(tl.maximum(rows - each * block_rows, 0), block_rows)
    counts = counts.to(tl.float32)[:, None]
    mean = merged_mean(means, counts, in_columns(partial_ptr, col, c), rows)
    return mean, means, sums, counts


@triton.jit
def store_words(words_ptr, positive, row, rows, strip, c, COLS: tl.constexpr):
    """Store a strip's bits [ROWS, COLS], a word of ``COLS`` bits a row, the first column lowest."""
    bit = tl.full((COLS,), 1, tl.int32) << tl.arange(0, COLS)
    word = tl.sum(tl.where(positive, bit[None, :], 0), axis=1)
    word_at = words_ptr + row.to(tl.int64) * (c // COLS) + strip
    tl.store(word_at, word.to(words_ptr.dtype.element_ty), mask=row < rows)


@triton.jit
def _write(
    out_ptr, words_ptr, draws_ptr, gamma_ptr, beta_ptr, xhat, at, inside, row, rows, col, c,
    FORM: tl.constexpr, SHIFT: tl.constexpr, WORDS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Write a step's outputs and, if ``WORDS``, a word of each row: a bit a column, 1 for +1."""
    gamma = factor_of(in_columns(gamma_ptr, col, c), SHIFT)
    y = xhat * gamma + in_columns(beta_ptr, col, c)
    if FORM == "relu":
        y = tl.where(y < 0, 0.0, y)  # NaN stays
    elif FORM != "value":
        positive = y >= 0
        if FORM == "stochastic":
            positive = 2 * tl.load(draws_ptr + at, mask=inside, other=0.0) - 1 < y
        y = tl.where(positive, 1.0, -1.0)
        if WORDS:
            store_words(words_ptr, positive, row, rows, tl.program_id(0), c, COLS)
    tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _strip(
    dots_ptr, bias_ptr, gamma_ptr, beta_ptr, draws_ptr, out_ptr, words_ptr, mean_ptr, inv_std_ptr,
    rows, c, scale, eps, FORM: tl.constexpr, SHIFT: tl.constexpr, WORDS: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    row, col = tl.arange(0, ROWS), tl.program_id(0) * COLS + tl.arange(0, COLS)
    at, inside = places(row, rows, col, c)
    bias = in_columns(bias_ptr, col, c)
    z = tl.load(dots_ptr + at, mask=inside, other=0.0) * scale + bias
    origin = in_columns(dots_ptr, col, c) * scale + bias
    mean = merged_mean(z, inside.to(tl.float32), origin, rows)
    deviation = tl.where(inside, z - mean[None, :], 0.0)
    inv_std = inverse(tl.sum(deviation * factor_of(deviation, SHIFT), axis=0), rows, eps)
    tl.store(mean_ptr + col, mean, mask=col < c)
    tl.store(inv_std_ptr + col, inv_std, mask=col < c)
    xhat = deviation * factor_of(inv_std, SHIFT)[None, :]
    _write(
        out_ptr, words_ptr, draws_ptr, gamma_ptr, beta_ptr, xhat, at, inside, row, rows, col, c,
        FORM, SHIFT, WORDS, COLS,
    )  # fmt: skip


@triton.jit
def _statistics(
    dots_ptr, bias_ptr, partial_ptr, rows, c, block_rows, scale, ROWS: tl.constexpr,
    COLS: tl.constexpr,
):  # fmt: skip
    """Write means and squared deviations of a block; partial is [2, blocks, c].

    Each place of the tile keeps the running statistics of its own rows (Welford), so the loop has
    no barrier; at the end places merge as blocks do.
    """
    block, blocks, first, last, row, col = block_of(rows, block_rows, ROWS, COLS)
    bias = in_columns(bias_ptr, col, c)
    means = tl.zeros((ROWS, COLS), tl.float32)
    squares = tl.zeros((ROWS, COLS), tl.float32)
    share = 1.0
    for start in range(first, last, ROWS):
        at, inside = places(start + row, last, col, c)
        z = tl.load(dots_ptr + at, mask=inside, other=0.0) * scale + bias
        step = tl.where(inside, z - means, 0.0)
        means += step * (1.0 / share)
        squares += step * (z - means)
        share += 1.0
    counts = tl.maximum((last - first - row + ROWS - 1) // ROWS, 0).to(tl.float32)[:, None]
    origin = in_columns(dots_ptr + first.to(tl.int64) * c, col, c) * scale + bias
    mean = merged_mean(means, counts, origin, last - first)
    off = means - mean[None, :]
    at = partial_ptr + block.to(tl.int64) * c + col
    tl.store(at, mean, mask=col < c)
    at += blocks.to(tl.int64) * c
    tl.store(at, tl.sum(squares + counts * off * off, axis=0), mask=col < c)


@triton.jit
def _shift_squares(
    dots_ptr, bias_ptr, partial_ptr, rows, c, block_rows, scale, ROWS: tl.constexpr,
    COLS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Write the sums of C * AP2(C) of a block, C = z - mean, in place of its squared deviations."""
    block, blocks, first, last, row, col = block_of(rows, block_rows, ROWS, COLS)
    mean, _, _, _ = merged_blocks(partial_ptr, col, c, rows, block_rows, blocks, BLOCKS)
    bias = in_columns(bias_ptr, col, c)
    squares = tl.zeros((ROWS, COLS), tl.float32)
    for start in range(first, last, ROWS):
        at, inside = places(start + row, last, col, c)
        z = tl.load(dots_ptr + at, mask=inside, other=0.0) * scale + bias
        deviation = tl.where(inside, z - mean[None, :], 0.0)
        squares += deviation * ap2(deviation)
    # Other programs read means alone.
    at = partial_ptr + (blocks + block).to(tl.int64) * c + col
    tl.store(at, tl.sum(squares, axis=0), mask=col < c)


@triton.jit
def _normalise(
    dots_ptr, bias_ptr, gamma_ptr, beta_ptr, draws_ptr, out_ptr, words_ptr, mean_ptr, inv_std_ptr,
    partial_ptr, rows, c, block_rows, scale, eps, FORM: tl.constexpr, SHIFT: tl.constexpr,
    WORDS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    block, blocks, first, last, row, col = block_of(rows, block_rows, ROWS, COLS)
    mean, means, squares, counts = merged_blocks(
        partial_ptr, col, c, rows, block_rows, blocks, BLOCKS
    )
    if not SHIFT:
        off = means - mean[None, :]
        squares += counts * off * off
    inv_std = inverse(tl.sum(squares, axis=0), rows, eps)
    wanted = (col < c) & (block == 0)
    tl.store(mean_ptr + col, mean, mask=wanted)
    tl.store(inv_std_ptr + col, inv_std, mask=wanted)
    bias, factor = in_columns(bias_ptr, col, c), factor_of(inv_std, SHIFT)
    for start in range(first, last, ROWS):
        at, inside = places(start + row, last, col, c)
        z = tl.load(dots_ptr + at, mask=inside, other=0.0) * scale + bias
        xhat = (z - mean[None, :]) * factor[None, :]
        _write(
            out_ptr, words_ptr, draws_ptr, gamma_ptr, beta_ptr, xhat, at, inside, start + row,
            last, col, c, FORM, SHIFT, WORDS, COLS,
        )  # fmt: skip


def check_rows(
    name: str,
    x: object,
    shape: tuple[int, ...] | None = None,
    dtypes: tuple[torch.dtype, ...] = (torch.float32,),
) -> torch.Tensor:
    """Return ``x`` if it is a contiguous matrix of ``dtypes`` on ``DEVICE``, of a given ``shape``.

    Raises:
        TypeError: no tensor, or another dtype.
        ValueError: another shape, no row, another device, or rows that are not contiguous.
    """
    found = check_values(name, x, dtypes)
    if shape is not None and tuple(found.shape) != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(found.shape)}")
    if not found.shape[0]:
        raise ValueError(f"{name} must have rows for a mean, got shape {list(found.shape)}")
    if not found.is_contiguous():
        raise ValueError(f"{name} must be contiguous, got strides {found.stride()}")
    return found


def check_columns(c: int, **columns: object) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless each is float32 [c], contiguous, here."""
    for name, given in columns.items():
        check_vector(name, given, torch.float32, c)
        if isinstance(given, torch.Tensor) and not given.is_contiguous():
            raise ValueError(f"{name} must be contiguous, got strides {given.stride()}")


def strip(rows: int, c: int) -> tuple[tuple[int], dict[str, int]]:
    """Return grid and tile of the one launch: a program has all rows of its columns."""
    height = max(16, int(triton.next_power_of_2(rows)))
    tile = {"ROWS": height, "COLS": STRIP_COLS, "num_warps": STRIP_WARPS}
    return (triton.cdiv(c, STRIP_COLS),), tile


def cut(rows: int, c: int) -> tuple[tuple[int, int], dict[str, int], int]:
    """Return grid (strips, blocks), tile and rows of a block of the two launches."""
    strips, steps = triton.cdiv(c, BLOCK.cols), triton.cdiv(rows, BLOCK.rows)
    most = max(1, min(PROGRAMS // strips, MOST_BLOCKS))
    block_rows = triton.cdiv(steps, most) * BLOCK.rows
    tile = {"ROWS": BLOCK.rows, "COLS": BLOCK.cols, "num_warps": BLOCK.warps}
    return (strips, triton.cdiv(rows, block_rows)), tile, block_rows


def norm_sign(
    dots: torch.Tensor,
    bias: torch.Tensor,
    scale: float,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    eps: float,
    draws: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    form: str = "sign",
    shift: bool = False,
    words: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the signs of batch norm of products, and the batch's statistics.

    ``z = scale * dots + bias``, ``y = gamma * (z - mean) * inv_std + beta``, ``inv_std = 1 /
    sqrt(var + eps)`` with the biased variance of z; +1 where ``y >= 0``, or with ``draws`` where
    ``2 * draws - 1 < y``, else -1, which NaN gives (paper, equations 1 and 2). With ``shift`` the
    variance is ``mean(C * AP2(C))``, ``C = z - mean``, and gamma and inv_std multiply as their AP2
    (paper, Algorithm 3).

    Args:
        dots: float32 [R, C], contiguous; a channels-last map is its positions' rows.
        bias: float32 [C], contiguous, as are ``gamma`` and ``beta``.
        scale: of the products.
        gamma: the batch norm's scale.
        beta: the batch norm's shift.
        eps: added to the variance.
        draws: float32 [R, C] uniform in [0, 1), contiguous.
        dtype: of the signs: float32, bfloat16 or float16.
        form: ``sign``, or in its place ``value``, y itself, or ``relu``, max(y, 0).
        shift: shift-based batch norm.
        words: takes the signs' bits too, 1 for +1: int32 [R, C / 32], contiguous, C a multiple of
            32.

    Returns:
        Signs [R, C], mean and inv_std (before AP2) float32 [C].

    Raises:
        TypeError: no tensor, or another dtype.
        ValueError: another shape, device or order in memory.
    """
    rows, c = check_rows("dots", dots).shape
    check_columns(c, bias=bias, gamma=gamma, beta=beta)
    if draws is not None:
        check_rows("draws", draws, (rows, c))
    if dtype not in SIGN_DTYPES:
        allowed = ", ".join(str(allowed) for allowed in SIGN_DTYPES)
        raise TypeError(f"dtype must be one of {allowed}, got {dtype}")
    if words is not None:
        check_kind("words", words, torch.int32)
        if form != "sign" or c % 32 or words.shape != (rows, c // 32) or not words.is_contiguous():
            raise ValueError(
                f"words are of signs, [{rows}, C / 32] and contiguous: got form {form!r}, C {c}, "
                f"{list(words.shape)} with strides {words.stride()}"
            )
    out = torch.empty(rows, c, dtype=dtype, device=DEVICE)
    mean, inv_std = (torch.empty(c, dtype=torch.float32, device=DEVICE) for _ in range(2))
    if words is not None and rows <= STRIP_ROWS:
        words = words.view(torch.int16)  # a program has 16 columns
    operands = (dots, bias, gamma, beta, draws, out, words, mean, inv_std)
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    drawn = form == "sign" and draws is not None
    options = {"FORM": "stochastic" if drawn else form, "SHIFT": shift} | ROUNDED
    options["WORDS"] = words is not None
    if rows <= STRIP_ROWS:
        strips, tile = strip(rows, c)
        _strip[strips](*operands, rows, c, scale, eps, **tile, **options)
        return out, mean, inv_std
    grid, tile, block_rows = cut(rows, c)
    partial = torch.empty(2, grid[1], c, dtype=torch.float32, device=DEVICE)
    sizes = (rows, c, block_rows, scale)
    _statistics[grid](dots, bias, partial, *sizes, **tile, **ROUNDED)
    tile["BLOCKS"] = int(triton.next_power_of_2(grid[1]))
    if shift:
        _shift_squares[grid](dots, bias, partial, *sizes, **tile, **ROUNDED)
    _normalise[grid](*operands, partial, *sizes, eps, **tile, **options)
    return out, mean, inv_std
