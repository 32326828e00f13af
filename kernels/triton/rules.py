"""The update rules on the GPU: their formulas for a tile in registers, numbers and checks.

Fused multiply-adds stand where the CPU's do (``kernels/cpu/steps.py``). Shift-based AdaMax gives
the CPU's bits. Adam takes the GPU's short division and root, each within two units in the last
place: IEEE's branch, and so keep a lane from working on several weights at a time (88 instructions
a weight instead of 36).
"""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.triton.device import DEVICE

RATES = {"adam": 3, "adamax": 1, "adamax-stored": 1}  # numbers in a row of the plan
SIGN_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
SMALLEST_EPS = 2.0**-126  # of AdaMax: with it v is a normal float32
# AP2 adds to the bits, so that a mantissa from sqrt(2) on carries: see harness.nn.shift.
_ROUND_UP = tl.constexpr(0x800000 - 0x3504F4)
# AP2(1/v) carries from a unit below on, since 1/v is rounded first.
_ROUND_INVERSE_UP = tl.constexpr(0x800000 - 0x3504F3)
_POWER = tl.constexpr(-0x800000)  # sign and exponent
_POWER_SUM = tl.constexpr(0x7F000000)  # bits of 2^e and 2^-e together
_LEAST_POWER = tl.constexpr(0x800000)  # 2^-126
_LAST_INVERSE = tl.constexpr(0x7F1A8278)  # beyond, AP2 of 1/v, a subnormal, is 0


@triton.jit
def ap2(x):
    """Return the approximate power of two of float32; infinities and NaN pass through."""
    bits = (x.to(tl.int32, bitcast=True) + _ROUND_UP) & _POWER
    return tl.where(tl.abs(x) < float("inf"), bits.to(tl.float32, bitcast=True), x)


@triton.jit
def inverse_ap2(v):
    """Return AP2 of float32's 1/v for v >= 2^-126, NaN for NaN, without a division."""
    bits = v.to(tl.int32, bitcast=True)
    power = -((bits + _ROUND_INVERSE_UP) & _POWER) + _POWER_SUM
    power = tl.maximum(power, _LEAST_POWER)
    power = tl.where(bits > _LAST_INVERSE, 0, power).to(tl.float32, bitcast=True)
    return tl.where(v == v, power, v)


@triton.jit
def to_bfloat16(x, NATIVE: tl.constexpr):
    """Round to the nearest bfloat16, ties to even; where not ``NATIVE`` by integers.

    The interpreter's own conversion cuts the low bits off.
    """
    if not NATIVE:
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(tl.bfloat16)


@triton.jit
def rates(plan_ptr, at_ptr, rows, RULE: tl.constexpr):
    """Return the step's rate, inverse root and eps from row ``at`` of the plan.

    They are NaN, which spoils the weights, where there is no such row.
    """
    row = tl.load(at_ptr)
    inside = (row >= 0) & (row < rows)
    nan = float("nan")
    if RULE == "adam":
        rate = tl.load(plan_ptr + row * 3, mask=inside, other=nan)
        root = tl.load(plan_ptr + row * 3 + 1, mask=inside, other=nan)
        eps = tl.load(plan_ptr + row * 3 + 2, mask=inside, other=nan)
    else:
        rate = tl.load(plan_ptr + row, mask=inside, other=nan)
        root = rate
        eps = rate
    return rate, 1.0 / root, eps


@triton.jit
def moved(
    parameter, gradient, m, v, rate, inverse_root, eps, rest1, beta2, third, bound,
    RULE: tl.constexpr,
):  # fmt: skip
    """Return the new parameter, m and v; ``third`` is 1 - beta2 of Adam or AdaMax's epsilon."""
    m = tl.fma(rest1, gradient - m, m)
    if RULE == "adam":
        v = tl.fma(third * gradient, gradient, beta2 * v)
        change = rate * m / (tl.sqrt(v) * inverse_root + eps)
    else:
        v = tl.maximum(beta2 * v, tl.abs(gradient) + third, propagate_nan=tl.PropagateNan.ALL)
        v = ap2(v) if RULE == "adamax-stored" else v
        change = rate * m * inverse_ap2(v)
    parameter = tl.clamp(parameter - change, -bound, bound, propagate_nan=tl.PropagateNan.ALL)
    return parameter, m, v


@triton.jit
def signs_of(x, out_ptr):
    """Return +1 where ``x >= 0``, else -1 (NaN too), in the type that ``out_ptr`` points to."""
    return tl.where(x >= 0, 1.0, -1.0).to(out_ptr.dtype.element_ty)


@triton.jit
def read(place, used, parameter_ptr, m_ptr, v_ptr):
    """Return the weights at ``place`` where ``used``, and their moments."""
    m = tl.load(m_ptr + place, mask=used)
    v = tl.load(v_ptr + place, mask=used)
    return tl.load(parameter_ptr + place, mask=used), m, v


