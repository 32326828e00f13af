"""Ones of xored words by look-ups and bit-sliced counters: AVX-512 VBMI and GFNI."""

from collections.abc import Iterator

import numba
import numpy as np
import pytest
import torch

from kernels import reference, registry
from kernels.cpu import chains, sliced, slices, threads, xnor
from kernels.cpu.vectors import GFNI, VBMI
from kernels.packing import pack_rows, unpack_rows
from tests.operands import signs

pytestmark = pytest.mark.skipif(not (VBMI and GFNI), reason="needs AVX-512 VBMI and GFNI")


@pytest.fixture
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """All products by slices, whatever popcounts would do faster."""
    monkeypatch.setattr(sliced, "usable", lambda k: k <= sliced.LONGEST)
    monkeypatch.setattr(sliced, "dots_usable", lambda n, k: True)
    monkeypatch.setattr(sliced, "FEW_ROWS", 0)
    monkeypatch.setattr(sliced, "FEW_COLUMNS", 0)


@pytest.fixture(params=[1, 2], ids="threads{}".format)
def _threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("needs two processors")
    monkeypatch.setattr(sliced, "ALONE", 1 << 40 if request.param == 1 else 0)
    before = torch.get_num_threads()
    threads.set_threads(request.param)
    yield
    threads.set_threads(before)


def _check(a: torch.Tensor, w: torch.Tensor) -> None:
    kernel = registry.get("xnor-cpu")
    weights, rows = kernel.weights(pack_rows(w)), pack_rows(a)
    assert weights.way(len(a)) is sliced
    dots, n = reference.gemm(a, w), len(w)
    assert torch.equal(kernel.product(rows, weights), dots)
    threshold = dots[torch.arange(n) % len(a), torch.arange(n)].contiguous()  # ties
    flip = torch.arange(n) % 3 == 0
    found = kernel.product_bits(rows, weights, threshold, flip)
    assert torch.equal(unpack_rows(found, torch.int8), reference.threshold(dots, threshold, flip))


# A word of indices takes 40 bits, a run 400; blocks and panels have 64 rows, tiles 8.
LENGTHS = [
    1,
    31,
    32,
    33,
    39,
    40,
    41,
    63,
    64,
    65,
    127,
    128,
    280,
    281,
    400,
    401,
    784,
    1152,
    4096,
    8192,
]


@pytest.mark.usefixtures("_always", "_threads", "poisoned")
@pytest.mark.parametrize("k", LENGTHS, ids="K{}".format)
@pytest.mark.parametrize("m,n", [(1, 64), (9, 65), (67, 133), (130, 48)])
def test_dots_and_bits_equal_the_reference(m: int, n: int, k: int) -> None:
    _check(signs(m, k, m), signs(n, k, n + 1))


@pytest.mark.usefixtures("_always")
def test_more_panels_than_meet_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced, "ALONE", 1 << 40)
    _check(signs(3, 330, 1), signs(64 * sliced.WIDE + 70, 330, 2))


