"""The backward pass of batch norm and its activation: two passes over gradient and products.

y is computed again from the products, to the same bits as in ``norm``, so nothing but the batch's
statistics is kept between the passes. Shift-based batch norm has the same form: its factors are
powers of two, and the gradient takes ``AP2(C)`` where vanilla's takes C (paper, Algorithm 3, by the
straight-through rule for AP2).
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc, var-annotated"

import numba
import numpy as np
import torch

from kernels.cpu import pages
from kernels.cpu.jit import jit
from kernels.cpu.norm import arrays, check, merged, middle_of, part, slope_of, tasks
from kernels.cpu.steps import ap2
from kernels.cpu.threads import follow_torch

_ZERO = np.float32(0)
# The gradient passes where ``low < y <= high``: at |y| <= 1, at y > 0.
_BELOW_MINUS_1 = np.nextafter(np.float32(-1), np.float32(-2))
_SIGN, _RELU = (_BELOW_MINUS_1, np.float32(1)), (np.float32(0), np.float32(np.inf))


@jit(error_model="numpy")
def _past(g, y, low, high, gated):
    """Return the gradient past the gate."""
    return g if ((low < y) & (y <= high)) | (not gated) else _ZERO


@jit(error_model="numpy")
def _add_row(g, x, middle, slope, beta, low, high, gated, total, by_t):
    for j in range(total.size):
        t = np.float32(x[j]) - middle[j]
        value = np.float64(_past(g[j], t * slope[j] + beta[j], low, high, gated))
        total[j] += value
        by_t[j] += value * np.float64(t)


@jit(error_model="numpy")
def _add_powers(x, middle, scale, total):
    for j in range(total.size):
        total[j] += np.float64(ap2((np.float32(x[j]) - middle[j]) * scale))


@jit(error_model="numpy")
def _write_row(g, x, middle, slope, beta, low, high, gated, mean_g, along, scale, shift, out):
    for j in range(out.size):
        t = np.float32(x[j]) - middle[j]
        value = _past(g[j], t * slope[j] + beta[j], low, high, gated)
        by = ap2(t * scale) if shift else t
        out[j] = slope[j] * (value - mean_g[j] - by * along[j])


@jit(error_model="numpy")
def _add_part(g, dots, task, middle, slope, beta, scale, gate, shift, sums):
    block, row, end, here = part(task, dots.shape)
    total, by_t, powers = sums[block, 0, here], sums[block, 1, here], sums[block, 2, here]
    sums[block, :, here] = 0
    low, high, gated = gate
    middle, slope, beta = middle[here], slope[here], beta[here]
    for r in range(row, end):
        x = dots[r, here]
        _add_row(g[r, here], x, middle, slope, beta, low, high, gated, total, by_t)
        if shift:
            _add_powers(x, middle, scale, powers)


@jit(error_model="numpy")
def _write_part(g, dots, task, middle, slope, beta, scale, gate, shift, means, out):
    _, row, end, here = part(task, dots.shape)
    low, high, gated = gate
    middle, slope, beta = middle[here], slope[here], beta[here]
    mean_g, along = means[0, here], means[1, here]
    for r in range(row, end):
        _write_row(
            g[r, here], dots[r, here], middle, slope, beta, low, high, gated, mean_g, along,
            scale, shift, out[r, here],
        )  # fmt: skip


@jit(error_model="numpy")
def _means(sums, rows, scale, slope, inv_std, shift, d_gamma, d_beta, d_bias):
    """Write the columns' gradients; return ``mean(g)`` and what t, or ``AP2(C)``, takes of g."""
    found = np.empty((2, d_beta.size), dtype=np.float32)
    for j in range(d_beta.size):
        std = np.float64(ap2(inv_std[j]) if shift else inv_std[j])
        by_x = sums[1, j] * (scale * std)  # xhat is t times it
        d_beta[j], d_gamma[j] = sums[0, j], by_x
        found[0, j] = sums[0, j] / rows
        found[1, j] = by_x * (std if shift else scale * std) / rows
        d_bias[j] = -np.float64(slope[j]) / scale * np.float64(found[1, j]) * sums[2, j]
    return found


@jit(parallel=True, error_model="numpy")
def _backward(
    g, dots, bias, scale, gamma, beta, mean, inv_std, gate, shift, out, d_gamma, d_beta, d_bias
):
    blocks, count = tasks(dots.shape)
    sums = np.empty((blocks, 3, dots.shape[1]), dtype=np.float64)
    middle, slope = middle_of(bias, scale, mean), slope_of(scale, gamma, inv_std, shift)
    unit = np.float32(scale)
    for task in numba.prange(count):
        _add_part(g, dots, task, middle, slope, beta, unit, gate, shift, sums)
    means = _means(merged(sums), len(dots), scale, slope, inv_std, shift, d_gamma, d_beta, d_bias)
    for task in numba.prange(count):
        _write_part(g, dots, task, middle, slope, beta, unit, gate, shift, means, out)


def norm_sign_backward(
    gradient: torch.Tensor,
    dots: torch.Tensor,
    bias: torch.Tensor,
    scale: float,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    mean: torch.Tensor,
    inv_std: torch.Tensor,
    gated: bool = True,
    shift: bool = False,
    relu: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of ``norm_sign``'s dots, gamma, beta and bias.

    With ``g = gradient * 1[|y| <= 1]`` (the straight-through estimator) and ``xhat = (z - mean) *
    inv_std``: ``d_dots = scale * gamma * inv_std * (g - mean(g) - xhat * mean(g * xhat))``,
    ``d_gamma = sum(g * xhat)``, ``d_beta = sum(g)``. ``d_bias`` is 0, as batch norm takes any
    constant away; the library's is what rounding leaves of it. With ``shift`` gamma and inv_std
    stand for their AP2, and ``d_dots = scale * gamma * inv_std * (g - mean(g) - AP2(C) * inv_std^2
    * mean(g * C))``, ``C = z - mean``, which ``d_bias`` is the sum of, over ``scale``.

    Args:
        gradient: with respect to the signs, float32 [R, C], contiguous.
        dots: as ``norm_sign`` had them, like ``bias``, ``scale``, ``gamma`` and ``beta``.
        bias: float32 [C].
        scale: of the products.
        gamma: float32 [C].
        beta: float32 [C].
        mean: float32 [C], as ``norm_sign`` returned it.
        inv_std: likewise.
        gated: False lets all of the gradient pass.
        shift: of shift-based batch norm.
        relu: of ``max(y, 0)`` in place of signs: g is the gradient where ``y > 0``.

    Returns:
        ``d_dots`` float32 [R, C]; the others float32 [C].

    Raises:
        TypeError, ValueError: ``norm.check``.
    """
    columns = {"bias": bias, "gamma": gamma, "beta": beta, "mean": mean, "inv_std": inv_std}
    check(dots, {"gradient": gradient}, **columns)
    follow_torch()
    out = pages.empty(*dots.shape, torch.float32)
    by_column = [torch.empty_like(bias) for _ in range(3)]
    g, d, first, *rest = arrays(gradient, dots, *columns.values())
    gate = (*(_RELU if relu else _SIGN), gated or relu)
    _backward(g, d, first, scale, *rest, gate, shift, *arrays(out, *by_column))
    return out, by_column[0], by_column[1], by_column[2]
