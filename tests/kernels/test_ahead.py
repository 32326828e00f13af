"""Kernels compiled ahead are those that a launch asks for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed: pip install --group gpu")

import triton

from kernels.packing import Packed, words_for
from kernels.triton import ahead, device, dot, outer, pack, tma
from kernels.triton.kernels import kernels
from tests.kernels import fake_driver

if triton.knobs.runtime.interpret:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

M, N, K = 5, 48, 130


def zeros(rows: int, k: int) -> Packed:
    return Packed(torch.zeros(rows, words_for(k), dtype=torch.int64), k)


def calls(name: str) -> list[Callable[[], Any]]:
    (kernel,) = (kernel for kernel in kernels() if kernel.name == name)
    layer: tuple[Tensor, Tensor] = torch.zeros(N, dtype=torch.int32), torch.zeros(N).bool()

    def operands() -> tuple[Any, Any]:
        return kernel.activations(zeros(M, K)), kernel.weights(zeros(N, K))

    return [
        lambda: kernel.product(*operands()),
        lambda: kernel.product_bits(*operands(), *layer),
        lambda: kernel.activations_from_real(torch.zeros(M, K)),
    ]


def forget() -> None:
    """Forget what this process compiled, not what lies in Triton's cache."""
    for function in (dot._product, tma._product, outer._product, pack._ones, pack._pack):
        function.device_caches.pop(fake_driver.DEVICE, None)


@pytest.mark.parametrize("name", ["xnor-tensor", "xnor-tensor-tma", "xnor-csa"])
def test_what_was_compiled_ahead_is_found_at_the_launch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = fake_driver.install(monkeypatch, str(tmp_path))
    monkeypatch.setattr(ahead.driver, "CudaLauncher", lambda *_: None)  # wants the GPU's driver
    with ahead.recording() as wanted:
        for call in calls(name):
            call()
    assert gpu.taken() == []
    assert {one.one_bit for one in wanted} == {name.startswith("xnor-tensor"), False}
    for one in wanted:
        ahead.compile_wanted(one)
    forget()
    found: list[bool] = []
    listener = lambda *, cache_hit, **_: found.append(cache_hit)  # noqa: E731
    monkeypatch.setattr(triton.knobs.compilation, "listener", listener)
    for call in calls(name):
        call()
    forget()
    assert gpu.taken()
    assert len(found) == len(wanted)
    assert all(found)


def test_a_process_takes_a_gpu_for_its_own_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.runtime.driver, "_active", None)
    ahead.compile_for(device.Gpu((9, 0), 78))
    try:
        assert device.why_no_gpu(device.HOPPER, exactly=True) is None
        assert (
            device.why_no_gpu((10, 0))
            == "needs compute capability 10.0 or higher, this GPU has 9.0"
        )
        assert device.processors() == 78
        assert triton.runtime.driver.active.get_current_target().arch == 90
    finally:
        device.compile_for(None)
    assert (device.why_no_gpu() is None) == torch.cuda.is_available()
