"""±1 maps and filters for the tests of a step's convolutions, and their dots in float64."""

import torch
import torch.nn.functional as F
from torch import Tensor


def signs(*shape: int, seed: int) -> Tensor:
    """Return random ±1 in float16."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, shape, generator=generator).mul(2).sub(1).half()


def nchw(x: Tensor) -> Tensor:
    """Return [B, H, W, C] as float64 [B, C, H, W]."""
    return x.permute(0, 3, 1, 2).double()


def check_dots(found: Tensor, winners: Tensor | None, x: Tensor, filters: Tensor) -> None:
    """Assert the dots of x [B, H, W, C] and filters [N, 3, 3, C]; with ``winners`` the pooled."""
    expected = F.conv2d(nchw(x), nchw(filters), padding=1)
    assert found.dtype == torch.float32
    if winners is None:
        assert torch.equal(nchw(found.cpu()), expected)
        return
    # The library's corner: its place in the map as a place in the window.
    greatest, place = F.max_pool2d(expected, 2, return_indices=True)
    width = x.shape[2]
    corner = place // width % 2 * 2 + place % width % 2
    assert torch.equal(nchw(found.cpu()), greatest)
    assert torch.equal(nchw(winners.cpu()), corner.double())
