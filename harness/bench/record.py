"""What a bench writes: pytest-benchmark's samples and the rows without a time, a file a case."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from harness.bench.budget import CEILING_S
from harness.bench.cases import Case, get_case
from harness.bench.ceilings import Ceiling, ceilings
from harness.bench.correctness import Verdict, check_kernel
from harness.bench.gate import NoTimeError
from harness.bench.gpu import CaptureError, gpu_state
from harness.bench.problems import build
from harness.bench.subject import Problem
from harness.bench.work import Step, Work, blamed
from harness.files import write_json
from harness.provenance import provenance
from harness.text import said
from kernels import registry
from kernels.base import Kernel

_OUTCOMES = (pytest.skip.Exception, pytest.fail.Exception)  # of a row without a time
KEPT_SHARE = 0.5  # of the GPU's memory that freed results of earlier graphs may hold


class Record:
    """The session's state: what was found of each kernel, and the rows of the current case.

    Attributes:
        work: what is to do.
        tell: takes events: ``step``, ``case``, ``correctness``.
        crash: the kernel after which this process is of no more use, and why.
    """

    def __init__(self, work: Work, tell: Callable[..., None]) -> None:
        self.work, self.tell, self.budget = work, tell, work.budget
        self.excluded = dict(work.excluded)
        self.crash: dict[str, str] | None = None
        self._verdicts: list[Verdict] = []
        self._rows: list[dict[str, Any]] = []
        self._problem: tuple[str, Problem] | None = None
        self._state = machine_state()

    def kernel(self, step: Step) -> Kernel:
        """Return the step's kernel."""
        return registry.get(step.kernel, self.work.device)

    def problem(self, step: Step) -> Problem:
        """Return the operands of the step's case, made once; those of the last are let go."""
        name = self.work.entries[step.place].case
        if self._problem is None or self._problem[0] != name:
            self._problem = None
            place = self.work.device if torch.cuda.is_available() else "cpu"
            self._problem = name, build(get_case(name), place)
        return self._problem[1]

    def check(self, name: str) -> Verdict:
        """Check a kernel on the grid of ``harness.bench.correctness``."""
        self.tell("step", case="correctness", kernel=name, includes="")
        kernel = registry.get(name, self.work.device)
        if name in self.excluded:
            verdict = Verdict(name, kernel.device, *self.excluded[name], 0, 0, 0.0)
        else:
            verdict = check_kernel(kernel)
        self._verdicts.append(verdict)
        if verdict.status in ("wrong", "failed"):
            self.excluded[name] = verdict.status, f"before any clock: {verdict.reason}"
        if verdict.status == "failed" and not device_answers():
            self._crash(name, f"brought the device down: {verdict.reason}")
        return verdict

    @contextmanager
    def ceiling(self, place: int, ceiling: Ceiling, benchmark: Any) -> Iterator[dict[str, Any]]:
        """Fill ``benchmark.extra_info`` for a bound of the machine."""
        case = get_case(self.work.entries[place].case)
        info = {
            **_columns(case, self.work.device),
            "kernel": ceiling.name, "includes": "ceiling", "threads": self.work.threads,
            "m": None, "n": None, "k": None, "ops": None, "caches": "",
        }  # fmt: skip
        with self._kept(info, benchmark):
            self._check_not_excluded(ceiling.name, "ceiling")
            yield benchmark.extra_info

    @contextmanager
    def row(self, step: Step, benchmark: Any) -> Iterator[dict[str, Any]]:
        """Fill ``benchmark.extra_info``; whatever goes wrong inside becomes a row without a time.

        A kernel that cannot run here is a skipped test, one that is wrong or raises a failed one.
        """
        case, kernel = get_case(self.work.entries[step.place].case), self.kernel(step)
        info = {
            **_columns(case, self.work.device),
            "kernel": step.kernel, "includes": step.includes, "threads": self.work.threads,
            "baseline": kernel.baseline,
            "first_layer": kernel.first_layer if case.group == "mlp" else None,
        }  # fmt: skip
        with self._kept(info, benchmark):
            self._check_not_excluded(step.kernel, step.includes)
            # Before operands are made: most of what no longer fits is left out at once.
            self.budget.check(step.kernel, self.work.device, case.ops)
            yield benchmark.extra_info

    def _check_not_excluded(self, name: str, includes: str) -> None:
        for key in (name, blamed(name, includes), f"{name}, {includes}"):
            if key in self.excluded:
                status, reason = self.excluded[key]
                raise NoTimeError(status, reason, over_budget=status == "skipped")

    @contextmanager
    def _kept(self, info: dict[str, Any], benchmark: Any) -> Iterator[None]:
        benchmark.extra_info.update(info)
        self.tell("step", **{key: info[key] for key in ("case", "kernel", "includes")})
        free_device()
        try:
            yield
        except NoTimeError as error:
            self._no_time(benchmark, error.status, error.reason, error.over_budget)
            red = error.status in ("wrong", "failed")
            (pytest.fail if red else pytest.skip)(error.reason)
        except Exception as error:
            reason = said(error)
            self._no_time(benchmark, "failed", reason)
            kernel, includes = info["kernel"], info["includes"]
            if not device_answers():
                self._crash(blamed(kernel, includes), f"brought the device down: {reason}")
            elif isinstance(error, CaptureError):
                self._crash(f"{kernel}, {includes}", str(error))
            raise
        found: dict[str, Any] = benchmark.stats.as_dict(include_data=True)
        self._rows.append(found)

    def _no_time(self, benchmark: Any, status: str, reason: str, over: bool = False) -> None:
        benchmark.has_error = True  # pytest-benchmark leaves its times out of its own table
        row = {**benchmark.extra_info, "status": status, "reason": reason, "over_budget": over}
        self._rows.append({"extra_info": row, "stats": None})

    def _crash(self, kernel: str, reason: str) -> None:
        self.crash = {"kernel": kernel, "reason": reason}

    def finish(self, place: int | str) -> None:
        """Write the file of the case at ``place``, or of the checks."""
        before = self._state
        self._state = machine_state(ask_gpu=before["gpu"] is not None)
        if place == "correctness":
            path = Path(str(self.work.correctness))
            body: dict[str, Any] = {"kernels": [verdict.row for verdict in self._verdicts]}
        else:
            path = Path(self.work.entries[int(place)].path)
            body = {"benchmarks": [_named(row) for row in self._rows]}
            self._rows = []
        write_json(path, _document(before, self._state) | body)
        self.tell("correctness" if place == "correctness" else "case", path=str(path))


