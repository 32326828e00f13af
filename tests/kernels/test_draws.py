"""Draws by vectors are torch's, bit for bit, and leave its generator where torch leaves it."""

import pytest
import torch
from torch import Tensor

from harness.nn.layers import Linear
from kernels.cpu import pages
from kernels.packing import pack_rows

draws = pytest.importorskip("kernels.cpu.draws")
fused = pytest.importorskip("harness.nn.fused")

STATE_WORDS = 624
# A word, all but one of a state's, some states in more parts than one, and odd numbers between.
SIZES = [1, STATE_WORDS - 1, 7, 313, 12 * STATE_WORDS, 100_001, 2]
PROBABILITIES = [None, 0.5, 0.8, None, 0.2, 0.0, 1.0]


def _library(like: Tensor, generator: torch.Generator, p: float | None) -> Tensor:
    out = torch.empty_like(like)
    return (
        out.uniform_(generator=generator) if p is None else out.bernoulli_(p, generator=generator)
    )


def _pair() -> tuple[torch.Generator, torch.Generator]:
    return torch.Generator().manual_seed(11), torch.Generator().manual_seed(11)


def _needs_the_stream() -> None:
    if not draws.known():
        pytest.skip("this torch draws by a library of its own on this processor")


@pytest.mark.parametrize("first", PROBABILITIES)
def test_a_stream_is_the_librarys(first: float | None) -> None:
    _needs_the_stream()
    ours, theirs = _pair()
    for size, p in zip(SIZES, [first, *PROBABILITIES[1:]], strict=True):
        found = draws.draw(torch.full((size,), torch.nan), ours, p)
        assert torch.equal(found, _library(found, theirs, p))
        assert torch.equal(ours.get_state(), theirs.get_state())


def test_ours_and_the_librarys_draws_follow_each_other() -> None:
    _needs_the_stream()
    ours, theirs = _pair()
    for size in (5, 700, 1249):
        draws.draw(torch.empty(size), ours, 0.3)
        _library(torch.empty(size), theirs, 0.3)
        found = [_library(torch.empty(size), generator, None) for generator in (ours, theirs)]
        assert torch.equal(*found)


@pytest.mark.parametrize("p", [None, 0.5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maps_are_drawn_in_the_order_of_memory(
    p: float | None, layout: torch.memory_format
) -> None:
    ours, theirs = _pair()
    like = torch.empty(2, 5, 4, 3).contiguous(memory_format=layout)
    assert torch.equal(fused.draws(like, ours, p), _library(like, theirs, p))
    columns = torch.empty(40, 30).t()
    assert torch.equal(fused.draws(columns, ours, p), _library(columns, theirs, p))
    nothing = torch.empty(0, 3)
    assert fused.draws(nothing, ours, p).shape == (0, 3)
    assert torch.equal(ours.get_state(), theirs.get_state())


def test_another_librarys_stream_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "known", lambda: False)
    monkeypatch.setattr(draws, "_draw", lambda *given: pytest.fail("not its stream"))
    ours, theirs = _pair()
    found = draws.draw(torch.empty(50), ours, 0.5)
    assert torch.equal(found, _library(found, theirs, 0.5))


def test_large_draws_lie_in_kept_memory() -> None:
    ours, theirs = _pair()
    like = torch.empty(3, 130, 110, 120).contiguous(memory_format=torch.channels_last)
    assert like.numel() * 4 >= pages.LARGE_BYTES
    places = []
    for _ in range(2):  # the second time in the first's memory
        found = fused.draws(like, ours)
        assert found.stride() == like.stride()
        assert torch.equal(found, _library(like, theirs, None))
        places.append(found.data_ptr())
        held = pages.empty(1, like.numel(), torch.float32)  # another's, while the first is held
        assert held.data_ptr() != found.data_ptr()
        del found
    assert places[0] == places[1]


# One word, several parts of one thread's words, rows that begin within a part.
@pytest.mark.parametrize("shape", [(1, 64), (3, 128), (157, 64), (2, 9984), (7, 4416)])
def test_packed_signs_are_those_of_the_draws(shape: tuple[int, int]) -> None:
    _needs_the_stream()
    ours, theirs = _pair()
    x = 1.2 * torch.randn(shape, generator=torch.Generator().manual_seed(shape[0]))
    x[0, :4] = torch.tensor([torch.nan, 1.0, -1.0, torch.inf])
    for _ in range(2):
        found = draws.packed_signs(x, ours)
        uniform = _library(x, theirs, None)
        assert torch.equal(found, pack_rows(torch.where(2 * uniform - 1 < x, 1.0, -1.0)).words)
        assert torch.equal(ours.get_state(), theirs.get_state())


def test_signs_that_fill_no_words_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    assert draws.packed_signs(torch.zeros(3, 65), generator) is None
    assert draws.packed_signs(torch.zeros(0, 64), generator) is None
    monkeypatch.setattr(draws, "known", lambda: False)
    assert draws.packed_signs(torch.zeros(3, 64), generator) is None
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("width", [784, 192, 8])
def test_a_stochastic_layer_packs_what_it_draws(width: int) -> None:
    layers = [
        Linear((96, width), "stoch", "real", torch.Generator().manual_seed(2), generator)
        for generator in _pair()
    ]
    drawn = fused.packed_drawn_signs(layers[0].weight, torch.Generator())
    assert (drawn is None) == (width != 192)  # rows of whole words, and enough of them
    for _ in range(2):
        packed, signs = layers[0].packed_signs(), layers[1].signed_weight()
        assert torch.equal(packed, pack_rows(signs).words)
