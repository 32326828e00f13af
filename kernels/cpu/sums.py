"""Sums by signs in the form that this processor is quickest with, and how numbers are cut for it.

Numbers are cut into blocks of SHARED that share a rounding, and a block into steps of STEP numbers,
the last of which is filled up with zeros.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from kernels.cpu.jit import jit
from kernels.cpu.vectors import AVX512BW

if AVX512BW:
    from kernels.cpu.permuted import PATTERNS, ROWS, STEP, TABLES, add_signs, lookup, store_step
else:
    from kernels.cpu.lookup import PATTERNS, ROWS, STEP, TABLES, add_signs, lookup, store_step

__all__ = ["PATTERNS", "ROWS", "STEP", "TABLES", "add_signs", "lookup", "store_step"]

SHARED = 512
BLOCK = (0, -(-SHARED // STEP[1]), -(-SHARED // STEP[2]))  # steps of a block, by planes


@jit()
def steps_for(length, planes):
    """Return the steps of ``length`` numbers."""
    rest = length % SHARED
    return length // SHARED * BLOCK[planes] + (rest + STEP[planes] - 1) // STEP[planes]
