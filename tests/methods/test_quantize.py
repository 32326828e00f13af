"""The quantizers against brute force."""

import itertools

import pytest
import torch
from torch import Tensor

from harness.methods.quantize import (
    bitwise_weight,
    least_squares_step,
    sign_through_tanh,
    straight_through,
    ternary_weight,
    zero_threshold,
)


def weights(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("fraction", "zeros"), [(0.29, 29), (0.57, 57), (0.295, 29), (0.999, 99)])
def test_the_number_of_zeros_is_not_rounded_below_a_whole_one(fraction: float, zeros: int) -> None:
    w = torch.arange(1.0, 101.0)
    assert int((bitwise_weight(w, zero_threshold(w, fraction)) == 0).sum()) == zeros


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9])
def test_beta_makes_the_wanted_fraction_zero(fraction: float) -> None:
    w = weights(20, 10)
    q = bitwise_weight(w, zero_threshold(w, fraction))
    assert (q == 0).sum() == int(fraction * 200)
    assert torch.equal(q[q != 0], w.sign()[q != 0])
    if fraction:
        assert w[q == 0].abs().max() < w[q != 0].abs().min(), "the smallest ones are the zeros"


def test_each_layer_has_a_beta_of_its_own() -> None:
    small, large = weights(10, 10), 100 * weights(10, 10, seed=1)
    betas = [zero_threshold(w, 0.3) for w in (small, large)]
    assert betas[1] > 10 * betas[0]
    for w, beta in zip((small, large), betas, strict=True):
        assert (bitwise_weight(w, beta) == 0).sum() == 30


def test_no_zero_fraction_leaves_the_sign_with_plus_one_at_zero() -> None:
    w = torch.tensor([-0.5, 0.0, 1e-30, 2.0])
    assert bitwise_weight(w, zero_threshold(w, 0.0)).tolist() == [-1, 1, 1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_step_has_the_least_squared_error_of_all(seed: int) -> None:
    """Brute force: every choice of which weights are zero, and its best D."""
    w = weights(9, seed=seed)
    least, best = float("inf"), 0.0
    for kept in itertools.product((False, True), repeat=9):
        chosen = torch.tensor(kept)
        if not chosen.any():
            continue
        step = w[chosen].abs().mean()
        error = (w - torch.where(chosen, w.sign() * step, 0)).square().sum().item()
        if error < least:
            least, best = error, step.item()
    found = least_squares_step(w)
    assert found.item() == pytest.approx(best)
    q = ternary_weight(w, found)
    assert (w - q).square().sum().item() == pytest.approx(least)
    assert set(q.abs().unique().tolist()) <= {0.0, found.item()}


def test_quantizers_pass_the_gradient_to_the_real_copies() -> None:
    w = torch.tensor([0.3, -0.7], requires_grad=True)
    q = straight_through(w, torch.tensor([1.0, -1.0]))
    assert q.tolist() == [1, -1], "exactly, with no rounding of w + (q - w)"
    (q * torch.tensor([2.0, 5.0])).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [2, 5]
    x = torch.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    y = sign_through_tanh(x)
    assert y.tolist() == [-1, 1, 1]
    y.sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, 1 - x.detach().tanh() ** 2)
