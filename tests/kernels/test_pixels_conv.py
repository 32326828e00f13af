"""Direct 3x3 convolutions of pixels on the CPU against the unpacked, zero-padded one."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from kernels import reference
from kernels.cpu import pixels_conv
from kernels.cpu.pixels_conv import PixelConv3x3
from kernels.cpu.vectors import VNNI512
from kernels.packing import Packed, pack_rows

SIZES = [(1, 1), (1, 4), (5, 1), (2, 2), (7, 5), (3, 70), (32, 32)]


@pytest.fixture(params=["tables16", "tables64", "vnni"], autouse=True)
def way(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    pixel_tables: Callable[[int], None],
) -> None:
    vnni = request.param == "vnni"
    if vnni and not VNNI512:
        pytest.skip("no VPDPBUSD in vectors of AVX-512")
    monkeypatch.setattr(pixels_conv, "VNNI512", vnni)
    if not vnni:
        pixel_tables(int(request.param[-2:]))


def operands(channels: int, filters: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return pixels of three images, filters, and the int32 dots [3*H*W, N] of ``2u - 255``."""
    generator = torch.Generator().manual_seed(channels + filters)
    u = torch.randint(0, 256, (3, channels, *size), dtype=torch.uint8, generator=generator)
    u[1], u[2] = 0, 255
    weight = 2 * torch.randint(0, 2, (filters, channels, 3, 3), generator=generator) - 1
    dots = functional.conv2d(2.0 * u.double() - 255, weight.double(), padding=1)
    return u, weight, dots.permute(0, 2, 3, 1).reshape(-1, filters).int()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("channels,filters", [(1, 5), (3, 128), (3, 70), (40, 64)])
def test_dots_and_bits_equal_the_reference(
    channels: int, filters: int, size: tuple[int, int]
) -> None:
    u, weight, dots = operands(channels, filters, size)
    direct = PixelConv3x3(pack_rows(weight.reshape(filters, -1)), *size)
    found = direct(u)
    assert found.dtype == torch.int32
    assert torch.equal(found, dots)
    threshold = dots[torch.arange(filters) % len(dots), torch.arange(filters)].clone()  # ties
    threshold[::5], threshold[1::5] = 2**31 - 1, -(2**31)
    flip = torch.arange(filters) % 3 == 0
    expected = reference.pack(reference.threshold(dots, threshold, flip))
    bits = direct.bits(u, threshold, flip)
    assert bits.shape == (3, *size, -(-filters // 64))
    assert torch.equal(bits.flatten(0, 2), expected)


def test_no_images_are_no_dots() -> None:
    direct = PixelConv3x3(pack_rows(torch.ones(3, 27)), 2, 2)
    empty = torch.empty(0, 3, 2, 2, dtype=torch.uint8)
    assert direct(empty).shape == (0, 3)
    zeros, flip = torch.zeros(3, dtype=torch.int32), torch.zeros(3, dtype=torch.bool)
    assert direct.bits(empty, zeros, flip).shape == (0, 2, 2, 1)


def test_wrong_pixels_and_filters_are_refused() -> None:
    direct = PixelConv3x3(pack_rows(torch.ones(2, 27)), 4, 4)
    with pytest.raises(TypeError, match=r"torch.uint8 tensor, got torch.float32"):
        direct(torch.ones(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"shape \[images, 3, 4, 4\], got \[1, 3, 4, 5\]"):
        direct(torch.zeros(1, 3, 4, 5, dtype=torch.uint8))
    with pytest.raises(ValueError, match="on device meta; allowed: cpu"):
        direct(torch.zeros(1, 3, 4, 4, dtype=torch.uint8, device="meta"))
    with pytest.raises(ValueError, match="one segment of 9 C values, got 27 in 9"):
        PixelConv3x3(Packed(torch.zeros(1, 9, dtype=torch.int64), 27, 9), 4, 4)
    with pytest.raises(ValueError, match="one segment of 9 C values, got 28 in 1"):
        PixelConv3x3(pack_rows(torch.ones(2, 28)), 4, 4)
