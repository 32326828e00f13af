"""A convolution's backward products with signs: exact where no gradient needs rounding."""

import pytest
import torch
from torch import Tensor

from kernels.conv import pack_filters, pack_map

signed_conv = pytest.importorskip("kernels.cpu.signed_conv")
signed = pytest.importorskip("kernels.cpu.signed")
pytestmark = pytest.mark.skipif(not signed.AVAILABLE, reason="needs AVX2")

LEVELS, BLOCK = signed.LEVELS, 512  # the step is 1 where a block's greatest number is LEVELS
# Batch, maps in, maps out, height, width: odd sizes, one pixel, several blocks.
SHAPES = [
    (2, 5, 7, 4, 6),
    (1, 1, 1, 1, 1),
    (3, 70, 33, 8, 8),
    (1, 40, 600, 5, 3),
    (5, 33, 9, 16, 9),
]


def _signs(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(0, 2, shape, generator=generator) * 2.0 - 1


def _case(shape: tuple[int, int, int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs [B, C, H, W], filters [N, C, 3, 3] and integer gradients [B, N, H, W]."""
    b, c, n, h, w = shape
    generator = torch.Generator().manual_seed(7)
    gradient = torch.randint(-LEVELS, LEVELS + 1, (b, n, h, w), generator=generator).float()
    return _signs((b, c, h, w)), _signs((n, c, 3, 3)), gradient


def _rows(gradient: Tensor) -> Tensor:
    return gradient.permute(0, 2, 3, 1).reshape(-1, gradient.shape[1]).contiguous()


def _exact(x: Tensor, filters: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    x, filters = x.double().requires_grad_(), filters.double().requires_grad_()
    torch.nn.functional.conv2d(x, filters, padding=1).backward(gradient.double())  # type: ignore[no-untyped-call]
    assert x.grad is not None and filters.grad is not None
    return x.grad.float(), filters.grad.float()


@pytest.mark.parametrize("shape", SHAPES)
def test_input_gradient(shape: tuple[int, int, int, int, int]) -> None:
    b, c, n, h, w = shape
    x, filters, gradient = _case(shape)
    for first in range(0, n, BLOCK):
        gradient[:, first] = LEVELS
    packed = pack_filters(filters).words.view(n, 9, -1).numpy()
    found = torch.from_numpy(signed_conv.input_gradient(_rows(gradient).numpy(), packed, c, h, w))
    found = found[:, :c].reshape(b, h, w, c).permute(0, 3, 1, 2)
    assert torch.equal(found, _exact(x, filters, gradient)[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_product_of_a_real_map(shape: tuple[int, int, int, int, int]) -> None:
    b, c, n, h, w = shape
    x = torch.randn(b, c, h, w, generator=torch.Generator().manual_seed(3))
    filters = _signs((n, c, 3, 3))
    turned = pack_filters(signed_conv.turn(filters)).words.view(c, 9, -1).numpy()
    found = torch.from_numpy(signed_conv.product(_rows(x).numpy(), turned, n, h, w))
    found = found[:, :n].reshape(b, h, w, n).permute(0, 3, 1, 2)
    exact = torch.nn.functional.conv2d(x.double(), filters.double(), padding=1)
    by_size = torch.nn.functional.conv2d(x.double().abs(), filters.double().abs(), padding=1)
    # A number is off by 2^-24 of the greatest of its pixel, of which nine and their blocks add up.
    size = x.double().abs().amax() * c * 9 + 10 * by_size
    assert ((found.double() - exact).abs() <= 2.0**-24 * size).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_filter_gradient(shape: tuple[int, int, int, int, int]) -> None:
    b, c, n, h, w = shape
    x, filters, gradient = _case(shape)
    rows = _rows(gradient)
    rows[::BLOCK] = -LEVELS
    gradient = rows.view(b, h, w, n).permute(0, 3, 1, 2)
    words = pack_map(x).view(b * h * w, -1).numpy()
    found = torch.from_numpy(signed_conv.filter_gradient(rows.numpy(), words, c, h, w))
    found = found[:, :, :c].mT.reshape(n, c, 3, 3)
    assert torch.equal(found, _exact(x, filters, gradient)[1])


def test_what_is_not_finite_shows() -> None:
    x, filters, gradient = _case(SHAPES[0])
    rows = _rows(gradient)
    rows[3, 2] = torch.nan
    words = pack_map(x).view(48, -1).numpy()
    by_filter = torch.from_numpy(signed_conv.filter_gradient(rows.numpy(), words, 5, 4, 6))
    assert by_filter[2, :, :5].isnan().all() and by_filter[:2].isfinite().all()
    packed = pack_filters(filters).words.view(7, 9, -1).numpy()
    by_pixel = torch.from_numpy(signed_conv.input_gradient(rows.numpy(), packed, 5, 4, 6))
    assert by_pixel[3].isnan().all() and by_pixel[30].isfinite().all()
