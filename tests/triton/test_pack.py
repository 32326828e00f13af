"""Packing by Triton: values, tails, strides, -0.0, NaN, thresholds, popcounts, and back."""

import pytest
import torch

from kernels import reference
from kernels.packing import Packed, words_for
from kernels.triton import pack
from tests.triton.operands import layer, on_device

LENGTHS = (1, 31, 32, 33, 63, 64, 65, 127, 128, 600)
DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int16, torch.int32)


def reals(rows: int, k: int) -> torch.Tensor:
    return torch.randn(rows, k, generator=torch.Generator().manual_seed(k))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("k", LENGTHS, ids="K{}".format)
def test_words_equal_the_reference_and_come_back(k: int) -> None:
    x = reals(5, k)
    p = pack.pack_rows(on_device(x))
    assert (p.rows, p.k, p.words.shape[1]) == (5, k, words_for(k))
    assert torch.equal(p.words.cpu(), reference.pack(x))
    for dtype in (torch.float32, torch.int8):
        values = pack.unpack_rows(p, dtype)
        assert values.dtype == dtype
        assert torch.equal(values.cpu(), reference.unpack(reference.pack(x), k).to(dtype))
    ones = (x >= 0).sum(1, dtype=torch.int32)
    assert torch.equal(pack.row_ones(p.words).cpu(), ones)


@pytest.mark.usefixtures("poisoned")
def test_zeros_nan_and_infinities_at_every_place_of_a_word() -> None:
    special = torch.tensor([0.0, -0.0, float("nan"), -float("inf"), float("inf")])
    x = torch.stack([special.roll(shift).repeat(14) for shift in range(5)])
    p = pack.pack_rows(on_device(x))
    assert torch.equal(p.words.cpu(), reference.pack(x))
    assert pack.unpack_rows(p, torch.int8)[0, :5].tolist() == [1, 1, -1, -1, 1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_packs_alike(dtype: torch.dtype) -> None:
    x = reals(3, 70).mul(5).round()
    words = pack.pack_rows(on_device(x.to(dtype))).words
    assert torch.equal(words.cpu(), reference.pack(x))


def test_bools_are_bits_and_no_rows_are_no_words() -> None:
    x = reals(6, 130)
    assert torch.equal(pack.pack_rows(on_device(x >= 0)).words.cpu(), reference.pack(x))
    assert pack.pack_rows(on_device(torch.empty(0, 65))).words.shape == (0, 2)
    assert pack.unpack_rows(
        Packed(on_device(torch.empty(0, 2, dtype=torch.int64)), 65), torch.int8
    ).shape == (0, 65)


@pytest.mark.parametrize("name", ["transposed", "every-other", "backwards-wide", "expanded"])
def test_strides_do_not_matter(name: str) -> None:
    base = reals(70, 140)
    views = {
        "transposed": lambda x: x[:, :9].T,
        "every-other": lambda x: x[::2, 1::2],
        "backwards-wide": lambda x: x[:, :66],
        "expanded": lambda x: x[:1].expand(9, 140),
    }
    x, device = views[name](base), views[name](on_device(base))
    assert torch.equal(pack.pack_rows(device).words.cpu(), reference.pack(x))


def test_words_go_anywhere_with_their_popcounts_and_pads_of_0() -> None:
    x = reals(5, 70)
    words = on_device(torch.full((8, 16), -7, dtype=torch.int32))  # word-major, wider than needed
    ones = on_device(torch.full((5,), -7, dtype=torch.int32))
    pack.pack_into(on_device(x), words.T[:5], ones)
    expected = torch.full((8, 16), -7, dtype=torch.int32)
    expected[:, :5] = 0
    expected[:4, :5] = reference.pack(x).view(torch.int32).T
    assert torch.equal(words.cpu(), expected)
    assert torch.equal(ones.cpu(), (x >= 0).sum(1, dtype=torch.int32))


def test_segments_leave_their_pads_out() -> None:
    x = reals(2 * 9, 70)
    p = Packed(pack.pack_rows(on_device(x)).words.view(2, -1), 630, 9)
    expected = 2 * (x >= 0).to(torch.int8).view(2, 630) - 1
    assert torch.equal(pack.unpack_rows(p, torch.int8).cpu(), expected)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("n", [1, 64, 65, 200], ids="N{}".format)
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32], ids=str)
def test_thresholds_equal_the_reference(n: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(n)
    dots = torch.randint(-9, 10, (17, n), dtype=torch.int32, generator=generator)
    threshold, flip = layer(n, n)
    threshold[0], flip[0] = -10, True  # a channel that always fires, and is flipped
    found = pack.pack_threshold(*(on_device(x) for x in (dots.to(dtype), threshold, flip)))
    signs = reference.threshold(dots, threshold, flip)
    assert torch.equal(found.words.cpu(), reference.pack(signs))
