"""Random operands, the same ones every time and on every machine."""

import zlib

import torch
from torch import Tensor

from harness.bench.cases import Case
from kernels.packing import WORD_BITS, Packed, words_for

SAMPLED_ROWS = 64  # rows of the activations that the reference multiplies, all below that


def generator_of(case: Case) -> torch.Generator:
    """Return what draws a case's operands, the same on every machine."""
    return torch.Generator().manual_seed(zlib.crc32(case.name.encode()))


def random_signs(rows: int, k: int, generator: torch.Generator) -> Packed:
    """Return packed random rows of ``k`` signs.

    Drawn as words, a 32nd of the draws: 0.2 s for 16384 rows of 16384 signs, 5 s sign by sign.
    """
    width = words_for(k)
    drawn = torch.randint(
        -(1 << 31), 1 << 31, (rows, 2 * width), dtype=torch.int32, generator=generator
    )
    words = drawn.view(torch.int64)
    if k % WORD_BITS:
        words[:, -1] &= (1 << k % WORD_BITS) - 1  # pad bits are 0
    return Packed(words, k)


def sampled(m: int, most: int = SAMPLED_ROWS) -> Tensor:
    """Return the sampled rows: spread evenly, the first and the last among them."""
    return torch.linspace(0, m - 1, min(m, most)).round().to(torch.int64)
