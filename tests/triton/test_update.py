"""One-pass optimizer steps and signs by Triton against torch's several passes."""

import functools
import math
from typing import Any

import pytest
import torch

from harness.nn import fused
from harness.nn.shift import ShiftAdaMax
from kernels.triton import update
from kernels.triton.rules import SIGN_DTYPES, Rule
from tests.triton.operands import DEVICE, on_device
from tests.triton.steps import (
    ADAM,
    ADAMAX,
    ADAMAX_EPS,
    EPS,
    LR,
    Weights,
    adam,
    adam_plan,
    adamax,
    adamax_plan,
    at_row,
    near,
    numbers,
    poisoned_signs,
    rule_of,
    same,
    signs_of,
)  # fmt: skip

SIZES = (1, 17, 1000, 4099)  # below a program, and several with a tail
STEPS = 3
ADAMAX_RULES = ("adamax", "adamax-stored")
BOUNDS = (1.0, math.inf)
SCALE = 3.7  # of a layer's step
# torch's Adam rounds lr / (1 - b1^t) and fuses otherwise: a unit in the last place a step, of
# numbers that a subtraction may have made small beside their operands.
TORCH_ADAM = 2e-6


@pytest.mark.parametrize("kind", [None, *SIGN_DTYPES], ids=str)
@pytest.mark.parametrize("bound", BOUNDS, ids="bound-{}".format)
@pytest.mark.parametrize("size", SIZES, ids="n{}".format)
def test_adam_equals_its_formula(size: int, bound: float, kind: torch.dtype | None) -> None:
    ours, theirs, plan, at = Weights.of(size), Weights.of(size), adam_plan(STEPS), at_row(0)
    for step in range(STEPS):
        signs = None if kind is None else poisoned_signs(size).to(kind)
        rule = rule_of("adam", bound)
        update.update_(rule, ours.w, numbers(step, size), ours.m, ours.v, plan, at, signs)
        change = adam(theirs, numbers(step, size), plan[step], bound)
        assert near(ours, theirs, change)
        theirs.w = ours.w.clone()
        assert signs is None or torch.equal(signs, signs_of(ours.w).to(signs.dtype))
        assert int(at) == step
        at += 1
    if size > 17:
        assert bool(ours.w.abs().max() == 1) == (bound == 1)


def test_adam_goes_torchs_way() -> None:
    ours = Weights.of(4099)
    ours.m.zero_()
    ours.v.zero_()
    parameter = ours.w.clone().requires_grad_()
    optimizer = torch.optim.Adam([parameter], lr=LR, betas=ADAM, eps=EPS)
    plan = adam_plan(6)
    plan[:, 2] = EPS
    for step in range(6):
        parameter.grad = numbers(step, 4099)
        optimizer.step()
        rule = rule_of("adam", math.inf)
        update.update_(rule, ours.w, parameter.grad, ours.m, ours.v, plan, at_row(step))
    assert torch.allclose(ours.w, parameter.detach(), rtol=0, atol=TORCH_ADAM)
    state = optimizer.state[parameter]
    assert torch.allclose(ours.m, state["exp_avg"], rtol=TORCH_ADAM, atol=TORCH_ADAM)
    assert torch.allclose(ours.v, state["exp_avg_sq"], rtol=TORCH_ADAM, atol=0)


@pytest.mark.parametrize("stored", [False, True], ids=["exact", "stored-ap2"])
@pytest.mark.parametrize("bound", BOUNDS, ids="bound-{}".format)
@pytest.mark.parametrize("size", SIZES, ids="n{}".format)
def test_shift_adamax_gives_the_bits_of_torchs_passes(
    monkeypatch: pytest.MonkeyPatch, size: int, bound: float, stored: bool
) -> None:
    monkeypatch.setattr(fused, "AVAILABLE", False)
    ours, plan = Weights.of(size), adamax_plan(STEPS, SCALE)
    # Torch's on the CPU, one rounding after the other: on a GPU addcmul takes the rate unrounded.
    w, m, v = (x.to("cpu", copy=True) for x in vars(ours).values())
    parameter = w.requires_grad_()
    group = {"params": [parameter], "lr_scale": SCALE}
    optimizer: Any = ShiftAdaMax([group], LR, ADAMAX, ADAMAX_EPS, stored_ap2=stored)
    optimizer.clipped_groups = int(bound == 1)
    optimizer.state[parameter] = {"step": 0, "m": m, "v": v}
    for step in range(STEPS):
        gradient = numbers(step, size)
        parameter.grad = gradient.cpu()
        optimizer.step()
        signs = poisoned_signs(size)
        rule = rule_of(ADAMAX_RULES[stored], bound)
        update.update_(rule, ours.w, gradient, ours.m, ours.v, plan, at_row(step), signs)
        assert same(ours, Weights(*map(on_device, (parameter.detach(), m, v))))
        assert torch.equal(signs, signs_of(ours.w))


