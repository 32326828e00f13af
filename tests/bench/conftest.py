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


ODD = '''
"""Kernels that end or spoil their process or take their time, and one that misplaces a bit."""

import os
import time

from harness.bench import record
from harness.bench.gpu import CaptureError
from kernels import registry
from kernels.cpu.kernels import Naive, XnorCpu


class Aborts(Naive):
    name, baseline, summary = "aborts", False, "ends the process on 9 rows"

    def product(self, a, w):
        if len(a) == 9:
            os.abort()
        return super().product(a, w)


class Spoils(Naive):
    name, baseline, summary = "spoils", False, "after it on 9 rows the device answers nothing more"
    spoilt = False

    def product(self, a, w):
        Spoils.spoilt |= len(a) == 9
        return Victim.product(self, a, w)


class Victim(Naive):
    name, baseline, summary = "victim", False, "runs on the device that another spoils"

    def product(self, a, w):
        if Spoils.spoilt:
            raise RuntimeError("CUDA error: an illegal instruction was encountered")
        return Naive.product(self, a, w)


answers = record.device_answers
record.device_answers = lambda: not Spoils.spoilt and answers()


class Uncaptured(Naive):
    name, baseline, summary = "uncaptured", False, "no graph takes it on 9 rows"

    def product(self, a, w):
        if len(a) == 9:
            raise CaptureError("no graph takes it")
        return super().product(a, w)


class Slow(Naive):
    name, baseline, summary = "slow", False, "takes its time on 9 rows"

    def product(self, a, w):
        time.sleep(0.5 if len(a) == 9 and "BNN_TEST_SLOW" in os.environ else 0)
        return super().product(a, w)


class Shifted(XnorCpu):
    name, summary = "shifted", "takes a bit of an odd row from its neighbour"

    def activations(self, p):
        if p.rows % 2 == 0 or p.k < 65:
            return super().activations(p)
        words = p.words.clone()
        words[:, 1] ^= (words[:, 1] ^ words[:, 0]) & 1
        return super().activations(type(p)(words, p.k))


for kernel in (Aborts(), Spoils(), Victim(), Uncaptured(), Slow(), Shifted()):
    registry.KERNELS[kernel.name, kernel.device] = kernel
'''


def _plugged(folder: Path, module: str, source: str) -> Iterator[list[str]]:
    """Put kernels into the registry, here and in every bench; yield their names."""
    (folder / f"{module}.py").write_text(source)
    before = dict(registry.KERNELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("PYTEST_PLUGINS", module)
        patch.syspath_prepend(str(folder))
        __import__(module)
        yield [key[0] for key in registry.KERNELS if key not in before]
    sys.modules.pop(module)
    registry.KERNELS.clear()
    registry.KERNELS.update(before)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Put kernels with faults into the registry, here and in every bench; yield their names."""
    yield from _plugged(tmp_path_factory.mktemp("plugin"), "faulty_kernels", FAULTY)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Put kernels that are odd in other ways there; yield their names."""
    yield from _plugged(tmp_path_factory.mktemp("plugin"), "odd_kernels", ODD)


@pytest.fixture(scope="session")
def machine() -> str:
    """Return the folder that this machine's files go to."""
    import torch  # noqa: F401  the name of a GPU is known once torch is loaded

    return machine_name()


@pytest.fixture
def nothing_below(tmp_path: Path) -> Path:
    """Return a folder for results that does not exist yet."""
    return tmp_path / "bench"
