"""Sums by signs in the form of AVX2 and in that of AVX-512: the integers, whichever is in use."""

from typing import Any

import numpy as np
import pytest

vectors = pytest.importorskip("kernels.cpu.vectors")
lookup = pytest.importorskip("kernels.cpu.lookup")
permuted = pytest.importorskip("kernels.cpu.permuted")

STEPS = 7
FORMS = [
    pytest.param(
        lookup, id="avx2", marks=pytest.mark.skipif(not vectors.AVX2, reason="needs AVX2")
    ),
    pytest.param(
        permuted,
        id="avx512",
        marks=pytest.mark.skipif(not vectors.AVX512BW, reason="needs AVX512BW"),
    ),
]


def _patterns(form: Any, signs: np.ndarray, planes: int) -> np.ndarray:
    """Return patterns of ``signs`` [planes, numbers, columns], 32 columns after the other."""
    panels, size = signs.shape[2] // 32, form.PATTERNS[planes] // 4
    out = np.zeros(panels * STEPS * size, dtype=np.uint32)
    bits = np.packbits(signs > 0, axis=2, bitorder="little").view(np.uint32)
    for panel in range(panels):
        for plane, k in np.ndindex(signs.shape[:2]):
            step, j = divmod(k, form.STEP[planes])
            form.add_signs(
                bits[plane, k, panel], j, planes, plane, out, (panel * STEPS + step) * size
            )
    return out.view(np.uint8)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_tile_is_the_sum(form: Any, planes: int, wide: bool, largest: bool, fresh: bool) -> None:
    rng = np.random.default_rng(planes)
    rows, numbers, columns = form.ROWS, STEPS * form.STEP[planes], 64 if wide else 32
    q = rng.integers(-lookup.LEVELS, lookup.LEVELS + 1, (rows, numbers)).astype(np.int16)
    signs = rng.integers(0, 2, (planes, numbers, columns)) * 2 - 1
    if largest:  # all of one sign: no partial sum may leave its 16 bits
        q[:] = lookup.LEVELS
        q[1:] = -lookup.LEVELS
        signs[:] = 1
    size = STEPS * form.TABLES[planes]
    tables = np.full(rows * size, 0xA5, dtype=np.uint8)
    for r in range(rows):
        for step in range(STEPS):
            to = r * size + step * form.TABLES[planes]
            form.store_step(planes, q[r], step * form.STEP[planes], 1, tables, to)
    patterns = _patterns(form, signs, planes)
    scales = 2.0 ** np.arange(2 * rows, dtype=np.float32)
    sums = q.astype(np.int64) @ signs.sum(0)
    for count in range(1, rows + 1):  # rows of a whole tile, and fewer
        out = np.full((rows, columns + 5), 0.5, dtype=np.float32)
        form.lookup(
            count, wide, planes, tables, 0, size, patterns, 0, STEPS * form.PATTERNS[planes], STEPS,
            scales, 0, 2, fresh, out.reshape(-1), 0, columns + 5,
        )  # fmt: skip
        expected = np.full_like(out, 0.5)
        expected[:count, :columns] = sums[:count] * scales[::2, None][:count] + (not fresh) * 0.5
        assert np.array_equal(out, expected)