@pytest.mark.filterwarnings("ignore:(invalid value|overflow)")  # of the interpreter's NumPy
@pytest.mark.parametrize("stored", [False, True], ids=["exact", "stored-ap2"])
def test_ap2_at_every_exponent_and_around_each_place_where_it_turns(stored: bool) -> None:
    """A step from nothing shows AP2(1/v) of any v = |g| + eps, and AP2(v) where it is stored."""
    exponents = (torch.arange(256, dtype=torch.int64) << 23)[:, None]
    turns = torch.tensor([0, 0x1A8278, 0x2D413C, 0x3504F3, 0x5A8279, 0x7FFFFF])[:, None]
    mantissas = (turns + torch.arange(-2, 3)).clamp(0, 0x7FFFFF).flatten().unique()
    gradient = on_device((exponents + mantissas).to(torch.int32).view(torch.float32).flatten())
    gradient[::2] *= -1
    ours, theirs = (Weights(*torch.zeros(3, len(gradient), device=DEVICE)) for _ in range(2))
    eps, plan = 2.0**-126, adamax_plan(1, SCALE)
    rule = rule_of(ADAMAX_RULES[stored], math.inf, eps)
    update.update_(rule, ours.w, gradient, ours.m, ours.v, plan, at_row(0))
    adamax(theirs, gradient, plan[0], math.inf, stored, eps)
    assert same(ours, theirs)
    assert len(gradient) > 256 * 20 and int(ours.w.isnan().sum()) < 40


@pytest.mark.parametrize("rule", ["adam", "adamax", "adamax-stored"])
def test_nan_stays_where_it_is_and_its_sign_is_minus(rule: str) -> None:
    x, gradient, signs = Weights.of(40), numbers(0, 40), poisoned_signs(40)
    gradient[3], x.m[4], x.v[5], x.w[6] = (math.nan,) * 4
    plan = adam_plan(1) if rule == "adam" else adamax_plan(1, SCALE)
    update.update_(rule_of(rule, 1), x.w, gradient, x.m, x.v, plan, at_row(0), signs)
    assert x.w.isnan().nonzero().flatten().tolist() == [3, 4, 5, 6]
    assert signs[3:7].tolist() == [-1] * 4
    assert torch.equal(signs, signs_of(x.w))


@pytest.mark.parametrize("pieces", [1, 2, 5], ids="P{}".format)
@pytest.mark.parametrize("shape", [(17,), (7, 157)], ids=str)  # within a program, and two
def test_pieces_of_a_gradient_are_summed(shape: tuple[int, ...], pieces: int) -> None:
    ours, theirs, gradient = Weights.of(*shape), Weights.of(*shape), numbers(0, pieces, *shape)
    rule, plan, at = rule_of("adam", 1), adam_plan(1), at_row(0)
    update.update_(rule, ours.w, gradient, ours.m, ours.v, plan, at)
    whole = functools.reduce(torch.add, gradient)  # in their order: to the bit
    update.update_(rule, theirs.w, whole, theirs.m, theirs.v, plan, at)
    assert same(ours, theirs)


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_that_the_plan_lacks_is_not_read(row: int) -> None:
    x, plan = Weights.of(40), adam_plan(4)
    rule = rule_of("adam", 1)
    update.update_(rule, x.w, numbers(0, 40), x.m, x.v, plan[1:3], at_row(row))
    assert bool(x.w.isnan().all())


def test_nothing_beyond_the_last_element_is_written() -> None:
    whole = Weights.of(2000)
    part = Weights(*(x[:1001] for x in vars(whole).values()))
    before = Weights.of(2000)
    signs = poisoned_signs(2000)
    rule, plan, at = rule_of("adam", 1), adam_plan(1), at_row(0)
    update.update_(rule, part.w, numbers(0, 1001), part.m, part.v, plan, at, signs[:1001])
    for ours, old in zip(vars(whole).values(), vars(before).values(), strict=True):
        assert torch.equal(ours[1001:], old[1001:])
        assert bool((ours[:1001] != old[:1001]).any())
    assert torch.equal(signs[1001:], poisoned_signs(999))


def test_no_elements_are_no_step() -> None:
    x = Weights.of(0)
    update.update_(rule_of("adam", 1), x.w, x.w, x.m, x.v, adam_plan(1), at_row(0))
    update.sign_(x.w, poisoned_signs(0))


@pytest.mark.parametrize("dtype", SIGN_DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["rows", "channels-last", "transposed"])
def test_signs_in_any_dense_order(layout: str, dtype: torch.dtype) -> None:
    x = torch.randn(3, 5, 7, 11, generator=torch.Generator().manual_seed(2))
    x.view(-1)[:5] = torch.tensor([0.0, -0.0, math.nan, math.inf, -math.inf])
    if layout == "channels-last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        x = x.transpose(0, 3)
    x = on_device(x)
    out = torch.empty_like(x, dtype=dtype).fill_(-77)
    assert out.stride() == x.stride()
    update.sign_(x, out)
    assert torch.equal(out, torch.where(x >= 0, 1.0, -1.0).to(dtype))


