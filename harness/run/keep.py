"""What is kept of a run: its records and its packed network, small enough to be carried."""

import shutil
from pathlib import Path
from typing import Any

from harness.deploy.evaluate import evaluation_name
from harness.deploy.export import EXPORT
from harness.deploy.modelfile import MODEL
from harness.files import atomic_path, read_json
from harness.inspect.run import INSPECT
from harness.run.setup import Setup
from harness.train.record import METRICS, RUN, finished_run


def records_after_training(setup: Setup, name: str) -> list[str]:
    """Return the files that the stages after training write, the packed network not among them."""
    if not setup.jobs[name].is_bnn:
        return [INSPECT]
    kernels = [kernel for found in setup.kernels.values() for kernel in found]
    return [EXPORT, *map(evaluation_name, kernels), INSPECT]


def kept_run(setup: Setup, name: str) -> dict[str, Any] | None:
    """Return run.json of a run that is kept whole, else None: nothing is left to do for it."""
    folder = setup.out_folder(name)
    files = [RUN, METRICS, *records_after_training(setup, name)]
    if setup.jobs[name].is_bnn and (folder / EXPORT).exists():
        files += [MODEL] if read_json(folder / EXPORT).get("status") == "done" else []
    return finished_run(folder, setup.fingerprint(name), files)


def forget_records(folder: Path) -> None:
    """Remove what the stages after training wrote of an earlier run in this folder."""
    for path in _stages_files(folder):
        path.unlink()


def keep(work: Path, out: Path) -> None:
    """Copy records and packed network of a run; run.json last, which makes the copy whole.

    A run that still trains has run.json (status ``running``) and metrics.jsonl alone.
    """
    running = read_json(work / RUN)["status"] == "running"
    found = [] if running else _stages_files(work)
    wanted = {path.name for path in found}
    for old in _stages_files(out):
        if old.name not in wanted:
            old.unlink()
    for path in [*found, work / METRICS, work / RUN]:
        if path.exists():
            with atomic_path(out / path.name) as temporary:
                shutil.copyfile(path, temporary)


def _stages_files(folder: Path) -> list[Path]:
    fixed = [folder / name for name in (EXPORT, MODEL, INSPECT)]
    return [path for path in fixed if path.exists()] + sorted(folder.glob("evaluate-*.json"))


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
