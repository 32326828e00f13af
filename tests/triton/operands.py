"""Where the operands of this folder's tests lie, and a layer's thresholds."""

import torch
from torch import Tensor

from kernels.triton.device import DEVICE, HOPPER, INTERPRETED, why_no_gpu

HOPPER_REASON = why_no_gpu(HOPPER, exactly=True)


def on_device(x: Tensor) -> Tensor:
    """Return ``x`` where the kernels run."""
    return x.to(DEVICE)


def layer(n: int, seed: int, spread: int = 9) -> tuple[Tensor, Tensor]:
    """Return random thresholds int32 [n] and flips bool [n]."""
    generator = torch.Generator().manual_seed(seed)
    threshold = torch.randint(-spread, spread, (n,), dtype=torch.int32, generator=generator)
    return threshold, torch.randint(0, 2, (n,), generator=generator).bool()


__all__ = ["DEVICE", "HOPPER_REASON", "INTERPRETED", "layer", "on_device"]
