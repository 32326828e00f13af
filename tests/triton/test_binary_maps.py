"""The convolutions of a training step by single bits against those of float16 and float64."""

import pytest
import torch
from torch import Tensor

from kernels import conv as packed_conv
from kernels.triton import binary_maps, conv
from kernels.triton.binary_maps import convolve, empty_filters, pack_filters_
from kernels.triton.pack import pack_rows
from tests.triton.convolutions import check_dots, signs
from tests.triton.operands import INTERPRETED, on_device

if not binary_maps.runs(64):
    pytest.skip("single bits are Hopper's", allow_module_level=True)

# Batch, height, width, channels of the input and of the output.
SHAPES = [(2, 4, 6, 64, 32), (1, 2, 2, 128, 3), (3, 6, 4, 192, 70)]
if not INTERPRETED:
    SHAPES += [(50, 32, 32, 128, 128), (50, 8, 8, 512, 512), (7, 16, 16, 256, 256)]


def words_of(x: Tensor) -> Tensor:
    """Return int32 [B, H, W, C/32] of ±1 [B, H, W, C]."""
    rows = pack_rows(on_device(x).flatten(0, 2)).words.view(torch.int32)
    return rows.view(*x.shape[:3], -1)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_filters_are_packed_with_their_table(shape: tuple[int, ...]) -> None:
    *_, c, n = shape
    filters = signs(n, 3, 3, c, seed=2)
    found = empty_filters(n, c)
    pack_filters_(on_device(filters), found)
    expected = packed_conv.pack_filters(filters.permute(0, 3, 1, 2).float())
    words = expected.words.view(torch.int32)
    assert torch.equal(found.words.cpu()[:, : words.shape[1]], words)
    assert not found.words[:, words.shape[1] :].any()
    assert torch.equal(found.table.cpu(), conv.border_table(expected))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pool", [False, True], ids=["whole", "pooled"])
def test_dots_are_the_integers_of_the_convolution(shape: tuple[int, ...], pool: bool) -> None:
    batch, height, width, c, n = shape
    x, filters = signs(batch, height, width, c, seed=1), signs(n, 3, 3, c, seed=2)
    packed = empty_filters(n, c)
    pack_filters_(on_device(filters), packed)
    found, winners = convolve(words_of(x), packed, pool)
    assert (winners is None) == (not pool)
    check_dots(found, winners, x, filters)


def test_wrong_operands_are_told() -> None:
    x, filters = words_of(signs(2, 4, 4, 64, seed=1)), empty_filters(5, 64)
    with pytest.raises(TypeError, match="words must be torch.int32, got torch.int64"):
        convolve(x.long(), filters)
    with pytest.raises(ValueError, match="a map of 128 channels does not fit filters of 32 words"):
        convolve(torch.cat([x, x], 3), filters)
    with pytest.raises(ValueError, match="H and W must be even, got 3 x 4"):
        convolve(x[:, :3].contiguous(), filters, True)
    with pytest.raises(ValueError, match=r"\[5, 3, 3, C\], C a multiple of 64, got \[4, 3, 3, 64"):
        pack_filters_(on_device(signs(4, 3, 3, 64, seed=2)), filters)
    with pytest.raises(TypeError, match="filters must be torch.float16"):
        pack_filters_(on_device(signs(5, 3, 3, 64, seed=2)).float(), filters)
