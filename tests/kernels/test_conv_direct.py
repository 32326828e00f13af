"""Direct 3x3 convolutions of packed maps on the CPU against the unpacked, zero-padded one."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from kernels import conv, reference, registry
from kernels.cpu import conv_sliced, tabled
from kernels.cpu.conv import DirectConv3x3
from kernels.cpu.conv_counts import CountedConv
from kernels.cpu.conv_sliced import SlicedConv
from kernels.cpu.conv_tabled import TabledConv
from kernels.cpu.vectors import AVX2, GFNI, VBMI
from kernels.packing import Packed

SIZES = [(2, 130), (3, 65), (1, 1), (1, 3), (4, 1), (2, 2), (5, 7), (11, 9)]


@pytest.fixture(params=["tables", "popcounts", "slices"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    """Let every convolution to bits go one way, and then the others."""
    name = request.param
    if name == "tables" and not AVX2:
        pytest.skip("tables need AVX2")
    if name == "slices" and not (VBMI and GFNI):
        pytest.skip("slices need AVX-512 VBMI and GFNI")
    monkeypatch.setattr(tabled, "usable", lambda k: name == "tables")
    monkeypatch.setattr(conv_sliced, "usable", lambda n, k: name == "slices")
    return {"tables": TabledConv, "popcounts": CountedConv, "slices": SlicedConv}[name]


def signs(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(0, 2, shape, generator=generator) - 1


def rows_of(dots: Tensor) -> Tensor:
    return dots.permute(0, 2, 3, 1).reshape(-1, dots.shape[1])


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("channels,filters", [(1, 5), (8, 64), (65, 3), (128, 130), (260, 64)])
def test_dots_equal_the_reference(channels: int, filters: int, size: tuple[int, int]) -> None:
    x, weight = signs(3, channels, *size, seed=1), signs(filters, channels, 3, 3, seed=2)
    dots = DirectConv3x3(conv.pack_filters(weight), *size)(conv.pack_map(x))
    assert dots.dtype == torch.int32
    assert torch.equal(dots, rows_of(reference.conv(x, weight)))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("pool", [False, True], ids=["whole", "pooled"])
@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("channels,filters", [(40, 70), (128, 64), (3, 1)])
def test_bits_equal_the_bits_of_pooled_dots(
    channels: int, filters: int, size: tuple[int, int], pool: bool
) -> None:
    x, weight = signs(2, channels, *size, seed=3), signs(filters, channels, 3, 3, seed=4)
    dots = reference.conv(x, weight)
    threshold = dots[0, :, 0, 0].clone()  # ties, at the border
    threshold[::5] = 9 * channels + 1
    threshold[1::5] = -9 * channels
    flip = torch.arange(filters) % 3 == 0
    found = DirectConv3x3(conv.pack_filters(weight), *size).bits(
        conv.pack_map(x), threshold, flip, pool
    )
    halves = dots.shape[2] // 2, dots.shape[3] // 2
    if pool and 0 in halves:
        assert found.shape == (2, *halves, -(-filters // 64))
        return
    pooled = functional.max_pool2d(dots.double(), 2).to(torch.int32) if pool else dots
    expected = reference.pack(reference.threshold(rows_of(pooled), threshold, flip))
    assert found.shape == (2, *pooled.shape[2:], -(-filters // 64))
    assert torch.equal(found.flatten(0, 2), expected)


@pytest.mark.parametrize("kind", [1.0, -1.0])
def test_constant_maps_meet_the_border(kind: float) -> None:
    x, weight = torch.full((1, 64, 3, 3), kind), torch.ones(2, 64, 3, 3)
    dots = DirectConv3x3(conv.pack_filters(weight), 3, 3)(conv.pack_map(x))
    corner, edge, middle = (int(kind) * 64 * taps for taps in (4, 6, 9))
    assert dots[:, 0].tolist() == [
        corner, edge, corner, edge, middle, edge, corner, edge, corner,
    ]  # fmt: skip


def test_the_kernel_convolves_that_way(way: type) -> None:
    x, weight = signs(2, 20, 6, 5, seed=6), signs(9, 20, 3, 3, seed=7)
    made = conv.Conv3x3(registry.get("xnor-cpu"), conv.pack_filters(weight), 6, 5)
    assert torch.equal(made(conv.pack_map(x)), rows_of(reference.conv(x, weight)))
    direct = registry.get("xnor-cpu").convolution(conv.pack_filters(weight), 6, 5)
    assert isinstance(direct, DirectConv3x3)
    assert isinstance(direct._to_bits, way)


@pytest.mark.parametrize("count", [1, 2])
def test_threads_share_the_positions(count: int, set_threads: Callable[[int], None]) -> None:
    set_threads(count)
    x, weight = signs(3, 128, 9, 9, seed=9), signs(130, 128, 3, 3, seed=10)
    direct, dots = DirectConv3x3(conv.pack_filters(weight), 9, 9), reference.conv(x, weight)
    assert torch.equal(direct(conv.pack_map(x)), rows_of(dots))
    threshold, flip = dots[1, :, 4, 4].clone(), torch.arange(130) % 2 == 0
    expected = reference.pack(reference.threshold(rows_of(dots), threshold, flip))
    assert torch.equal(direct.bits(conv.pack_map(x), threshold, flip).flatten(0, 2), expected)


@pytest.mark.parametrize("way", ["slices"], indirect=True)
@pytest.mark.parametrize("parts", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(1, 2), (3, 1), (8, 5), (13, 3)], ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("channels", [5, 64, 128, 200])  # 1, 13, 26 and 40 indices a position
def test_rows_of_tiles_are_parts_of_images(
    monkeypatch: pytest.MonkeyPatch, channels: int, size: tuple[int, int], parts: int
) -> None:
    monkeypatch.setattr(conv_sliced, "parts_for", lambda images, height: parts)
    x, weight = signs(5, channels, *size, seed=1), signs(70, channels, 3, 3, seed=2)
    dots = reference.conv(x, weight)
    threshold, flip = dots[2, :, 0, 0].contiguous(), torch.arange(70) % 3 == 0
    found = DirectConv3x3(conv.pack_filters(weight), *size).bits(conv.pack_map(x), threshold, flip)
    expected = reference.pack(reference.threshold(rows_of(dots), threshold, flip))
    assert torch.equal(found.flatten(0, 2), expected)


@pytest.mark.parametrize("way", ["slices"], indirect=True)
def test_tiles_are_cut_for_the_threads(set_threads: Callable[[int], None]) -> None:
    set_threads(1)
    assert conv_sliced.parts_for(1, 32) == 8  # four lines of each part
    assert conv_sliced.parts_for(8, 32) == 1  # no line twice
    assert conv_sliced.parts_for(9, 1) == 1
    set_threads(2)
    assert conv_sliced.parts_for(8, 32) == 2  # a unit a thread


@pytest.mark.parametrize("way", ["slices"], indirect=True)
@pytest.mark.parametrize(
    "n,k,expected", [(47, 1152, False), (48, 27, True), (65, 1152, False), (512, 32768, False)]
)
def test_slices_want_full_panels(
    monkeypatch: pytest.MonkeyPatch, n: int, k: int, expected: bool
) -> None:
    monkeypatch.undo()
    assert conv_sliced.usable(n, k) == (expected and VBMI and GFNI)


def test_no_images_are_no_dots() -> None:
    direct = DirectConv3x3(conv.pack_filters(signs(3, 9, 3, 3, seed=1)), 2, 2)
    empty = torch.empty(0, 2, 2, 1, dtype=torch.int64)
    assert direct(empty).shape == (0, 3)
    zeros, flip = torch.zeros(3, dtype=torch.int32), torch.zeros(3, dtype=torch.bool)
    assert direct.bits(empty, zeros, flip, pool=True).shape == (0, 1, 1, 1)


def test_wrong_maps_and_filters_are_refused() -> None:
    direct = DirectConv3x3(conv.pack_filters(signs(2, 3, 3, 3, seed=2)), 4, 4)
    with pytest.raises(TypeError, match=r"torch.int64 tensor, got torch.float32"):
        direct(signs(1, 4, 4, 1, seed=1))
    with pytest.raises(ValueError, match=r"must be \(4, 4\) high and wide, got \(4, 5\)"):
        direct(torch.zeros(1, 4, 5, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="must have 9 segments, got 1"):
        DirectConv3x3(Packed(torch.zeros(1, 1, dtype=torch.int64), 27), 4, 4)
    with pytest.raises(ValueError, match=r"flip must have shape \[2\]"):
        direct.bits(torch.zeros(1, 4, 4, 1, dtype=torch.int64), torch.zeros(2, dtype=torch.int32),
                    torch.zeros(3, dtype=torch.bool))  # fmt: skip


def test_border_classes_are_the_rows_of_the_border_correction() -> None:
    sums = conv.tap_sums(conv.pack_filters(signs(4, 10, 3, 3, seed=8)))
    correction = conv.border_correction(sums, 3, 3)
    classes = [1 + 4, 1, 1 + 8, 4, 0, 8, 2 + 4, 2, 2 + 8]
    assert torch.equal(conv.border_classes(sums)[classes], correction)
    lone = conv.border_correction(sums, 1, 1)
    assert torch.equal(conv.border_classes(sums)[15:], lone)
