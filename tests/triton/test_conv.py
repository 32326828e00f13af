"""Direct 3x3 convolutions of packed maps against the unpacked, zero-padded convolution."""

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from kernels import conv, reference
from kernels.packing import Packed
from kernels.triton.conv import DirectConv3x3
from kernels.triton.device import HOPPER, why_no_gpu
from kernels.triton.tensor import XnorTensor
from tests.triton.operands import layer, on_device

if why_no_gpu(HOPPER, exactly=True) is not None:
    pytest.skip(str(why_no_gpu(HOPPER, exactly=True)), allow_module_level=True)

SIZES = [(1, 1), (1, 3), (4, 1), (5, 4)]


def signs(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(0, 2, shape, generator=generator) - 1


def made_ready(weight: Tensor, size: tuple[int, int]) -> DirectConv3x3:
    return DirectConv3x3(conv.pack_filters(weight).to(on_device(weight).device), *size)


def rows_of(dots: Tensor) -> Tensor:
    return dots.permute(0, 2, 3, 1).reshape(-1, dots.shape[1])


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("channels", [3, 65], ids="C{}".format)
def test_convolution_equals_the_reference(channels: int, size: tuple[int, int]) -> None:
    x, weight = signs(2, channels, *size, seed=1), signs(5, channels, 3, 3, seed=2)
    dots = made_ready(weight, size)(on_device(conv.pack_map(x)))
    assert dots.dtype == torch.int32
    assert torch.equal(dots.cpu(), rows_of(reference.conv(x, weight)))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("pool", [False, True], ids=["whole", "pooled"])
@pytest.mark.parametrize("size", [(2, 2), (5, 7)], ids="{0[0]}x{0[1]}".format)
def test_bits_equal_the_bits_of_pooled_dots(size: tuple[int, int], pool: bool) -> None:
    x, weight = signs(2, 40, *size, seed=3), signs(70, 40, 3, 3, seed=4)
    threshold, flip = layer(70, 5)
    found = made_ready(weight, size).bits(
        on_device(conv.pack_map(x)), on_device(threshold), on_device(flip), pool
    )
    dots = reference.conv(x, weight)
    pooled = functional.max_pool2d(dots.double(), 2).to(torch.int32) if pool else dots
    expected = reference.pack(reference.threshold(rows_of(pooled), threshold, flip))
    assert found.shape == (2, *pooled.shape[2:], 2)
    assert torch.equal(found.cpu().flatten(0, 2), expected)


@pytest.mark.parametrize("kind", [1.0, -1.0])
def test_constant_maps_meet_the_border(kind: float) -> None:
    x, weight = torch.full((1, 64, 3, 3), kind), torch.ones(2, 64, 3, 3)
    dots = made_ready(weight, (3, 3))(on_device(conv.pack_map(x)))
    corner, edge, middle = (int(kind) * 64 * taps for taps in (4, 6, 9))
    row = [corner, edge, corner, edge, middle, edge, corner, edge, corner]
    assert dots[:, 0].tolist() == row


def test_the_convolution_of_the_kernel_is_the_direct_one() -> None:
    x, weight = signs(1, 20, 3, 2, seed=6), signs(3, 20, 3, 3, seed=7)
    filters = conv.pack_filters(weight).to(on_device(weight).device)
    found = conv.Conv3x3(XnorTensor(), filters, 3, 2)(on_device(conv.pack_map(x)))
    assert torch.equal(found.cpu(), rows_of(reference.conv(x, weight)))
    assert isinstance(XnorTensor().convolution(filters, 3, 2), DirectConv3x3)


def test_no_images_are_no_dots() -> None:
    empty = on_device(torch.empty(0, 2, 2, 1, dtype=torch.int64))
    assert made_ready(signs(3, 9, 3, 3, seed=1), (2, 2))(empty).shape == (0, 3)


def test_wrong_maps_and_filters_are_refused() -> None:
    weight = signs(2, 3, 3, 3, seed=2)
    ready = made_ready(weight, (4, 4))
    with pytest.raises(TypeError, match=r"torch.int64 tensor, got torch.float32"):
        ready(on_device(signs(1, 4, 4, 1, seed=1)))
    with pytest.raises(ValueError, match=r"3 channels must have shape \[B, 4, 4, 1\], got"):
        ready(on_device(torch.zeros(1, 4, 5, 1, dtype=torch.int64)))
    with pytest.raises(ValueError, match="must have 9 segments, got 1"):
        DirectConv3x3(Packed(on_device(torch.zeros(1, 1, dtype=torch.int64)), 27), 4, 4)
    with pytest.raises(ValueError, match="the map is on device meta"):
        ready(torch.zeros(1, 4, 4, 1, dtype=torch.int64, device="meta"))
