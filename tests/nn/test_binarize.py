import math

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.nn.binarize import (
    binarize_activation,
    binarize_weight,
    binary_sign,
    hard_sigmoid,
    ste_gate,
    stochastic_sign,
)

BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))
ABOVE_ONE = float(np.nextafter(np.float32(1), np.float32(2)))
TINY = float(np.finfo(np.float32).smallest_subnormal)
# More values than a vector register holds, so that the vectorised kernels run, and a tail.
REPEATS = 37
DRAWS = 200_000
# Five standard deviations of a mean of 200,000 draws of ±1: one false alarm in 3 million.
STATISTICAL_TOLERANCE = 5 / math.sqrt(DRAWS)


def repeated(values: list[float]) -> Tensor:
    return torch.tensor(values * REPEATS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_sign_is_plus_one_from_zero_on(dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 3.0, -3.0, math.inf, -math.inf], dtype=dtype)
    assert binary_sign(x).tolist() == [1, 1, 1, -1, 1, -1, 1, -1]
    assert binary_sign(x).dtype == dtype


def test_sign_at_subnormals_and_nan() -> None:
    x = repeated([TINY, -TINY, math.nan])
    assert binary_sign(x).tolist() == [1, -1, -1] * REPEATS


def test_sign_leaves_its_argument_alone_and_keeps_the_shape() -> None:
    x = torch.randn(3, 0, 5)
    assert binary_sign(x).shape == x.shape
    x = torch.randn(4, 5)
    kept = x.clone()
    binary_sign(x.t())
    stochastic_sign(x, torch.Generator().manual_seed(0))
    hard_sigmoid(x)
    assert torch.equal(x, kept)


def test_hard_sigmoid_is_clipped() -> None:
    x = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    assert hard_sigmoid(x).tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize("x", [-0.9, -0.5, 0.0, 0.25, 0.99])
def test_stochastic_sign_has_the_mean_of_hard_sigmoid(x: float) -> None:
    draws = stochastic_sign(torch.full((DRAWS,), x), torch.Generator().manual_seed(5))
    assert set(draws.unique().tolist()) == {-1.0, 1.0}
    # E = 2 p - 1 = x inside [-1, 1].
    assert draws.mean().item() == pytest.approx(x, abs=STATISTICAL_TOLERANCE)


@pytest.mark.parametrize("x", [1.0, 1.5, math.inf, -1.0, -7.0, -math.inf])
def test_stochastic_sign_is_certain_from_one_on(x: float) -> None:
    draws = stochastic_sign(torch.full((DRAWS,), x), torch.Generator().manual_seed(5))
    assert draws.unique().tolist() == [math.copysign(1, x)]


def test_stochastic_sign_draws_from_its_own_generator_alone() -> None:
    x = torch.zeros(100)
    torch.manual_seed(1)
    first = stochastic_sign(x, torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    untouched = torch.get_rng_state()
    assert torch.equal(first, stochastic_sign(x, torch.Generator().manual_seed(5)))
    assert torch.equal(untouched, torch.get_rng_state())
    assert not torch.equal(first, stochastic_sign(x, torch.Generator().manual_seed(6)))


def test_gate_passes_the_gradient_up_to_one_exactly() -> None:
    x = repeated([-math.inf, -2, -ABOVE_ONE, -1, -BELOW_ONE, -0.0, 0, BELOW_ONE, 1, ABOVE_ONE, 5])
    expected = repeated([0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0])
    assert torch.equal(ste_gate(torch.full_like(x, -0.3), x), -0.3 * expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gate_is_exact_in_other_dtypes(dtype: torch.dtype) -> None:
    above = 1 + torch.finfo(dtype).eps
    x = torch.tensor([1, above, -1, -above], dtype=dtype)
    assert ste_gate(torch.ones_like(x), x).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("seed", [None, 3], ids=["det", "stoch"])
def test_activation_gradient_is_gated_and_weight_gradient_is_not(seed: int | None) -> None:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    values, gradient = repeated([-1.5, -1.0, 0.2, 1.0, 1.5]), repeated([1.0, 2.0, 3.0, 4.0, 5.0])
    x = values.clone().requires_grad_()
    binarize_activation(x, generator).backward(gradient)
    assert x.grad is not None
    assert torch.equal(x.grad, repeated([0.0, 2.0, 3.0, 4.0, 0.0]))
    w = values.clone().requires_grad_()
    binarize_weight(w, generator).backward(gradient)
    assert w.grad is not None
    assert torch.equal(w.grad, gradient)


def test_binarization_without_a_generator_is_the_sign() -> None:
    x = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(binarize_activation(x), binary_sign(x))
    assert torch.equal(binarize_weight(x), binary_sign(x))


@pytest.mark.parametrize("seed", [None, 3])
def test_without_its_gate_the_estimator_passes_all_of_the_gradient(seed: int | None) -> None:
    x = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.5], requires_grad=True)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    y = binarize_activation(x, generator, gated=False)
    y.backward(torch.arange(1.0, 6.0))
    assert set(y.tolist()) <= {-1.0, 1.0}
    assert x.grad is not None
    assert x.grad.tolist() == [1, 2, 3, 4, 5]
