"""The GPU kernels in the registry, with triton and without."""

import sys

import pytest

from kernels import gpu, registry
from kernels.gpu import NAMES, Absent, gpu_kernels
from kernels.packing import pack_rows


def test_the_names_are_those_of_the_kernels() -> None:
    pytest.importorskip("triton", reason="triton is not installed: pip install --group gpu")
    found = gpu_kernels()
    assert tuple(kernel.name for kernel in found) == NAMES
    assert all(kernel.device == "cuda" for kernel in found)
    assert [kernel.name for kernel in found if kernel.baseline] == ["naive"]
    assert set(NAMES) < set(registry.names_on("cuda"))


def test_without_triton_each_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for name in [name for name in sys.modules if name.startswith("kernels.triton")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    found = gpu_kernels()
    assert [(kernel.name, kernel.baseline) for kernel in found] == [
        (name, name == "naive") for name in NAMES
    ]
    assert all(isinstance(kernel, Absent) for kernel in found)
    assert {kernel.why_not() for kernel in found} == {
        "triton is not installed: pip install --group gpu"
    }
    with pytest.raises(ImportError, match="triton is not installed"):
        found[0].weights(pack_rows(torch.ones(1, 1)))


def test_another_missing_module_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kernels.triton.kernels", None)
    with pytest.raises(ModuleNotFoundError, match=r"kernels.triton.kernels"):
        gpu.gpu_kernels()
