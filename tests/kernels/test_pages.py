"""Large results: their memory serves again once nobody holds it, and no sooner."""

import mmap

import pytest
import torch

from kernels.cpu import pages

SIZE = 1 << 16  # in place of 32 MiB


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LARGE_BYTES", SIZE)
    monkeypatch.setattr(pages, "KEPT_BYTES", 3 * SIZE)
    monkeypatch.setattr(pages, "_idle", [])


def _result(rows: int = 64) -> torch.Tensor:
    return pages.empty(rows, 256)


@pytest.mark.parametrize("rows", [63, 64, 100], ids="{}-rows".format)
def test_a_result_has_its_shape_and_holds_what_is_written(rows: int) -> None:
    out = _result(rows).fill_(7)
    assert (out.shape, out.dtype) == ((rows, 256), torch.int32)
    assert bool((out == 7).all())


def test_memory_serves_again_when_its_result_is_gone() -> None:
    out = _result()
    at = out.data_ptr()
    del out
    assert _result().data_ptr() == at


def test_a_view_of_a_result_keeps_its_memory() -> None:
    view = _result().fill_(7).numpy()[3:5]
    other = _result().fill_(1)
    assert not pages._idle
    assert (view == 7).all()
    assert (other == 1).all()


def test_another_size_gets_memory_of_its_own() -> None:
    del_me = _result(100)
    at = del_me.data_ptr()
    del del_me
    assert _result(64).data_ptr() != at
    assert [len(memory) for memory in pages._idle] == [100 * 1024, SIZE]


def test_no_more_is_kept_than_allowed() -> None:
    results = [_result() for _ in range(5)]
    del results
    assert [len(memory) for memory in pages._idle] == [SIZE] * 3
    _result(256)  # four times as large: more than is kept at all
    assert [len(memory) for memory in pages._idle] == [SIZE] * 3


def test_small_results_are_torchs() -> None:
    _result(63)
    assert not pages._idle


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no such advice")
@pytest.mark.parametrize("refused", [False, True], ids=["taken", "refused"])
def test_fresh_memory_asks_for_huge_pages(monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    asked: list[int] = []

    class Memory(mmap.mmap):
        def madvise(self, *advice: int) -> None:
            asked.extend(advice)
            if refused:
                raise OSError("no huge pages")

    monkeypatch.setattr(pages.mmap, "mmap", Memory)
    assert bool((_result().fill_(7) == 7).all())
    assert asked == [mmap.MADV_HUGEPAGE]
