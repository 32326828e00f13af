"""What a machine is called, by every process alike."""

import subprocess
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


def git(folder: Path, *words: str) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *author, *words], cwd=folder, check=True, capture_output=True)


def test_uncommitted_changes_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncommitted = provenance.uncommitted.__wrapped__  # asked anew each time
    (tmp_path / "harness").mkdir()
    monkeypatch.delenv("BNN_COMMIT", raising=False)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "harness" / "provenance.py"))
    assert uncommitted() is None, "no checkout"
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_bytes(b"x = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-qm", "first")
    assert uncommitted() is None
    found = []
    for text in ("x = 2\n", "x = '\xe9'\n"):
        (tmp_path / "code.py").write_bytes(text.encode("latin-1"))
        found.append(uncommitted())
    assert None not in found and len(set(found)) == 2
    monkeypatch.setenv("BNN_COMMIT", "c" * 40)
    assert uncommitted() is None, "of a copy none are known"
