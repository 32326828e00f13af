"""The pytest plugin of a bench: its parameters, and the files it writes case by case."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.bench.ceilings import ceilings
from harness.bench.record import Record
from harness.bench.work import CRASHED, MARK, read_work


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what ``harness.bench.session`` passes on."""
    parser.getgroup("bnn").addoption("--bnn-work", required=True, type=Path)


def pytest_configure(config: pytest.Config) -> None:
    """Set both thread pools and open the record of this session."""
    from kernels.cpu.threads import set_threads

    work = read_work(config.getoption("--bnn-work"))
    set_threads(work.threads)
    config.pluginmanager.register(Record(work, tell), "bnn-record")


def tell(event: str, **facts: Any) -> None:
    """Print an event as a line of its own for the process that waits."""
    print(f"\n{MARK}{json.dumps({'event': event, **facts})}", flush=True)


def _record(config: pytest.Config) -> Record:
    found: Record = config.pluginmanager.getplugin("bnn-record")
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each kernel to check, each ceiling and each benchmark, in this order."""
    work = _record(metafunc.config).work
    if "checked" in metafunc.fixturenames:
        metafunc.parametrize("checked", work.checked)
    elif "ceiling" in metafunc.fixturenames:
        found = [
            (place, one)
            for place in work.ceilings()
            for one in ceilings(work.device)
            if work.entries[place].wants(one.name, "ceiling")
        ]
        names = [f"{place}-{one.name}" for place, one in found]
        metafunc.parametrize(("place", "ceiling"), found, ids=names)
    elif "step" in metafunc.fixturenames:
        steps = work.steps()
        names = [f"{work.entries[s.place].case}-{s.kernel}-{s.includes}" for s in steps]
        metafunc.parametrize("step", steps, ids=names)


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    """Return nothing: the record holds the machine, without the host's name."""
    return {}


def pytest_benchmark_generate_commit_info(config: pytest.Config) -> dict[str, Any]:
    """Return nothing: the record holds the commit."""
    return {}


def _place(item: pytest.Item | None) -> Any:
    """Return which file a test belongs to: a place among the entries, or the checks'."""
    if item is None:
        return None
    parameters = item.callspec.params  # type: ignore[attr-defined]
    if "checked" in parameters:
        return "correctness"
    return parameters["place"] if "place" in parameters else parameters["step"].place


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Stop with the process that waits; write a case's file after the last of its tests."""
    record = _record(item.config)
    if os.getppid() != record.work.parent:
        pytest.exit("the process that waited is gone", returncode=CRASHED)
    found = yield
    if record.crash is not None:
        tell("crash", **record.crash)
        pytest.exit(f"{record.crash['kernel']} has ended this process", returncode=CRASHED)
    place = _place(item)
    if place != _place(nextitem):
        record.finish(place)
    return found


@pytest.fixture
def record(pytestconfig: pytest.Config) -> Record:
    """Return the record of this session."""
    return _record(pytestconfig)
