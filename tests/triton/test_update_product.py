"""Gradient and step in one Triton kernel against the exact product and the step in torch."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.triton import update_product
from tests.triton.operands import DEVICE, on_device
from tests.triton.steps import (
    ADAM,
    Weights,
    adam,
    adam_plan,
    adamax,
    adamax_plan,
    at_row,
    near,
    poisoned_signs,
    rule_of,
    same,
    signs_of,
)  # fmt: skip

SHAPES = ((1, 1), (33, 70), (64, 256), (70, 150))  # within a tile, whole tiles, and tails
BATCHES = (1, 7, 100)
BITS = 4  # of a piece: 100 sums of three pieces are exact in float32 in any order
STEPS = 2
# Sums of 100 float32 products in any order, in units of the sum of their magnitudes.
GRADIENT = 100 * 2.0**-24


def columns_of(batch: int, k: int, seed: int) -> Tensor:
    """Return the inputs bfloat16 [B, K]: ±1, after dropout ±2 or 0."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([-2, -1, 0, 1, 2], dtype=torch.bfloat16)
    return on_device(values[torch.randint(0, 5, (batch, k), generator=generator)])


def short_rows(pieces: int, batch: int, n: int, seed: int) -> Tensor:
    """Return pieces bfloat16 [P, B, N] of few bits each, one below the other."""
    generator = torch.Generator().manual_seed(seed)
    top = 1 << BITS
    rows = torch.randint(-top, top, (pieces, batch, n), generator=generator).float()
    scale = 2.0 ** -(BITS * torch.arange(1, pieces + 1) + 3)
    return on_device((rows * scale[:, None, None]).to(torch.bfloat16))


def split(x: Tensor) -> Tensor:
    """Return three bfloat16 pieces whose sum is float32 ``x``."""
    pieces = []
    for _ in range(3):
        pieces.append(x.to(torch.bfloat16))
        x = x - pieces[-1].float()
    assert not x.any()
    return torch.stack(pieces)


def exact(rows: Tensor, columns: Tensor) -> Tensor:
    return (rows.double().sum(0).T @ columns.double()).float()


def run(
    rule: str, ours: Weights, rows: Tensor, columns: Tensor, step: int, bound: float,
    signs: Tensor | None = None,
) -> Callable[[Weights, Tensor], bool]:  # fmt: skip
    """Take our step; return what takes torch's with a gradient and tells whether both agree."""
    plan = adam_plan(STEPS) if rule == "adam" else adamax_plan(STEPS, 3.7)
    update_product.update_by_product_(
        rule_of(rule, bound), ours.w, rows, columns, ours.m, ours.v, plan, at_row(step), signs
    )

    def agrees(x: Weights, gradient: Tensor) -> bool:
        if rule == "adam":
            return near(ours, x, adam(x, gradient, plan[step], bound))
        adamax(x, gradient, plan[step], bound, rule == "adamax-stored")
        return same(ours, x)

    return agrees


def two_steps(rule: str, n: int, k: int, batch: int, pieces: int, bound: float) -> Weights:
    ours, theirs = Weights.of(n, k), Weights.of(n, k)
    for step in range(STEPS):
        rows, columns = short_rows(pieces, batch, n, step), columns_of(batch, k, step)
        signs = poisoned_signs(n, k)
        agrees = run(rule, ours, rows, columns, step, bound, signs)
        assert agrees(theirs, exact(rows, columns))
        assert torch.equal(signs, signs_of(ours.w))
        theirs.w = ours.w.clone()
    return ours


@pytest.mark.parametrize("pieces", update_product.PIECES, ids="P{}".format)
@pytest.mark.parametrize("batch", BATCHES, ids="B{}".format)
@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}x{0[1]}".format)
def test_adam_takes_the_exact_gradient(shape: tuple[int, int], batch: int, pieces: int) -> None:
    two_steps("adam", *shape, batch, pieces, 1.0)


@pytest.mark.parametrize("bound", [1.0, math.inf], ids="bound-{}".format)
@pytest.mark.parametrize("rule", ["adam", "adamax", "adamax-stored"])
def test_every_rule_clips_at_its_bound(rule: str, bound: float) -> None:
    found = two_steps(rule, 70, 150, 7, 3, bound)
    assert bool(found.w.abs().max() == 1) == (bound == 1)


