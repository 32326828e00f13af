"""A gate before any clock: a single differing bit at every position of K must show in the dot."""

from functools import cache

import torch

from kernels import reference
from kernels.base import Kernel
from kernels.packing import pack_rows

POSITIONS = 1152  # past a tile of K of every kernel
OUTPUTS = 32  # a multiple of 16, as K is: Triton compiles no variant for this alone


@cache
def first_wrong_position(kernel: Kernel) -> str | None:
    """Return which position of a one-hot bit a packed kernel multiplies wrongly, or None.

    Row k of the activations is -1 but for a +1 at k. A tensor-core kernel that took bits in another
    order for one operand alone would still be right on random data of one pattern; not here.
    """
    generator = torch.Generator().manual_seed(1)
    a = 2.0 * torch.eye(POSITIONS) - 1
    w = 2.0 * torch.randint(0, 2, (OUTPUTS, POSITIONS), generator=generator) - 1
    operands = (pack_rows(x).to(kernel.device) for x in (a, w))
    first, second = operands
    dots = kernel.product(kernel.activations(first), kernel.weights(second))
    wrong = (dots.to("cpu", torch.int32) != reference.gemm(a, w)).any(1).nonzero()
    if not len(wrong):
        return None
    return f"a one-hot bit at position {int(wrong[0])} of K={POSITIONS} gives a wrong dot"
