"""The CUDA C product: its source run on the CPU, thread by thread; compiled by nvcc; on a GPU."""

import ctypes
import inspect
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kernels import reference
from kernels.base import Kernel
from kernels.cuda import shared
from kernels.cuda.shared import MAX_ROWS, SOURCE, NaiveShared, NaiveSharedXnor
from kernels.packing import Packed, pack_rows
from tests.operands import signs

SHAPES = [(1, 1, 1), (3, 10, 31), (17, 33, 70), (16, 16, 1030)]
KERNELS: list[Kernel] = [NaiveShared(), NaiveSharedXnor()]
# CUDA's words as C++: a block is 256 threads that meet at a barrier, blocks go one after another.
SHIM = """
#include <barrier>
#include <thread>
#include <vector>
struct Place { int x, y; };
static thread_local Place threadIdx, blockIdx;
static std::barrier<> meeting(256);
#define __global__
#define __shared__ static
#define __syncthreads() meeting.arrive_and_wait()
#define __popc __builtin_popcount
%s
template <class F> static void run(int m, int n, F body) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 256; ++t)
        threads.emplace_back([=] {
            threadIdx = {t %% 16, t / 16};
            for (int y = 0; y < (m + 15) / 16; ++y)
                for (int x = 0; x < (n + 15) / 16; ++x) {
                    blockIdx = {x, y};
                    body();
                    meeting.arrive_and_wait();
                }
        });
    for (auto &thread : threads) thread.join();
}
extern "C" void run_fp32(const float *a, const float *b, float *out, int m, int n, int k) {
    run(m, n, [=] { shared_fp32(a, b, out, m, n, k); });
}
extern "C" void run_xnor(const unsigned *a, const unsigned *b, int *out, int m, int n, int words,
                         int k) {
    run(m, n, [=] { shared_xnor(a, b, out, m, n, words, k); });
}
"""


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to run the CUDA C source on the CPU")
    folder = tmp_path_factory.mktemp("shared")
    source, library = folder / "shared.cpp", folder / "shared.so"
    source.write_text(SHIM % SOURCE.read_text())
    flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-Wno-unknown-pragmas"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def pointers(*tensors: Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_source_multiplies(on_cpu: ctypes.CDLL, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    a, w = signs(m, k, 1), signs(n, k, 2)
    expected = reference.gemm(a, w)
    real = torch.full((m, n), float("nan"))
    operands = a.float(), w.float()
    on_cpu.run_fp32(*pointers(*operands, real), m, n, k)
    assert torch.equal(real.to(torch.int32), expected)
    words = pack_rows(a).words.view(torch.int32), pack_rows(w).words.view(torch.int32)
    dots = torch.full((m, n), -77, dtype=torch.int32)
    on_cpu.run_xnor(*pointers(*words, dots), m, n, words[0].shape[1], k)
    assert torch.equal(dots, expected)


def test_it_compiles_for_hopper_without_spills(tmp_path: Path) -> None:
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc to compile CUDA C")
    command = [compiler, "-arch=sm_90", "-cubin", "-Xptxas", "-v", str(SOURCE)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "shared.cubin")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = done.stderr + done.stdout
    assert report.count("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads") == 2
    assert "shared_fp32" in report
    assert "shared_xnor" in report


def test_torch_s_run_time_compiler_takes_these_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A private function of torch: what it takes is checked where no GPU is, too."""
    called: list[inspect.BoundArguments] = []
    launch = inspect.signature(torch.cuda._utils._CudaKernel.__call__)

    def compiled(name: str) -> Callable[..., None]:
        inspect.signature(torch.cuda._compile_kernel).bind(SOURCE.read_text(), name)
        return lambda **given: called.append(launch.bind(None, **given))

    monkeypatch.setattr(shared, "_compiled", compiled)
    monkeypatch.setattr(NaiveShared, "device", "cpu")
    NaiveShared().product(torch.ones(17, 3), torch.ones(33, 3))
    (call,) = called
    assert call.arguments["grid"] == (3, 2, 1)
    assert call.arguments["block"] == (16, 16, 1)
    assert [type(given) for given in call.arguments["args"]] == [Tensor] * 3 + [int] * 3


def test_it_needs_no_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's machine may have no more of CUDA than torch's own libraries."""
    from torch.utils import cpp_extension

    given: list[str] = []
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    with pytest.raises(OSError, match="CUDA_HOME"):
        cpp_extension.include_paths("cuda")
    monkeypatch.setattr(
        torch.cuda, "_compile_kernel", lambda *_: given.extend(cpp_extension.include_paths("cuda"))
    )
    shared._compiled.__wrapped__("shared_fp32")
    assert given
    assert cpp_extension.CUDA_HOME is None


def test_the_run_time_compiler_takes_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.version.cuda is None:
        pytest.skip("this torch is built without CUDA, and so without its run-time compiler")
    from torch.cuda import _utils
    from torch.utils import cpp_extension

    def compiled(source: str, name: str) -> tuple[bytes, str]:
        return _utils._nvrtc_compile(source, name, "90")

    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    monkeypatch.setattr(torch.cuda, "_compile_kernel", compiled)
    for wanted in ("shared_fp32", "shared_xnor"):
        code, name = shared._compiled.__wrapped__(wanted)
        assert name == wanted
        assert code.startswith(b"\x7fELF")


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_products_on_the_gpu(kernel: Kernel) -> None:
    reason = kernel.why_not()
    if reason is not None:
        pytest.skip(reason)
    for m, n, k in [(0, 3, 5), *SHAPES, (100, 1000, 784)]:
        a, w = pack_rows(signs(m, k, 1)).to("cuda"), pack_rows(signs(n, k, 2)).to("cuda")
        dots = kernel.product(kernel.activations(a), kernel.weights(w)).to("cpu", torch.int32)
        assert torch.equal(dots, reference.gemm(signs(m, k, 1), signs(n, k, 2))), (m, n, k)


def test_it_says_why_not_and_refuses_operands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert NaiveShared().why_not() == "torch finds no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert f"allowed: up to {MAX_ROWS}" in str(NaiveShared().why_not(m=MAX_ROWS + 1))
    with pytest.raises(ValueError, match="activations is on device cpu; allowed: cuda"):
        NaiveSharedXnor().activations(pack_rows(signs(1, 64, 1)))
    monkeypatch.setattr(NaiveSharedXnor, "device", "cpu")
    short, long = (Packed(pack_rows(signs(1, k, 1)).words, k) for k in (64, 65))
    with pytest.raises(
        ValueError, match="activations have K=64 in 1 words a row, the weights K=65"
    ):
        NaiveSharedXnor().product(short, long)