def leave_out(work: Work, tell: Callable[..., None]) -> None:
    """Write the files of ``work`` whose budget is spent: rows that say so, and nothing is run."""
    record, steps = Record(work, tell), work.steps()
    for place, entry in enumerate(work.entries):
        for step in (step for step in steps if step.place == place):
            benchmark = SimpleNamespace(extra_info={})
            with suppress(*_OUTCOMES), record.row(step, benchmark):
                raise AssertionError(f"{step} has time")
        for ceiling in ceilings(work.device) if place in work.ceilings() else ():
            if entry.wants(ceiling.name, "ceiling"):
                benchmark = SimpleNamespace(extra_info={})
                with suppress(*_OUTCOMES), record.ceiling(place, ceiling, benchmark):
                    record.budget.check_seconds(CEILING_S)
        record.finish(place)


def free_device() -> None:
    """Give back what freed results of earlier graphs hold, once it is much of the GPU's memory."""
    if torch.cuda.is_available():
        most = KEPT_SHARE * torch.cuda.get_device_properties("cuda").total_memory
        if torch.cuda.memory_reserved() > most:
            gc.collect()  # a failed step's traceback may hold what it made
            torch.cuda.empty_cache()


def device_answers() -> bool:
    """Tell whether the GPU, if this process uses one, still does what it is asked."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def _columns(case: Case, device: str) -> dict[str, Any]:
    return {
        "case": case.name,
        "group": case.group,
        "kernel": None,
        "device": device,
        "m": case.m,
        "n": case.n,
        "k": case.k,
        "baseline": False,
        "first_layer": None,
        "ops": case.ops,
        "bytes": None,
        "caches": "warm" if device == "cpu" else "rotated",
        "status": "ok",
        "reason": None,
    }


def _document(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    found = provenance()
    states = {"state": before, "state_after": after}
    return {
        "machine_info": {**found["machine"], "provenance": found, **states},
        "commit_info": {"id": found["commit"], "dirty": found["dirty"]},
        "datetime": datetime.now(UTC).isoformat(),
        "version": version("pytest-benchmark"),
    }


def _named(row: dict[str, Any]) -> dict[str, Any]:
    info = row["extra_info"]
    name = f"{info['case']}/{info['kernel']}/{info['includes']}"
    kept: dict[str, Any] = {"group": info["group"], "name": name, "fullname": name}
    return kept | {key: row[key] for key in ("extra_info", "options", "stats") if key in row}


def machine_state(ask_gpu: bool = True) -> dict[str, Any]:
    """Return the load and the clock; read, never set.

    A GPU that has given no answer is not asked again: each time may take seconds.
    """
    frequency = psutil.cpu_freq()
    return {
        "load_1_5_15_min": [round(load, 2) for load in os.getloadavg()],
        "cpu_mhz": round(frequency.current) if frequency else None,
        "gpu": gpu_state() if ask_gpu else None,
    }
