"""Random operands, the same ones every time and on every machine."""

import zlib

import torch
from torch import Tensor

from harness.bench.cases import Case
from kernels.packing import Packed, pack_rows

SAMPLED_ROWS = 64  # rows of the activations that the reference multiplies, all below that


def generator_of(case: Case) -> torch.Generator:
    """Return what draws a case's operands, the same on every machine."""
    return torch.Generator().manual_seed(zlib.crc32(case.name.encode()))


def random_signs(rows: int, k: int, generator: torch.Generator) -> Packed:
    """Return packed random rows of ``k`` signs."""
    return pack_rows(torch.randint(0, 2, (rows, k), dtype=torch.bool, generator=generator))


def sampled(m: int, most: int = SAMPLED_ROWS) -> Tensor:
    """Return the sampled rows: spread evenly, the first and the last among them."""
    return torch.linspace(0, m - 1, min(m, most)).round().to(torch.int64)
