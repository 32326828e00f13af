"""Batch norm and sign by Triton, forward and backward, against the chain that they replace."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from harness.nn.binarize import binarize_activation, binary_sign
from harness.nn.norm import VanillaBatchNorm
from harness.nn.norm_sign import norm_sign as layer_norm_sign
from kernels import reference
from kernels.triton import norm
from kernels.triton.norm import norm_sign
from kernels.triton.norm_backward import GREATEST, MOST_PIECES, norm_sign_backward
from kernels.triton.norm_backward import SCALE as GRADIENT_SCALE
from kernels.triton.norm_evaluate import signs_at_test_time
from tests.norms import EPS, MARGIN, SCALE, TOLERANCE, chain, close, in_doubt, layer_of
from tests.triton.norms import Case, case
from tests.triton.operands import DEVICE, INTERPRETED, on_device

SIZES = [(2, 1), (7, 10), (100, 33), (1000, 33), (1000, 128)]


@pytest.fixture(params=["strip", "blocks", "long-blocks"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One launch; two with a step a block; two with blocks of several steps, the last one short."""
    name: str = request.param
    monkeypatch.setattr(norm, "STRIP_ROWS", 1024 if name == "strip" else 0)
    monkeypatch.setattr(norm, "PROGRAMS", 8 if name == "long-blocks" else 512)
    return name


@pytest.mark.usefixtures("poisoned", "path")
@pytest.mark.parametrize(("rows", "c"), SIZES)
def test_signs_and_statistics_are_the_chains(rows: int, c: int) -> None:
    x = case(rows, c)
    signs, mean, inv_std = norm_sign(*x.operands, EPS)
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    for dtype in (torch.float64, torch.float32):
        expected = chain(x, dtype)
        assert close(mean, expected["mean"])
        assert close(inv_std, expected["inv_std"])
        sure = expected["y"].abs() > MARGIN
        assert sure.float().mean() > 0.9
        assert torch.equal(signs.cpu()[sure], expected["signs"][sure].float())


@pytest.mark.usefixtures("poisoned", "path")
@pytest.mark.parametrize(("rows", "c"), SIZES)
def test_the_output_layer_has_the_value_itself(rows: int, c: int) -> None:
    x = case(rows, c)
    y, mean, _ = norm_sign(*x.operands, EPS, form="value")
    expected = chain(x, torch.float64)
    assert close(y, expected["y"])
    assert close(mean, expected["mean"])


@pytest.mark.usefixtures("poisoned", "path")
@pytest.mark.parametrize(("rows", "c"), [(7, 10), (100, 33), (1000, 128)])
def test_stochastic_signs_follow_the_draws(rows: int, c: int) -> None:
    x = case(rows, c)
    y, draws = chain(x, torch.float64)["y"], x.draws.double()
    found, _, _ = norm_sign(*x.operands, EPS, on_device(x.draws), torch.bfloat16)
    assert found.dtype == torch.bfloat16
    sure = (2 * draws - 1 - y).abs() > MARGIN
    expected = torch.where(2 * draws - 1 < y, 1.0, -1.0)
    assert torch.equal(found.cpu().double()[sure], expected[sure])
    assert torch.equal(found.abs(), torch.ones_like(found))