@pytest.mark.usefixtures("_always")
@pytest.mark.parametrize("k", [5, 40, 320, 784, sliced.LONGEST], ids="K{}".format)
def test_extreme_rows(k: int) -> None:
    """All ones and none: every ``h`` is 3 or 0, no slice overflows at the longest row."""
    a = torch.ones(4, k, dtype=torch.int8)
    a[1], a[2, ::2], a[3, k // 2 :] = -1, -1, -1
    _check(a, a.repeat(17, 1))


@pytest.mark.usefixtures("_always")
def test_one_bit_at_each_place() -> None:
    k = 400
    a = torch.full((k, k), -1, dtype=torch.int8).fill_diagonal_(1)
    _check(a, torch.cat([a, -a]))


def _index(row: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """Return the six bits of each index of a row of 0 and 1, and its parity, by the definition."""
    found, parity = [], 0
    for first in range(0, count, 8):
        some = min(8, count - first)
        places = 5 * first + some * np.arange(5) + np.arange(some)[:, None]
        for five in np.pad(row, (0, 40))[places]:
            found.append(int((five << np.arange(5)).sum()) + (parity << 5))
            parity ^= int(five.sum()) & 1
    return np.array(found), parity


@pytest.mark.parametrize("k", [1, 40, 97, 128, 512, 784], ids="K{}".format)
@pytest.mark.parametrize("whole", [True, False], ids=["words", "few"])
def test_ones_are_twice_the_counted_and_a_parity(k: int, whole: bool) -> None:
    """What the counters rest on: ``ones = 2 * sum h + parity`` with h in 0..3, by plain numpy."""
    rng, count = np.random.default_rng(k), 8 * -(-k // 40) if whole else chains.indices_for(k)
    pairs = rng.integers(0, 2, (50, 2, k))
    for x, w in pairs:
        (xs, odd), (ws, other) = _index(x, count), _index(w, count)
        h = np.array([int(i).bit_count() >> 1 for i in xs ^ ws])
        assert set(h) <= {0, 1, 2, 3}
        assert (x ^ w).sum() == 2 * h.sum() + (odd ^ other)
    rows = pack_rows(torch.from_numpy(2 * pairs[:, 0] - 1)).words.numpy()
    found, odd = chains.index(rows, count)
    for n in range(64):
        xs, parity = _index(pairs[n, 0] if n < 50 else np.zeros(k, dtype=int), count)
        assert np.array_equal(found[0, :, n] & 63, xs)
        assert odd[0, n] == 255 * parity


def test_a_run_fits_its_slices() -> None:
    """A run counts at most 3 an index, twice, and its vectors of weight 32 add up in the slices."""
    assert (6 * slices.RUN + 1).bit_length() <= slices.LEAST
    assert 5 + (slices.KEPT - 1).bit_length() <= slices.LEAST
    for k in (1, 512, 4096, sliced.LONGEST):
        assert k.bit_length() <= sliced.slices_for(k)
    assert sliced.slices_for(sliced.LONGEST) <= 16  # sums are uint16


def test_tables_hold_the_upper_bit_and_matrices_the_lower() -> None:
    words = np.random.default_rng(0).integers(0, 1 << 48, 8, dtype=np.uint64)
    tables, matrices = np.zeros(512, dtype=np.uint8), np.zeros(64, dtype=np.uint8)
    _prepare(words, tables, matrices)
    octets = words.view(np.uint8).reshape(8, 8)[:, :6]
    six = (octets[:, :, None] >> np.arange(8) & 1).astype(int)  # row, bit of the index, index
    for r, i in np.ndindex(8, 8):
        x = int((six[r, :, i] << np.arange(6)).sum())
        ones = [(x ^ w).bit_count() for w in range(64)]
        assert [t >> r & 1 for t in tables.reshape(8, 64)[i]] == [c >= 4 for c in ones]
        line = int(matrices.reshape(8, 8)[i, 7 - r])
        lower = [(line & int(index)).bit_count() & 1 for index in chains._INDEX]
        assert lower == [c >> 1 & 1 for c in ones]


@numba.njit
def _prepare(words, tables, matrices):  # type: ignore[no-untyped-def]
    chains.prepare(words, 0, tables, 0, matrices)


@pytest.mark.parametrize("k", [1, 64, 500, 784], ids="K{}".format)
@pytest.mark.parametrize("n", [1, 64, 130], ids="N{}".format)
def test_rows_come_back_from_their_panels(n: int, k: int) -> None:
    words = pack_rows(signs(n, k, 5)).words
    laid = sliced.panels(words.numpy(), -(-k // 8))
    assert torch.equal(torch.from_numpy(sliced.rows_of_panels(laid, n, words.shape[1])), words)


@pytest.mark.parametrize("wide", [False, True], ids=["", "two popcounts a clock"])
@pytest.mark.parametrize("n", [sliced.FEW_COLUMNS, sliced.FEW_COLUMNS + 16], ids="N{}".format)
@pytest.mark.parametrize("m", [sliced.FEW_ROWS, sliced.FEW_ROWS + 1], ids="M{}".format)
@pytest.mark.parametrize("k", [40, 2048], ids="K{}".format)
def test_the_way_by_rows_columns_and_length(
    monkeypatch: pytest.MonkeyPatch, m: int, n: int, k: int, wide: bool
) -> None:
    monkeypatch.setattr(sliced, "WIDE_VPOPCNT", wide)
    ways = []
    for way, name in ((sliced, "slices"), (xnor, "popcounts")):
        for function in ("product", "product_bits"):
            monkeypatch.setattr(way, function, lambda *_, name=name: ways.append(name))
    kernel = registry.get("xnor-cpu")
    a, w = (pack_rows(signs(rows, k, rows)) for rows in (m, n))
    weights = kernel.weights(w)
    kernel.product(a, weights)
    kernel.product_bits(a, weights, torch.zeros(n, dtype=torch.int32), torch.zeros(n) > 0)
    many = m > sliced.FEW_ROWS and n > sliced.FEW_COLUMNS and not wide
    expected = ["slices" if many and k == 2048 else "popcounts", "slices" if many else "popcounts"]
    assert ways == expected


def test_weights_of_a_training_step_are_laid_out_for_popcounts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are other ones at each step, and indices take longer to make than they save."""
    monkeypatch.setattr(sliced, "WIDE_VPOPCNT", False)
    a, w = signs(100, 2048, 0), signs(512, 2048, 1)
    kernel, rows, packed = registry.get("xnor-cpu"), pack_rows(a), pack_rows(w)
    weights = kernel.weights(packed, often=False)
    assert weights.way(len(a)) is None
    assert kernel.weights(packed).way(len(a)) is sliced
    assert torch.equal(kernel.product(rows, weights), reference.gemm(a, w))
