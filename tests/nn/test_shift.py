import math

import numpy as np
import pytest
import torch
from numpy_reference import Array, Norm, ap2
from torch import Tensor

from harness.nn import shift
from harness.nn.shift import ShiftAdaMax, ShiftBatchNorm, ap2_scalar

# float32 sums over 64 rows: 64 * 2^-24 relative, on values of size 10.
FLOAT32_TOLERANCE = 5e-5
# sqrt(2) lies between these two neighbours, so log2 rounds down at one and up at the other.
BELOW_SQRT2, ABOVE_SQRT2 = 1.41421354, 1.41421366


def doubled(values: list[float]) -> Tensor:
    return torch.tensor(values + [-v for v in values])


def test_ap2_rounds_the_exponent_on_both_sides_of_sqrt2() -> None:
    assert np.float32(BELOW_SQRT2) ** 2 < 2 < np.float64(np.float32(ABOVE_SQRT2)) ** 2
    z = doubled([1.0, BELOW_SQRT2, ABOVE_SQRT2, 2.0, 2.8, 2.9, 3.0, 0.7, 0.71, 1e-3, 6e4])
    expected = doubled([1.0, 1.0, 2.0, 2.0, 2.0, 4.0, 4.0, 0.5, 1.0, 2.0**-10, 2.0**16])
    assert torch.equal(shift.ap2(z), expected)


def test_ap2_equals_the_formula_at_every_exponent_and_near_the_boundary() -> None:
    exponents = np.exp2(np.arange(-126, 127))
    near = np.float32(math.sqrt(2)).view(np.int32) + np.arange(-3, 4)
    mantissas = np.concatenate([near.astype(np.int32).view(np.float32), [1, 1.2, 1.7, 1.9999999]])
    z = np.outer(exponents, mantissas).astype(np.float32)
    assert torch.equal(shift.ap2(torch.from_numpy(z)).double(), torch.from_numpy(ap2(z)))
    assert torch.equal(shift.ap2(torch.from_numpy(-z)).double(), torch.from_numpy(ap2(-z)))


@pytest.mark.parametrize("z", [0.0, -0.0])
def test_ap2_of_zero_is_zero(z: float) -> None:
    assert shift.ap2(torch.tensor([z])).item() == 0
    assert ap2_scalar(z) == 0


def test_ap2_of_subnormals_is_zero_or_the_smallest_normal() -> None:
    smallest = float(np.finfo(np.float32).tiny)
    z = doubled([float(np.finfo(np.float32).smallest_subnormal), smallest * 0.4, smallest * 0.9])
    assert torch.equal(shift.ap2(z), doubled([0.0, 0.0, smallest]))


def test_ap2_passes_infinity_and_nan_through() -> None:
    result = shift.ap2(torch.tensor([math.inf, -math.inf, math.nan, 3e38]))
    assert result[:2].tolist() == [math.inf, -math.inf]
    assert math.isnan(result[2])
    assert result[3] == math.inf  # 2^128 is out of float32's range


def test_ap2_keeps_dtype_shape_and_argument() -> None:
    z = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).t()
    kept = z.clone()
    assert torch.equal(shift.ap2(z), torch.from_numpy(ap2(z.numpy())))
    assert torch.equal(z, kept)


@pytest.mark.parametrize("z", [2.0**-10, 1e-3, 0.0156, -3.0, 73.9, 1e-30])
def test_scalar_ap2_equals_the_formula(z: float) -> None:
    assert ap2_scalar(z) == ap2(z).item()


def _norms(features: int, eps: float, momentum: float) -> tuple[ShiftBatchNorm, Norm]:
    rng = np.random.default_rng(4)
    gamma, beta = rng.normal(size=features), rng.normal(size=features)
    ours = ShiftBatchNorm(features, eps, momentum)
    ours.weight.data = torch.tensor(gamma, dtype=torch.float32)
    ours.bias.data = torch.tensor(beta, dtype=torch.float32)
    zero, one = np.zeros(features), np.ones(features)
    return ours, Norm("shift", eps, momentum, gamma, beta, zero, one)


def _close(ours: Tensor, theirs: Array) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=0, atol=FLOAT32_TOLERANCE)


