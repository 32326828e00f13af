"""The pytest plugin of a bench: its options, its parameters, and the rows without a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.bench.cases import Case, get_case
from harness.bench.ceilings import Ceiling, ceilings
from harness.bench.gpu import gpu_state
from harness.bench.measure import NoTimeError
from harness.bench.problems import build
from harness.bench.subject import Problem
from harness.files import write_json
from harness.provenance import provenance
from kernels import registry
from kernels.base import Kernel


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what ``harness.bench.runner`` passes on."""
    group = parser.getgroup("bnn")
    group.addoption("--bnn-case", required=True)
    group.addoption("--bnn-kernels", required=True, type=lambda names: names.split(","))
    group.addoption("--bnn-device", required=True)
    group.addoption("--bnn-seconds", required=True, type=float)
    group.addoption("--bnn-limit", required=True, type=float)
    group.addoption("--bnn-threads", required=True, type=int)
    group.addoption("--bnn-rows", required=True, type=Path)


def pytest_configure(config: pytest.Config) -> None:
    """Set both thread pools and open the record of this session."""
    from kernels.cpu.threads import set_threads

    set_threads(config.getoption("--bnn-threads"))
    config.pluginmanager.register(Record(config), "bnn-record")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one benchmark of each kernel and each thing that the case clocks."""
    case = get_case(metafunc.config.getoption("--bnn-case"))
    if "ceiling" in metafunc.fixturenames:
        found = ceilings(metafunc.config.getoption("--bnn-device"))
        metafunc.parametrize("ceiling", found, ids=[one.name for one in found])
        return
    metafunc.parametrize("includes", case.includes)
    metafunc.parametrize("kernel_name", metafunc.config.getoption("--bnn-kernels"))


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    """Return nothing: the record holds the machine, without the host's name."""
    return {}


def pytest_benchmark_generate_commit_info(config: pytest.Config) -> dict[str, Any]:
    """Return nothing: the record holds the commit."""
    return {}


@pytest.fixture(scope="session")
def problem(pytestconfig: pytest.Config) -> Problem:
    """Return the case's operands, made once."""
    return build(get_case(pytestconfig.getoption("--bnn-case")))


@pytest.fixture
def seconds(pytestconfig: pytest.Config) -> float:
    """Return the time that a kernel has."""
    return float(pytestconfig.getoption("--bnn-seconds"))


@pytest.fixture
def limit(pytestconfig: pytest.Config) -> float:
    """Return how long a call may take to be clocked at all."""
    return float(pytestconfig.getoption("--bnn-limit"))


@pytest.fixture
def kernel(pytestconfig: pytest.Config, kernel_name: str) -> Kernel:
    """Return the kernel of that name on the device asked for."""
    return registry.get(kernel_name, pytestconfig.getoption("--bnn-device"))


@pytest.fixture
def record(pytestconfig: pytest.Config) -> "Record":
    """Return the record of this session."""
    found: Record = pytestconfig.pluginmanager.getplugin("bnn-record")
    return found


class Record:
    """What pytest-benchmark does not keep: rows without a time, and the state of the machine."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.rows: list[dict[str, Any]] = []
        self.state = _machine_state()

    def ceiling(self, ceiling: Ceiling, benchmark: Any) -> None:
        """Fill ``benchmark.extra_info`` for a bound of the machine."""
        case = get_case(self.config.getoption("--bnn-case"))
        benchmark.extra_info.update(
            {"case": case.name, "group": case.group, "kernel": ceiling.name},
            device=self.config.getoption("--bnn-device"),
            threads=self.config.getoption("--bnn-threads"),
            includes="ceiling", m=None, n=None, k=None, baseline=False, first_layer=None,
            ops=ceiling.ops, bytes=ceiling.bytes, caches="", status="ok", reason=None,
        )  # fmt: skip

    @contextmanager
    def row(self, kernel: Kernel, includes: str, benchmark: Any) -> Iterator[dict[str, Any]]:
        """Fill ``benchmark.extra_info``; whatever goes wrong inside becomes a row without a time.

        A kernel that cannot run here is a skipped test, one that is wrong or raises a failed one.
        """
        case = get_case(self.config.getoption("--bnn-case"))
        info = benchmark.extra_info
        threads = self.config.getoption("--bnn-threads")
        info.update(_columns(case, kernel), threads=threads, includes=includes)
        try:
            yield info
        except NoTimeError as error:
            self._no_time(benchmark, error.status, error.reason)
            (pytest.fail if error.status == "wrong" else pytest.skip)(error.reason)
        except Exception as error:
            self._no_time(benchmark, "failed", f"{type(error).__name__}: {error}")
            raise

    def _no_time(self, benchmark: Any, status: str, reason: str) -> None:
        benchmark.has_error = True  # pytest-benchmark leaves its times out of the file
        self.rows.append({**benchmark.extra_info, "status": status, "reason": reason})

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Write the record."""
        found = provenance()
        machine_info = {**found["machine"], "provenance": found, "state": self.state}
        commit_info = {"id": found["commit"], "dirty": found["dirty"]}
        document = {"machine_info": machine_info, "commit_info": commit_info, "rows": self.rows}
        write_json(self.config.getoption("--bnn-rows"), document)


def _columns(case: Case, kernel: Kernel) -> dict[str, Any]:
    return {
        "case": case.name,
        "group": case.group,
        "kernel": kernel.name,
        "device": kernel.device,
        "m": case.m,
        "n": case.n,
        "k": case.k,
        "baseline": kernel.baseline,
        "first_layer": kernel.first_layer if case.group == "mlp" else None,
        "ops": case.ops,
        "bytes": None,
        "caches": "warm" if kernel.device == "cpu" else "rotated",
        "status": "ok",
        "reason": None,
    }


def _machine_state() -> dict[str, Any]:
    """Return the load and the clock before anything was measured; read, never set."""
    frequency = psutil.cpu_freq()
    return {
        "load_1_5_15_min": [round(load, 2) for load in os.getloadavg()],
        "cpu_mhz": round(frequency.current) if frequency else None,
        "gpu": gpu_state(),
    }
