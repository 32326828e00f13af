"""The convolution of a training step's pixels and its filters' gradient against float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.triton import pixel_maps
from kernels.triton.norm_backward import SCALE
from kernels.triton.pixel_maps import by_filters, convolve
from tests.triton.operands import INTERPRETED, on_device
from tests.triton.test_maps import far, nchw, reals, signs

# Batch, channels, height, width, and maps: rows of one image and of several to a program.
SHAPES = [(2, 3, 4, 6, 64), (1, 1, 2, 2, 3), (3, 7, 6, 4, 70), (9, 3, 8, 8, 16)]
if not INTERPRETED:
    SHAPES += [(50, 3, 32, 32, 64), (50, 3, 32, 32, 128), (20, 1, 28, 28, 130)]
FLOAT32 = 1e-6


def pixels(*shape: int, kind: str) -> Tensor:
    """Return what networks take: odd integers 2u - 255, or reals."""
    if kind == "reals":
        return reals(*shape, seed=4)
    bytes_ = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1))
    return bytes_.mul(2).sub(255).float()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["integers", "reals"])
def test_dots_are_the_convolution(shape: tuple[int, ...], kind: str) -> None:
    batch, c, height, width, n = shape
    x, filters = pixels(batch, c, height, width, kind=kind), signs(n, 3, 3, c, seed=2)
    found = nchw(convolve(on_device(x), on_device(filters), kind == "integers").cpu())
    expected = F.conv2d(x.double(), nchw(filters), padding=1)
    if kind == "integers":
        assert torch.equal(found, expected)
    else:
        assert far(found, expected) < FLOAT32


def test_integers_to_2048_are_exact() -> None:
    x = torch.arange(-2048, 2048).float().view(1, 1, 64, 64)
    filters = signs(8, 3, 3, 1, seed=2)
    found = convolve(on_device(x), on_device(filters), integers=True)
    assert torch.equal(nchw(found.cpu()), F.conv2d(x.double(), nchw(filters), padding=1))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["integers", "reals"])
@pytest.mark.parametrize("pieces", [1, 2, 10**6])
def test_the_gradient_by_the_filters(
    shape: tuple[int, ...], kind: str, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, c, height, width, n = shape
    x = pixels(batch, c, height, width, kind=kind)
    gradient = reals(batch, height, width, n, seed=3).half()
    monkeypatch.setattr(pixel_maps, "pieces_for", lambda positions, programs: pieces)
    found = by_filters(on_device(gradient), on_device(x))
    assert found.shape[1:] == (n, 3, 3, c)
    steps = -(-batch * height * width // pixel_maps.STEP)
    expected_pieces = min(steps, pieces)
    assert len(found) == (expected_pieces if expected_pieces <= pixel_maps.MOST_PIECES else 1)
    expected = torch.nn.grad.conv2d_weight(
        x.half().double(), (n, c, 3, 3), nchw(gradient), padding=1
    )
    # A tensor core cuts a sum off at float32's 24 bits, after 16 positions each time.
    cut = 0.0 if INTERPRETED else 2.0**-24 * min(steps, -(-steps // pieces)) * pixel_maps.STEP / 16
    assert far(nchw(found.sum(0).cpu()) * SCALE, expected) < 1e-5 + cut


def test_many_pieces_come_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processors' worth the optimizer gets the pieces, of more their sum."""
    x, gradient = pixels(10, 1, 16, 16, kind="integers"), reals(10, 16, 16, 16, seed=3).half()
    found = {}
    for processors, pieces in ((1, 2), (100, 1)):
        monkeypatch.setattr(pixel_maps, "processors", lambda count=processors: count)
        found[processors] = by_filters(on_device(gradient), on_device(x))
        assert len(found[processors]) == pieces
    assert far(found[100][0], found[1].sum(0).cpu().double()) < 1e-5


def test_pieces_give_every_processor_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_maps, "processors", lambda: 132)
    assert pixel_maps.pieces_for(51200, 1) == 200  # of a step each
    assert pixel_maps.pieces_for(512000, 1) == 264
    assert pixel_maps.pieces_for(512000, 2) == 132
    assert pixel_maps.pieces_for(60, 1) == 1


@pytest.mark.parametrize("shape", [(0, 3, 4, 4, 8), (2, 3, 4, 4, 0)], ids=["no images", "no maps"])
def test_of_nothing_comes_nothing(shape: tuple[int, ...]) -> None:
    batch, c, height, width, n = shape
    x, filters = torch.zeros(batch, c, height, width), torch.zeros(n, 3, 3, c).half()
    found = convolve(on_device(x), on_device(filters), integers=True)
    assert found.shape == (batch, height, width, n)
    gradient = on_device(torch.zeros(batch, height, width, n).half())
    assert by_filters(gradient, on_device(x)).eq(0).all()


WRONG = [
    (lambda x, w, g: convolve(x.half(), w, True), TypeError, "x must be torch.float32, got"),
    (lambda x, w, g: convolve(x, w.float(), True), TypeError, "filters must be torch.float16"),
    (lambda x, w, g: convolve(x[0], w, True), ValueError, "x must be contiguous, of 4 dimensions"),
    (lambda x, w, g: convolve(x.transpose(2, 3), w, True), ValueError, "x must be contiguous"),
    (lambda x, w, g: convolve(x, w[..., :2].contiguous(), True), ValueError, r"\[N, 3, 3, 3\]"),
    (lambda x, w, g: convolve(x.repeat(1, 3, 1, 1), w, True), ValueError, "up to 7 channels"),
    (lambda x, w, g: by_filters(g.float(), x), TypeError, "gradient must be torch.float16"),
    (lambda x, w, g: by_filters(g, x.half()), TypeError, "x must be torch.float32"),
    (lambda x, w, g: by_filters(g[:1], x), ValueError, r"gradient must have shape \[2, 4, 6, 'N'"),
    (lambda x, w, g: by_filters(g, x.repeat(1, 3, 1, 1)), ValueError, "up to 7 channels"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG)
def test_wrong_operands_are_told(call, error, text) -> None:  # type: ignore[no-untyped-def]
    x, w = on_device(reals(2, 3, 4, 6, seed=1)), on_device(signs(16, 3, 3, 3, seed=2))
    with pytest.raises(error, match=text):
        call(x, w, on_device(reals(2, 4, 6, 16, seed=3).half()))
