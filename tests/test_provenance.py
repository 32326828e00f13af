"""What a machine is called, by every process alike."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import provenance


@pytest.fixture
def h200(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that finds a GPU, and has not been imported yet."""
    cuda = SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "NVIDIA H200")
    monkeypatch.delenv("BNN_MACHINE", raising=False)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(provenance, "import_module", lambda name: SimpleNamespace(cuda=cuda))


@pytest.mark.usefixtures("h200")
def test_a_gpu_names_the_machine_before_torch_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "GPU_DRIVERS", (str(tmp_path / "none"), str(tmp_path)))
    assert provenance.machine_name() == "nvidia-h200"
    assert provenance.machine()["gpu"] == "NVIDIA H200"


@pytest.mark.usefixtures("h200")
def test_without_a_driver_torch_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "GPU_DRIVERS", (str(tmp_path / "none"),))
    assert provenance.gpu_name() is None


@pytest.mark.usefixtures("h200")
def test_a_name_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNN_MACHINE", "My GPU box")
    assert provenance.machine_name() == "my-gpu-box"
