"""A weight's gradient and the step of its optimizer in one kernel: no gradient in memory.

``gradient[n, k] = sum_b rows[b, n] columns[b, k]`` on tensor cores, then the rule of
``kernels.triton.rules``: 24 bytes a weight and 2 for its sign, 8 less than by way of memory.
Columns are what bfloat16 holds: ±1, 0, odd integers up to 255, pieces of reals. Rows are real, so
they come as up to three bfloat16 pieces whose sum is the float32 value, and each piece is
multiplied. Both are read from L2.

Memory is slow to answer, so a program asks for its weights and moments before it multiplies.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.triton.device import INTERPRETED
from kernels.triton.rules import Rule, check_state, check_tensor, moved, rates, read, write

PIECES = (1, 2, 3)


class Tile(NamedTuple):
    """Weights n x k of a program, examples b of a step of the sum, and how they are run."""

    n: int
    k: int
    b: int
    warps: int
    stages: int


# Weights and moments wait in registers, 48 a lane, and leave room for four programs a processor (of
# two pieces; three by shared memory of three), so that one multiplies while others wait for memory.
# On an H200 a step of 4096 x 4096 weights at batch 100 takes 114 us; in tiles of 64 x 128, read
# after the product, 131; a copy of as many bytes 103.
TILE = Tile(32, 64, 64, 4, 3)


@triton.jit
def _gradient(
    rows_ptr, columns_ptr, first_n, first_k, n, k, batch, PIECES: tl.constexpr,
    FLOAT32: tl.constexpr, N: tl.constexpr, K: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Return a tile of the gradient, float32 [K, N]: wgmma takes 64 k at least, but 8 n."""
    tl.assume(batch > 0)  # else Triton 3.6's branch past the loop serialises wgmma
    ns, ks = first_n + tl.arange(0, N), first_k + tl.arange(0, K)
    total = tl.zeros((K, N), tl.float32)
    for start in range(0, batch, B):
        b = start + tl.arange(0, B)
        inside = (b < batch)[:, None]
        columns_at = columns_ptr + b.to(tl.int64)[:, None] * k + ks[None, :]
        columns = tl.load(columns_at, mask=inside & (ks < k)[None, :], other=0)
        for piece in tl.static_range(PIECES):
            rows_at = rows_ptr + (piece * batch + b).to(tl.int64)[:, None] * n + ns[None, :]
            rows = tl.load(rows_at, mask=inside & (ns < n)[None, :], other=0)
            if FLOAT32:  # the interpreter multiplies the bits of bfloat16
                total = tl.dot(tl.trans(columns.to(tl.float32)), rows.to(tl.float32), total)
            else:
                total = tl.dot(tl.trans(columns), rows, total)
    return total


@triton.jit
def _product_update(
    parameter_ptr, rows_ptr, columns_ptr, m_ptr, v_ptr, signs_ptr, plan_ptr, at_ptr,
    n, k, batch, plan_rows, rest1, beta2, third, bound, RULE: tl.constexpr, SIGNS: tl.constexpr,
    PIECES: tl.constexpr, FLOAT32: tl.constexpr, N: tl.constexpr, K: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    first_n, first_k = tl.program_id(1) * N, tl.program_id(0) * K
    tile_at = first_n.to(tl.int64) * k + first_k
    parameter_ptr += tile_at
    m_ptr += tile_at
    v_ptr += tile_at
    if SIGNS:
        signs_ptr += tile_at
    # The tile as one long row, four to a lane, as in kernels.triton.update.
    place = tl.arange(0, N * K)
    row, column = place // K, tl.max_contiguous(place % K, 4)
    used = (first_n + row < n) & (first_k + column < k)
    place = row * k + column
    parameter, m, v = read(place, used, parameter_ptr, m_ptr, v_ptr)
    rate, inverse_root, eps = rates(plan_ptr, at_ptr, plan_rows, RULE)
    gradient = _gradient(
        rows_ptr, columns_ptr, first_n, first_k, n, k, batch, PIECES, FLOAT32, N, K, B
    )
    gradient = tl.reshape(tl.trans(gradient), (N * K,))
    # A read that never happens and leaves no instruction, but has the layout of memory: so the
    # sums cross shared memory to it, once. Else the compiler takes weights and moments, as they
    # came first, to the tensor cores' layout and back, six times as much.
    gradient = tl.load(m_ptr + place, mask=batch < 1, other=gradient)
    parameter, m, v = moved(
        parameter, gradient, m, v, rate, inverse_root, eps, rest1, beta2, third, bound, RULE
    )
    write(parameter, m, v, place, used, parameter_ptr, m_ptr, v_ptr, signs_ptr, SIGNS)


def update_by_product_(
    rule: Rule, parameter: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor,
    m: torch.Tensor, v: torch.Tensor, plan: torch.Tensor, at: torch.Tensor,
    signs: torch.Tensor | None = None,
) -> None:  # fmt: skip
    """Take the step of :func:`kernels.triton.update.update_` with the gradient of a product.

    ``gradient[n, k] = sum_p sum_b rows[p, b, n] columns[b, k]``, summed in float32.

    Args:
        rule: as for ``update_``, like ``plan`` and ``at``.
        parameter: float32 [N, K], as are ``m`` and ``v``.
        rows: bfloat16 [P, B, N], P of 1 to 3: pieces of the output's gradient, largest first.
        columns: bfloat16 [B, K], the inputs, exact in bfloat16.
        signs: bfloat16 of N K elements, or None.

    Raises:
        TypeError, ValueError: a tensor of another kind.
    """
    check_state(rule, parameter, m, v, plan, at, signs)
    if parameter.ndim != 2:
        raise ValueError(f"parameter must have shape [N, K], got {list(parameter.shape)}")
    n, k = parameter.shape
    found = list(check_tensor("rows", rows, torch.bfloat16).shape)
    if len(found) != 3 or found[0] not in PIECES or found[1] == 0 or found[2] != n:
        raise ValueError(f"rows must have shape [1 to 3, B >= 1, {n}], got {found}")
    batch = found[1]
    found = list(check_tensor("columns", columns, torch.bfloat16).shape)
    if found != [batch, k]:
        raise ValueError(f"columns must have shape [{batch}, {k}], got {found}")
    if parameter.numel() == 0:
        return
    # Where 16 does not divide k, weights come one at a time: their places would spill registers.
    warps = TILE.warps if k % 16 == 0 else 2 * TILE.warps
    _product_update[(triton.cdiv(k, TILE.k), triton.cdiv(n, TILE.n))](
        parameter, rows, columns, m, v, signs, plan, at, n, k, batch, len(plan), *rule.numbers,
        RULE=rule.name, SIGNS=signs is not None, PIECES=len(rows), FLOAT32=INTERPRETED,
        N=TILE.n, K=TILE.k, B=TILE.b, num_warps=warps, num_stages=TILE.stages,
    )  # fmt: skip
