"""One process that does many cases, and what watches it: events, crashes, and the clock."""

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import harness
from harness.bench.budget import STEP_S
from harness.bench.record import leave_out
from harness.bench.work import MARK, Work, blamed
from harness.errors import HarnessError

PYTEST_RAN = (0, 1)  # all passed, some failed: either way there are rows
LAST_LINES = 30
GRACE_S = 60.0  # beyond the budget, before a process that hangs is killed
WATCH_S = 0.5  # between two looks at a process's time


@dataclass
class _Watched:
    """What was heard of a process."""

    done: set[str] = field(default_factory=set)
    step: dict[str, Any] | None = None
    since: float = math.inf  # when the step began
    crash: dict[str, str] | None = None
    overdue: bool = False  # killed, as it still ran ``GRACE_S`` after the time was over
    hung_s: float | None = None  # killed, as its step did not end within that
    last: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))


def run_work(work: Work, show: Callable[[str, Path], None]) -> dict[str, tuple[str, str]]:
    """Do ``work`` in a process of its own; ``show`` gets each file as soon as it is there.

    Files lie where ``work`` says: pytest-benchmark's, with a benchmark for each kernel; those that
    could not run, were wrong or failed have no ``stats``, and ``extra_info`` says why. A kernel
    that brings the process or the GPU down, or hangs, is a failed one from then on, or a part of
    it is (``blamed``), and another process goes on.

    Returns:
        What brought a process down and is excluded, with status and reason.

    Raises:
        HarnessError: the process failed as a whole; the message ends with its output.
    """
    down: dict[str, tuple[str, str]] = {}
    while work.entries or work.correctness:
        if work.correctness is None and work.budget.left_s == 0:  # no process starts to say so
            leave_out(work, lambda event, **facts: _written(event, facts, show))
            return down
        code, heard = _run(work, show)
        if code in PYTEST_RAN and heard.step is not None:
            return down
        culprit = _culprit(code, heard)
        if culprit is None or culprit[0] in down:
            raise HarnessError(_why_it_ended(work, code, heard))
        down[culprit[0]] = culprit[1:]
        work = _left(work, heard, down)
    return down


def _why_it_ended(work: Work, code: int, heard: _Watched) -> str:
    """Return what the bench itself said in plain words, or else its last lines."""
    for line in heard.last:
        _, sign, said = line.partition("harness.errors.HarnessError: ")
        if sign:
            return said
    first = work.entries[0].case if work.entries else "correctness"
    last = "\n".join(heard.last)
    return f"the bench of {first} ended with status {code}:\n{last}"


def _culprit(code: int, heard: _Watched) -> tuple[str, str, str] | None:
    """Return the kernel that brought a process down, its rows' status, and how it did."""
    if heard.crash is not None:
        return heard.crash["kernel"], "failed", heard.crash["reason"]
    if heard.step is None or code >= 0:  # an error of the bench itself
        return None
    kernel, case = blamed(heard.step["kernel"], heard.step["includes"]), heard.step["case"]
    if heard.hung_s is not None:
        return kernel, "failed", f"hangs: {case} still ran after {heard.hung_s:.0f} s"
    if heard.overdue:  # a hang, or a machine with other work: the next call tries it again
        return kernel, "skipped", f"{case} still ran {GRACE_S:.0f} s after the time was over"
    return kernel, "failed", f"brought the process down in {case} (signal {-code})"


def _left(work: Work, heard: _Watched, down: dict[str, tuple[str, str]]) -> Work:
    checks = None if work.correctness in heard.done else work.correctness
    entries = tuple(entry for entry in work.entries if entry.path not in heard.done)
    return replace(work, correctness=checks, entries=entries, excluded={**work.excluded, **down})


def _tests(work: Work) -> list[str]:
    wanted = {
        "test_correct": work.correctness is not None and work.checked,
        "test_ceiling": work.ceilings(),
        "test_kernel": work.steps(),
    }
    return [f"harness.bench.suite::{name}" for name, some in wanted.items() if some]


def _run(work: Work, show: Callable[[str, Path], None]) -> tuple[int, _Watched]:
    heard = _Watched()
    with tempfile.TemporaryDirectory(prefix="bnn-bench-") as folder:
        path, empty = Path(folder) / "work.json", Path(folder) / "pytest.ini"
        work.write(path)
        empty.write_text("[pytest]\n")  # the settings of no folder that happens to be near
        command = [sys.executable, "-m", "pytest", "--pyargs", *_tests(work), "-c", str(empty)]
        command += ["-p", "pytest_benchmark.plugin", "-p", "harness.bench.plugin"]
        command += ["-p", "no:cacheprovider", "-q", "-s", "--tb=short", "--benchmark-quiet"]
        command += ["--benchmark-enable", "--benchmark-disable-gc", f"--bnn-work={path}"]
        with subprocess.Popen(
            command, cwd=folder, env=_environment(work.threads), stdout=subprocess.PIPE, text=True
        ) as process:
            over = threading.Event()
            threading.Thread(target=_watch, args=(process, heard, work, over), daemon=True).start()
            try:
                for line in process.stdout or ():
                    _hear(line.rstrip("\n"), heard, show)
            except BaseException:
                process.kill()
                raise
            finally:
                over.set()
        return process.returncode, heard


def _watch(
    process: "subprocess.Popen[str]", heard: _Watched, work: Work, over: threading.Event
) -> None:
    """Kill a process whose time is over, or whose step does not end, before ``over`` is set."""
    last = math.inf if work.deadline is None else max(work.deadline, time.monotonic()) + GRACE_S
    step_s = STEP_S[work.device]
    while not over.wait(WATCH_S):
        now = time.monotonic()
        if now > last:
            heard.overdue = True
        elif now > heard.since + step_s:
            heard.hung_s = step_s
        else:
            continue
        process.kill()
        return


def _hear(line: str, heard: _Watched, show: Callable[[str, Path], None]) -> None:
    if not line.startswith(MARK):
        heard.last.append(line)
        return
    found = json.loads(line.removeprefix(MARK))
    event = found.pop("event")
    if event == "step":
        heard.step, heard.since = found, time.monotonic()
        clocked = f", {found['includes']}" if found["includes"] else ""
        print(f"{found['case']}: {found['kernel']}{clocked}", file=sys.stderr, flush=True)
    elif event == "crash":
        heard.crash = found
    else:
        heard.done.add(found["path"])
        heard.since = math.inf
        _written(event, found, show)


def _written(event: str, facts: Mapping[str, Any], show: Callable[[str, Path], None]) -> None:
    if event in ("case", "correctness"):
        show(event, Path(facts["path"]))


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
