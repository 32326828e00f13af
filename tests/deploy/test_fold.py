"""Thresholds agree with the batch norm at every dot, and with the algebra away from rounding."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.deploy.fold import Threshold, fold, largest_dot
from harness.errors import HarnessError
from harness.nn.networks import Block
from harness.nn.norm import VanillaBatchNorm
from harness.nn.shift import ShiftBatchNorm, ap2
from harness.nn.streams import Streams

# float32 keeps 24 bits through a handful of operations on numbers below 1000.
ROUNDING = 1e-3


def bits(found: Threshold, dots: Tensor) -> Tensor:
    return (dots[:, None] >= found.value) ^ found.flip


def every_dot(limit: int) -> Tensor:
    return torch.arange(-limit, limit + 1)


def expected_bits(block: Block, dots: Tensor) -> Tensor:
    channels = block.layer.bias.numel()
    return block.norm_from_dots(dots.float()[:, None].expand(-1, channels)) >= 0


@pytest.mark.parametrize("norm", ["lasagne", "torch", "shift"])
@pytest.mark.parametrize("fan_in", [1, 2, 33, 64])
@pytest.mark.parametrize("affine", [(1.0, 0.0), (1 / 255, 0.0), (0.0063, 0.31)])
def test_bits_equal_the_norm_at_every_dot(
    blocks: Callable[..., Block], norm: str, fan_in: int, affine: tuple[float, float]
) -> None:
    block = blocks(norm, fan_in, affine)
    limit = largest_dot(fan_in, affine != (1.0, 0.0))
    dots = every_dot(limit)
    found = fold(block, limit)
    assert torch.equal(bits(found, dots), expected_bits(block, dots))
    assert found.value.dtype == torch.int32
    assert found.value.abs().max() <= limit + 1


def norm_factors(block: Block) -> tuple[Tensor, Tensor]:
    norm = block.norm
    if isinstance(norm, ShiftBatchNorm):
        return ap2(norm.weight), ap2(norm.running_inv_std)
    assert isinstance(norm, VanillaBatchNorm)
    if norm.form == "lasagne":
        return norm.weight, norm.get_buffer("running_inv_std")
    return norm.weight, (norm.get_buffer("running_var").double() + norm.eps).rsqrt()


def closed_form(
    gamma: Tensor, beta: Tensor, mean: Tensor, inverse_std: Tensor, bias: Tensor, limit: int
) -> tuple[Threshold, Tensor]:
    """Return the thresholds in float64 algebra, and the real crossing ``c`` they come from.

    ``c = mean - bias - beta / (gamma * inverse_std)``. gamma > 0: ``dot >= ceil(c)``;
    gamma < 0: ``NOT(dot >= floor(c) + 1)``; gamma = 0: constant, the sign of beta. A constant is
    ``±(limit + 1)``. It may differ from :func:`fold` where c is within float32's
    rounding of an integer.
    """
    slope = gamma.double() * inverse_std.double()
    c = mean.double() - bias.double() - beta.double() / torch.where(slope == 0, 1.0, slope)
    value, flip = torch.where(slope > 0, c.ceil(), c.floor() + 1), slope < 0
    always = torch.where(slope == 0, beta >= 0, torch.where(flip, value > limit, value <= -limit))
    never = torch.where(slope == 0, beta < 0, torch.where(flip, value <= -limit, value > limit))
    value = value.masked_fill(always, -limit - 1).masked_fill(never, limit + 1)
    return Threshold(value.to(torch.int32), flip & ~always & ~never), c


@pytest.mark.parametrize("norm", ["lasagne", "torch", "shift"])
@pytest.mark.parametrize("fan_in", [1, 33, 1152])
def test_closed_form_agrees_away_from_rounding(
    blocks: Callable[..., Block], norm: str, fan_in: int
) -> None:
    block = blocks(norm, fan_in, (1.0, 0.0))
    gamma, inverse_std = norm_factors(block)
    folded = fold(block, fan_in)
    algebra, crossing = closed_form(
        gamma, block.norm.bias, block.norm.running_mean, inverse_std, block.layer.bias, fan_in
    )
    clear = (crossing - crossing.round()).abs() > ROUNDING * (1 + crossing.abs())
    clear |= gamma == 0
    assert clear.sum() >= 20
    assert torch.equal(folded.value[clear], algebra.value[clear])
    assert torch.equal(folded.flip[clear], algebra.flip[clear])


def block_of(gamma: Tensor, beta: Tensor, mean: Tensor, bias: Tensor) -> Block:
    from harness.nn.layers import Linear

    n = gamma.numel()
    streams = Streams(0)
    norm = VanillaBatchNorm(n, "lasagne", 1e-4, 0.1)
    layer = Linear((n, 4), "det", "det", streams["init"], None)
    with torch.no_grad():
        norm.weight.copy_(gamma)
        norm.bias.copy_(beta)
        norm.running_mean.copy_(mean)
        layer.bias.copy_(bias)
    return Block(layer, norm, "sign", streams).eval()


def one(gamma: float, beta: float, mean: float, bias: float, limit: int = 10) -> tuple[int, bool]:
    block = block_of(*(torch.tensor([v]) for v in (gamma, beta, mean, bias)))
    found = fold(block, limit)
    return int(found.value), bool(found.flip)


@pytest.mark.parametrize(
    ("parameters", "threshold", "flip"),
    [
        pytest.param((2, 0, 3, 1), 2, False, id="tie-rising-fires-at-0"),
        pytest.param((-2, 0, 3, 1), 3, True, id="tie-falling-fires-at-0"),
        pytest.param((1, 0.5, 0, 0), 0, False, id="rising-between-integers"),
        pytest.param((-1, 0.5, 0, 0), 1, True, id="falling-between-integers"),
        pytest.param((0, 1, 3, 1), -11, False, id="gamma-0-always"),
        pytest.param((0, 0, 3, 1), -11, False, id="gamma-0-beta-0-always"),
        pytest.param((0, -0.0, 3, 1), -11, False, id="gamma-0-beta-minus-0-always"),
        pytest.param((0, -1, 3, 1), 11, False, id="gamma-0-never"),
        pytest.param((1, 0, 50, 0), 11, False, id="rising-out-of-reach"),
        pytest.param((1, 0, -50, 0), -11, False, id="rising-always"),
        pytest.param((-1, 0, 50, 0), -11, False, id="falling-always"),
        pytest.param((-1, 0, -50, 0), 11, False, id="falling-out-of-reach"),
        pytest.param((1, 0, 10, 0), 10, False, id="rising-at-the-largest-dot"),
        pytest.param((-1, 0, -10, 0), -9, True, id="falling-at-the-smallest-dot"),
    ],
)
def test_ties_and_constants(
    parameters: tuple[float, float, float, float], threshold: int, flip: bool
) -> None:
    assert one(*parameters) == (threshold, flip)
    tensors = [torch.tensor([float(v)]) for v in parameters]
    gamma, beta, mean, bias = tensors
    algebra, _ = closed_form(gamma, beta, mean, torch.ones(1), bias, 10)
    assert (int(algebra.value), bool(algebra.flip)) == (threshold, flip)


reals = st.floats(-100, 100, width=32)


@settings(max_examples=200, deadline=None)
@given(gamma=reals, beta=reals, mean=reals, bias=reals, limit=st.integers(1, 300))
def test_any_channel(gamma: float, beta: float, mean: float, bias: float, limit: int) -> None:
    block = block_of(*(torch.tensor([v]) for v in (gamma, beta, mean, bias)))
    dots = every_dot(limit)
    assert torch.equal(bits(fold(block, limit), dots), expected_bits(block, dots))


def test_a_norm_that_is_not_finite_is_refused() -> None:
    with pytest.raises(HarnessError, match="channel 0 gives nan"):
        one(float("nan"), 0, 0, 0)


def test_dots_beyond_float32_are_refused() -> None:
    with pytest.raises(HarnessError, match="not exact in float32"):
        one(1, 0, 0, 0, limit=2**24)
