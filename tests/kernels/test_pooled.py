"""Backward products behind a 2x2 max-pool: exact where no gradient needs rounding."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.conv import pack_filters, pack_map

pooled = pytest.importorskip("kernels.cpu.pooled")
pooled_input = pytest.importorskip("kernels.cpu.pooled_input")
pooled_filters = pytest.importorskip("kernels.cpu.pooled_filters")
signed = pytest.importorskip("kernels.cpu.signed")
pytestmark = pytest.mark.skipif(not signed.AVAILABLE, reason="needs AVX2")

LEVELS = signed.LEVELS
TOLERANCE = 5e-4  # of a product's norm: gradients keep 12 bits beside the greatest of a block
# Images, maps in, maps out, height, width: one window, lists and blocks of several parts, tails.
SHAPES = [
    (1, 1, 1, 2, 2),
    (2, 5, 7, 4, 6),
    (5, 70, 33, 8, 8),
    (3, 33, 1100, 6, 2),
    (9, 64, 3, 18, 4),
    (5, 250, 20, 4, 4),
]
Gradients = tuple[Tensor, Tensor, Tensor]


def _case(shape: tuple[int, int, int, int, int], same: bool = False) -> tuple[Tensor, Tensor]:
    """Return inputs [B, C, H, W] and filters [N, C, 3, 3]; all +1 if ``same``: many ties."""
    b, c, n, h, w = shape
    generator = torch.Generator().manual_seed(sum(shape))
    x, filters = (
        torch.randint(0, 2, size, generator=generator) * 2.0 - 1
        for size in ((b, c, h, w), (n, c, 3, 3))
    )
    return (torch.ones_like(x), torch.ones_like(filters)) if same else (x, filters)


def _rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).contiguous()


def _exact(x: Tensor, filters: Tensor, gradient: Tensor) -> Gradients:
    """Return the library's pooled products, and the gradients by input and filters."""
    x, filters = x.double().requires_grad_(), filters.double().requires_grad_()
    found = F.max_pool2d(F.conv2d(x, filters, padding=1), 2)
    found.backward(gradient.double())  # type: ignore[no-untyped-call]
    assert x.grad is not None and filters.grad is not None
    return found.detach(), x.grad, filters.grad


def _found(x: Tensor, filters: Tensor, gradient: Tensor) -> Gradients:
    b, c, h, w = x.shape
    n = len(filters)
    dots = _rows(F.conv2d(x, filters, padding=1)).to(torch.int32)
    greatest, winners = pooled.pool(dots.numpy(), h, w)
    words, packed = pack_map(x).view(b * h * w, -1), pack_filters(filters).words.view(n, 9, -1)
    rows = _rows(gradient).numpy()
    by_input = pooled_input.input_gradient(rows, winners, packed.numpy(), h, w)
    by_filters = pooled_filters.filter_gradient(rows, winners, words.numpy(), h, w)
    back = torch.from_numpy(greatest).view(b, h // 2, w // 2, n).permute(0, 3, 1, 2)
    return (
        back,
        torch.from_numpy(by_input)[:, :c].view(b, h, w, c).permute(0, 3, 1, 2),
        torch.from_numpy(by_filters)[:, :, :c].mT.reshape(n, c, 3, 3),
    )


def _gradient(shape: tuple[int, int, int, int, int]) -> Tensor:
    b, _, n, h, w = shape
    generator = torch.Generator().manual_seed(5)
    return torch.randn((b, n, h // 2, w // 2), generator=generator)


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_equal_size_are_exact(
    shape: tuple[int, int, int, int, int], same: bool
) -> None:
    # LEVELS, -LEVELS and 0: whatever shares a step, it is 1.
    gradient = (_gradient(shape) * 2).round().clamp(-1, 1) * LEVELS
    gradient[0, 0] = LEVELS
    x, filters = _case(shape, same)
    for one, other in zip(_found(x, filters, gradient), _exact(x, filters, gradient), strict=True):
        assert torch.equal(one.double(), other)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_any_size_are_within_the_tolerance(
    shape: tuple[int, int, int, int, int],
) -> None:
    x, filters = _case(shape)
    gradient = _gradient(shape)
    for one, other in zip(_found(x, filters, gradient), _exact(x, filters, gradient), strict=True):
        assert float((one - other).norm()) <= TOLERANCE * float(other.norm())


def test_what_is_not_finite_shows() -> None:
    shape = SHAPES[2]
    gradient = _gradient(shape)
    gradient[1, 4, 0, 0], gradient[0, 6, 3, 3] = torch.nan, torch.inf
    _, by_input, by_filters = _found(*_case(shape), gradient)
    bad = by_filters.isnan().flatten(1)
    assert bad[[4, 6]].all() and bad.sum() == bad[[4, 6]].sum()
    assert by_input[0].isnan().any() and by_input[1].isnan().any()
    assert by_input[2:].isfinite().all()


def test_the_same_bits_on_any_number_of_threads(set_threads: Callable[[int], None]) -> None:
    found = []
    for count in (1, 2):
        set_threads(count)
        found.append(_found(*_case(SHAPES[2]), _gradient(SHAPES[2])))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_first_of_equal_products_wins() -> None:
    dots = np.array([[1, 2, 0, -3], [3, 2, 0, -2], [3, 2, 7, -2], [0, 2, 7, -1]], dtype=np.int32)
    greatest, winners = pooled.pool(dots, 2, 2)
    assert greatest.tolist() == [[3, 2, 7, -1]]
    assert winners.tolist() == [[1, 0, 2, 3]]


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (3, 5, 4, 6), (2, 70, 8, 2)])
def test_real_maps_are_pooled_and_spread_as_by_the_library(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randint(-3, 4, shape, generator=generator).float()  # with ties
    x.view(-1)[1::17] = torch.nan  # which win, as in the library
    gradient = torch.randn(shape[0], shape[1], shape[2] // 2, shape[3] // 2, generator=generator)
    x.requires_grad_()
    expected = F.max_pool2d(x, 2)
    expected.backward(gradient)  # type: ignore[no-untyped-call]
    found, winners = pooled.pool(_rows(x.detach()).numpy(), *shape[2:])
    wanted = _rows(expected.detach())
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=0, equal_nan=True)
    spread = torch.from_numpy(pooled.unpool(_rows(gradient).numpy(), winners, *shape[2:]))
    assert x.grad is not None
    assert torch.equal(spread, _rows(x.grad))
