"""±1 operands that the kernels' tests share."""

from collections.abc import Callable

import torch
from torch import Tensor


def signs(rows: int, k: int, seed: int) -> Tensor:
    """Return int8 ±1 [rows, k]."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randint(0, 2, (rows, k), generator=generator, dtype=torch.int8) - 1


def one_hot(rows: int, k: int, seed: int) -> Tensor:
    """Return -1 everywhere but for one +1 a row; the rows go over the columns from the last."""
    found = torch.full((rows, k), -1, dtype=torch.int8)
    found[torch.arange(rows), (k - 1 - torch.arange(rows) - seed) % k] = 1
    return found


OPERANDS: dict[str, Callable[[int, int, int], Tensor]] = {
    "random": signs,
    "ones": lambda rows, k, _: torch.ones(rows, k, dtype=torch.int8),
    "minus-ones": lambda rows, k, _: torch.full((rows, k), -1, dtype=torch.int8),
    "one-hot": one_hot,
}
