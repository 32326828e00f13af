"""Dropout into bfloat16 and the way back, against torch."""

import pytest
import torch

from kernels.triton.drop import drop, join
from tests.triton.operands import on_device


def drawn(m: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(k)
    x = torch.randint(-128, 128, (m, k), generator=generator).mul(2).add(1).float()
    return x, torch.rand(m, k, generator=generator)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (7, 33), (100, 784)], ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5])
def test_odd_integers_pass_unscaled_or_are_dropped(shape: tuple[int, int], rate: float) -> None:
    x, draws = drawn(*shape)
    found = drop(on_device(x), on_device(draws) if rate else None, rate)
    assert found.dtype == torch.bfloat16
    expected = torch.where(draws < 1 - rate, x, 0) if rate else x
    assert torch.equal(found.cpu().float(), expected.unsqueeze(0))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_three_pieces_are_the_real_inputs_that_are_kept(rate: float) -> None:
    x, draws = drawn(7, 33)
    x = x / 3
    kept = torch.where(draws < 1 - rate, x, 0) if rate else x
    for pieces in (1, 2, 3):
        found = drop(on_device(x), on_device(draws) if rate else None, rate, pieces).cpu()
        assert found.shape == (pieces, 7, 33)
        assert torch.equal(found[0], kept.bfloat16())
        rest = kept.double() - found.double().sum(0)
        assert (rest.abs() <= 2.0 ** (-8 * pieces) * kept.abs()).all()
    assert not rest.any()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("pieces", [1, 2, 3])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_pieces_are_summed_the_smallest_first(pieces: int, rate: float) -> None:
    x, draws = drawn(7, 33)
    products = torch.stack([x / 2 ** (12 * piece) for piece in range(pieces)])
    total = torch.zeros_like(x)
    for piece in reversed(products):
        total = total + piece
    expected = torch.where(draws < 1 - rate, total, 0) if rate else total
    found = join(on_device(products), on_device(draws) if rate else None, rate)
    assert torch.equal(found.cpu(), expected)


def test_operands_that_do_not_fit_are_named() -> None:
    x, draws = (on_device(t) for t in drawn(3, 5))
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\), got 1.0"):
        drop(x, draws, 1.0)
    with pytest.raises(ValueError, match="pieces must be 1 to 3, got 0"):
        drop(x, draws, 0.5, 0)
    with pytest.raises(ValueError, match="draws belong to a rate above 0"):
        drop(x, None, 0.5)
    with pytest.raises(ValueError, match=r"draws must have shape \[3, 5\], got \[3, 4\]"):
        drop(x, draws[:, :4], 0.5)
    with pytest.raises(TypeError, match="x must be a tensor of torch.float32"):
        drop(x.half(), draws, 0.5)
    with pytest.raises(ValueError, match=r"products must have shape \[1..3, M, K\], got \[3, 5\]"):
        join(x, None, 0.0)
