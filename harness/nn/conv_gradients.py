"""The library's gradients of a 3x3 convolution with zero padding 1."""

import torch
from torch import Tensor


def conv_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, by_input: bool, by_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients by x [B, C, H, W] and by the filters [N, C, 3, 3], None if not wanted.

    gradient: by the products, [B, N, H, W]; all of one dtype, in any order in memory.
    """
    sides = [1, 1], [1, 1], [1, 1]  # stride, padding, dilation
    found: tuple[Tensor | None, Tensor | None, Tensor | None]
    found = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, *sides, False, [0, 0], 1, [by_input, by_weight, False]
    )
    return found[:2]
