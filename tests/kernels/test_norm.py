"""Batch norm and sign on the CPU, forward and backward, against the chain that they replace."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from kernels.cpu.norm import norm_sign
from kernels.cpu.norm_backward import norm_sign_backward
from kernels.cpu.threads import set_threads
from kernels.packing import pack_rows
from tests.norms import EPS, MARGIN, SCALE, Case, case, chain, close, in_doubt

# Below, at and beyond a word, four rows, a strip of 512 columns and a block of 512 rows.
SIZES = [(1, 1), (2, 63), (3, 64), (7, 10), (100, 65), (513, 33), (1030, 128), (50, 1100)]
KINDS = (torch.float32, torch.int32)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    set_threads(request.param)
    yield request.param


def _exact(x: Case) -> dict[str, Tensor]:
    return chain(x, torch.float64)


@pytest.mark.usefixtures("poisoned", "threads")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "c"), SIZES)
def test_signs_and_statistics_are_the_chains(rows: int, c: int, kind: torch.dtype) -> None:
    x = case(rows, c)
    dots, *columns = x.operands
    signs, mean, inv_std = norm_sign(dots.to(kind), *columns, EPS)
    expected = _exact(x)
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    assert close(mean, expected["mean"], 1e-7)
    assert close(inv_std, expected["inv_std"], 1e-7)
    sure = expected["y"].abs() > MARGIN
    assert sure.float().mean() > 0.9
    assert torch.equal(signs[sure].double(), expected["signs"][sure])
    values, *same = norm_sign(dots.to(kind), *columns, EPS, form="value")
    assert close(values, expected["y"], 1e-6)
    assert torch.equal(signs, torch.where(values >= 0, 1.0, -1.0))
    assert all(torch.equal(a, b) for a, b in zip(same, (mean, inv_std), strict=True))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("stochastic", [False, True], ids=["sign", "stoch"])
@pytest.mark.parametrize(("rows", "c"), SIZES)
def test_packed_signs_are_the_signs_packed(rows: int, c: int, stochastic: bool) -> None:
    x = case(rows, c)
    draws = x.draws if stochastic else None
    signs, *_ = norm_sign(*x.operands, EPS, draws)
    words, *_ = norm_sign(*x.operands, EPS, draws, packed=True)
    assert torch.equal(words, pack_rows(signs).words)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("rows", "c"), SIZES)
def test_stochastic_signs_follow_the_draws(rows: int, c: int) -> None:
    x = case(rows, c)
    signs, *_ = norm_sign(*x.operands, EPS, x.draws)
    values, *_ = norm_sign(*x.operands, EPS, form="value")
    assert torch.equal(signs, torch.where(2 * x.draws - 1 < values, 1.0, -1.0))


@pytest.mark.usefixtures("poisoned", "threads")
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "ungated"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "c"), SIZES[1:])
def test_gradients_are_the_chains(rows: int, c: int, kind: torch.dtype, gated: bool) -> None:
    x = case(rows, c)
    y = _exact(x)["y"]
    # Where |y| is 1 but for rounding, gates may differ: no gradient comes there.
    gradient = torch.where((y.abs() - 1).abs() > MARGIN, x.gradient, 0.0)
    dots, *columns = x.operands
    _, *statistics = norm_sign(dots.to(kind), *columns, EPS)
    found = norm_sign_backward(gradient, dots.to(kind), *columns, *statistics, gated=gated)
    expected = chain(x, torch.float64, gated, gradient)
    for name, value in zip(("d_dots", "d_gamma", "d_beta", "d_bias"), found, strict=True):
        assert close(value, expected[name], 2e-6), name
    assert not found[3].any()


@pytest.mark.usefixtures("poisoned", "threads")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "c"), SIZES)
def test_a_shift_based_norm_is_the_chains(rows: int, c: int, kind: torch.dtype) -> None:
    x = case(rows, c)
    expected = chain(x, torch.float64, shift=True)
    z = x.dots.double() * SCALE + x.bias
    steps = (z - z.mean(0), expected["inv_std"], x.gamma)
    assert not any(in_doubt(step).any() for step in steps)  # else AP2 may go either way
    dots, *columns = x.operands
    signs, mean, inv_std = norm_sign(dots.to(kind), *columns, EPS, shift=True)
    assert close(mean, expected["mean"], 1e-7)
    assert close(inv_std, expected["inv_std"], 1e-7)
    value, _, _ = norm_sign(dots.to(kind), *columns, EPS, form="value", shift=True)
    assert close(value, expected["y"], 1e-6)
    sure = expected["y"].abs() > MARGIN
    assert sure.float().mean() > 0.9
    assert torch.equal(signs[sure], expected["signs"][sure].float())
    gradient = torch.where((expected["y"].abs() - 1).abs() > MARGIN, x.gradient, 0.0)
    for gated in (True, False):
        found = norm_sign_backward(
            gradient, dots.to(kind), *columns, mean, inv_std, gated=gated, shift=True
        )
        wanted = chain(x, torch.float64, gated, gradient, shift=True)
        for name, value in zip(("d_dots", "d_gamma", "d_beta", "d_bias"), found, strict=True):
            assert close(value, wanted[name], 2e-6), name


@pytest.mark.usefixtures("poisoned", "threads")
@pytest.mark.parametrize("shift", [False, True], ids=["vanilla", "shift"])
@pytest.mark.parametrize(("rows", "c"), SIZES)
def test_relu_is_the_chains(rows: int, c: int, shift: bool) -> None:
    x = case(rows, c)
    expected = chain(x, torch.float64, shift=shift, relu=True)
    found, mean, inv_std = norm_sign(*x.operands, EPS, form="relu", shift=shift)
    assert close(found, expected["signs"], 1e-6)
    gradient = torch.where(expected["y"].abs() > MARGIN, x.gradient, 0.0)
    expected = chain(x, torch.float64, gradient=gradient, shift=shift, relu=True)
    back = norm_sign_backward(gradient, *x.operands, mean, inv_std, shift=shift, relu=True)
    for name, value in zip(("d_dots", "d_gamma", "d_beta", "d_bias"), back, strict=True):
        assert close(value, expected[name], 2e-6), name
    x.dots[0, 0] = float("nan")
    assert norm_sign(*x.operands, EPS, form="relu", shift=shift)[0][:, 0].isnan().all()


def test_relu_s_gradient_is_closed_at_0() -> None:
    dots, zeros = torch.tensor([[1.0], [-1.0], [0.0], [0.0]]), torch.zeros(1)
    operands = (dots, zeros, 1.0, torch.ones(1), zeros)
    values, mean, inv_std = norm_sign(*operands, EPS, form="relu")
    assert (values[:, 0] > 0).tolist() == [True, False, False, False]
    d_beta = norm_sign_backward(torch.ones(4, 1), *operands, mean, inv_std, relu=True)[2]
    assert d_beta.item() == 1


@pytest.mark.parametrize("shift", [False, True], ids=["vanilla", "shift"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("c", [33, 600])
def test_the_same_bits_with_any_threads(c: int, kind: torch.dtype, shift: bool) -> None:
    x = case(2100, c)
    dots, *columns = x.operands
    if kind == torch.float32:
        dots = dots / 7  # sums that are rounded
    found = []
    for threads in (1, 2, 2):
        set_threads(threads)
        forward = norm_sign(dots.to(kind), *columns, EPS, shift=shift)
        backward = norm_sign_backward(
            x.gradient, dots.to(kind), *columns, *forward[1:], shift=shift
        )
        found.append([*forward, *backward])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_integers_and_their_floats_give_the_same_bits() -> None:
    x = case(1030, 70)
    dots, *columns = x.operands
    first, second = (norm_sign(dots.to(kind), *columns, EPS, form="value") for kind in KINDS)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("rows", [3, 99, 1029])
def test_a_product_that_is_the_mean_has_beta_s_sign(rows: int, factor: float) -> None:
    """0, -5 and 5 over and over: the mean is 0, and 7 where 7 is added."""
    dots = torch.tensor([0.0, -5.0, 5.0]).repeat(rows // 3)[:, None] + torch.tensor([0.0, 7.0, 0.0])
    beta, zeros = torch.tensor([0.0, -0.0, -0.25]), torch.zeros(3)
    gamma = factor * torch.ones(3)
    signs, mean, _ = norm_sign(dots, zeros, 1.0, gamma, beta, EPS)
    assert mean.tolist() == [0, 7, 0]
    assert signs[0].tolist() == [1, 1, -1]
    rising = [0.0] * 3 if factor == 0 else [5 * factor] * 3
    expected = [1.0 if value + offset >= 0 else -1.0
                for value, offset in zip(rising, beta.tolist(), strict=True)]  # fmt: skip
    assert signs[2].tolist() == expected


def test_the_gate_is_open_at_1_and_closed_at_the_next_float() -> None:
    # Deviations ±1 and an eps that is lost beside 1: xhat is ±1 exactly, y = gamma * xhat.
    dots = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).repeat(1, 4)
    above, below = 1 + 2.0**-23, 1 - 2.0**-24
    gamma, zeros = torch.tensor([1.0, above, -1.0, below]), torch.zeros(4)
    operands = (dots, zeros, 1.0, gamma, zeros)
    _, mean, inv_std = norm_sign(*operands, 1e-9)
    assert torch.equal(inv_std, torch.ones(4))
    for gated, closed in ((True, 0.0), (False, 4.0)):
        found = norm_sign_backward(torch.ones(4, 4), *operands, mean, inv_std, gated=gated)
        assert found[2].tolist() == [4.0, closed, 4.0, 4.0]


@pytest.mark.usefixtures("poisoned")
def test_nan_is_minus_1_and_stays_in_its_column() -> None:
    x = case(100, 10)
    x.dots[3, 4] = float("nan")
    x.gamma[6] = float("nan")
    signs, mean, inv_std = norm_sign(*x.operands, EPS)
    expected = chain(x, torch.float32)
    lost = expected["y"].isnan().all(0)
    assert lost.nonzero().flatten().tolist() == [4, 6]
    for draws in (None, x.draws):
        signs, *_ = norm_sign(*x.operands, EPS, draws)
        assert torch.equal(signs[:, lost], torch.full((100, 2), -1.0))
        assert torch.equal(
            norm_sign(*x.operands, EPS, draws, packed=True)[0], pack_rows(signs).words
        )
    assert mean.isnan().nonzero().flatten().tolist() == [4]
    found = norm_sign_backward(x.gradient, *x.operands, mean, inv_std)
    assert torch.equal(found[0].isnan().any(0), lost)
    assert not found[2][lost].any()  # not |y| <= 1: the gate is closed
    assert close(found[2][~lost], expected["d_beta"][~lost])


@pytest.mark.parametrize("value", [12.0, 0.1, 3e4])
@pytest.mark.parametrize("rows", [7, 1000])
def test_a_column_of_equal_values_has_no_variance(rows: int, value: float) -> None:
    x = case(rows, 10)
    x.dots[:] = value
    signs, mean, inv_std = norm_sign(*x.operands, EPS)
    assert close(mean, x.bias.double() + SCALE * x.dots[0].double(), 1e-7)
    assert torch.allclose(inv_std, torch.tensor(EPS**-0.5), rtol=1e-4)
    if value == 12:
        assert torch.equal(inv_std, torch.full((10,), EPS**-0.5))


def test_the_variance_is_stable_far_from_0() -> None:
    """1000 ± 1: the mean of squares less the mean's square is off by up to 0.06 of 1 in float32."""
    dots = 999 + 2.0 * torch.randint(0, 2, (1000, 33), generator=torch.Generator().manual_seed(5))
    signs, mean, inv_std = norm_sign(
        dots, torch.zeros(33), 1.0, torch.ones(33), torch.zeros(33), EPS
    )
    exact = dots.double()
    assert torch.allclose(mean.double(), exact.mean(0), rtol=1e-7)
    expected = (exact.var(0, unbiased=False) + EPS).rsqrt()
    assert torch.allclose(inv_std.double(), expected, rtol=1e-7)
    assert torch.equal(signs, dots - 1000)


