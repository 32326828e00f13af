"""Batch norm and sign folded to one integer threshold a channel (paper, Algorithm 5)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import HarnessError
from harness.nn.networks import Block

MAX_PIXEL = 255  # of the odd integers 2u - 255
EXACT_INTEGERS = 2**24  # float32 holds every integer up to here


@dataclass(frozen=True)
class Threshold:
    """A channel's bit is ``(dot >= value) ^ flip``: ``value`` int32 [N], ``flip`` bool [N].

    A channel that always or never fires has its threshold beyond every dot, and no flip.
    """

    value: Tensor
    flip: Tensor


def largest_dot(fan_in: int, odd_integers: bool) -> int:
    """Return the largest magnitude of a product of ``fan_in`` terms: ±1 x ±1, or x odd integers."""
    return fan_in * (MAX_PIXEL if odd_integers else 1)


def fold(block: Block, limit: int) -> Threshold:
    """Find the thresholds of ``block`` for integer dots from ``-limit`` to ``limit``.

    Each channel of :meth:`Block.norm_from_dots` is monotone in the dot in float32, so bisection on
    that very function gives the threshold that agrees with the training network bit for bit, which
    a closed form in real numbers does not where it lies within rounding of an integer. A channel's
    values at the two ends say whether it rises or falls (gamma < 0); equal ends make a constant.

    Raises:
        HarnessError: ``limit`` is past float32's integers, or the batch norm is not finite.
    """
    if limit >= EXACT_INTEGERS:
        raise HarnessError(f"dots up to {limit} are not exact in float32 (below {EXACT_INTEGERS})")
    high = torch.full((block.layer.bias.numel(),), limit)
    low = -high
    at_low, at_high = _fires(block, low), _fires(block, high)
    changes = at_low != at_high
    constant = torch.where(at_high, -limit - 1, limit + 1)
    value = torch.where(changes, _first_at_high(block, low, high, at_high), constant)
    return Threshold(value.to(torch.int32), changes & at_low)


def _fires(block: Block, dots: Tensor) -> Tensor:
    values = block.norm_from_dots(dots.float()[None])[0]
    if not values.isfinite().all():
        channel = int((~values.isfinite()).nonzero()[0, 0])
        raise HarnessError(
            f"batch norm of channel {channel} gives {values[channel].item()} for a dot of "
            f"{int(dots[channel])}: the weights are not those of a run that converged; train again"
        )
    return values >= 0


def _first_at_high(block: Block, low: Tensor, high: Tensor, at_high: Tensor) -> Tensor:
    """Return the smallest dot of each channel whose bit is that of ``high``."""
    while (high - low).max() > 1:
        middle = torch.div(low + high, 2, rounding_mode="floor")
        as_high = _fires(block, middle) == at_high
        high = torch.where(as_high, middle, high)
        low = torch.where(as_high, low, middle)
    return high