@pytest.mark.usefixtures("poisoned", "path")
@pytest.mark.parametrize(("rows", "c"), [(7, 32), (100, 64), (1000, 128)])
@pytest.mark.parametrize("drawn", [False, True], ids=["sign", "stoch"])
def test_words_hold_the_bits_of_the_signs(rows: int, c: int, drawn: bool) -> None:
    x = case(rows, c)
    draws = on_device(x.draws) if drawn else None
    words = on_device(torch.empty(rows, c // 32, dtype=torch.int32))
    signs, *_ = norm_sign(*x.operands, EPS, draws, torch.float16, words=words)
    expected = reference.pack(signs.cpu().float()).view(torch.int32)
    assert torch.equal(words.cpu(), expected[:, : c // 32])


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("rows", "c"), [(1, 10), (100, 64), (1000, 96)])
def test_signs_at_test_time_are_those_of_the_layers_operations(rows: int, c: int) -> None:
    x, norm_of = case(rows, c), VanillaBatchNorm(c, "torch", EPS, 0.1).eval()
    with torch.no_grad():
        for column, value in ((norm_of.weight, x.gamma), (norm_of.bias, x.beta)):
            column.copy_(value)
        norm_of.running_mean.copy_(SCALE * x.dots.mean(0))
        norm_of.get_buffer("running_var").copy_(x.dots.var(0, correction=0) + 0.1)
        x.dots[0, 0] = float("nan")
        expected = binary_sign(norm_of.evaluate(x.dots * SCALE + x.bias, 1))
        columns = (norm_of.running_mean, norm_of.test_factor(), norm_of.bias)
    dots, bias, scale, *_ = x.operands
    operands = (dots, bias, scale, *(on_device(column.detach()) for column in columns))
    for dtype in (torch.float32, torch.float16):
        assert torch.equal(signs_at_test_time(*operands, dtype).cpu(), expected.to(dtype))
    if c % 32:
        with pytest.raises(ValueError, match="a multiple of 32 columns for words, got 10"):
            signs_at_test_time(*operands, None)
    else:
        words = reference.pack(expected).view(torch.int32)
        assert torch.equal(signs_at_test_time(*operands, None).cpu(), words[:, : c // 32])


def test_words_that_do_not_fit_are_told() -> None:
    x, words = case(7, 32), on_device(torch.empty(7, 2, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"words are of signs, \[7, C / 32\] .* C 32, \[7, 2\]"):
        norm_sign(*x.operands, EPS, words=words)
    with pytest.raises(ValueError, match="got form 'relu'"):
        norm_sign(*x.operands, EPS, form="relu", words=words[:, :1].contiguous())


@pytest.mark.usefixtures("poisoned", "path")
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "ungated"])
@pytest.mark.parametrize(("rows", "c"), SIZES)
def test_gradients_are_the_chains(rows: int, c: int, gated: bool) -> None:
    x = case(rows, c)
    y = chain(x, torch.float64)["y"]
    # Where |y| is 1 but for rounding, gates may differ: no gradient comes there.
    gradient = torch.where((y.abs() - 1).abs() > MARGIN, x.gradient, 0.0)
    _, mean, inv_std = norm_sign(*x.operands, EPS)
    found = norm_sign_backward(on_device(gradient), *x.operands, mean, inv_std, gated=gated)
    for dtype in (torch.float64, torch.float32):
        expected = chain(x, dtype, gated, gradient)
        for name, value in zip(("d_dots", "d_gamma", "d_beta", "d_bias"), found, strict=True):
            assert close(value, expected[name]), name
    assert close(found[3], found[0].double().sum(0).cpu() / SCALE)


@pytest.mark.usefixtures("poisoned", "path")
@pytest.mark.parametrize(("rows", "c"), SIZES)
def test_rectified_values_and_their_gradients_are_the_chains(rows: int, c: int) -> None:
    x = case(rows, c)
    expected = chain(x, torch.float64, relu=True)
    found, mean, inv_std = norm_sign(*x.operands, EPS, form="relu")
    assert close(found, expected["signs"])
    gradient = torch.where(expected["y"].abs() > MARGIN, x.gradient, 0.0)
    expected = chain(x, torch.float64, gradient=gradient, relu=True)
    back = norm_sign_backward(on_device(gradient), *x.operands, mean, inv_std, relu=True)
    for name, value in zip(("d_dots", "d_gamma", "d_beta", "d_bias"), back, strict=True):
        assert close(value, expected[name]), name
    x.dots[0, 0] = float("nan")
    assert norm_sign(*x.operands, EPS, form="relu")[0][:, 0].isnan().all()


@pytest.mark.usefixtures("poisoned", "path")
@pytest.mark.parametrize(("rows", "c"), SIZES)
def test_a_shift_based_norm_is_the_chains(rows: int, c: int) -> None:
    x = case(rows, c)
    expected = chain(x, torch.float64, shift=True)
    z = x.dots.double() * SCALE + x.bias
    centred = z - z.mean(0)
    steps = (centred, expected["inv_std"], x.gamma)
    assert not any(in_doubt(step).any() for step in steps)  # else AP2 may go either way
    signs, mean, inv_std = norm_sign(*x.operands, EPS, shift=True)
    assert close(mean, expected["mean"])
    assert close(inv_std, expected["inv_std"])
    value, _, _ = norm_sign(*x.operands, EPS, form="value", shift=True)
    assert close(value, expected["y"])
    sure = expected["y"].abs() > MARGIN
    assert sure.float().mean() > 0.9
    assert torch.equal(signs.cpu()[sure], expected["signs"][sure].float())
    gradient = torch.where((expected["y"].abs() - 1).abs() > MARGIN, x.gradient, 0.0)
    for gated in (True, False):
        found = norm_sign_backward(
            on_device(gradient), *x.operands, mean, inv_std, gated=gated, shift=True
        )
        for dtype in (torch.float64, torch.float32):
            wanted = chain(x, dtype, gated, gradient, shift=True)
            for name, value in zip(("d_dots", "d_gamma", "d_beta", "d_bias"), found, strict=True):
                assert close(value, wanted[name]), name


@pytest.mark.usefixtures("poisoned", "path")
@pytest.mark.parametrize(("rows", "c"), [(7, 10), (100, 33), (200, 128)])
def test_pieces_sum_to_the_gradient(rows: int, c: int) -> None:
    x = case(rows, c)
    _, mean, inv_std = norm_sign(*x.operands, EPS)
    found, *columns = norm_sign_backward(on_device(x.gradient), *x.operands, mean, inv_std)
    whole = found.cpu()
    assert whole.abs().max() > 0.01
    # Another kernel for each number of pieces, which on a GPU may sum the columns in another order
    # and so make another gradient, by a few units in the last place.
    rounding = 0.0 if INTERPRETED else 2.0**-22 * float(whole.abs().max())
    for pieces in range(1, MOST_PIECES + 1):
        cut, *same = norm_sign_backward(
            on_device(x.gradient), *x.operands, mean, inv_std, pieces=pieces
        )
        assert (cut.shape, cut.dtype) == ((pieces, rows, c), torch.bfloat16)
        assert all(close(a, b.cpu()) for a, b in zip(columns, same, strict=True))
        rest = whole
        for piece in cut.cpu():
            assert not INTERPRETED or torch.equal(piece, rest.bfloat16())
            rest = rest - piece.float()
        assert (cut[1:].float().abs() <= 2.0**-8 * cut[:-1].float().abs()).all()
        # A piece has 8 bits: what it leaves is at most half a unit of the last, 2^-8 of the value.
        assert (rest.abs() <= 2.0 ** (-8 * pieces) * whole.abs() + rounding).all()
    assert not INTERPRETED or not rest.any()  # three pieces hold the 24 bits of a float32


@pytest.mark.usefixtures("poisoned", "path")
def test_the_gate_is_open_at_1_and_closed_at_the_next_float() -> None:
    # Deviations ±1 and an eps that is lost beside 1: xhat is ±1 exactly, y = gamma * xhat.
    dots = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).repeat(1, 4)
    above, below = 1 + 2.0**-23, 1 - 2.0**-24
    gamma, zeros = torch.tensor([1.0, above, -1.0, below]), torch.zeros(4)
    x = [on_device(t) for t in (dots, zeros, gamma, zeros, torch.ones(4, 4))]
    _, mean, inv_std = norm_sign(x[0], x[1], 1.0, x[2], x[3], 1e-9)
    assert torch.equal(inv_std.cpu(), torch.ones(4))
    for gated, closed in ((True, 0.0), (False, 4.0)):
        found = norm_sign_backward(x[4], *x[:2], 1.0, *x[2:4], mean, inv_std, gated=gated)
        assert found[2].tolist() == [4.0, closed, 4.0, 4.0]


@pytest.mark.usefixtures("poisoned", "path")
def test_nan_is_minus_1_and_stays_in_its_column() -> None:
    x = case(100, 10)
    x.dots[3, 4] = float("nan")
    x.gamma[6] = float("nan")
    signs, mean, inv_std = norm_sign(*x.operands, EPS)
    expected = chain(x, torch.float32)
    lost = expected["y"].isnan().all(0)
    assert lost.nonzero().flatten().tolist() == [4, 6]
    assert torch.equal(signs[:, lost].cpu(), torch.full((100, 2), -1.0))
    drawn, _, _ = norm_sign(*x.operands, EPS, on_device(x.draws))
    assert torch.equal(drawn[:, lost].cpu(), torch.full((100, 2), -1.0))
    assert mean.isnan().nonzero().flatten().tolist() == [4]
    found = norm_sign_backward(on_device(x.gradient), *x.operands, mean, inv_std)
    assert torch.equal(found[0].isnan().cpu(), expected["d_dots"].isnan())
    assert torch.equal(found[0].isnan().any(0).cpu(), lost)
    assert not found[2][lost].any()  # not |y| <= 1: the gate is closed
    assert close(found[2][~lost], expected["d_beta"][~lost])


@pytest.mark.usefixtures("poisoned", "path")
@pytest.mark.parametrize("rows", [7, 100, 1000])
def test_a_column_of_equal_values_has_no_variance(rows: int) -> None:
    x = case(rows, 10)
    x.dots[:] = 12.0
    signs, mean, inv_std = norm_sign(*x.operands, EPS)
    assert torch.equal(mean.cpu(), x.bias + SCALE * 12)
    assert torch.allclose(inv_std.cpu(), torch.tensor(EPS**-0.5), rtol=1e-6)
    assert torch.equal(signs.cpu(), torch.where(x.beta >= 0, 1.0, -1.0).expand(rows, 10))


@pytest.mark.usefixtures("poisoned", "path")
def test_the_variance_is_stable_far_from_0() -> None:
    """1000 ± 1: the mean of squares less the mean's square is off by up to 0.06 of 1 in float32."""
    dots = 1000 + 2.0 * torch.randint(0, 2, (1000, 33), generator=torch.Generator().manual_seed(5))
    ones, zeros = on_device(torch.ones(33)), on_device(torch.zeros(33))
    signs, mean, inv_std = norm_sign(on_device(dots - 1), zeros, 1.0, ones, zeros, EPS)
    exact = dots.double() - 1
    # Units in the last place of 1000 are 6e-5; blocks' means and theirs are rounded to them.
    assert torch.allclose(mean.cpu().double(), exact.mean(0), atol=1.3e-4, rtol=0)
    expected = (exact.var(0, unbiased=False) + EPS).rsqrt()
    assert torch.allclose(inv_std.cpu().double(), expected, rtol=TOLERANCE)
    assert torch.equal(signs.cpu(), dots - 1001)


@pytest.mark.usefixtures("path")
def test_the_same_bits_again() -> None:
    x = case(300, 33)
    first, second = (norm_sign(*x.operands, EPS) for _ in range(2))
    gradients = [
        norm_sign_backward(on_device(x.gradient), *x.operands, *kept[1:])
        for kept in (first, second)
    ]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(("rows", "c"), [(257, 1), (3200, 512), (12800, 256), (51200, 64)])
def test_blocks_cover_all_rows_and_fill_the_launch(rows: int, c: int) -> None:
    (strips, blocks), tile, block_rows = norm.cut(rows, c)
    assert (blocks - 1) * block_rows < rows <= blocks * block_rows
    assert strips * tile["COLS"] >= c
    assert blocks <= norm.MOST_BLOCKS
    assert strips * blocks <= norm.PROGRAMS
    assert block_rows % tile["ROWS"] == 0


@pytest.mark.usefixtures("poisoned", "path")
@pytest.mark.parametrize(("batch", "height", "width", "c"), [(3, 2, 5, 10), (7, 12, 12, 33)])
def test_half_gradients_go_to_the_winners(batch: int, height: int, width: int, c: int) -> None:
    rows = batch * height * width
    x = case(rows, c)
    half = (x.gradient * GRADIENT_SCALE / 4).half()  # 1 is within its range, a few are not
    _, mean, inv_std = norm_sign(*x.operands, EPS)
    half[1, 0], half[2, 0] = float("inf"), float("-inf")  # as the library's sums may round
    plain = on_device(half.float().clamp(-GREATEST, GREATEST) / GRADIENT_SCALE)
    whole, *columns = norm_sign_backward(plain, *x.operands, mean, inv_std)
    expected = (whole.cpu() * GRADIENT_SCALE).clamp(-GREATEST, GREATEST)
    flat, *same = norm_sign_backward(on_device(half), *x.operands, mean, inv_std, half=True)
    assert (flat.shape, flat.dtype) == ((rows, c), torch.float16)
    assert close(flat.float(), expected, 2.0**-11)
    assert all(close(a, b.cpu()) for a, b in zip(columns, same, strict=True))
    winners = torch.randint(0, 4, (batch, height, width, c), dtype=torch.uint8)
    spread, *_ = norm_sign_backward(
        on_device(half), *x.operands, mean, inv_std, half=True, winners=on_device(winners)
    )
    assert spread.shape == (batch, 2 * height, 2 * width, c)
    windows = spread.cpu().view(batch, height, 2, width, 2, c).permute(0, 1, 3, 5, 2, 4).flatten(4)
    won = torch.zeros_like(windows).scatter_(
        4, winners.long().unsqueeze(-1), flat.cpu().view(batch, height, width, c, 1)
    )
    assert close(windows.float(), won.float(), 2.0**-11)
    assert torch.equal(windows != 0, won != 0)


WRONG: list[tuple[str, Callable[[Case], object], type[Exception], str]] = [
    ("dots", lambda x: x.dots.double(), TypeError, "dots must be .*float32, got torch.float64"),
    ("dots", lambda x: x.dots[0], ValueError, r"dots must have shape \[rows, K\]"),
    ("dots", lambda x: x.dots.T, ValueError, r"dots must be contiguous, got strides \(1, 10\)"),
    ("dots", lambda x: x.dots[:0], ValueError, r"dots must have rows .* got shape \[0, 10\]"),
    ("bias", lambda x: x.bias[:9], ValueError, r"bias must have shape \[10\] .* got \[9\]"),
    ("gamma", lambda x: x.gamma.int(), TypeError, "gamma must be .*float32.*got torch.int32"),
    ("beta", lambda x: 0.5, TypeError, "beta must be .*float32.*got float"),
    (
        "beta",
        lambda x: on_device(x.bias)[:1].expand(10),
        ValueError,
        r"beta must be contig.* \(0,\)",
    ),
    ("draws", lambda x: x.draws[:, :9], ValueError, r"draws must have .*\[7, 10\], got \[7, 9\]"),
    ("draws", lambda x: x.draws.half(), TypeError, "draws must be .*float32, got torch.float16"),
    ("form", lambda x: "tanh", ValueError, "form must be one of sign, value, relu, got 'tanh'"),
    ("dtype", lambda x: torch.int8, TypeError, "float16, torch.float32, got torch.int8"),
]


@pytest.mark.parametrize(("name", "wrong", "error", "text"), WRONG)
def test_wrong_operands_are_told(
    name: str, wrong: Callable[[Case], object], error: type[Exception], text: str
) -> None:
    x = case(7, 10)
    given = wrong(x)
    names = ("dots", "bias", "scale", "gamma", "beta")
    operands: dict[str, object] = dict(zip(names, x.operands, strict=True))
    operands[name] = on_device(given) if isinstance(given, Tensor) else given
    with pytest.raises(error, match=text):
        norm_sign(eps=EPS, **operands)  # type: ignore[arg-type]


def test_wrong_operands_of_the_backward_pass_are_told() -> None:
    x = case(7, 10)
    g, ones = on_device(x.gradient), on_device(torch.ones(10))
    with pytest.raises(ValueError, match="pieces must be 0 to 3, got 4"):
        norm_sign_backward(g, *x.operands, ones, ones, pieces=4)
    with pytest.raises(ValueError, match=r"gradient must have shape \[7, 10\], got \[6, 10\]"):
        norm_sign_backward(g[:6], *x.operands, ones, ones)
    with pytest.raises(ValueError, match="give pieces or half"):
        norm_sign_backward(g, *x.operands, ones, ones, pieces=1, half=True)
    winners = on_device(torch.zeros(1, 7, 1, 9, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"winners must be .* w, 10\], got \[1, 7, 1, 9\]"):
        norm_sign_backward(g, *x.operands, ones, ones, half=True, winners=winners)
    with pytest.raises(TypeError, match="gradient must be a tensor of .*float16, got .*bfloat"):
        norm_sign_backward(g.bfloat16(), *x.operands, ones, ones)
    with pytest.raises(ValueError, match=r"inv_std must have shape \[10\] .* got \[9\]"):
        norm_sign_backward(g, *x.operands, ones, ones[:9])


@pytest.mark.usefixtures("poisoned", "path")
@pytest.mark.parametrize("form", ["lasagne", "torch", "inverse-std", "variance"])
@pytest.mark.parametrize("shape", [(50, 10), (4, 10, 6, 3)], ids=["rows", "map"])
@pytest.mark.parametrize("stochastic", [False, True], ids=["sign", "stoch"])
def test_a_layer_trains_as_with_the_chain(
    form: str, shape: tuple[int, ...], stochastic: bool
) -> None:
    generator = torch.Generator().manual_seed(0)  # of data without a value at a step
    order = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    start = torch.randint(-40, 41, shape, generator=generator).float()
    gradient = torch.randn(shape, generator=generator)  # of a map, not channels-last
    results = []
    for fused in (True, False):
        place = DEVICE if fused else "cpu"
        layer = layer_of(form, 10).to(place)
        with torch.no_grad():
            layer.weight.mul_(torch.linspace(-2, 2, 10, device=place))
        dots = start.to(place).contiguous(memory_format=order).requires_grad_()
        bias = torch.linspace(-1, 1, 10, device=place).requires_grad_()
        uniform = torch.Generator().manual_seed(9)
        if fused:
            draws = torch.empty_like(dots, device="cpu").uniform_(generator=uniform)
            drawn = draws.to(place) if stochastic else None
            signs = layer_norm_sign(dots, bias, SCALE, layer, drawn)
            assert signs.is_contiguous(memory_format=order)
        else:
            by_channel = bias.view(-1, *(1,) * (len(shape) - 2))
            y = layer(dots * SCALE + by_channel)
            signs = binarize_activation(y, uniform if stochastic else None)
            edges = (-1.0, 1.0, 2 * draws - 1 if stochastic else 0.0)
            assert all(((y - edge).abs() > MARGIN).all() for edge in edges)  # no step is in doubt
        signs.backward(gradient.to(place))
        grads = [t.grad for t in (dots, bias, layer.weight, layer.bias)]
        results.append([signs, *layer.buffers(), *grads])
    (signs, *found), (same, *expected) = results
    assert torch.equal(signs.cpu(), same)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours is not None and theirs is not None
        assert close(ours, theirs)


def test_a_layer_refuses_what_it_would_copy_and_a_norm_in_evaluation() -> None:
    layer = VanillaBatchNorm(3, "lasagne", EPS, 0.1).to(DEVICE)
    bias, maps = on_device(torch.zeros(3)), on_device(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"dots must be channels-last, got strides \(48, 16, 4, 1"):
        layer_norm_sign(maps, bias, 1.0, layer)
    with pytest.raises(ValueError, match=r"dots must be \[R, C\] or .* got \[3, 4, 4\]"):
        layer_norm_sign(maps[0], bias, 1.0, layer)
    with pytest.raises(ValueError, match="norm must be in training mode"):
        layer_norm_sign(on_device(torch.zeros(2, 3)), bias, 1.0, layer.eval())
