"""Batch norm with batch statistics and its activation, forward: two passes over the products.

Of products ``d`` [R, C] and a layer's ``z = scale * d + bias``: batch norm takes any constant away,
so that ``y = slope * t + beta`` with ``t = d - mean(d)`` and ``slope = gamma * scale * inv_std``. A
first pass sums d and its squares, a second computes. Shift-based batch norm, whose variance is made
of AP2 of ``C = scale * t``, sums it in a pass between the two. Sums are kept in float64, over
blocks of rows that do not depend on the threads, and added up in order: the same bits on every run.
Of integers they are exact, and where d is its mean y is beta.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc, var-annotated"

import numba
import numpy as np
import torch

from kernels.cpu import pages
from kernels.cpu.jit import jit
from kernels.cpu.pack import positive_word
from kernels.cpu.steps import ap2
from kernels.cpu.threads import follow_torch
from kernels.packing import WORD_BITS, words_for

ROWS, COLUMNS = 512, 512  # of a task: a block's strip, 1 MiB, whose sums stay in the first cache
FORMS = ("sign", "value", "relu")  # what the last pass writes; signs may be drawn
SIGN, _, RELU, STOCHASTIC = range(4)
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)


@jit()
def tasks(shape):
    """Return the blocks of rows, and the tasks: a block's strip of columns each."""
    blocks = (shape[0] + ROWS - 1) // ROWS
    return blocks, blocks * ((shape[1] + COLUMNS - 1) // COLUMNS)


@jit()
def part(task, shape):
    """Return a task's block, its rows' begin and end, and its columns as a slice."""
    strips = (shape[1] + COLUMNS - 1) // COLUMNS
    row, col = task // strips * ROWS, task % strips * COLUMNS
    here = slice(col, min(col + COLUMNS, shape[1]))
    return task // strips, row, min(row + ROWS, shape[0]), here


@jit(error_model="numpy")
def _add_one(x, total, squares):
    for j in range(total.size):
        a = np.float64(x[j])
        total[j] += a
        squares[j] += a * a


@jit(error_model="numpy")
def _add_four(x0, x1, x2, x3, total, squares):
    for j in range(total.size):
        a, b, c, d = np.float64(x0[j]), np.float64(x1[j]), np.float64(x2[j]), np.float64(x3[j])
        total[j] += (a + b) + (c + d)
        squares[j] += (a * a + b * b) + (c * c + d * d)


@jit(error_model="numpy")
def _add_part(dots, task, sums):
    block, row, end, here = part(task, dots.shape)
    total, squares = sums[block, 0, here], sums[block, 1, here]
    total[:] = 0
    squares[:] = 0
    for r in range(row, end - 3, 4):
        last = dots[r + 2, here], dots[r + 3, here]
        _add_four(dots[r, here], dots[r + 1, here], *last, total, squares)
    for r in range(end - (end - row) % 4, end):
        _add_one(dots[r, here], total, squares)


@jit(error_model="numpy")
def _add_shifted(dots, task, middle, scale, sums):
    """Sum ``C * AP2(C)`` of a task in place of its squares."""
    block, row, end, here = part(task, dots.shape)
    total, mean = sums[block, 1, here], middle[here]
    total[:] = 0
    for r in range(row, end):
        x = dots[r, here]
        for j in range(total.size):
            c = (np.float32(x[j]) - mean[j]) * scale
            total[j] += np.float64(c) * np.float64(ap2(c))


@jit()
def merged(sums):
    """Return the sums [2, C] of all blocks [blocks, 2, C], added up in order."""
    total = sums[0].copy()
    for block in range(1, len(sums)):
        total += sums[block]
    return total


@jit(error_model="numpy")
def _means(sums, rows, scale, bias, mean):
    for j in range(mean.size):
        mean[j] = scale * (sums[0, j] / rows) + bias[j]


@jit(error_model="numpy")
def middle_of(bias, scale, mean):
    """Return the products' mean, float32 [C]: the same in all passes, forward and backward."""
    found = np.empty(mean.size, dtype=np.float32)
    for j in range(mean.size):
        found[j] = (np.float64(mean[j]) - np.float64(bias[j])) / scale
    return found


@jit(error_model="numpy")
def _deviations(sums, rows, scale, eps, shift, inv_std):
    for j in range(inv_std.size):
        variance = sums[1, j] / rows
        if not shift:
            variance = scale * scale * ((sums[1, j] - sums[0, j] * (sums[0, j] / rows)) / rows)
            variance = 0.0 if variance < 0 else variance  # of equal values, by rounding; NaN stays
        inv_std[j] = 1 / np.sqrt(variance + eps)


@jit(error_model="numpy")
def slope_of(scale, gamma, inv_std, shift):
    """Return what multiplies ``t``, float32 [C]: the same forward and backward."""
    found = np.empty(gamma.size, dtype=np.float32)
    for j in range(gamma.size):
        by_gamma, by_std = (ap2(gamma[j]), ap2(inv_std[j])) if shift else (gamma[j], inv_std[j])
        found[j] = np.float64(by_gamma) * scale * np.float64(by_std)
    return found


@jit(error_model="numpy")
def _values(x, middle, slope, beta, out):
    for j in range(out.size):
        out[j] = (np.float32(x[j]) - middle[j]) * slope[j] + beta[j]


@jit(error_model="numpy")
def _positives(x, middle, slope, beta, out):
    for j in range(out.size):
        y = (np.float32(x[j]) - middle[j]) * slope[j] + beta[j]
        out[j] = _ZERO if y < _ZERO else y  # NaN stays


@jit(error_model="numpy")
def _signs(x, middle, slope, beta, out):
    for j in range(out.size):
        y = (np.float32(x[j]) - middle[j]) * slope[j] + beta[j]
        out[j] = _ONE if y >= _ZERO else -_ONE


@jit(error_model="numpy")
def _drawn_signs(x, middle, slope, beta, draws, out):
    for j in range(out.size):
        y = (np.float32(x[j]) - middle[j]) * slope[j] + beta[j]
        out[j] = _ONE if _TWO * draws[j] - _ONE < y else -_ONE


@jit(error_model="numpy")
def _write_part(dots, task, middle, slope, beta, draws, form, out, words):
    _, row, end, here = part(task, dots.shape)
    middle, slope, beta = middle[here], slope[here], beta[here]
    line = np.full(COLUMNS, -_ONE, dtype=np.float32)  # pad bits are 0
    count = (middle.size + WORD_BITS - 1) // WORD_BITS if words.size else 0
    for r in range(row, end):
        x, to = dots[r, here], line[: middle.size] if count else out[r, here]
        if form == STOCHASTIC:
            _drawn_signs(x, middle, slope, beta, draws[r, here], to)
        elif form == SIGN and not count:
            _signs(x, middle, slope, beta, to)
        elif form == RELU:
            _positives(x, middle, slope, beta, to)
        else:
            _values(x, middle, slope, beta, to)
        for t in range(count):
            words[r, here.start // WORD_BITS + t] = positive_word(line, t * WORD_BITS)


@jit(parallel=True, error_model="numpy")
def _forward(dots, bias, scale, gamma, beta, eps, draws, form, shift, out, words, mean, inv_std):
    blocks, count = tasks(dots.shape)
    sums = np.empty((blocks, 2, dots.shape[1]), dtype=np.float64)
    for task in numba.prange(count):
        _add_part(dots, task, sums)
    total = merged(sums)
    _means(total, len(dots), scale, bias, mean)
    middle = middle_of(bias, scale, mean)
    if shift:
        for task in numba.prange(count):
            _add_shifted(dots, task, middle, np.float32(scale), sums)
        total = merged(sums)
    _deviations(total, len(dots), scale, eps, shift, inv_std)
    slope = slope_of(scale, gamma, inv_std, shift)
    for task in numba.prange(count):
        _write_part(dots, task, middle, slope, beta, draws, form, out, words)


def check(dots: torch.Tensor, others: dict[str, torch.Tensor], **columns: torch.Tensor) -> None:
    """Raise unless ``others`` are like ``dots`` [R, C] and ``columns`` float32 [C], contiguous.

    Raises:
        TypeError: another dtype.
        ValueError: another shape, no row, or another order in memory.
    """
    if dots.dtype not in (torch.float32, torch.int32):
        raise TypeError(f"dots must be torch.float32 or torch.int32, got {dots.dtype}")
    if dots.ndim != 2 or not dots.numel():
        raise ValueError(f"dots must have shape [R >= 1, C >= 1], got {list(dots.shape)}")
    shapes = {"dots": dots.shape} | dict.fromkeys(others, dots.shape)
    shapes |= dict.fromkeys(columns, dots.shape[1:])
    for name, given in ({"dots": dots} | others | columns).items():
        if name != "dots" and given.dtype != torch.float32:
            raise TypeError(f"{name} must be torch.float32, got {given.dtype}")
        if given.shape != shapes[name] or not given.is_contiguous():
            found = f"{list(given.shape)} in strides {given.stride()}"
            raise ValueError(f"{name} must be {list(shapes[name])}, contiguous, got {found}")


def norm_sign(
    dots: torch.Tensor,
    bias: torch.Tensor,
    scale: float,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    eps: float,
    draws: torch.Tensor | None = None,
    form: str = "sign",
    shift: bool = False,
    packed: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the signs of batch norm of products, and the batch's statistics.

    ``z = scale * dots + bias``, ``y = gamma * (z - mean) * inv_std + beta``, ``inv_std = 1 /
    sqrt(var + eps)`` with the biased variance of z; +1 where ``y >= 0``, or with ``draws`` where
    ``2 * draws - 1 < y``, else -1, which NaN gives (paper, equations 1 and 2). With ``shift`` the
    variance is ``mean(C * AP2(C))``, ``C = z - mean``, and gamma and inv_std multiply as their AP2
    (paper, Algorithm 3).

    Args:
        dots: int32 or float32 [R, C], contiguous; a channels-last map is its positions' rows.
        bias: float32 [C], contiguous, as are ``gamma`` and ``beta``.
        scale: of the products, not 0.
        gamma: the batch norm's scale.
        beta: the batch norm's shift.
        eps: added to the variance.
        draws: float32 [R, C] uniform in [0, 1), contiguous.
        form: ``sign``, or in its place ``value``, y itself, or ``relu``, max(y, 0).
        shift: shift-based batch norm.
        packed: return the signs packed.

    Returns:
        Signs float32 [R, C], or packed int64 [R, ceil(C/64)]; mean and inv_std (before AP2)
        float32 [C].

    Raises:
        TypeError, ValueError: :func:`check`; another form; packed and no signs.
    """
    if form not in FORMS or (packed and form != "sign"):
        packs = " packed" if packed else ""
        raise ValueError(
            f"form must be one of {', '.join(FORMS)}, sign if packed, got {form!r}{packs}"
        )
    drawn = {} if draws is None else {"draws": draws}
    check(dots, drawn, bias=bias, gamma=gamma, beta=beta)
    follow_torch()
    rows, c = dots.shape
    out = pages.empty(0 if packed else rows, c, torch.float32)
    words = torch.empty(rows if packed else 0, words_for(c), dtype=torch.int64)
    mean, inv_std = torch.empty_like(bias), torch.empty_like(bias)
    written_as = FORMS.index(form) if form != "sign" or draws is None else STOCHASTIC
    given = arrays(dots, bias, gamma, beta, out[:0] if draws is None else draws)
    written = arrays(out, words, mean, inv_std)
    written[1] = written[1].view(np.uint64)
    _forward(*given[:2], scale, *given[2:4], eps, given[4], written_as, shift, *written)
    return words if packed else out, mean, inv_std


def arrays(*tensors: torch.Tensor) -> list[np.ndarray]:
    """Return the tensors' memory as arrays."""
    return [tensor.detach().numpy() for tensor in tensors]
