"""The first layer's products with odd integers, both ways, against the plain references."""

import pytest
import torch

from harness.deploy import pixels as pixels_module
from harness.deploy.pixels import (
    PIXEL_PRODUCTS,
    bits_on_pixels,
    conv_on_pixels,
    linear_on_pixels,
)
from kernels import firstlayer, reference
from kernels.packing import pack_rows

IMAGES, OUTPUTS = 3, 7


def pixels_and_weights(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    pixels = torch.randint(0, 256, (IMAGES, *shape), generator=generator, dtype=torch.uint8)
    pixels[0], pixels[1] = 0, 255
    weight = torch.randint(0, 2, (OUTPUTS, shape[0], 3, 3), generator=generator) * 2 - 1
    return pixels, weight


BY_TABLES = firstlayer.pixels_by_tables()


@pytest.fixture(params=[False, True], ids=["patches", "tables"])
def by_tables(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param and not BY_TABLES:
        pytest.skip("pixels are multiplied by int8 here")
    monkeypatch.setattr(pixels_module, "pixels_by_tables", lambda: request.param)
    monkeypatch.setattr(pixels_module, "convolves_pixels", lambda: request.param)
    monkeypatch.setattr(firstlayer, "pixels_by_tables", lambda: request.param)
    return bool(request.param)


@pytest.mark.usefixtures("by_tables")
@pytest.mark.parametrize("way", list(PIXEL_PRODUCTS))
@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4), (2, 2), (5, 3)])
def test_convolution_pads_odd_integers_with_exactly_0(
    way: str, channels: int, height: int, width: int
) -> None:
    pixels, weight = pixels_and_weights(channels, height, width)
    product = conv_on_pixels(pack_rows(weight.flatten(1)), way, height, width)
    found = product(pixels).view(IMAGES, height, width, OUTPUTS).permute(0, 3, 1, 2)
    assert torch.equal(found, reference.conv(2 * pixels.int() - 255, weight))


@pytest.mark.parametrize("way", list(PIXEL_PRODUCTS))
def test_linear(way: str) -> None:
    pixels, weight = pixels_and_weights(8, 3, 3)
    found = linear_on_pixels(pack_rows(weight.flatten(1)), way)(pixels)
    assert torch.equal(found, reference.gemm(2 * pixels.flatten(1).int() - 255, weight.flatten(1)))


@pytest.mark.parametrize("size", [None, (5, 3)], ids=["linear", "convolution"])
def test_bits_in_one_call_are_those_of_the_dots(
    by_tables: bool, size: tuple[int, int] | None
) -> None:
    pixels, weight = pixels_and_weights(2, *(size or (3, 3)))
    packed = pack_rows(weight.flatten(1))
    assert bits_on_pixels(packed, "bitplanes", size) is None
    found = bits_on_pixels(packed, "int8", size)
    assert (found is not None) == by_tables
    if found is None:
        return
    product = conv_on_pixels(packed, "int8", *size) if size else linear_on_pixels(packed, "int8")
    dots, flip = product(pixels), torch.arange(OUTPUTS) % 3 == 0
    threshold = dots[len(dots) // 2].clone()
    expected = reference.pack(reference.threshold(dots, threshold, flip))
    assert torch.equal(found(pixels, threshold, flip).flatten(0, -2), expected)
