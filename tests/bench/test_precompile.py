"""What a preset launches is known before, and compiled by several processes."""

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: pip install --group gpu")

import triton

from harness.bench import precompile
from harness.bench.work import Entry
from kernels.triton import ahead, device

GPU = device.Gpu((9, 0), 132)
ALL = ("naive", "xnor-csa", "xnor-tensor", "xnor-tensor-tma", "triton-int8", "vendor-fp8-fast")
CASES = {
    "ceilings": {"peaks"},
    "square-8192": {"dot", "tma", "outer", "naive", "pack"},
    "mnist-mlp-64x32": {"dot", "tma", "outer", "naive", "pack"},
    "conv-2x4x64x32": {"conv", "dot", "outer", "naive", "pack"},
}


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(triton.runtime.driver, "_active", None)
    ahead.compile_for(GPU)
    yield
    device.compile_for(None)


@pytest.mark.skipif(torch.version.cuda is None, reason="a torch without CUDA has no such tensors")
@pytest.mark.parametrize("case", CASES)
def test_every_launch_of_a_case_is_foreseen(case: str, hopper: None) -> None:
    found = precompile.foresee(Entry(case, ALL, 0.1, "unused"))
    assert found.lost == ()
    assert {one.module.rpartition(".")[2] for one in found.wanted} == CASES[case]
    again = precompile.foresee(Entry(case, ALL, 0.1, "unused"))
    assert again.lost == (), "nothing outlives the first"


@pytest.mark.skipif(torch.version.cuda is None, reason="a torch without CUDA has no such tensors")
@pytest.mark.parametrize("name", ALL)
def test_the_checks_of_a_kernel_are_foreseen(name: str, hopper: None) -> None:
    found = precompile.foresee(name)
    assert found.lost == ()
    assert found.wanted


class Pool:
    """A pool of processes that is none."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, call: Any, argument: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(argument))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, **_: Any) -> None:
        pass


def test_what_cannot_be_compiled_is_told_and_left_to_the_bench(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = (ahead.Wanted("module", name, "{}", False) for name in ("one", "two"))

    def foresee(task: Any) -> precompile.Foreseen:
        return precompile.Foreseen(frozenset({one, two} if task == "naive" else {one}), ())

    compiled: list[ahead.Wanted] = []
    monkeypatch.setattr(precompile, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(precompile, "foresee", foresee)
    monkeypatch.setattr(ahead, "compile_wanted", compiled.append)
    entry = Entry("square-8", ("naive",), 0.1, "unused")
    said = precompile.precompile([entry], ["naive", "naive-shared"], GPU, 60.0)
    assert said.startswith("2 of 2 kernels compiled ahead")
    assert len(compiled) == 2

    def fails(_: ahead.Wanted) -> None:
        raise RuntimeError("no ptxas")

    monkeypatch.setattr(ahead, "compile_wanted", fails)
    said = precompile.precompile([entry], ["naive"], GPU, 60.0)
    assert said.startswith("0 of 2 kernels")
    assert said.endswith("; 2 failed, the first: RuntimeError: no ptxas")
    said = precompile.precompile([entry], [], GPU, -1.0)
    assert "0 of" in said
