"""The convolutions of a training step against float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.nn.conv_block import by_input
from kernels.triton import maps
from kernels.triton.maps import by_filters, convolve
from kernels.triton.norm_backward import SCALE
from tests.triton.convolutions import check_dots, nchw, signs
from tests.triton.operands import INTERPRETED, on_device

# Batch, height, width, channels of the input and of the output.
SHAPES = [(2, 4, 6, 16, 32), (1, 2, 2, 5, 3), (3, 6, 4, 64, 70)]
if not INTERPRETED:
    SHAPES += [(50, 32, 32, 64, 64), (50, 8, 8, 512, 512), (7, 16, 16, 128, 256)]
HALF_ROUNDING = 2.0**-11


def reals(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def far(found: Tensor, expected: Tensor) -> float:
    return float((found.cpu().double() - expected).norm() / expected.norm())


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pool", [False, True], ids=["whole", "pooled"])
def test_dots_are_the_integers_of_the_convolution(shape: tuple[int, ...], pool: bool) -> None:
    batch, height, width, c, n = shape
    x, filters = signs(batch, height, width, c, seed=1), signs(n, 3, 3, c, seed=2)
    found, winners = convolve(on_device(x), on_device(filters), pool)
    assert (winners is None) == (not pool)
    check_dots(found, winners, x, filters)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gradient_by_the_map(shape: tuple[int, ...]) -> None:
    batch, height, width, c, n = shape
    x, filters = signs(batch, height, width, c, seed=1), signs(n, 3, 3, c, seed=2)
    gradient = reals(batch, height, width, n, seed=3).half()
    found = by_input(on_device(gradient), on_device(x), on_device(filters))
    expected = F.conv_transpose2d(nchw(gradient), nchw(filters), padding=1)
    assert found.dtype == torch.float16
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert far(found, expected) < HALF_ROUNDING


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gradient_by_the_filters(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, height, width, c, n = shape
    x = signs(batch, height, width, c, seed=1)
    gradient = reals(batch, height, width, n, seed=3).half()
    if INTERPRETED:
        monkeypatch.setattr(maps, "pieces_for", lambda positions, programs: 2)
    found = by_filters(on_device(gradient), on_device(x))
    assert found.shape[1:] == (n, 3, 3, c)
    expected = torch.nn.grad.conv2d_weight(nchw(x), (n, c, 3, 3), nchw(gradient), padding=1)
    assert far(nchw(found.sum(0).cpu()) * SCALE, expected) < 1e-5


# Of six layers of ConvNet(64) at batch 50 on 132 processors, forward and back.
CHOSEN = {
    (51200, 64, 64): maps.NARROW[0][0], (12800, 128, 64): maps.WIDE[0][0],
    (12800, 64, 128): maps.SMALL, (12800, 128, 128): maps.WIDE[0][0],
    (3200, 256, 128): maps.WIDE[1][0], (3200, 128, 256): maps.SMALL,
    (800, 64, 70): maps.SMALL._replace(k=64, stages=4),
}  # fmt: skip


@pytest.mark.parametrize("product", CHOSEN, ids=str)
def test_the_tile_that_was_measured(
    product: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "processors", lambda: 132)
    assert maps.choose_tile(*product) == CHOSEN[product]


def test_pieces_give_every_processor_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "processors", lambda: 132)
    steps = 51200 // maps.FILTER_TILE.k
    assert maps.pieces_for(51200, 10**6) == 2
    assert maps.pieces_for(51200, 1) == min(2 * maps.processors(), maps.MOST_PIECES, steps)
    for programs in (12, 48, 96):  # layers of ConvNet(128): one round of programs, nearly full
        running = maps.pieces_for(51200, programs) * programs
        assert running <= maps.PROGRAMS * maps.processors() < running + programs
    assert maps.pieces_for(60, 1) == 1


WRONG = [
    (lambda x, w: convolve(x.float(), w), TypeError, "x must be torch.float16, got torch.float32"),
    (lambda x, w: convolve(x, w.bfloat16()), TypeError, "filters must be torch.float16, got"),
    (lambda x, w: convolve(x.permute(0, 3, 1, 2), w), ValueError, "x must be contiguous"),
    (lambda x, w: convolve(x[0], w), ValueError, "x must be contiguous, of 4 dimensions"),
    (lambda x, w: convolve(x[..., :8].contiguous(), w), ValueError, r"\[N, 3, 3, 8\], got"),
    (lambda x, w: convolve(x[:, :3].contiguous(), w, True), ValueError, "even, got 3 x 4"),
    (lambda x, w: by_filters(x, x[:1]), ValueError, r"x must have shape \[2, 4, 4, 'C'\]"),
    (lambda x, w: by_filters(x.float(), x), TypeError, "gradient must be torch.float16"),
    (lambda x, w: by_filters(x, x.float()), TypeError, "x must be torch.float16"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG)
def test_wrong_operands_are_told(call, error, text) -> None:  # type: ignore[no-untyped-def]
    x, w = on_device(signs(2, 4, 4, 16, seed=1)), on_device(signs(32, 3, 3, 16, seed=2))
    with pytest.raises(error, match=text):
        call(x, w)
