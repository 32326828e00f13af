"""The baseline: float32, one output at a time, one running sum, nothing blocked or vectorized.

In the spirit of the paper's unoptimised kernel (16x16 threads, an output element each). As that one
fills a GPU, this one spreads its rows over the threads. Strict floating point keeps the sum scalar.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

import numba
import numpy as np

from kernels.cpu.jit import jit


@jit(parallel=True)
def product(a, b, out):
    """``out[m, n] = sum_k a[m, k] * b[n, k]``: float32 [M, K], [N, K] -> [M, N]."""
    for m in numba.prange(a.shape[0]):
        for n in range(b.shape[0]):
            total = np.float32(0)
            for k in range(a.shape[1]):
                total += a[m, k] * b[n, k]
            out[m, n] = total
