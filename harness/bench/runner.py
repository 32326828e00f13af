"""Cases by their files: what is there, what is missing, and a bench of a single case."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.bench.cases import Case
from harness.bench.session import run_work
from harness.bench.work import Entry, Work
from harness.errors import HarnessError
from harness.files import read_json
from harness.provenance import machine_name


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


def place_suffix(device: str) -> str:
    """Return what a device adds to the name of a file."""
    return "" if device == "cpu" else f"-{device}"


def case_file(out: Path, case: Case, settings: Settings, part: int = 1) -> Path:
    """Return ``out/<machine>/<case>.json``; on a GPU, ``<case>-cuda.json``.

    What a first run had no time for lies in a second ``part``, ``<case>-cuda-part2.json``.
    """
    stem = f"{case.name}{place_suffix(settings.device)}{settings.suffix}"
    more = "" if part == 1 else f"-part{part}"
    return out / machine_name() / f"{stem}{more}.json"


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a bench file; none if it is missing or cut short."""
    try:
        return [row["extra_info"] for row in read_json(path)["benchmarks"]]
    except (HarnessError, KeyError, TypeError):
        return []


def parts(out: Path, case: Case, settings: Settings) -> list[Path]:
    """Return the files of a case that are there and not cut short."""
    found: list[Path] = []
    while _rows(path := case_file(out, case, settings, len(found) + 1)):
        found.append(path)
    return found


def missing(out: Path, case: Case, settings: Settings) -> tuple[tuple[str, str], ...] | None:
    """Return the (kernel, includes) that no file of a case has but as over the budget.

    ``None``: the case is to be benched from the start, as no file is there, or none that knows all
    kernels, or it is of another number of threads. Empty: it is whole.
    """
    rows = [row for path in parts(out, case, settings) for row in _rows(path)]
    ceiling = case.group == "ceiling"
    if not rows or not (ceiling or {row["kernel"] for row in rows} >= set(settings.kernels)):
        return None
    threads = {row.get("threads", settings.threads) for row in rows}
    if settings.device == "cpu" and not ceiling and threads != {settings.threads}:
        return None
    known = {(row["kernel"], row.get("includes", "")) for row in rows if not row.get("over_budget")}
    over = {(row["kernel"], row["includes"]) for row in rows if row.get("over_budget")}
    return tuple(sorted(over - known))


def run_case(case: Case, settings: Settings, out: Path) -> tuple[Path, dict[str, Any]]:
    """Bench a case and write its file (``case_file``) below ``out``.

    Raises:
        HarnessError: the process that benches failed as a whole; the message ends with its output.
    """
    path = case_file(out, case, settings)
    limit = settings.limit if math.isfinite(settings.limit) else None
    entry = Entry(case.name, tuple(settings.kernels), settings.seconds, str(path.resolve()))
    work = Work(settings.device, settings.threads, (entry,), limit=limit)
    run_work(work, lambda event, written: None)
    return path, read_json(path)
