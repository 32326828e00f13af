"""Optimizer steps and signs in one pass over memory on the GPU, in float32.

The twin of ``kernels/cpu/steps.py``: 28 bytes a weight, gradient, weight and two moments in, weight
and moments out; 2 or 4 more where a step writes the signs for the next products.

A captured step replays the same arguments, so what changes from step to step comes from the device:
row ``at`` of ``plan``, which the host makes for a whole epoch. Writes are not told to autograd.
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

import torch
import triton
import triton.language as tl

from kernels.triton.rules import (
    SIGN_DTYPES,
    Rule,
    check_kind,
    check_state,
    check_tensor,
    rates,
    signs_of,
    step,
)

BLOCK = 1024  # elements a program: two 16-byte reads of each array a lane
WARPS = 4


@triton.jit
def places(BLOCK: tl.constexpr):
    """Return the program's elements, four in a row to a lane.

    Left to itself the compiler gives a lane eight, for 16 bytes of signs: its two reads then leave
    gaps within a warp, and weights and moments cross shared memory to be written without.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return tl.max_contiguous(place, 4)


@triton.jit
def _update(
    parameter_ptr, gradient_ptr, m_ptr, v_ptr, signs_ptr, plan_ptr, at_ptr, size, rows, pieces,
    rest1, beta2, third, bound, RULE: tl.constexpr, SIGNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place = places(BLOCK)
    used = place < size
    gradient = tl.load(gradient_ptr + place, mask=used)
    for piece in range(1, pieces):
        piece_ptr = gradient_ptr + tl.cast(piece, tl.int64) * size
        gradient += tl.load(piece_ptr + place, mask=used)
    rate, inverse_root, eps = rates(plan_ptr, at_ptr, rows, RULE)
    step(
        gradient, place, used, parameter_ptr, m_ptr, v_ptr, signs_ptr, rate, inverse_root, eps,
        rest1, beta2, third, bound, RULE, SIGNS,
    )  # fmt: skip


@triton.jit
def _sign(x_ptr, draws_ptr, out_ptr, size, DRAWS: tl.constexpr, BLOCK: tl.constexpr):
    place = places(BLOCK)
    used = place < size
    x = tl.load(x_ptr + place, mask=used)
    if DRAWS:
        drawn = 2 * tl.load(draws_ptr + place, mask=used) - 1
        signs = tl.where(drawn < x, 1.0, -1.0).to(out_ptr.dtype.element_ty)
    else:
        signs = signs_of(x, out_ptr)
    tl.store(out_ptr + place, signs, mask=used)


def update_(
    rule: Rule, parameter: torch.Tensor, gradient: torch.Tensor, m: torch.Tensor, v: torch.Tensor,
    plan: torch.Tensor, at: torch.Tensor, signs: torch.Tensor | None = None,
) -> None:  # fmt: skip
    """Take the step of ``rule`` that row ``at`` of ``plan`` describes, in place.

    ``m += (1-b1)(g-m)``, then Adam in torch's form ``v = b2 v + (1-b2) g^2``;
    ``w -= rate m / (sqrt(v)/root + eps)``, shift-based AdaMax (paper, Algorithm 4)
    ``v = max(b2 v, |g| + eps)``, its AP2 if stored; ``w -= rate m AP2(1/v)``. w is then clipped to
    ``[-bound, bound]`` (inf: not at all); ``signs`` = +1 where w >= 0 now, else -1.

    Args:
        rule: Adam or AdaMax, with its numbers that no step changes.
        parameter: w, with ``m`` and ``v`` float32 of one number of elements.
        gradient: g, float32 of as many, or pieces [P, ...] of as many each, which sum to it.
        plan: float32 [steps, 3] of Adam: rate ``lr/(1-b1^t)``, root ``sqrt(1-b2^t)`` and eps of
            each step; [steps, 1] of AdaMax: rate ``AP2(lr/(1-b1^t)) scale``.
        at: int64 [], the row; one that ``plan`` lacks makes every weight NaN.
        signs: bfloat16, float16 or float32, or None.

    Raises:
        TypeError, ValueError: a tensor of another kind.
    """
    check_state(rule, parameter, m, v, plan, at, signs)
    size = parameter.numel()
    check_kind("gradient", gradient, torch.float32)
    pieces = max(len(gradient), 1) if gradient.ndim > parameter.ndim and size else 1
    check_tensor("gradient", gradient, torch.float32, pieces * size)
    if size == 0:
        return
    _update[(triton.cdiv(size, BLOCK),)](
        parameter, gradient, m, v, signs, plan, at, size, len(plan), pieces, *rule.numbers,
        RULE=rule.name, SIGNS=signs is not None, BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip


def _order(x: torch.Tensor) -> tuple[list[int], bool]:
    """Return the strides of dimensions longer than 1, and whether they leave no gap."""
    lengths = [(stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1]
    expected, dense = 1, True
    for stride, size in sorted(lengths):
        dense = dense and stride == expected
        expected *= size
    return [stride for stride, _ in lengths], dense


def sign_(x: torch.Tensor, out: torch.Tensor, draws: torch.Tensor | None = None) -> None:
    """``out = +1 where x >= 0, else -1`` (NaN too): 4 bytes read and 2 or 4 written a value.

    With ``draws`` stochastic: ``+1 where 2 * draws - 1 < x`` (paper, equation 2), 4 bytes more.

    Args:
        x: float32 of any dense order in memory, such as channels last.
        out: of ``SIGN_DTYPES``, of the shape and order of ``x``.
        draws: None, or float32 uniform in [0, 1), of the shape and order of ``x``.

    Raises:
        TypeError: another dtype.
        ValueError: another shape, order or device.
    """
    check_kind("x", x, torch.float32)
    check_kind("out", out, *SIGN_DTYPES)
    order, dense = _order(x)
    if not dense:
        raise ValueError(f"x must be dense, got strides {x.stride()} of {list(x.shape)}")
    if draws is not None:
        check_kind("draws", draws, torch.float32)
    for name, other in (("out", out), ("draws", draws)):
        if other is not None and (other.shape != x.shape or _order(other)[0] != order):
            raise ValueError(
                f"{name} must have shape {list(x.shape)} and strides {x.stride()}, "
                f"got {list(other.shape)} and {other.stride()}"
            )
    if x.numel():
        _sign[(triton.cdiv(x.numel(), BLOCK),)](
            x, draws, out, x.numel(), DRAWS=draws is not None, BLOCK=BLOCK, num_warps=WARPS
        )
