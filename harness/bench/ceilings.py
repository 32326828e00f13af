"""What this machine can do at most, measured in the same run: copies, float32, xor and popcount."""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch

from kernels.cpu import xnor
from kernels.cpu.counts import LANES
from kernels.cpu.jit import jit
from kernels.cpu.tile import TILE_ROWS
from kernels.cpu.xnor import dots_rows

COPY_BYTES = 1 << 28  # beyond the last-level cache
_WORDS, _PANELS, _REPEATS = 64, 4, 5_000  # K of 4096 bits, 16 KiB of weights: the L1 cache


@dataclass(frozen=True)
class Ceiling:
    """A bound: ``run`` moves ``bytes`` and does ``ops`` operations."""

    name: str
    run: Callable[[], Any]
    bytes: int
    ops: int


@jit(parallel=True)
def _tiles(words, panels, count, k, repeats, out):
    for thread in numba.prange(out.shape[0]):
        alpha = np.empty((words.shape[1] + 1) * TILE_ROWS, dtype=np.uint64)
        edge = np.empty(TILE_ROWS * LANES, dtype=np.int32)
        n = count * LANES
        for _ in range(repeats):
            dots_rows(words, 0, TILE_ROWS, panels, 0, count, n, k, alpha, edge, out[thread])


def _popcount_peak() -> Ceiling:
    threads, n, k = numba.get_num_threads(), _PANELS * LANES, 64 * _WORDS
    words = np.arange(n * _WORDS, dtype=np.int64).reshape(n, _WORDS)
    laid = xnor.panels(words).view(np.uint64)
    rows = np.ascontiguousarray(words[:TILE_ROWS]).view(np.uint64)
    out = np.empty((threads, TILE_ROWS * n), dtype=np.int32)
    ops = 2 * TILE_ROWS * n * k * _REPEATS * threads
    return Ceiling("xor+popcount", lambda: _tiles(rows, laid, _PANELS, k, _REPEATS, out), 0, ops)


def ceilings(device: str) -> list[Ceiling]:
    """Return the bounds to measure on a device.

    - ``copy``: one read and one write of 256 MiB.
    - ``fp32-product``: ``torch.mm`` of 2048³ on a CPU, 8192³ on a GPU.
    - ``xor+popcount``: the tile of ``xnor-cpu`` on operands that stay in the L1 cache (CPU).
    - ``bf16-product``: 8192³ in bfloat16 (GPU).
    """
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    size = 2048 if device == "cpu" else 8192
    a, b = (torch.ones(size, size, device=device) for _ in range(2))
    found = [
        Ceiling("copy", lambda: target.copy_(source), 2 * COPY_BYTES, 0),
        Ceiling("fp32-product", lambda: torch.mm(a, b), 12 * size**2, 2 * size**3),
    ]
    if device == "cpu":
        return [*found, _popcount_peak()]
    halves = a.to(torch.bfloat16), b.to(torch.bfloat16)
    return [*found, Ceiling("bf16-product", lambda: torch.mm(*halves), 6 * size**2, 2 * size**3)]
