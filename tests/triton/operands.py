"""Operands and their exact products, shared by the tests of this folder."""

from collections.abc import Callable

import torch
from torch import Tensor

from kernels.triton.device import DEVICE, HOPPER, INTERPRETED, why_no_gpu

HOPPER_REASON = why_no_gpu(HOPPER, exactly=True)


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


def on_device(x: Tensor) -> Tensor:
    """Return ``x`` where the kernels run."""
    return x.to(DEVICE)


def layer(n: int, seed: int, spread: int = 9) -> tuple[Tensor, Tensor]:
    """Return random thresholds int32 [n] and flips bool [n]."""
    generator = torch.Generator().manual_seed(seed)
    threshold = torch.randint(-spread, spread, (n,), dtype=torch.int32, generator=generator)
    return threshold, torch.randint(0, 2, (n,), generator=generator).bool()


__all__ = [
    "DEVICE",
    "HOPPER_REASON",
    "INTERPRETED",
    "OPERANDS",
    "layer",
    "on_device",
    "one_hot",
    "signs",
]
