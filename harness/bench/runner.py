"""A bench in a process of its own, with exactly the threads asked for."""

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import harness
from harness.bench.cases import Case
from harness.errors import HarnessError
from harness.files import read_json, write_json
from harness.provenance import machine_name

PYTEST_RAN = (0, 1)  # all passed, some failed: either way there are rows
LAST_LINES = 30


def available_threads() -> int:
    """Return the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """How a case is benched.

    Attributes:
        kernels: names of the registry.
        device: where they run.
        seconds: time that a kernel has.
        threads: of the CPU.
        limit: seconds that a call may be foreseen to take; a slower kernel has no time.
        suffix: of the file's name, for a second way to bench the same case.
    """

    kernels: Sequence[str]
    device: str
    seconds: float
    threads: int
    limit: float = math.inf
    suffix: str = ""


def case_file(out: Path, case: Case, settings: Settings) -> Path:
    """Return ``out/<machine>/<case>.json``; on a GPU, ``<case>-cuda.json``."""
    place = "" if settings.device == "cpu" else f"-{settings.device}"
    return out / machine_name() / f"{case.name}{place}{settings.suffix}.json"


def run_case(case: Case, settings: Settings, out: Path) -> tuple[Path, dict[str, Any]]:
    """Bench a case and write its file (``case_file``) below ``out``.

    The file is pytest-benchmark's, with a benchmark for each kernel: those that could not run, were
    wrong or failed have no ``stats``, and ``extra_info`` says why.

    Raises:
        HarnessError: the process that benches failed as a whole; the message ends with its output.
    """
    threads = settings.threads
    with tempfile.TemporaryDirectory(prefix="bnn-bench-") as folder:
        raw, rows, empty = (Path(folder) / name for name in ("raw.json", "rows.json", "pytest.ini"))
        empty.write_text("[pytest]\n")  # the settings of no folder that happens to be near
        command = [sys.executable, "-m", "pytest", "--pyargs"]
        what = "ceiling" if case.group == "ceiling" else "kernel"
        command += [f"harness.bench.suite::test_{what}"]
        command += ["-c", str(empty), "-p", "pytest_benchmark.plugin", "-p", "harness.bench.plugin"]
        command += ["-p", "no:cacheprovider", "-q", "-s", "--tb=short", "--benchmark-quiet"]
        command += ["--benchmark-enable", "--benchmark-disable-gc", f"--benchmark-json={raw}"]
        command += [f"--bnn-case={case.name}", f"--bnn-kernels={','.join(settings.kernels)}"]
        command += [f"--bnn-device={settings.device}", f"--bnn-limit={settings.limit}"]
        command += [f"--bnn-threads={threads}", f"--bnn-rows={rows}"]
        command += [f"--bnn-seconds={settings.seconds}"]
        done = subprocess.run(
            command, cwd=folder, env=_environment(threads), stdout=subprocess.PIPE, text=True
        )
        if done.returncode not in PYTEST_RAN or not rows.exists():
            last = "\n".join(done.stdout.splitlines()[-LAST_LINES:])
            raise HarnessError(
                f"the bench of {case.name} ended with status {done.returncode}:\n{last}"
            )
        document = _document(read_json(rows), read_json(raw) if raw.exists() else {})
    path = case_file(out, case, settings)
    write_json(path, document)
    return path, document


def _environment(threads: int) -> dict[str, str]:
    """Return this process's environment with the thread pools sized and no stranger's plugins."""
    root = str(Path(harness.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    pools = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    # Inside a pytest-xdist worker pytest-benchmark would refuse to clock.
    strange = ("PYTEST_ADDOPTS", "PYTEST_XDIST_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(strange)}
    return (
        kept | pools | {"PYTHONPATH": os.pathsep.join(paths), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    )


def _document(record: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    benchmarks = [_named(found) for found in raw.get("benchmarks", [])]
    benchmarks += [_named({"extra_info": row, "stats": None}) for row in record["rows"]]
    return {
        "machine_info": record["machine_info"],
        "commit_info": record["commit_info"],
        "benchmarks": benchmarks,
        "datetime": raw.get("datetime") or datetime.now(UTC).isoformat(),
        "version": raw.get("version") or version("pytest-benchmark"),
    }


def _named(benchmark: Mapping[str, Any]) -> dict[str, Any]:
    info = benchmark["extra_info"]
    name = f"{info['case']}/{info['kernel']}/{info['includes']}"
    kept = {key: benchmark[key] for key in ("extra_info", "options", "stats") if key in benchmark}
    return {"group": info["group"], "name": name, "fullname": name, **kept}
