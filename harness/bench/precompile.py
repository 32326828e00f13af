"""Kernels of a preset compiled before its clock begins, on all cores.

Each case runs once in a process that sees no GPU, on tensors that have sizes and no data, and says
what it would launch (``kernels.triton.ahead``). All processes then compile what is new into
Triton's cache, where the bench finds it.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any
from unittest.mock import patch

import torch

from harness.bench.cases import get_case
from harness.bench.correctness import BITS_SHAPE, PROBES, SHAPES
from harness.bench.positions import OUTPUTS, POSITIONS
from harness.bench.problems import build
from harness.bench.subject import Problem
from harness.bench.work import Entry, pairs
from harness.text import said
from kernels import registry, vendor_cuda
from kernels.base import Kernel
from kernels.cpu.threads import available_threads
from kernels.packing import Packed, words_for

SHARE = 0.2  # of a budget, at most
OTHERS = ("naive-shared", "naive-shared-xnor")  # of another compiler
Calls = Iterator[tuple[str, Callable[[], Any]]]


@dataclass(frozen=True)
class Foreseen:
    """What a task would launch, and its calls that could not be followed, with the reason."""

    wanted: frozenset[Any]
    lost: tuple[str, ...]


def _packed(rows: int, k: int) -> Packed:
    return Packed(torch.empty(rows, words_for(k), dtype=torch.int64, device="cuda"), k)


def _product(kernel: Kernel, m: int, n: int, k: int) -> None:
    kernel.product(kernel.activations(_packed(m, k)), kernel.weights(_packed(n, k)))


def _bits(kernel: Kernel, m: int, n: int, k: int) -> None:
    threshold = torch.empty(n, dtype=torch.int32, device="cuda")
    operands = kernel.activations(_packed(m, k)), kernel.weights(_packed(n, k))
    hidden = kernel.product_bits(*operands, threshold, threshold.to(torch.bool))
    kernel.product(hidden, kernel.weights(_packed(PROBES, n)))


def _check_calls(name: str) -> Calls:
    """Yield what ``harness.bench.correctness`` calls of a kernel."""
    kernel = registry.get(name, "cuda")
    for shape in (*SHAPES, (POSITIONS, OUTPUTS, POSITIONS)):
        yield f"{name}, {shape}", partial(_product, kernel, *shape)
    yield f"{name}, bits of {BITS_SHAPE}", partial(_bits, kernel, *BITS_SHAPE)


def _run(problem: Problem, name: str, includes: str) -> None:
    subject = problem.subject(registry.get(name, "cuda"), includes)
    if subject is not None:
        subject.dots(subject.run(subject.prepare(None)))


def _case_calls(entry: Entry) -> Calls:
    """Yield what the benchmarks of an entry call."""
    case = get_case(entry.case)
    if case.group == "ceiling":
        from harness.bench.ceilings_gpu import units

        for ceiling in units():
            yield ceiling.name, lambda ceiling=ceiling: ceiling.prepare().run()  # type: ignore[misc]
        return
    problem = build(case, "cuda")
    for name, includes in pairs(case, entry.kernels, "cuda"):
        if name not in OTHERS and entry.wants(name, includes):
            yield f"{case.name}, {name}, {includes}", partial(_run, problem, name, includes)


@contextmanager
def without_data() -> Iterator[None]:
    """Let tensors be made and moved without data, with an address aligned as a real one's.

    None of them outlives it: the next such mode refuses a tensor of this one.
    """
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    def address(x: torch.Tensor) -> int:
        return int(x.storage_offset()) * x.element_size()

    with patch.object(FakeTensor, "data_ptr", address), FakeTensorMode():
        try:
            yield
        finally:
            vendor_cuda.one.cache_clear()


def foresee(task: Entry | str) -> Foreseen:
    """Return what the benchmarks of an entry, or the checks of the kernel named, would launch."""
    from kernels.triton.ahead import recording

    lost = []
    with without_data(), recording() as wanted:
        for what, call in _check_calls(task) if isinstance(task, str) else _case_calls(task):
            try:
                call()
            except Exception as error:  # the bench will meet it, and say so
                lost.append(f"{what}: {said(error)}")
    return Foreseen(frozenset(wanted), tuple(lost))


def _begin(gpu: Any) -> None:
    """Make a process ready that compiles for ``gpu`` and opens none."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    from kernels.triton import ahead

    ahead.compile_for(gpu)


def precompile(entries: Iterable[Entry], checked: Iterable[str], gpu: Any, seconds: float) -> str:
    """Compile for ``gpu`` what entries and the checks of kernels launch; say what was done.

    Args:
        entries: cases to bench.
        checked: names of the kernels that are checked.
        gpu: a ``kernels.triton.device.Gpu``.
        seconds: after which it ends, done or not.
    """
    from kernels.triton.ahead import Wanted, compile_wanted

    tasks: list[Entry | str] = [*entries, *(name for name in checked if name not in OTHERS)]
    began, processes = time.monotonic(), available_threads()
    context = get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(gpu,))

    def finished(futures: list[Future[Any]]) -> Iterator[Future[Any]]:
        left = max(0.0, began + seconds - time.monotonic())
        return as_completed(futures, left if math.isfinite(left) else None)

    wanted, lost, compiled = set[Wanted](), list[str](), 0
    try:
        for found in finished([pool.submit(foresee, task) for task in tasks]):
            wanted |= found.result().wanted
            lost += found.result().lost
        for done in finished([pool.submit(compile_wanted, one) for one in wanted]):
            error = done.exception()
            compiled += error is None
            lost += [] if error is None else [said(error)]
    except Exception as error:  # the bench compiles the rest, at the first launch of each
        lost.append(said(error))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    took_s = time.monotonic() - began
    more = f"; {len(lost)} failed, the first: {lost[0]}" if lost else ""
    return f"{compiled} of {len(wanted)} kernels compiled ahead in {took_s:.0f} s{more}"


def precompile_here(entries: Iterable[Entry], checked: Iterable[str], total_s: float) -> None:
    """Compile ahead, if there is a GPU and triton, within ``SHARE`` of a budget of ``total_s``."""
    if registry.baseline("cuda").why_not() is None:
        from kernels.triton.device import gpu_here

        print(precompile(entries, checked, gpu_here(), SHARE * total_s), file=sys.stderr)
