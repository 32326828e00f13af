"""Optimizer steps in plain torch, one rounded operation after another, for this folder's tests."""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.nn.shift import ap2, ap2_scalar
from kernels.triton.rules import Rule
from tests.triton.operands import DEVICE, INTERPRETED, on_device

LR, EPS = 0.03, 1e-8
ADAM = (0.9, 0.999)
# Their complements are powers of two: fused or not, sums round alike.
ADAMAX, ADAMAX_EPS = (1 - 2**-3, 1 - 2**-10), 2**-27
POISON = -77.0
# Two units in the last place each for the division, the root and the root's inverse.
ROUNDINGS = 6


@dataclass
class Weights:
    """A parameter with its moments."""

    w: Tensor
    m: Tensor
    v: Tensor

    @classmethod
    def of(cls, *shape: int) -> "Weights":
        """Return weights in [-1, 1) and moments as they are some steps on."""
        generator = torch.Generator().manual_seed(5)
        w = torch.empty(shape).uniform_(-1, 1, generator=generator)
        m = torch.empty(shape).uniform_(-0.01, 0.01, generator=generator)
        v = torch.empty(shape).uniform_(0, 0.01, generator=generator)
        return cls(*(on_device(x) for x in (w, m, v)))


def numbers(seed: int, *shape: int) -> Tensor:
    """Return gradients from epsilon's size to 10: steps that round away, and that reach a bound."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.empty(shape).uniform_(-20, 3, generator=generator).exp2()
    return on_device(scale * torch.randn(shape, generator=generator))


def rule_of(name: str, bound: float, eps: float = ADAMAX_EPS) -> Rule:
    """Return the kernels' rule ``adam``, ``adamax`` or ``adamax-stored``."""
    if name == "adam":
        return Rule.adam(ADAM, bound)
    return Rule.adamax(ADAMAX, eps, name == "adamax-stored", bound)


def adam_plan(steps: int) -> Tensor:
    """Return rate, root and eps of each step, of float64 rounded once."""
    rows = [
        (LR / (1 - ADAM[0] ** t), (1 - ADAM[1] ** t) ** 0.5, EPS * t) for t in range(1, steps + 1)
    ]
    return on_device(torch.tensor(rows, dtype=torch.float64).float())


def adamax_plan(steps: int, scale: float) -> Tensor:
    """Return the rate of each step."""
    rows = [[ap2_scalar(LR / (1 - ADAMAX[0] ** t)) * scale] for t in range(1, steps + 1)]
    return on_device(torch.tensor(rows, dtype=torch.float64).float())


def at_row(row: int) -> Tensor:
    """Return the counter at ``row``."""
    return torch.tensor(row, device=DEVICE)


def poisoned_signs(*shape: int) -> Tensor:
    """Return bfloat16 signs that are none."""
    return torch.full(shape, POISON, dtype=torch.bfloat16, device=DEVICE)


def signs_of(x: Tensor) -> Tensor:
    """Return bfloat16 signs."""
    return torch.where(x >= 0, 1.0, -1.0).to(torch.bfloat16)


def _fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return ``a b + c``, rounded once as on a GPU, or twice as the interpreter does."""
    return a * b + c if INTERPRETED else (a.double() * b.double() + c.double()).float()


def adam(x: Weights, gradient: Tensor, row: Tensor, bound: float) -> Tensor:
    """Take a step of Adam in torch's form; return what it took off the weights, unclipped."""
    rate, root, eps = row
    rest1, beta2, rest2 = gradient.new_tensor([1 - ADAM[0], ADAM[1], 1 - ADAM[1]])
    x.m = _fma(rest1, gradient - x.m, x.m)
    x.v = _fma(rest2 * gradient, gradient, beta2 * x.v)
    deviation = x.v.double().sqrt().float()  # torch's float32 root may be off by a unit on the CPU
    change = rate * x.m / (deviation * (1 / root) + eps)
    x.w = (x.w - change).clamp(-bound, bound)
    return change


def adamax(
    x: Weights, gradient: Tensor, row: Tensor, bound: float, stored: bool = False,
    eps: float = ADAMAX_EPS,
) -> None:  # fmt: skip
    """Take a step of shift-based AdaMax."""
    x.m = _fma(gradient.new_tensor(1 - ADAMAX[0]), gradient - x.m, x.m)
    x.v = torch.maximum(ADAMAX[1] * x.v, gradient.abs() + eps)
    x.v = ap2(x.v) if stored else x.v
    x.w = (x.w - row * x.m * ap2(x.v.reciprocal())).clamp(-bound, bound)


def same(ours: Weights, theirs: Weights) -> bool:
    """Return whether all numbers have the same bits (NaN: are NaN)."""
    return all(
        torch.equal(a.nan_to_num(POISON), b.nan_to_num(POISON))
        for a, b in zip(vars(ours).values(), vars(theirs).values(), strict=True)
    )


def near(ours: Weights, theirs: Weights, change: Tensor) -> bool:
    """Return whether weights differ by no more than a GPU's division and root, moments not at all.

    The interpreter's division and root are exact.
    """
    if INTERPRETED:
        return same(ours, theirs)
    allowed = torch.finfo(torch.float32).eps * (ROUNDINGS * change.abs() + theirs.w.abs())
    moments = torch.equal(ours.m, theirs.m) and torch.equal(ours.v, theirs.v)
    return moments and bool(((ours.w - theirs.w).abs() <= allowed).all())
