"""Plain PyTorch truth for packing, products, convolutions and thresholds."""

import torch
import torch.nn.functional as functional


def pack(x: torch.Tensor) -> torch.Tensor:
    """Return the packed words (int64 [rows, ceil(K/64)]) of real rows [rows, K], bit by bit."""
    rows, k = x.shape
    words = torch.zeros(rows, -(-k // 64), dtype=torch.int64)
    for j in range(k):
        words[:, j // 64] |= (x[:, j] >= 0).to(torch.int64) << (j % 64)
    return words


def unpack(words: torch.Tensor, k: int) -> torch.Tensor:
    """Return the ±1 values (int64 [rows, k]) of packed words, bit by bit."""
    bits = [(words[:, j // 64] >> (j % 64)) & 1 for j in range(k)]
    return 2 * torch.stack(bits, dim=1) - 1


def gemm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return ``a @ b.T`` (int32 [M, N]) of integer-valued [M, K] and [N, K].

    Summed in float64, which is exact to 2^53 and fast enough for large cases.
    """
    return (a.to(torch.float64) @ b.to(torch.float64).T).to(torch.int32)


def conv(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the 3x3 convolution, stride 1, zero padding 1: [B, C, H, W], [N, C, 3, 3] -> int32."""
    dots = functional.conv2d(x.to(torch.float64), weight.to(torch.float64), padding=1)
    return dots.to(torch.int32)


def threshold(dots: torch.Tensor, thresholds: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """Return the ±1 values (int8 [M, N]) of ``(dots >= thresholds) ^ flip``."""
    return 2 * ((dots >= thresholds) ^ flip).to(torch.int8) - 1
