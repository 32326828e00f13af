"""What a task of a loop over threads takes: its part of the whole, and memory of its own."""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

import numpy as np

from kernels.cpu.jit import jit

LINE = 64  # bytes of a cache line


@jit()
def part(total, parts, index):
    """Return begin and end of part ``index`` of ``parts`` of 0..total."""
    return total * index // parts, total * (index + 1) // parts


@jit()
def aligned(size):
    """Return uint8 [size] from the beginning of a cache line on: no vector crosses one."""
    some = np.empty(size + LINE, dtype=np.uint8)
    first = -some.ctypes.data % LINE
    return some[first : first + size]
