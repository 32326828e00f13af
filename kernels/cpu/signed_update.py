"""A weights' gradient of signs and the optimizer's step in one: the gradient stays in the caches.

The gradient ``A S`` of weights [N, K] comes from ``kernels.cpu.signed`` a few rows at a time, and
Adam or shift-based AdaMax spends it there: 8 bytes a weight less to write and read, of 36.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc, var-annotated"

import numba
import numpy as np

from kernels.cpu import signed
from kernels.cpu.jit import jit
from kernels.cpu.lookup import LANES
from kernels.cpu.pack import positive_word
from kernels.cpu.steps import adam_part, adamax_part

WORD = 64
ROWS = 8  # whose gradient a thread keeps in its caches


@jit(parallel=True, error_model="numpy")
def _update(tables, scales, index, planes, length, parts, adamax, w, m, v, c, signs):
    rows, width = w.shape
    duos = (width // LANES + 1) // 2
    for part in numba.prange(parts):
        row, row_end = signed.part_of(rows, part, parts), signed.part_of(rows, part + 1, parts)
        g = np.empty((row_end - row) * width, dtype=np.float32)
        signed.multiply(
            tables, scales, index, planes, length, row, row_end, 0, duos, width, g, row
        )  # fmt: skip
        for r in range(row, row_end):
            here = g[(r - row) * width : (r - row + 1) * width]
            if adamax:
                adamax_part(w[r], here, m[r], v[r], 0, width, c)
            else:
                adam_part(w[r], here, m[r], v[r], 0, width, c)
            for t in range(signs.shape[1]):
                signs[r, t] = positive_word(w[r], t * WORD)


def fits(columns: int) -> bool:
    """Return whether rows of ``columns`` weights are whole vectors, as :func:`update` needs."""
    return signed.width_for(columns) == columns


def update(
    a: np.ndarray, patterns: np.ndarray, planes: int, numbers: np.ndarray, adamax: bool,
    w: np.ndarray, m: np.ndarray, v: np.ndarray,
) -> np.ndarray | None:  # fmt: skip
    """Take the step on ``w`` [N, K] whose gradient is ``a @ s``, in place, on numba's threads.

    Args:
        a: float32 [N, B].
        patterns: of the signs ``s`` [B, K], and their ``planes``, as :func:`signed.index` has them.
        numbers: of the step (``steps.adam_numbers``, or ``steps.adamax_numbers`` if ``adamax``).
        w: weights with their moments ``m`` and ``v``, float32 [N, K]; :func:`fits` K.

    Returns:
        The new weights' signs, packed as int64 [N, K/64], which costs least here; None where K is
        no multiple of 64.
    """
    tables, scales = signed.tables(a, planes)
    parts = -(-len(w) // ROWS)
    words = w.shape[1] // WORD if w.shape[1] % WORD == 0 else 0
    signs = np.empty((len(w), words), dtype=np.int64)
    _update(
        tables, scales, patterns, planes, a.shape[1], parts, adamax, w, m, v, numbers,
        signs.view(np.uint64),
    )  # fmt: skip
    return signs if words else None
