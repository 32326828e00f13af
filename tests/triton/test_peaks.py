"""What measures the units' rates computes what it says, step by step."""

import pytest
import torch

from kernels.triton import peaks
from kernels.triton.device import why_no_gpu
from tests.triton.operands import HOPPER_REASON, on_device

MASK = (1 << 32) - 1


def drawn(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.skipif(HOPPER_REASON is not None, reason=str(HOPPER_REASON))
@pytest.mark.parametrize("repeats", [2, 4])
def test_every_program_repeats_the_product_of_its_bits(repeats: int) -> None:
    tile = peaks.TILE
    a, b = drawn(tile.m, tile.bytes, seed=1), drawn(tile.n, tile.bytes, seed=2)
    out = on_device(torch.full((2, tile.m, tile.n), -77, dtype=torch.int32))
    peaks.bits(on_device(a), on_device(b), out, repeats)
    bits = [((x[:, :, None] >> torch.arange(8)) & 1).flatten(1).double() for x in (a, b)]
    expected = (peaks.products(repeats) * bits[0] @ bits[1].T).int()
    for program in out.cpu():
        assert torch.equal(program, expected)
    assert peaks.products(repeats) == 1 + (repeats - 1) * peaks.UNROLL
    each = 2 * tile.m * tile.n * bits[0].shape[1]
    assert peaks.bit_ops(2, repeats) == 2 * peaks.products(repeats) * each


def ones(x: torch.Tensor) -> torch.Tensor:
    return sum(((x >> place) & 1 for place in range(32)), torch.zeros_like(x))


@pytest.mark.parametrize("form", peaks.FORMS)
@pytest.mark.parametrize("repeats", [1, 2])
def test_words_take_as_many_steps_as_counted(form: str, repeats: int) -> None:
    size, steps = 2 * peaks.LANES, 0
    given = [drawn(4 * size, seed=seed).view(torch.int32) for seed in (3, 4)]
    out = on_device(torch.full((size,), -77, dtype=torch.int32))
    peaks.words(*(on_device(x) for x in given), out, form, repeats)
    state = [x.long() & MASK for x in given]
    state.append((state[0] ^ (state[1] << 7)) & MASK)
    while steps < peaks.STEPS * repeats:
        at, after, last = (place % 3 for place in (steps, steps + 1, steps + 2))
        x, y, z = state[at], state[after], state[last]
        if form == "popc":
            state[at] = (x + ones(x ^ y)) & MASK
        else:
            state[at] = x ^ ((y | z) if at == 1 else (y & z))
        steps += 1
    assert torch.equal(out.cpu().long() & MASK, state[0] ^ state[1] ^ state[2])
    assert peaks.word_ops(2, repeats) == 64 * size * steps


@pytest.mark.skipif(why_no_gpu() is not None, reason="no device")
def test_other_sizes_are_refused() -> None:
    tile = peaks.TILE
    operands = [on_device(drawn(rows, tile.bytes, seed=5)) for rows in (tile.m, tile.n)]
    out = on_device(torch.zeros(1, tile.m, tile.n + 1, dtype=torch.int32))
    with pytest.raises(AssertionError):
        peaks.bits(*operands, out, 2)
