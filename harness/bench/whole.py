"""``bnn bench --preset``: checks, then every case that is missing, within a budget, then frames."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.bench.cases import Case
from harness.bench.precompile import precompile_here
from harness.bench.presets import get_preset, preset_settings
from harness.bench.runner import (
    Settings,
    case_file,
    missing,
    parts,
    place_suffix,
)
from harness.bench.session import run_work
from harness.bench.work import Entry, Work
from harness.errors import HarnessError
from harness.files import read_json
from harness.provenance import commit, machine_name
from kernels import registry

RESERVE = 0.05  # of the budget: for the frames, and for a step that takes longer than foreseen
Show = Callable[[Any, str], None]
Todo = list[tuple[Case, Settings]]
Excluded = dict[str, tuple[str, str]]


def correctness_file(out: Path, device: str) -> Path:
    """Return the file of the checks that come before any clock."""
    return out / machine_name() / f"correctness{place_suffix(device)}.json"


def still_holds(path: Path, kernels: set[str]) -> bool:
    """Tell whether a file of checks is of this very code and has all ``kernels``."""
    if not path.exists():
        return False
    try:
        found = read_json(path)
        # One that was killed for time was not checked.
        known = {row["kernel"] for row in found["kernels"] if row["status"] != "skipped"}
        was = found["commit_info"]["id"], found["commit_info"]["dirty"]
    except (HarnessError, KeyError, TypeError):
        return False
    return kernels <= known and was[0] is not None and not was[1] and was == commit()


def red_kernels(path: Path) -> Excluded:
    """Return the kernels that a file of checks found wrong or failing."""
    if not path.exists():
        return {}
    return {
        row["kernel"]: (row["status"], f"before any clock: {row['reason']}")
        for row in read_json(path)["kernels"]
        if row["status"] in ("wrong", "failed")
    }


def _entry(case: Case, settings: Settings, bench: Path, fresh: bool) -> Entry | None:
    """Return what is missing of a case; None if nothing is."""
    there = parts(bench, case, settings)
    only = None if fresh else missing(bench, case, settings)
    if only == ():
        return None
    if only is None:
        for old in there[1:]:
            old.unlink()  # the new first file has it all
    path = case_file(bench, case, settings, 1 if only is None else len(there) + 1)
    kernels = tuple(settings.kernels)
    return Entry(case.name, kernels, settings.seconds, str(path.resolve()), only)


def _sessions(todo: Todo, bench: Path, fresh: bool) -> list[tuple[int, list[Entry]]]:
    """Return the entries that are missing by their number of threads, which is a process's."""
    found: dict[int, list[Entry]] = {}
    for case, settings in todo:
        entry = _entry(case, settings, bench, fresh)
        if entry is not None:
            found.setdefault(settings.threads, []).append(entry)
    return list(found.items())


def run_preset(
    name: str,
    out: Path | None,
    limit: float,
    fresh: bool,
    minutes: float | None,
    show: Show,
    show_checks: Callable[[Any], None],
    added: Sequence[str] = (),
) -> tuple[Path, bool]:
    """Bench a preset below ``out`` (default: ``results/reference/<machine>``) and collect frames.

    Kernels ``added`` to its own are benched beside them in every case. Every kernel is checked
    before any is clocked. A case whose files are whole is skipped unless
    ``fresh``; one that the budget of ``minutes`` cut short goes on with what is missing. ``show``
    gets each document as soon as it is there, with where it stands: ``3/24``.

    Returns:
        The folder of the frames, and whether some kernel was wrong or failed.

    Raises:
        HarnessError: an unknown preset or kernel, or a preset for a GPU where there is none.
    """
    from harness.device import check_gpu
    from harness.report.collect import collect

    began, preset = time.monotonic(), get_preset(name)
    if preset.device == "cuda":
        check_gpu(f"--preset {name}", "--preset cpu, or --plan")
    total_s = 60 * (preset.minutes if minutes is None else minutes)
    folder = out or Path("results") / "reference" / machine_name()
    bench, todo = folder / "bench", list(preset_settings(name, limit, added))
    checks = correctness_file(bench, preset.device)
    kernels = {kernel for _, settings in todo for kernel in settings.kernels}
    sessions, at = _sessions(todo, bench, fresh), 0
    total = sum(len(entries) for _, entries in sessions)

    def written(event: str, path: Path) -> None:
        nonlocal at
        document = read_json(path)
        if event == "correctness":
            show_checks(document)
        else:
            at += 1
            show(document, f"{at}/{total}")

    check = bool(sessions) and (fresh or not still_holds(checks, kernels))
    work = Work(
        preset.device,
        0,
        (),
        correctness=str(checks.resolve()) if check else None,
        checked=tuple(name for name in registry.names_on(preset.device) if name in kernels),
        limit=limit if math.isfinite(limit) else None,
        deadline=began + (1 - RESERVE) * total_s if math.isfinite(total_s) else None,
        total_s=total_s if math.isfinite(total_s) else None,
        excluded={} if check else red_kernels(checks),
    )
    if preset.device == "cuda":
        entries = [entry for _, found in sessions for entry in found]
        precompile_here(entries, work.checked if check else (), total_s)
    _do(work, sessions, checks, written)
    collect(folder, keep=True)
    return folder, _is_red(todo, bench, checks)


def _do(
    work: Work,
    sessions: list[tuple[int, list[Entry]]],
    checks: Path,
    written: Callable[[str, Path], None],
) -> None:
    down: Excluded = {}
    for threads, entries in sessions:
        work = replace(work, threads=threads, entries=tuple(entries))
        down |= run_work(work, written)
        excluded = {**red_kernels(checks), **down}
        work = replace(work, correctness=None, excluded=excluded)


def _is_red(todo: Todo, bench: Path, checks: Path) -> bool:
    files = [path for case, settings in todo for path in parts(bench, case, settings)]
    statuses = {
        row["extra_info"]["status"] for path in files for row in read_json(path)["benchmarks"]
    }
    return bool(red_kernels(checks)) or not {"wrong", "failed"}.isdisjoint(statuses)