def test_shift_batch_norm_in_float32_equals_the_formula() -> None:
    ours, theirs = _norms(5, 1e-5, 0.125)
    rng = np.random.default_rng(6)
    for _ in range(3):
        x = (rng.normal(size=(64, 5)) * [0.1, 1, 3, 10, 1] + [0, 1, -2, 5, 0]).astype(np.float32)
        g = rng.normal(size=(64, 5)).astype(np.float32)
        given = torch.from_numpy(x).requires_grad_()
        ours.zero_grad()
        y = ours(given)
        y.backward(torch.from_numpy(g))
        _close(y, theirs.forward(x.astype(np.float64)))
        by_x, by_gamma, by_beta = theirs.backward(g.astype(np.float64))
        assert given.grad is not None
        assert ours.weight.grad is not None
        assert ours.bias.grad is not None
        _close(given.grad, by_x)
        _close(ours.weight.grad, by_gamma)
        _close(ours.bias.grad, by_beta)
        _close(ours.running_mean, theirs.running_mean)
        _close(ours.running_inv_std, theirs.running_spread)
    ours.eval()
    _close(ours(torch.from_numpy(x)), theirs.at_test_time(x.astype(np.float64)))


def test_shift_batch_norm_multiplies_by_powers_of_two_alone() -> None:
    ours, _ = _norms(4, 1e-5, 0.125)
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    for training in (True, False):
        ours.train(training)
        mean = x.mean(0) if training else ours.running_mean
        y = ours(x)
        factor = ((y - ours.bias) / (x - mean)).abs().log2()
        assert torch.allclose(factor, factor.round(), atol=1e-3)


def test_constant_channel_stays_finite() -> None:
    norm = ShiftBatchNorm(2)
    x = torch.full((8, 2), 3.0, requires_grad=True)
    y = norm(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    # var = 0: the inverse deviation is 1/sqrt(eps).
    assert torch.allclose(norm.running_inv_std, torch.full((2,), 0.875 + 0.125 / math.sqrt(1e-5)))


def test_images_are_normalised_over_batch_and_space() -> None:
    x = torch.randn(4, 3, 2, 5, generator=torch.Generator().manual_seed(2))
    flat, spatial = ShiftBatchNorm(3), ShiftBatchNorm(3)
    expected = flat(x.movedim(1, -1).reshape(-1, 3)).reshape(4, 2, 5, 3).movedim(-1, 1)
    assert torch.equal(spatial(x), expected)
    assert torch.equal(flat.running_mean, spatial.running_mean)


def _adamax(stored_ap2: bool, betas: tuple[float, float], lr: float) -> tuple[Tensor, ShiftAdaMax]:
    parameter = torch.zeros(3, requires_grad=True)
    return parameter, ShiftAdaMax([{"params": [parameter]}], lr, betas, 2**-27, stored_ap2)


def test_adamax_of_the_paper_by_hand() -> None:
    parameter, optimizer = _adamax(False, (0.875, 1 - 2**-10), 2**-10)
    parameter.grad = torch.tensor([0.3, -0.001, 0.0])
    optimizer.step()
    # m = g/8; 1/v = 3.33 -> 4 and 1000 -> 1024; lr/(1 - 0.875) = 2^-7.
    expected = [-(2**-7) * 0.3 / 8 * 4, 2**-7 * 0.001 / 8 * 1024, 0.0]
    assert parameter.tolist() == pytest.approx(expected, rel=1e-6)
    before = parameter.detach().clone()
    parameter.grad = torch.tensor([0.0, -0.001, 0.0])
    optimizer.step()
    # Bias correction: 2^-10 / (1 - 0.875^2) = 0.00417 -> 2^-8; m = 0.875 * 0.0375.
    moved = before[0] - parameter[0]
    assert moved.item() == pytest.approx(2**-8 * 0.875 * 0.3 / 8 * 4, rel=1e-6)


def test_second_moment_decays_in_the_paper_and_never_as_released() -> None:
    for stored_ap2 in (False, True):
        parameter, optimizer = _adamax(stored_ap2, (0.9, 0.999), 2**-6)
        parameter.grad = torch.full((3,), 0.3)
        for _ in range(500):
            optimizer.step()
            parameter.grad = torch.full((3,), 1e-6)
        v = optimizer.state[parameter]["v"]
        expected = 0.25 if stored_ap2 else 0.3 * 0.999**499
        assert v.tolist() == pytest.approx([expected] * 3, rel=1e-4)


def test_adamax_refuses_a_closure() -> None:
    _, optimizer = _adamax(False, (0.9, 0.999), 2**-6)
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)
