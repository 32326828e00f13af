"""Both ways to count the ones of xored words: by tables of 16 and by popcounts."""

import pytest
import torch

from kernels import reference, registry
from kernels.cpu import sliced, tabled, xnor
from kernels.cpu.vectors import AVX2
from kernels.packing import pack_rows, unpack_rows
from tests.operands import signs

WAYS = [
    pytest.param(True, id="tables", marks=pytest.mark.skipif(not AVX2, reason="needs AVX2")),
    pytest.param(False, id="popcounts"),
]


@pytest.fixture(params=WAYS)
def by_tables(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    wanted = bool(request.param)
    monkeypatch.setattr(sliced, "usable", lambda k: False)
    monkeypatch.setattr(tabled, "usable", lambda k: wanted and k <= tabled.LONGEST)
    monkeypatch.setattr(tabled, "FEW_ROWS", 0)
    monkeypatch.setattr(tabled, "FEW_COLUMNS", 0)
    return wanted


# Runs of 31 bytes end at K = 248; blocks have 64 rows, tiles 4, panels 64 outputs.
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("k", [1, 8, 65, 248, 249, 500, 784, 1152], ids="K{}".format)
@pytest.mark.parametrize("m,n", [(1, 64), (3, 65), (5, 1), (67, 130), (130, 63), (9, 300)])
def test_dots_and_bits_equal_the_reference(by_tables: bool, m: int, n: int, k: int) -> None:
    kernel = registry.get("xnor-cpu")
    a, w = signs(m, k, m), signs(n, k, n + 1)
    weights = kernel.weights(pack_rows(w))
    assert weights.tabled == by_tables
    dots = reference.gemm(a, w)
    assert torch.equal(kernel.product(pack_rows(a), weights), dots)
    threshold = dots[torch.arange(n) % m, torch.arange(n)].contiguous()  # ties
    flip = torch.arange(n) % 3 == 0
    found = kernel.product_bits(pack_rows(a), weights, threshold, flip)
    assert torch.equal(unpack_rows(found, torch.int8), reference.threshold(dots, threshold, flip))


@pytest.mark.skipif(not AVX2, reason="needs AVX2")
@pytest.mark.parametrize("n", [64, 130, 144], ids="N{}".format)
def test_large_results_are_written_past_the_caches(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(tabled, "LARGE_BYTES", 1)
    a, w = signs(67, 70, 1), signs(n, 70, 2)
    out = torch.empty(67, n, dtype=torch.int32)
    laid = tabled.panels(pack_rows(w).words.numpy(), 9)
    assert tabled.streams(out.numpy()) == (n % 16 == 0)
    tabled.product(pack_rows(a).words.numpy(), laid, n, 70, out.numpy())
    assert torch.equal(out, reference.gemm(a, w))


@pytest.mark.parametrize("k", [tabled.LONGEST, tabled.LONGEST + 1], ids="K{}".format)
def test_the_longest_rows(by_tables: bool, k: int) -> None:
    kernel = registry.get("xnor-cpu")
    a = torch.ones(5, k, dtype=torch.int8)
    a[1] = -1
    a[2, 3] = -1
    weights = kernel.weights(pack_rows(a))
    assert weights.tabled == (by_tables and k <= tabled.LONGEST)
    dots = reference.gemm(a, a)
    assert torch.equal(kernel.product(pack_rows(a), weights), dots)
    top = torch.iinfo(torch.int32).max
    for threshold in (-k - 1, -k, 1 - k, k - 2, k, k + 1, top, -top - 1):
        bounds = torch.full((5,), threshold, dtype=torch.int32)
        flip = torch.tensor([False, True, False, True, False])
        found = kernel.product_bits(pack_rows(a), weights, bounds, flip)
        assert torch.equal(unpack_rows(found, torch.int8), reference.threshold(dots, bounds, flip))


@pytest.mark.skipif(not AVX2, reason="needs AVX2")
@pytest.mark.parametrize("n", [tabled.FEW_COLUMNS, tabled.FEW_COLUMNS + 1], ids="N{}".format)
@pytest.mark.parametrize("m", [tabled.FEW_ROWS, tabled.FEW_ROWS + 1], ids="M{}".format)
def test_few_rows_and_columns_go_by_popcounts(
    monkeypatch: pytest.MonkeyPatch, m: int, n: int
) -> None:
    monkeypatch.setattr(sliced, "usable", lambda k: False)
    monkeypatch.setattr(tabled, "usable", lambda k: True)
    ways = []
    for way, name in ((tabled, "tables"), (xnor, "popcounts")):
        for function in ("product", "product_bits"):
            monkeypatch.setattr(way, function, lambda *_, name=name: ways.append(name))
    kernel = registry.get("xnor-cpu")
    a, w = (pack_rows(signs(rows, 70, rows)) for rows in (m, n))
    weights = kernel.weights(w)
    kernel.product(a, weights)
    kernel.product_bits(a, weights, torch.zeros(n, dtype=torch.int32), torch.zeros(n) > 0)
    few = m <= tabled.FEW_ROWS or n <= tabled.FEW_COLUMNS
    assert ways == ["popcounts" if few else "tables"] * 2


@pytest.mark.parametrize("alone", [0, 1 << 40], ids=["threads", "alone"])
@pytest.mark.parametrize("m", [1, 9, 70], ids="M{}".format)
def test_one_thread_and_all_give_the_same(
    by_tables: bool, monkeypatch: pytest.MonkeyPatch, m: int, alone: int
) -> None:
    for way in (tabled, xnor):
        monkeypatch.setattr(way, "ALONE", alone)
    kernel = registry.get("xnor-cpu")
    a, w = signs(m, 500, 3), signs(100, 500, 4)
    weights, dots = kernel.weights(pack_rows(w)), reference.gemm(a, w)
    assert torch.equal(kernel.product(pack_rows(a), weights), dots)
    threshold, flip = dots[0].contiguous(), torch.arange(100) % 3 == 0
    found = kernel.product_bits(pack_rows(a), weights, threshold, flip)
    assert torch.equal(unpack_rows(found, torch.int8), reference.threshold(dots, threshold, flip))


@pytest.mark.parametrize("k", [1, 64, 500], ids="K{}".format)
@pytest.mark.parametrize("n", [1, 64, 130], ids="N{}".format)
def test_rows_come_back_from_their_panels(n: int, k: int) -> None:
    words = pack_rows(signs(n, k, 5)).words
    laid = tabled.panels(words.numpy(), -(-k // 8))
    assert torch.equal(torch.from_numpy(tabled.rows_of_panels(laid, n, words.shape[1])), words)
