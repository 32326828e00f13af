"""The backward pass of batch norm and sign: two passes over gradient and products, as ``norm``.

y is computed again from the products, to the same bits, so nothing but the batch's statistics is
kept between the passes.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc, var-annotated"

import numba
import numpy as np
import torch

from kernels.cpu import pages
from kernels.cpu.jit import jit
from kernels.cpu.norm import arrays, check, columns_of, merged, part, tasks
from kernels.cpu.threads import follow_torch

_ZERO, _ONE = np.float32(0), np.float32(1)


@jit(error_model="numpy")
def _add_row(g, x, middle, slope, beta, gated, total, by_t):
    for j in range(total.size):
        t = np.float32(x[j]) - middle[j]
        passes = (abs(t * slope[j] + beta[j]) <= _ONE) | (not gated)
        value = np.float64(g[j] if passes else _ZERO)
        total[j] += value
        by_t[j] += value * np.float64(t)


@jit(error_model="numpy")
def _write_row(g, x, middle, slope, beta, gated, mean_g, by_t, out):
    for j in range(out.size):
        t = np.float32(x[j]) - middle[j]
        passes = (abs(t * slope[j] + beta[j]) <= _ONE) | (not gated)
        value = g[j] if passes else _ZERO
        out[j] = slope[j] * (value - mean_g[j] - t * by_t[j])


@jit(error_model="numpy")
def _add_part(g, dots, task, columns, gated, sums):
    block, row, end, here = part(task, dots.shape)
    total, by_t = sums[block, 0, here], sums[block, 1, here]
    total[:] = 0
    by_t[:] = 0
    middle, slope, beta = columns[0, here], columns[1, here], columns[2, here]
    for r in range(row, end):
        _add_row(g[r, here], dots[r, here], middle, slope, beta, gated, total, by_t)


@jit(error_model="numpy")
def _write_part(g, dots, task, columns, gated, means, out):
    _, row, end, here = part(task, dots.shape)
    middle, slope, beta = columns[0, here], columns[1, here], columns[2, here]
    mean_g, by_t = means[0, here], means[1, here]
    for r in range(row, end):
        _write_row(
            g[r, here], dots[r, here], middle, slope, beta, gated, mean_g, by_t, out[r, here]
        )


@jit(error_model="numpy")
def _means(sums, rows, scale, inv_std, d_gamma, d_beta):
    """Write the columns' gradients; return ``mean(g)`` and what t takes of g, float32 [2, C]."""
    found = np.empty((2, d_beta.size), dtype=np.float32)
    for j in range(d_beta.size):
        factor = scale * np.float64(inv_std[j])  # xhat is t times it
        d_beta[j], d_gamma[j] = sums[0, j], sums[1, j] * factor
        found[0, j], found[1, j] = sums[0, j] / rows, sums[1, j] * factor * factor / rows
    return found


@jit(parallel=True, error_model="numpy")
def _backward(g, dots, bias, scale, gamma, beta, mean, inv_std, gated, out, d_gamma, d_beta):
    blocks, count = tasks(dots.shape)
    sums = np.empty((blocks, 2, dots.shape[1]), dtype=np.float64)
    columns = columns_of(bias, scale, gamma, beta, mean, inv_std)
    for task in numba.prange(count):
        _add_part(g, dots, task, columns, gated, sums)
    means = _means(merged(sums), len(dots), scale, inv_std, d_gamma, d_beta)
    for task in numba.prange(count):
        _write_part(g, dots, task, columns, gated, means, out)


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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of ``norm_sign``'s dots, gamma, beta and bias.

    With ``g = gradient * 1[|y| <= 1]`` (the straight-through estimator) and ``xhat = (z - mean) *
    inv_std``: ``d_dots = scale * gamma * inv_std * (g - mean(g) - xhat * mean(g * xhat))``,
    ``d_gamma = sum(g * xhat)``, ``d_beta = sum(g)``. ``d_bias`` is 0, as batch norm takes any
    constant away; the library's is what rounding leaves of it.

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

    Returns:
        ``d_dots`` float32 [R, C]; the others float32 [C].

    Raises:
        TypeError, ValueError: ``norm.check``.
    """
    columns = {"bias": bias, "gamma": gamma, "beta": beta, "mean": mean, "inv_std": inv_std}
    check(dots, {"gradient": gradient}, **columns)
    follow_torch()
    out = pages.empty(*dots.shape, torch.float32)
    d_gamma, d_beta = torch.empty_like(bias), torch.empty_like(bias)
    g, d, first, *rest = arrays(gradient, dots, *columns.values())
    _backward(g, d, first, scale, *rest, gated, *arrays(out, d_gamma, d_beta))
    return out, d_gamma, d_beta, torch.zeros_like(bias)
