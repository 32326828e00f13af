"""8-bit pixels times ±1 weights, both ways, against int64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import firstlayer, reference
from kernels.firstlayer import PixelsBitplanes, PixelsInt8
from kernels.packing import Packed, pack_rows

Ready = type[PixelsInt8] | type[PixelsBitplanes]
INT8 = {"vendor": 0, "tables16": 16, "tables64": 64}  # entries of a table


@pytest.fixture(params=INT8)
def int8(request: pytest.FixtureRequest, pixel_tables: Callable[[int], None]) -> Ready:
    pixel_tables(INT8[request.param])
    return PixelsInt8


@pytest.fixture(params=[*INT8, "bitplanes"])
def ready(request: pytest.FixtureRequest, pixel_tables: Callable[[int], None]) -> Ready:
    if request.param == "bitplanes":
        return PixelsBitplanes
    pixel_tables(INT8[request.param])
    return PixelsInt8


def operands(m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(k)
    u = torch.randint(0, 256, (m, k), dtype=torch.uint8, generator=generator)
    w = 2 * torch.randint(0, 2, (n, k), generator=generator) - 1
    return u, w


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("k", [1, 27, 31, 63, 64, 65, 127, 784, 1152], ids="K{}".format)
@pytest.mark.parametrize("n", [1, 10, 130], ids="N{}".format)
@pytest.mark.parametrize("m", [0, 1, 17, 100], ids="M{}".format)
def test_dots_equal_int64(ready: Ready, m: int, n: int, k: int) -> None:
    u, w = operands(m, n, k)
    expected = (2 * u.to(torch.int64) - 255) @ w.T
    assert torch.equal(ready(pack_rows(w)).product(u).to(torch.int64), expected)


@pytest.mark.parametrize("level", [0, 1, 127, 128, 254, 255])
def test_every_level_of_grey(ready: Ready, level: int) -> None:
    _, w = operands(1, 5, 784)
    u = torch.full((2, 784), level, dtype=torch.uint8)
    assert ready(pack_rows(w)).product(u)[1].tolist() == ((2 * level - 255) * w.sum(1)).tolist()


@pytest.mark.parametrize("k", [4096, 4097, 8200, 20200], ids="K{}".format)
def test_long_rows_of_the_brightest_pixels(ready: Ready, k: int) -> None:
    u, w = torch.full((1, k), 255, dtype=torch.uint8), torch.ones(2, k)
    w[1] = -1
    assert ready(pack_rows(w)).product(u).tolist() == [[255 * k, -255 * k]]


@pytest.mark.usefixtures("poisoned", "int8")
@pytest.mark.parametrize("n", [1, 64, 70, 130, 400], ids="N{}".format)
@pytest.mark.parametrize("k", [27, 784], ids="K{}".format)
@pytest.mark.parametrize("m", [0, 1, 33], ids="M{}".format)
def test_bits_equal_the_thresholded_dots(m: int, n: int, k: int) -> None:
    u, w = operands(m, n, k)
    dots = ((2 * u.to(torch.int64) - 255) @ w.T).int()
    rows = torch.arange(n) % max(m, 1)
    ties = dots[rows, torch.arange(n)] if m else torch.zeros(n, dtype=torch.int32)
    threshold, flip = ties.clone(), torch.arange(n) % 3 == 0
    threshold[::7] = -(2**31)
    threshold[1::7] = 2**31 - 1
    found = PixelsInt8(pack_rows(w)).product_bits(u, threshold, flip)
    expected = reference.threshold(dots, threshold, flip)
    assert found.k == n
    assert torch.equal(found.words, reference.pack(expected))


@pytest.mark.usefixtures("int8")
def test_weights_in_segments_are_rows_as_well() -> None:
    u, w = operands(3, 2, 54)
    packed = pack_rows(w.reshape(4, 27)).words.reshape(2, 2)
    expected = (2 * u.int() - 255) @ w.T.int()
    assert torch.equal(PixelsInt8(Packed(packed, 54, 2)).product(u), expected)


def test_rows_in_parts_meet_the_same_dots(monkeypatch: pytest.MonkeyPatch) -> None:
    u, w = operands(50, 10, 100)
    whole = PixelsBitplanes(pack_rows(w)).product(u)
    monkeypatch.setattr(firstlayer, "PART_BYTES", 4 * firstlayer.PLANES * 10 * 7)
    assert torch.equal(PixelsBitplanes(pack_rows(w)).product(u), whole)


def test_wrong_pixels_are_refused(ready: Ready) -> None:
    u, w = operands(2, 3, 65)
    product = ready(pack_rows(w)).product
    with pytest.raises(TypeError, match=r"torch.uint8 tensor, got torch.float32"):
        product(u.float())
    with pytest.raises(ValueError, match=r"shape \[rows, 65\], got \[2, 64\]"):
        product(u[:, :64])
    with pytest.raises(ValueError, match="on device meta; allowed: cpu"):
        product(u.to("meta"))
