"""3x3 convolutions of packed maps against the unpacked, zero-padded convolution."""

from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from kernels import reference, registry
from kernels.base import Kernel
from kernels.conv import Conv3x3, pack_filters, pack_map, patches, pool_bits
from kernels.packing import Packed, pack_rows, pack_threshold, unpack_rows
from kernels.vendor_cuda import Float32Conv3x3


def signs(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(0, 2, shape, generator=generator) - 1


def as_map(rows: Tensor, b: int, h: int, w: int) -> Tensor:
    return rows.view(b, h, w, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4), (8, 8)], ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("channels", [1, 3, 63, 64, 65, 128], ids="C{}".format)
def test_convolution_equals_the_reference(
    kernel: Kernel, channels: int, size: tuple[int, int]
) -> None:
    x, weight = signs(2, channels, *size, seed=1), signs(5, channels, 3, 3, seed=2)
    dots = Conv3x3(kernel, pack_filters(weight), *size)(pack_map(x))
    assert dots.dtype == torch.int32
    assert torch.equal(as_map(dots, 2, *size), reference.conv(x, weight))


def test_a_map_may_lie_anyhow_in_memory(kernel: Kernel) -> None:
    x, weight = signs(2, 130, 4, 3, seed=1), signs(5, 130, 3, 3, seed=2)
    words = pack_map(x)
    strided = torch.stack((words, words), 4).flatten(3)[..., ::2]
    assert not strided.is_contiguous()
    dots = Conv3x3(kernel, pack_filters(weight), 4, 3)(strided)
    assert torch.equal(as_map(dots, 2, 4, 3), reference.conv(x, weight))


def test_no_images_have_no_dots(kernel: Kernel) -> None:
    made = Conv3x3(kernel, pack_filters(signs(5, 70, 3, 3, seed=2)), 4, 3)
    assert made(pack_map(signs(0, 70, 4, 3, seed=1))).shape == (0, 5)


@pytest.mark.parametrize("channels", [56, 97, 128, 600])
@pytest.mark.parametrize("name", ["vendor-fp32", "vendor-bf16"])
def test_a_library_convolves_maps_of_its_own_dtype_exactly(name: str, channels: int) -> None:
    vendor = registry.get(name)
    x, weight = signs(2, channels, 6, 5, seed=1), signs(7, channels, 3, 3, seed=2)
    x[0], weight[0] = 1.0, 1.0  # dots of up to 9 C, more than bfloat16 holds
    made = Conv3x3(vendor, pack_filters(weight), 6, 5)
    real = made.operand(pack_map(x))
    assert real.dtype == (torch.bfloat16 if name == "vendor-bf16" else torch.float32)
    assert torch.equal(real.float(), x)
    assert real.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(as_map(made.dots(real), 2, 6, 5).int(), reference.conv(x, weight))


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_the_convolution_of_a_gpus_library_is_rounded_to_integers(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cudnn: Any = torch.backends.cudnn
    conv2d, seen = torch.conv2d, []

    def inexact(*operands: Tensor, padding: int) -> Tensor:
        seen.append(cudnn.conv.fp32_precision)
        return conv2d(*operands, padding=padding) - 0.01

    before = cudnn.conv.fp32_precision
    monkeypatch.setattr(torch, "conv2d", inexact)
    x, weight = signs(2, 70, 4, 3, seed=1), signs(5, 70, 3, 3, seed=2)
    dots = Float32Conv3x3(pack_filters(weight), precision)(x)
    assert torch.equal(as_map(dots, 2, 4, 3).int(), reference.conv(x, weight))
    assert seen == [precision]
    assert cudnn.conv.fp32_precision == before


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    "size", [(1, 1), (3, 5), (8, 8), (9, 15), (33, 32)], ids="{0[0]}x{0[1]}".format
)
@pytest.mark.parametrize("channels", [1, 63, 64, 65, 130], ids="C{}".format)
def test_a_packed_map_holds_the_signs_of_its_positions(
    channels: int, size: tuple[int, int]
) -> None:
    x = signs(3, channels, *size, seed=4)
    x[0, 0, 0, 0], x[1, -1, -1, -1], x[2, 0] = -0.0, float("nan"), 0.25
    expected = pack_rows(x.permute(0, 2, 3, 1).reshape(-1, channels)).words
    for form in (x, x.contiguous(memory_format=torch.channels_last), x.double()):
        assert torch.equal(pack_map(form).view(expected.shape), expected)
    assert pack_map(x[:0]).shape == (0, *size, expected.shape[1])


@pytest.mark.parametrize("size", [(2, 2), (4, 6), (5, 7)], ids="{0[0]}x{0[1]}".format)
def test_pooled_bits_equal_the_bits_of_pooled_dots(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    channels, (h, w) = 70, size
    dots = torch.randint(-9, 10, (3, channels, h, w), dtype=torch.int32, generator=generator)
    threshold = torch.randint(-9, 10, (channels,), dtype=torch.int32, generator=generator)
    flip = torch.randint(0, 2, (channels,), generator=generator).bool()
    rows = dots.permute(0, 2, 3, 1).reshape(-1, channels)
    words = pack_threshold(rows, threshold, flip).words.view(3, h, w, -1)
    found = pool_bits(words, pack_rows(flip[None]).words[0])
    pooled = functional.max_pool2d(dots.float(), 2)
    expected = reference.threshold(
        pooled.permute(0, 2, 3, 1).reshape(-1, channels), threshold, flip
    )
    bits = Packed(found.reshape(-1, found.shape[3]).contiguous(), channels)
    assert torch.equal(unpack_rows(bits, torch.int8), expected)


def test_wrong_maps_and_filters_are_refused() -> None:
    xnor, x = registry.get("xnor-cpu"), signs(1, 3, 4, 4, seed=1)
    filters = pack_filters(signs(2, 3, 3, 3, seed=2))
    with pytest.raises(ValueError, match=r"\[B, C, H, W\], got \[3, 4, 4\]"):
        pack_map(x[0])
    with pytest.raises(ValueError, match=r"\[N, C, 3, 3\], got \[2, 3, 5, 5\]"):
        pack_filters(signs(2, 3, 5, 5, seed=2))
    with pytest.raises(TypeError, match=r"torch.int64 tensor, got torch.float32"):
        patches(x, 3)
    with pytest.raises(ValueError, match=r"of 65 channels must have shape \[B, H, W, 2\]"):
        patches(pack_map(x), 65)
    with pytest.raises(ValueError, match="must have 9 segments, got 1"):
        Conv3x3(xnor, pack_rows(signs(2, 27, seed=1)), 4, 4)
    with pytest.raises(ValueError, match=r"must be \(5, 5\) high and wide, got \(4, 4\)"):
        Conv3x3(xnor, filters, 5, 5)(pack_map(x))
