"""Kernels with faults, known to this process and to the one that benches."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.provenance import machine_name
from kernels import registry

FAULTY = '''
"""Kernels with faults: a pytest plugin that puts them into the registry."""

from kernels import registry
from kernels.cpu.kernels import Naive


class Wrong(Naive):
    name, baseline, summary = "wrong", False, "one dot is off by two"

    def product(self, a, w):
        dots = super().product(a, w)
        dots[-1, 0] += 2
        return dots


class Large(Naive):
    name, baseline, summary = "wrong-when-large", False, "right on up to 64 rows"

    def product(self, a, w):
        dots = super().product(a, w)
        return dots if len(a) <= 64 else -dots


class Tires(Naive):
    name, baseline, summary = "tires", False, "right for the first calls"
    calls = 0

    def product(self, a, w):
        self.calls += 1
        dots = super().product(a, w)
        return dots if self.calls <= 20 else dots + 0.25


class Raises(Naive):
    name, baseline, summary = "raises", False, "runs out of memory"

    def product(self, a, w):
        raise MemoryError("no room for the product")


class Absent(Naive):
    name, baseline, summary = "absent", False, "needs what is not there"

    def why_not(self, m=None, n=None, k=None):
        return "needs a device that this machine lacks"


for kernel in (Wrong(), Large(), Tires(), Raises(), Absent()):
    registry.KERNELS[kernel.name, kernel.device] = kernel
'''


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Put faulty kernels into the registry, here and in every bench; yield their names."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "faulty_kernels.py").write_text(FAULTY)
    before = dict(registry.KERNELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("PYTEST_PLUGINS", "faulty_kernels")
        patch.syspath_prepend(str(folder))
        __import__("faulty_kernels")
        yield [key[0] for key in registry.KERNELS if key not in before]
    sys.modules.pop("faulty_kernels")
    registry.KERNELS.clear()
    registry.KERNELS.update(before)


@pytest.fixture(scope="session")
def machine() -> str:
    """Return the folder that this machine's files go to."""
    import torch  # noqa: F401  the name of a GPU is known once torch is loaded

    return machine_name()


@pytest.fixture
def nothing_below(tmp_path: Path) -> Path:
    """Return a folder for results that does not exist yet."""
    return tmp_path / "bench"
