"""2x2 max-pooling of a convolution's integer products, with the winner's place in each window.

Maps are channels last: products int32 [B*H*W, N] of even H and W, pooled ones [B*H/2*W/2, N].
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"

import numba
import numpy as np

from kernels.cpu.jit import jit


@jit()
def _windows(first, second, third, fourth, out, winners):
    for n in range(out.size):
        best, place = first[n], np.uint8(0)
        place = np.uint8(1) if second[n] > best else place
        best = max(best, second[n])
        place = np.uint8(2) if third[n] > best else place
        best = max(best, third[n])
        place = np.uint8(3) if fourth[n] > best else place
        out[n] = np.float32(max(best, fourth[n]))
        winners[n] = place


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