WRONG: list[tuple[str, Callable[[Case], Tensor], type[Exception], str]] = [
    ("dots", lambda x: x.dots.double(), TypeError, "dots must be .*float32 or .*int32, got .*64"),
    ("dots", lambda x: x.dots[0], ValueError, r"dots must have shape \[R >= 1, C >= 1\], got \[10"),
    ("dots", lambda x: x.dots[:0], ValueError, r"dots must have shape .* got \[0, 10\]"),
    ("dots", lambda x: x.dots.T.contiguous().T, ValueError, r"dots must be .*contiguous"),
    ("bias", lambda x: x.bias[:9], ValueError, r"bias must be \[10\], .* got \[9\]"),
    ("gamma", lambda x: x.gamma.int(), TypeError, "gamma must be torch.float32, got torch.int32"),
    ("beta", lambda x: x.bias[:1].expand(10), ValueError, r"beta must be .* strides \(0,\)"),
    ("draws", lambda x: x.draws[:, :9], ValueError, r"draws must be \[7, 10\], .* got \[7, 9\]"),
]


@pytest.mark.parametrize(("name", "wrong", "error", "text"), WRONG)
def test_wrong_operands_are_told(
    name: str, wrong: Callable[[Case], Tensor], error: type[Exception], text: str
) -> None:
    x = case(7, 10)
    names = ("dots", "bias", "scale", "gamma", "beta")
    operands: dict[str, object] = dict(zip(names, x.operands, strict=True)) | {name: wrong(x)}
    with pytest.raises(error, match=text):
        norm_sign(eps=EPS, **operands)  # type: ignore[arg-type]


@pytest.mark.parametrize(("form", "packed"), [("tanh", False), ("relu", True)])
def test_another_form_is_told(form: str, packed: bool) -> None:
    with pytest.raises(ValueError, match=f"form must be one of sign, value, relu.*got '{form}'"):
        norm_sign(*case(7, 10).operands, EPS, form=form, packed=packed)


def test_a_gradient_of_another_shape_is_told() -> None:
    x = case(7, 10)
    with pytest.raises(ValueError, match=r"gradient must be \[7, 10\], .* got \[6, 10\]"):
        norm_sign_backward(x.gradient[:6], *x.operands, x.bias, x.bias)
