"""2x2 max-pooling of a convolution's products, with the winner's place in each window.

Maps are channels last: products int32 or float32 [B*H*W, N] of even H and W, pooled ones
[B*H/2*W/2, N].
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"

import numba
import numpy as np
import torch

from kernels.cpu import pages
from kernels.cpu.jit import jit


@jit()
def _beats(x, best):
    return (x > best) | (x != x)  # NaN wins, as in torch's pooling: it must not be lost


@jit()
def _windows(first, second, third, fourth, out, winners):
    for n in range(out.size):
        best, place = first[n], np.uint8(0)
        place = np.uint8(1) if _beats(second[n], best) else place
        best = second[n] if _beats(second[n], best) else best
        place = np.uint8(2) if _beats(third[n], best) else place
        best = third[n] if _beats(third[n], best) else best
        place = np.uint8(3) if _beats(fourth[n], best) else place
        out[n] = np.float32(fourth[n] if _beats(fourth[n], best) else best)
        winners[n] = place


@jit(parallel=True)
def _unpool(values, winners, height, width, out):
    for line in numba.prange(values.shape[0] // (width // 2)):
        for x in range(width // 2):
            at, of = 2 * line * width + 2 * x, line * (width // 2) + x
            for place in range(4):
                to = at + place // 2 * width + place % 2
                for n in range(values.shape[1]):
                    won = winners[of, n] == place
                    out[to, n] = values[of, n] if won else np.float32(0)


@jit(parallel=True)
def _pool(dots, height, width, out, winners):
    for line in numba.prange(dots.shape[0] // width // 2):
        for x in range(width // 2):
            at, to = 2 * line * width + 2 * x, line * (width // 2) + x
            below = at + width
            _windows(dots[at], dots[at + 1], dots[below], dots[below + 1], out[to], winners[to])


def pool(dots: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the greatest of each window and which of the four it is, the first among equals.

    Returns:
        float32 and uint8 [B*H/2*W/2, N]; 0 and 1 are the upper two of the window.
    """
    shape = (len(dots) // 4, dots.shape[1])
    out, winners = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.uint8)
    _pool(dots, height, width, out, winners)
    return out, winners


def unpool(values: np.ndarray, winners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return values of windows at their winners' places, 0 elsewhere: float32 [B*H*W, N].

    values: float32 [B*H/2*W/2, N]; winners: as :func:`pool` has them of maps of height and width.
    """
    out: np.ndarray = pages.empty(4 * len(values), values.shape[1], torch.float32).numpy()
    _unpool(values, winners, height, width, out)
    return out
