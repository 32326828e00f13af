"""Real times ±1 by looked-up sums: exact on the rounded numbers, within the bound of the real."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from kernels.packing import pack_rows

signed = pytest.importorskip("kernels.cpu.signed")
pytestmark = pytest.mark.skipif(not signed.AVAILABLE, reason="needs AVX2")

BLOCK = 512  # numbers that share a step
SHAPES = [(1, 1, 1), (3, 5, 7), (10, 8, 64), (4, 100, 130), (70, 513, 33), (2, 1600, 96)]


def _signs(k: int, n: int, planes: int) -> Tensor:
    generator = torch.Generator().manual_seed(k + n)
    return torch.randint(0, 2, (planes, k, n), generator=generator) * 2.0 - 1


def _reals(m: int, k: int) -> Tensor:
    generator = torch.Generator().manual_seed(m)
    spread = torch.empty(m, k).uniform_(-12, 3, generator=generator).exp2()
    return spread * torch.randn(m, k, generator=generator)


def _product(a: Tensor, signs: Tensor, unit: float = 0.0, pieces: int = 1) -> Tensor:
    patterns = signed.index(
        torch.stack([pack_rows(plane).words for plane in signs]).numpy(), signs.shape[2]
    )
    out = np.full((len(a), signed.width_for(signs.shape[2])), np.nan, dtype=np.float32)
    signed.product(a.numpy(), patterns, len(signs), out, unit, pieces)
    return torch.from_numpy(out)[:, : signs.shape[2]]


def _rounded(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return a rounded as the kernel rounds it, float64, and half a step of each number."""
    found, half = torch.empty(a.shape, dtype=torch.float64), torch.empty(a.shape).double()
    for begin in range(0, a.shape[1], BLOCK):
        part = a[:, begin : begin + BLOCK]
        largest = part.abs().amax(1, keepdim=True)
        steps = (largest / signed.LEVELS).double()
        found[:, begin : begin + BLOCK] = (part * (signed.LEVELS / largest)).round() * steps
        half[:, begin : begin + BLOCK] = steps / 2
    return found, half


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_of_the_rounded_numbers(shape: tuple[int, int, int], planes: int) -> None:
    a, signs = _reals(shape[0], shape[1]), _signs(*shape[1:], planes)
    found = _product(a, signs)
    rounded, _ = _rounded(a)
    expected = rounded @ signs.double().sum(0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_within_the_stated_bound(shape: tuple[int, int, int]) -> None:
    a, signs = _reals(shape[0], shape[1]), _signs(*shape[1:], 1)
    exact = a.double() @ signs[0].double()
    bound = _rounded(a)[1].sum(1, keepdim=True)
    assert ((_product(a, signs).double() - exact).abs() <= bound * (1 + 1e-4) + 1e-6).all()


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_two_pieces_have_what_float32_has(shape: tuple[int, int, int], planes: int) -> None:
    a, signs = _reals(shape[0], shape[1]), _signs(*shape[1:], planes)
    exact = a.double() @ signs.double().sum(0)
    # Half a step of the second piece, and float32's roundings: of what is left, of sums of blocks.
    blocks = -(-shape[1] // BLOCK)
    bound = planes * _rounded(a)[1].sum(1, keepdim=True) / signed.LEVELS
    rounding = 2.0**-24 * planes * (2 + blocks) * a.double().abs().sum(1, keepdim=True)
    assert ((_product(a, signs, pieces=2).double() - exact).abs() <= bound + rounding).all()


def test_another_number_of_pieces_is_told() -> None:
    with pytest.raises(ValueError, match="pieces must be 1 or 2, got 3"):
        _product(_reals(2, 8), _signs(8, 32, 1), pieces=3)


def test_two_pieces_of_zeros_and_of_what_is_not_finite() -> None:
    a, signs = torch.zeros(3, 600), _signs(600, 40, 1)
    a[1, 7], a[2, 599] = torch.nan, torch.inf
    found = _product(a, signs, pieces=2)
    assert torch.equal(found[0], torch.zeros(40))
    assert found[1:].isnan().all()


def test_integers_of_a_unit_are_exact() -> None:
    generator = torch.Generator().manual_seed(1)
    integers = torch.randint(-255, 256, (9, 784), generator=generator)
    signs = _signs(784, 70, 1)
    found = _product(integers * 1.25, signs, unit=1.25)
    assert torch.equal(found, (integers.double() * 1.25 @ signs[0].double()).float())


def test_the_greatest_numbers_do_not_overflow() -> None:
    # 4 LEVELS a group, and 128 groups a block, all of one sign.
    a, signs = torch.full((1, 1024), 3.0), torch.ones(1, 1024, 32)
    assert torch.equal(_product(a, signs), torch.full((1, 32), 3072.0))
    assert torch.equal(_product(-a, signs), torch.full((1, 32), -3072.0))


def test_the_least_numbers_count_as_zeros() -> None:
    a, signs = torch.full((1, 8), 1e-38), _signs(8, 32, 1)
    assert torch.equal(_product(a, signs), torch.zeros(1, 32))
    assert torch.equal(_product(a * 1e10, signs).sign(), signs[0].sum(0, keepdim=True).sign())


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("rows", [3, 100])
def test_the_same_bits_on_any_number_of_threads(
    rows: int, pieces: int, set_threads: Callable[[int], None]
) -> None:
    a, signs = _reals(rows, 1100), _signs(1100, 200, 1)
    found = []
    for count in (1, 2):
        set_threads(count)
        found.append(_product(a, signs, pieces=pieces))
    assert torch.equal(*found)


def test_zeros_and_what_is_not_finite() -> None:
    a, signs = torch.zeros(3, 600), _signs(600, 40, 1)
    assert torch.equal(_product(a, signs), torch.zeros(3, 40))
    a[1, 7], a[2, 599] = torch.nan, torch.inf
    found = _product(a, signs)
    assert torch.equal(found[0], torch.zeros(40))
    assert found[1:].isnan().all()


def test_patterns_of_rows_are_those_of_columns() -> None:
    signs = _signs(100, 70, 1)
    by_row = signed.index_of_rows(pack_rows(signs[0].t().contiguous()).words.numpy(), 100)
    by_column = signed.index(pack_rows(signs[0]).words.unsqueeze(0).numpy(), 70)
    # Pads differ: a missing number is 0, whatever its sign.
    a = _reals(3, 100)
    found = [np.empty((3, 96), dtype=np.float32) for _ in range(2)]
    for patterns, out in zip((by_row, by_column), found, strict=True):
        signed.product(a.numpy(), patterns, 1, out)
    assert np.array_equal(found[0][:, :70], found[1][:, :70])