def test_three_pieces_give_the_gradient_of_float32() -> None:
    generator = torch.Generator().manual_seed(3)
    real, columns = on_device(torch.randn(100, 40, generator=generator)), columns_of(100, 70, 3)
    x = Weights(*torch.zeros(3, 40, 70, device=DEVICE))
    run("adam", x, split(real), columns, 0, math.inf)
    gradient = x.m.double() / (1 - ADAM[0])
    allowed = GRADIENT * (real.double().abs().T @ columns.double().abs())
    error = (gradient - real.double().T @ columns.double()).abs()
    assert bool((error <= allowed).all())
    run(
        "adam", y := Weights(*torch.zeros(3, 40, 70, device=DEVICE)), split(real)[:1], columns, 0, 1
    )
    coarse = (y.m.double() / (1 - ADAM[0]) - real.double().T @ columns.double()).abs()
    assert float(coarse.max()) > 50 * float(error.max())  # one piece alone has 8 bits


def test_nan_spoils_its_row_alone() -> None:
    x, signs = Weights.of(40, 70), poisoned_signs(40, 70)
    rows, columns = short_rows(2, 7, 40, 0), columns_of(7, 70, 0)
    rows[1, 6, 3] = math.nan
    run("adam", x, rows, columns, 0, 1.0, signs)
    assert x.w.isnan().any(1).nonzero().flatten().tolist() == [3]
    assert bool(x.w[3].isnan().all())
    assert torch.equal(signs, signs_of(x.w))


def test_nothing_around_the_matrix_is_written() -> None:
    n, k = 33, 70
    whole, before = Weights.of(n + 2, k), Weights.of(n + 2, k)
    signs = poisoned_signs(n + 2, k)
    part = Weights(*(x[1:-1] for x in vars(whole).values()))
    run("adam", part, short_rows(1, 7, n, 0), columns_of(7, k, 0), 0, 1.0, signs[1:-1])
    for ours, old in zip(vars(whole).values(), vars(before).values(), strict=True):
        assert torch.equal(ours[[0, -1]], old[[0, -1]])
        assert not torch.equal(ours[1:-1], old[1:-1])
    assert torch.equal(signs[[0, -1]], poisoned_signs(2, k))


def test_wrong_operands_are_told() -> None:
    x, rows, columns = Weights.of(8, 6), short_rows(2, 5, 8, 0), columns_of(5, 6, 0)
    good: dict[str, Any] = {
        "parameter": x.w, "rows": rows, "columns": columns, "m": x.m, "v": x.v,
        "plan": adam_plan(2), "at": at_row(0), "rule": rule_of("adam", 1.0),
    }  # fmt: skip
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"rows": rows.float()}, TypeError, "rows must be a torch.bfloat16 tensor, got .*float32"),
        ({"columns": columns.half()}, TypeError, "columns must be a torch.bfloat16 tensor"),
        ({"columns": columns.to("meta")}, ValueError, "columns is on device meta"),
        ({"rows": rows[..., ::2]}, ValueError, "rows must be contiguous"),
        (
            {"rows": rows[0]},
            ValueError,
            r"rows must have shape \[1 to 3, B >= 1, 8\], got \[5, 8\]",
        ),
        ({"rows": rows.repeat(2, 1, 1)}, ValueError, r"rows must .*, got \[4, 5, 8\]"),
        ({"rows": rows[:, :0].contiguous()}, ValueError, r"rows must .*, got \[2, 0, 8\]"),
        ({"columns": columns[:4]}, ValueError, r"columns must have shape \[5, 6\], got \[4, 6\]"),
        (
            {"parameter": x.w.view(-1)},
            ValueError,
            r"parameter must have shape \[N, K\], got \[48\]",
        ),
        ({"m": x.m[:7]}, ValueError, r"m must have 48 elements, got \[7, 6\]"),
        ({"plan": adamax_plan(2, 1)}, ValueError, r"plan must have shape \[steps, 3\]"),
    ]
    for change, kind, message in wrong:
        with pytest.raises(kind, match=message):
            update_product.update_by_product_(**good | change)
    assert same(x, Weights.of(8, 6))
    empty = Weights.of(0, 6)
    update_product.update_by_product_(
        **good | {"parameter": empty.w, "m": empty.m, "v": empty.v, "rows": rows[..., :0]}
    )