@triton.jit
def write(
    parameter, m, v, place, used, parameter_ptr, m_ptr, v_ptr, signs_ptr, SIGNS: tl.constexpr
):
    """Write the weights at ``place`` where ``used``, their moments and, if SIGNS, their signs."""
    tl.store(m_ptr + place, m, mask=used)
    tl.store(v_ptr + place, v, mask=used)
    tl.store(parameter_ptr + place, parameter, mask=used)
    if SIGNS:
        tl.store(signs_ptr + place, signs_of(parameter, signs_ptr), mask=used)


@triton.jit
def step(
    gradient, place, used, parameter_ptr, m_ptr, v_ptr, signs_ptr, rate, inverse_root, eps,
    rest1, beta2, third, bound, RULE: tl.constexpr, SIGNS: tl.constexpr,
):  # fmt: skip
    """Update the weights at ``place`` where ``used``, their moments and, if SIGNS, their signs."""
    parameter, m, v = read(place, used, parameter_ptr, m_ptr, v_ptr)
    parameter, m, v = moved(
        parameter, gradient, m, v, rate, inverse_root, eps, rest1, beta2, third, bound, RULE
    )
    write(parameter, m, v, place, used, parameter_ptr, m_ptr, v_ptr, signs_ptr, SIGNS)


class Rule(NamedTuple):
    """An update rule and its numbers that no step changes; see :func:`moved`."""

    name: str
    rest1: float
    beta2: float
    third: float
    bound: float

    @property
    def numbers(self) -> tuple[float, ...]:
        """Return what :func:`moved` takes from ``rest1`` on; an int would be compiled in."""
        return tuple(float(x) for x in self[1:])

    @classmethod
    def adam(cls, betas: tuple[float, float], bound: float) -> "Rule":
        """Return Adam's; raise ``ValueError`` for a number out of range."""
        return cls("adam", 1 - betas[0], betas[1], 1 - betas[1], bound)._checked(betas)

    @classmethod
    def adamax(cls, betas: tuple[float, float], eps: float, stored: bool, bound: float) -> "Rule":
        """Return shift-based AdaMax's; raise ``ValueError`` for a number out of range."""
        if not SMALLEST_EPS <= eps < math.inf:
            raise ValueError(f"eps must be finite and at least {SMALLEST_EPS}, got {eps}")
        name = "adamax-stored" if stored else "adamax"
        return cls(name, 1 - betas[0], betas[1], eps, bound)._checked(betas)

    def _checked(self, betas: tuple[float, float]) -> "Rule":
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must lie in [0, 1), got {betas}")
        if not self.bound > 0:
            raise ValueError(f"bound must be positive, inf for no clip, got {self.bound}")
        return self


def check_kind(name: str, x: object, *dtypes: torch.dtype) -> torch.Tensor:
    """Return ``x`` if it is a tensor of one of ``dtypes`` on ``DEVICE``.

    Raises:
        TypeError: no tensor, or another dtype.
        ValueError: another device.
    """
    if not isinstance(x, torch.Tensor) or x.dtype not in dtypes:
        allowed = " or ".join(str(dtype) for dtype in dtypes)
        found = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"{name} must be a {allowed} tensor, got {found}")
    if x.device.type != DEVICE:
        raise ValueError(f"{name} is on device {x.device}; allowed: {DEVICE}")
    return x


def check_tensor(name: str, x: object, dtype: torch.dtype, size: int | None = None) -> torch.Tensor:
    """Return ``x`` if it is a contiguous tensor of ``dtype`` on ``DEVICE`` with ``size`` elements.

    Raises:
        TypeError: no tensor, or another dtype.
        ValueError: another number of elements or device, or not contiguous.
    """
    given = check_kind(name, x, dtype)
    if not given.is_contiguous():
        raise ValueError(
            f"{name} must be contiguous, got strides {given.stride()} of {list(given.shape)}"
        )
    if size is not None and given.numel() != size:
        raise ValueError(f"{name} must have {size} elements, got {list(given.shape)}")
    return given


def check_state(
    rule: Rule, parameter: object, m: object, v: object, plan: object, at: object, signs: object
) -> None:
    """Check all but the gradient of a step; see :func:`check_tensor` for what it raises."""
    size = check_tensor("parameter", parameter, torch.float32).numel()
    check_tensor("m", m, torch.float32, size)
    check_tensor("v", v, torch.float32, size)
    if signs is not None:
        kind = check_kind("signs", signs, *SIGN_DTYPES).dtype
        check_tensor("signs", signs, kind, size)
    shape = list(check_tensor("plan", plan, torch.float32).shape)
    if len(shape) != 2 or shape[1] != RATES[rule.name]:
        raise ValueError(f"plan must have shape [steps, {RATES[rule.name]}], got {shape}")
    counter = check_tensor("at", at, torch.int64)
    if counter.ndim:
        raise ValueError(f"at must have shape [], got {list(counter.shape)}")
