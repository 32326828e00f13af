"""The backward pass of batch norm and sign, in one launch or two: the cuts of ``norm``.

y is computed again from the dots, so nothing but the batch's statistics is kept between the
passes. Gradient and dots are read once (twice in two launches), the dots' gradient is written once,
as float32, cut into bfloat16 pieces for tensor cores, or as float16 times ``SCALE``: to the
winners of a max-pool, the rest of whose windows gets 0. Shift-based batch norm (``SHIFT``) has the
same form: its factors are powers of two, and the gradient takes AP2 of xhat where vanilla's takes
xhat (paper, Algorithm 3, by the straight-through rule for AP2).
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

import torch
import triton
import triton.language as tl

from kernels.triton import norm
from kernels.triton.device import DEVICE, INTERPRETED
from kernels.triton.norm import block_of, factor_of, in_columns, places
from kernels.triton.rules import check_kind, to_bfloat16

MOST_PIECES = 3
# Of gradients in float16, which is what they are read as too: full precision from 4e-9 up to 4.
SCALE = 2.0**14
WINDOWS = norm.BLOCK.rows // 2  # of a step: each has four places to write, in registers
GREATEST = 65504.0  # the largest float16: no infinities


_UNSCALE, _SCALE, _GREATEST = (tl.constexpr(x) for x in (1 / SCALE, SCALE, GREATEST))


@triton.jit
def _load(operands, at, inside, col, c, scale, GATE: tl.constexpr, SHIFT: tl.constexpr):
    """Return the gradient past the gate, and xhat; 0 outside.

    ``operands``: the pointers of gradient, dots, bias, gamma, beta, mean and inv_std.
    """
    gradient_ptr, dots_ptr, bias_ptr, gamma_ptr, beta_ptr, mean_ptr, inv_std_ptr = operands
    z = tl.load(dots_ptr + at, mask=inside, other=0.0) * scale + in_columns(bias_ptr, col, c)
    inv_std = factor_of(in_columns(inv_std_ptr, col, c), SHIFT)
    xhat = (z - in_columns(mean_ptr, col, c)) * inv_std
    g = tl.load(gradient_ptr + at, mask=inside, other=0.0)
    if gradient_ptr.dtype.element_ty == tl.float16:
        g = g.to(tl.float32)
        g = tl.clamp(g, -_GREATEST, _GREATEST, propagate_nan=tl.PropagateNan.ALL) * _UNSCALE
    if GATE != "none":
        gamma = factor_of(in_columns(gamma_ptr, col, c), SHIFT)
        y = xhat * gamma + in_columns(beta_ptr, col, c)
        g = tl.where(y > 0 if GATE == "relu" else tl.abs(y) <= 1, g, 0.0)
    return g, tl.where(inside, xhat, 0.0)


@triton.jit
def _factor(gamma_ptr, inv_std_ptr, col, c, SHIFT: tl.constexpr):
    """Return gamma * inv_std [COLS], of their AP2 where the norm is shift-based."""
    gamma = factor_of(in_columns(gamma_ptr, col, c), SHIFT)
    return tl.sum(gamma * factor_of(in_columns(inv_std_ptr, col, c), SHIFT), axis=0)


@triton.jit
def _write_half(d_dots_ptr, d, winner_ptr, at, inside, row, col, c, width, POOLED: tl.constexpr):
    """Write d as float16: a pooled map's ``width`` positions a row to the corners that won."""
    d = tl.clamp(d * _SCALE, -_GREATEST, _GREATEST, propagate_nan=tl.PropagateNan.ALL)
    d = d.to(tl.float16)
    if POOLED:
        winner = tl.load(winner_ptr + at, mask=inside, other=0)
        window = (row // width * (2 * width) + row % width) * 2
        place = window[:, None] * c + col[None, :]  # under 2^31: see _empty
        for corner in tl.static_range(4):
            corner_ptr = d_dots_ptr + (corner // 2 * (2 * width) + corner % 2) * c
            value = tl.where(winner == corner, d, tl.zeros_like(d))
            tl.store(corner_ptr + place, value, mask=inside)
    else:
        tl.store(d_dots_ptr + at, d, mask=inside)


@triton.jit
def _write(
    outputs, g, xhat, mean_g, mean_gx, factor, at, inside, row, col, c, size, scale,
    PIECES: tl.constexpr, HALF: tl.constexpr, POOLED: tl.constexpr, NATIVE: tl.constexpr,
    SHIFT: tl.constexpr,
):  # fmt: skip
    """Write the dots' gradient; ``outputs``: its pointer, the winners' and the pooled width."""
    d_dots_ptr, winner_ptr, width = outputs
    along = factor_of(xhat, SHIFT) * mean_gx[None, :]
    d = factor[None, :] * (g - mean_g[None, :] - along) * scale
    if HALF:
        _write_half(d_dots_ptr, d, winner_ptr, at, inside, row, col, c, width, POOLED)
    elif PIECES == 0:
        tl.store(d_dots_ptr + at, d, mask=inside)
    for _ in tl.static_range(PIECES):
        piece = to_bfloat16(d, NATIVE)
        tl.store(d_dots_ptr + at, piece, mask=inside)
        d_dots_ptr += size
        d -= piece.to(tl.float32)


@triton.jit
def _write_columns(columns_ptr, col, c, sum_gx, sum_g, sum_x, mean_g, mean_gx, factor, rows):
    """Write d_gamma, d_beta and d_bias; columns is [3, c]."""
    tl.store(columns_ptr + col, sum_gx, mask=col < c)
    tl.store(columns_ptr + c + col, sum_g, mask=col < c)
    rest = sum_g - mean_g * rows - mean_gx * sum_x
    tl.store(columns_ptr + 2 * c + col, factor * rest, mask=col < c)


@triton.jit
def _strip(
    gradient_ptr, dots_ptr, bias_ptr, gamma_ptr, beta_ptr, mean_ptr, inv_std_ptr, d_dots_ptr,
    columns_ptr, winner_ptr, rows, c, size, scale, width, GATE: tl.constexpr,
    SHIFT: tl.constexpr, PIECES: tl.constexpr, HALF: tl.constexpr, POOLED: tl.constexpr,
    NATIVE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    row, col = tl.arange(0, ROWS), tl.program_id(0) * COLS + tl.arange(0, COLS)
    at, inside = places(row, rows, col, c)
    operands = gradient_ptr, dots_ptr, bias_ptr, gamma_ptr, beta_ptr, mean_ptr, inv_std_ptr
    g, xhat = _load(operands, at, inside, col, c, scale, GATE, SHIFT)
    sum_g, sum_gx = tl.sum(g, axis=0), tl.sum(g * xhat, axis=0)
    sum_x = tl.sum(factor_of(xhat, SHIFT), axis=0)
    mean_g, mean_gx = sum_g / rows, sum_gx / rows
    factor = _factor(gamma_ptr, inv_std_ptr, col, c, SHIFT)
    _write_columns(columns_ptr, col, c, sum_gx, sum_g, sum_x, mean_g, mean_gx, factor, rows)
    outputs = d_dots_ptr, winner_ptr, width
    _write(
        outputs, g, xhat, mean_g, mean_gx, factor, at, inside, row, col, c, size, scale,
        PIECES, HALF, POOLED, NATIVE, SHIFT,
    )  # fmt: skip


@triton.jit
def _sums(
    gradient_ptr, dots_ptr, bias_ptr, gamma_ptr, beta_ptr, mean_ptr, inv_std_ptr, partial_ptr,
    rows, c, block_rows, scale, GATE: tl.constexpr, SHIFT: tl.constexpr, ROWS: tl.constexpr,
    COLS: tl.constexpr,
):  # fmt: skip
    """Write a block's sums of g xhat, g and what goes along xhat; partial is [3, blocks, c]."""
    block, blocks, first, last, row, col = block_of(rows, block_rows, ROWS, COLS)
    sum_gx = tl.zeros((ROWS, COLS), tl.float32)
    sum_g = tl.zeros((ROWS, COLS), tl.float32)
    sum_x = tl.zeros((ROWS, COLS), tl.float32)
    operands = gradient_ptr, dots_ptr, bias_ptr, gamma_ptr, beta_ptr, mean_ptr, inv_std_ptr
    for start in range(first, last, ROWS):
        at, inside = places(start + row, last, col, c)
        g, xhat = _load(operands, at, inside, col, c, scale, GATE, SHIFT)
        sum_gx += g * xhat
        sum_g += g
        sum_x += factor_of(xhat, SHIFT)
    at = partial_ptr + block.to(tl.int64) * c + col
    step = blocks.to(tl.int64) * c
    tl.store(at, tl.sum(sum_gx, axis=0), mask=col < c)
    tl.store(at + step, tl.sum(sum_g, axis=0), mask=col < c)
    tl.store(at + 2 * step, tl.sum(sum_x, axis=0), mask=col < c)


@triton.jit
def _gradient(
    gradient_ptr, dots_ptr, bias_ptr, gamma_ptr, beta_ptr, mean_ptr, inv_std_ptr, d_dots_ptr,
    columns_ptr, winner_ptr, partial_ptr, rows, c, block_rows, size, scale, width,
    GATE: tl.constexpr, SHIFT: tl.constexpr, PIECES: tl.constexpr, HALF: tl.constexpr,
    POOLED: tl.constexpr, NATIVE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    block, blocks, first, last, row, col = block_of(rows, block_rows, ROWS, COLS)
    part, used = places(tl.arange(0, BLOCKS), blocks, col, c)
    step = blocks.to(tl.int64) * c
    sum_gx = tl.sum(tl.load(partial_ptr + part, mask=used, other=0.0), axis=0)
    sum_g = tl.sum(tl.load(partial_ptr + step + part, mask=used, other=0.0), axis=0)
    mean_g, mean_gx = sum_g / rows, sum_gx / rows
    factor = _factor(gamma_ptr, inv_std_ptr, col, c, SHIFT)
    if block == 0:
        sum_x = tl.sum(tl.load(partial_ptr + 2 * step + part, mask=used, other=0.0), axis=0)
        _write_columns(columns_ptr, col, c, sum_gx, sum_g, sum_x, mean_g, mean_gx, factor, rows)
    operands = gradient_ptr, dots_ptr, bias_ptr, gamma_ptr, beta_ptr, mean_ptr, inv_std_ptr
    outputs = d_dots_ptr, winner_ptr, width
    for start in range(first, last, ROWS):
        at, inside = places(start + row, last, col, c)
        g, xhat = _load(operands, at, inside, col, c, scale, GATE, SHIFT)
        _write(
            outputs, g, xhat, mean_g, mean_gx, factor, at, inside, start + row, col, c, size,
            scale, PIECES, HALF, POOLED, NATIVE, SHIFT,
        )  # fmt: skip


def norm_sign_backward(
    gradient: torch.Tensor,
    dots: torch.Tensor,
    bias: torch.Tensor,
    scale: float,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    mean: torch.Tensor,
    inv_std: torch.Tensor,
    pieces: int = 0,
    gated: bool = True,
    half: bool = False,
    winners: torch.Tensor | None = None,
    shift: bool = False,
    relu: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of ``norm_sign``'s dots, gamma, beta and bias.

    With ``g = gradient * 1[|y| <= 1]`` (the straight-through estimator) and ``xhat = (z - mean) *
    inv_std``: ``dz = gamma * inv_std * (g - mean(g) - xhat * mean(g * xhat))``, ``d_dots = scale *
    dz``, ``d_gamma = sum(g * xhat)``, ``d_beta = sum(g)``. ``d_bias = sum(dz)`` is 0 but for
    rounding, as batch norm takes any constant away; it is found from the sum of xhat. With
    ``shift``, gamma and inv_std are their AP2, xhat theirs, and ``dz = gamma * inv_std * (g -
    mean(g) - AP2(xhat) * mean(g * xhat))``, whose sum is not 0.

    Args:
        gradient: with respect to the signs, [R, C], contiguous: float32, or float16 times
            ``SCALE``, of which infinities count as ``GREATEST``.
        dots: as ``norm_sign`` had them, like ``bias``, ``scale``, ``gamma`` and ``beta``.
        bias: float32 [C].
        scale: of the products.
        gamma: float32 [C].
        beta: float32 [C].
        mean: float32 [C], as ``norm_sign`` returned it.
        inv_std: likewise.
        pieces: 0, or the number of bfloat16 pieces of ``d_dots``: piece 0 rounds it, each further
            one rounds what the earlier ones leave; three are the whole of a finite float32.
        gated: False lets all of the gradient pass.
        half: return ``d_dots`` times ``SCALE`` in float16.
        winners: with ``half``, for dots that are a 2x2 max-pool's: the corner that won, uint8
            [B, h, w, C] with ``R = B h w``, contiguous.
        shift: of shift-based batch norm.
        relu: behind the norm stands max(y, 0), whose gradient passes where ``y > 0``.

    Returns:
        ``d_dots`` float32 [R, C], bfloat16 [pieces, R, C], float16 [R, C] or, of all corners,
        [B, 2h, 2w, C]; the others float32 [C].

    Raises:
        TypeError: no tensor, or another dtype.
        ValueError: another shape, device or order in memory, or another number of pieces.
    """
    rows, c = norm.check_rows("dots", dots).shape
    norm.check_rows("gradient", gradient, (rows, c), (torch.float32, torch.float16))
    columns_in = {"bias": bias, "gamma": gamma, "beta": beta, "mean": mean, "inv_std": inv_std}
    norm.check_columns(c, **columns_in)
    if pieces not in range(MOST_PIECES + 1):
        raise ValueError(f"pieces must be 0 to {MOST_PIECES}, got {pieces!r}")
    if (pieces and half) or (winners is not None and not half):
        raise ValueError("pieces are bfloat16's, winners float16's: give pieces or half")
    d_dots, width = _empty(rows, c, pieces, half, winners)
    columns = torch.empty(3, c, dtype=torch.float32, device=DEVICE)
    operands = (gradient, dots, *columns_in.values())
    gate = {"GATE": "relu" if relu else "near" if gated else "none", "SHIFT": shift}
    gate |= norm.ROUNDED
    form = {
        "PIECES": pieces,
        "HALF": half,
        "POOLED": winners is not None,
        "NATIVE": not INTERPRETED,
    }
    if rows <= norm.STRIP_ROWS:
        strips, tile = norm.strip(rows, c)
        outputs = (d_dots, columns, winners, rows, c, rows * c, scale, width)
        _strip[strips](*operands, *outputs, **tile, **form, **gate)
        return d_dots, columns[0], columns[1], columns[2]
    grid, tile, block_rows = norm.cut(rows, c)
    partial = torch.empty(3, grid[1], c, dtype=torch.float32, device=DEVICE)
    _sums[grid](*operands, partial, rows, c, block_rows, scale, **tile, **gate)
    tile["BLOCKS"] = int(triton.next_power_of_2(grid[1]))
    if winners is not None:
        tile["ROWS"] = WINDOWS
    sizes = (rows, c, block_rows, rows * c, scale, width)
    _gradient[grid](*operands, d_dots, columns, winners, partial, *sizes, **tile, **form, **gate)
    return d_dots, columns[0], columns[1], columns[2]


def _empty(
    rows: int, c: int, pieces: int, half: bool, winners: torch.Tensor | None
) -> tuple[torch.Tensor, int]:
    """Return memory for the dots' gradient, and the pooled map's width or 1."""
    if winners is not None:
        shape = check_kind("winners", winners, torch.uint8).shape
        fitting = winners.ndim == 4 and shape[3] == c and winners.numel() == rows * c < 2**29
        if not fitting or not winners.is_contiguous():
            raise ValueError(f"winners must be contiguous [B, h, w, {c}], got {list(shape)}")
        batch, height, width, _ = shape
        whole = (batch, 2 * height, 2 * width, c)
        return torch.empty(whole, dtype=torch.float16, device=DEVICE), width
    if half:
        return torch.empty(rows, c, dtype=torch.float16, device=DEVICE), 1
    if pieces:
        return torch.empty(pieces, rows, c, dtype=torch.bfloat16, device=DEVICE), 1
    return torch.empty(rows, c, dtype=torch.float32, device=DEVICE), 1