@pytest.mark.parametrize("dtype", SIGN_DTYPES, ids=str)
def test_signs_by_draws_are_those_of_the_library(dtype: torch.dtype) -> None:
    x, draws = torch.rand(2, 40, 70, generator=torch.Generator().manual_seed(2))
    x = x * 3 - 1.5
    x[0, 0] = math.nan
    out = torch.empty_like(on_device(x), dtype=dtype).fill_(-77)
    update.sign_(on_device(x), out, on_device(draws))
    assert torch.equal(out.cpu(), torch.where(2 * draws - 1 < x, 1.0, -1.0).to(dtype))
    assert (out[x > 1] == 1).all() and (out[x < -1] == -1).all()
    with pytest.raises(ValueError, match=r"draws must have shape \[40, 70\]"):
        update.sign_(on_device(x), out, on_device(draws[1:]))


def arguments() -> dict[str, Any]:
    x = Weights.of(8)
    return {
        "parameter": x.w, "gradient": numbers(0, 8), "m": x.m, "v": x.v, "plan": adam_plan(2),
        "at": at_row(0), "rule": rule_of("adam", 1.0), "signs": poisoned_signs(8),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["parameter", "gradient", "m", "v", "plan", "at", "signs"])
def test_a_wrong_tensor_is_named(name: str) -> None:
    good = arguments()
    tensor = good[name]
    with pytest.raises(TypeError, match=f"{name} must be a torch.* got torch.float64"):
        update.update_(**good | {name: tensor.double()})
    with pytest.raises(TypeError, match=f"{name} must be a torch.* got list"):
        update.update_(**good | {name: [1.0]})
    with pytest.raises(ValueError, match=f"{name} is on device meta; allowed: {DEVICE}"):
        update.update_(**good | {name: tensor.to("meta")})
    if name != "at":
        spread = torch.stack([tensor, tensor], -1)[..., 0]
        with pytest.raises(ValueError, match=f"{name} must be contiguous"):
            update.update_(**good | {name: spread})
    if name in ("gradient", "m", "v", "signs"):
        with pytest.raises(ValueError, match=rf"{name} must have 8 elements, got \[7\]"):
            update.update_(**good | {name: tensor[:7]})
    assert same(Weights(good["parameter"], good["m"], good["v"]), Weights.of(8))


@pytest.mark.parametrize("shape", [(2, 7), (0, 8)], ids=str)
def test_wrong_pieces_are_told(shape: tuple[int, int]) -> None:
    good = arguments()
    message = rf"gradient must have \d+ elements, got \[{shape[0]}, {shape[1]}\]"
    with pytest.raises(ValueError, match=message):
        update.update_(**good | {"gradient": numbers(0, *shape)})
    assert same(Weights(good["parameter"], good["m"], good["v"]), Weights.of(8))


def test_wrong_plans_and_numbers_are_told() -> None:
    good = arguments()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"plan": on_device(torch.ones(2, 1))}, r"plan must have shape \[steps, 3\], got \[2, 1\]"),
        ({"plan": on_device(torch.ones(3))}, r"plan must have shape \[steps, 3\], got \[3\]"),
        ({"at": at_row(0)[None]}, r"at must have shape \[\], got \[1\]"),
    ]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            update.update_(**good | change)
    with pytest.raises(ValueError, match=r"betas must lie in \[0, 1\), got \(0.9, 1.0\)"):
        Rule.adam((0.9, 1.0), 1)
    for bound in (0.0, math.nan):
        with pytest.raises(
            ValueError, match=f"bound must be positive, inf for no clip, got {bound}"
        ):
            Rule.adam(ADAM, bound)
    with pytest.raises(ValueError, match="eps must be finite and at least 1.17.*e-38, got 0"):
        Rule.adamax(ADAMAX, 0, False, 1)


def test_wrong_operands_of_sign_are_told() -> None:
    x = numbers(0, 4, 6)
    wrong: list[tuple[Any, Any, type[Exception], str]] = [
        (x.double(), x, TypeError, "x must be a torch.float32 tensor, got torch.float64"),
        (x, x.double(), TypeError, "out must be a torch.bfloat16 or .* tensor, got torch.float64"),
        (x.to("meta"), x, ValueError, "x is on device meta"),
        (x[:, ::2], x[:, ::2], ValueError, "x must be dense"),
        (x.expand(2, 4, 6), x.expand(2, 4, 6), ValueError, "x must be dense"),
        (x, x[:3], ValueError, r"out must have shape \[4, 6\]"),
        (x, x.T.contiguous().T, ValueError, r"out must have .* strides \(6, 1\), got .*\(1, 4\)"),
    ]
    for given, out, kind, message in wrong:
        with pytest.raises(kind, match=message):
            update.sign_(given, out)
