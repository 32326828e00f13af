"""8-bit pixels times ±1 weights, both ways, against int64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import firstlayer
from kernels.firstlayer import pixels_product_bitplanes, pixels_product_int8
from kernels.packing import Packed, pack_rows

WAYS = {"int8": pixels_product_int8, "bitplanes": pixels_product_bitplanes}
Product = Callable[[Tensor, Packed], Tensor]


@pytest.fixture(params=WAYS)
def product(request: pytest.FixtureRequest) -> Product:
    return WAYS[request.param]


def operands(m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(k)
    u = torch.randint(0, 256, (m, k), dtype=torch.uint8, generator=generator)
    w = 2 * torch.randint(0, 2, (n, k), generator=generator) - 1
    return u, w


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("k", [1, 27, 31, 63, 64, 65, 127, 784, 1152], ids="K{}".format)
@pytest.mark.parametrize("n", [1, 10, 130], ids="N{}".format)
@pytest.mark.parametrize("m", [0, 1, 17, 100], ids="M{}".format)
def test_dots_equal_int64(product: Product, m: int, n: int, k: int) -> None:
    u, w = operands(m, n, k)
    expected = (2 * u.to(torch.int64) - 255) @ w.T
    assert torch.equal(product(u, pack_rows(w)).to(torch.int64), expected)


@pytest.mark.parametrize("level", [0, 1, 127, 128, 254, 255])
def test_every_level_of_grey(product: Product, level: int) -> None:
    _, w = operands(1, 5, 784)
    u = torch.full((2, 784), level, dtype=torch.uint8)
    assert product(u, pack_rows(w))[1].tolist() == ((2 * level - 255) * w.sum(1)).tolist()


def test_rows_in_parts_meet_the_same_dots(monkeypatch: pytest.MonkeyPatch) -> None:
    u, w = operands(50, 10, 100)
    whole = pixels_product_bitplanes(u, pack_rows(w))
    monkeypatch.setattr(firstlayer, "PART_BYTES", 4 * firstlayer.PLANES * 10 * 7)
    assert torch.equal(pixels_product_bitplanes(u, pack_rows(w)), whole)


def test_wrong_pixels_are_refused(product: Product) -> None:
    u, w = operands(2, 3, 65)
    with pytest.raises(TypeError, match=r"torch.uint8 tensor, got torch.float32"):
        product(u.float(), pack_rows(w))
    with pytest.raises(ValueError, match=r"shape \[rows, 65\], got \[2, 64\]"):
        product(u[:, :64], pack_rows(w))
    with pytest.raises(ValueError, match="on device meta; allowed: cpu"):
        product(u.to("meta"), pack_rows(w))
