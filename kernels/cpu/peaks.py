"""What one instruction gives at most: vector popcounts in registers, for ``harness.bench``."""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.cpu.counts import LANES, VECTOR, popcount
from kernels.cpu.jit import jit
from kernels.cpu.vectors import load, pointer, store

CHAINS = 12  # vectors in flight: more than the instruction's latency, fewer than the registers
SEEDS = CHAINS * LANES


@intrinsic
def _again_and_again(typingctx, words, steps):
    """``words[i] = popc(words[i])``, ``steps`` times, for ``SEEDS`` words held in registers."""
    signature = types.void(words, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        places = [
            pointer(context, builder, sig.args[0], args[0], ir.IntType(64)(LANES * i))
            for i in range(CHAINS)
        ]
        held = [cgutils.alloca_once_value(builder, load(builder, at, VECTOR, 8)) for at in places]
        with cgutils.for_range(builder, args[1]):
            for vector in held:
                builder.store(popcount(builder, builder.load(vector)), vector)
        for vector, at in zip(held, places, strict=True):
            store(builder, builder.load(vector), at, 8)
        return context.get_dummy_value()

    return signature, generate


@jit(parallel=True)
def popcounts(words, steps):
    """Count the ones of each word's count, ``steps`` times, a row a thread.

    Args:
        words: uint64 [threads, SEEDS], overwritten.
        steps: counts a word, ``64 * 2`` operations of a packed product each.
    """
    for thread in numba.prange(words.shape[0]):
        _again_and_again(words[thread], steps)


def seeds(threads: int) -> np.ndarray:
    """Return words to begin with, uint64 [threads, SEEDS]."""
    return np.arange(1, threads * SEEDS + 1, dtype=np.uint64).reshape(threads, SEEDS) << np.uint64(
        40
    )
