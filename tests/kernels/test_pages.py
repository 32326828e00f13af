"""Fresh results: which ask for huge pages, and that the advice stays within them."""

import mmap

import pytest
import torch

from kernels.cpu import pages

ASKED = 1 << 16  # in place of 32 MiB


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no such advice")
@pytest.mark.parametrize("rows", [63, 64, 100], ids="{}-rows".format)
@pytest.mark.parametrize("answer", [0, -1], ids=["taken", "refused"])
def test_large_results_alone_ask_for_whole_pages_of_their_own(
    monkeypatch: pytest.MonkeyPatch, rows: int, answer: int
) -> None:
    asked: list[tuple[int, int, int]] = []

    def madvise(begin: int, size: int, advice: int) -> int:
        asked.append((begin, size, advice))
        return answer

    monkeypatch.setattr(pages, "LARGE_BYTES", ASKED)
    monkeypatch.setattr(pages, "_madvise", lambda: madvise)
    out = pages.empty(rows, 256)
    assert out.shape == (rows, 256)
    assert out.dtype == torch.int32
    assert len(asked) == (rows * 1024 >= ASKED)
    for begin, size, advice in asked:
        assert advice == mmap.MADV_HUGEPAGE
        assert begin % mmap.PAGESIZE == size % mmap.PAGESIZE == 0
        assert 0 <= begin - out.data_ptr() < mmap.PAGESIZE
        assert 0 <= out.data_ptr() + rows * 1024 - (begin + size) < mmap.PAGESIZE


@pytest.mark.skipif(pages._madvise() is None, reason="this system has no such advice")
def test_the_system_takes_the_advice_for_a_large_tensor() -> None:
    block = torch.empty(1 << 20)
    begin = -(-block.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    assert pages._madvise()(begin, mmap.PAGESIZE, mmap.MADV_NORMAL) == 0
    out = pages.empty(pages.LARGE_BYTES // 4096, 1024)
    out.fill_(7)
    assert bool((out == 7).all())
