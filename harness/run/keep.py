"""What is kept of a run: its records and its packed network, small enough to be carried."""

import shutil
from pathlib import Path
from typing import Any

from harness.deploy.evaluate import evaluation_name
from harness.deploy.export import EXPORT
from harness.deploy.modelfile import MODEL
from harness.errors import HarnessError
from harness.files import atomic_path, read_record
from harness.inspect.run import INSPECT
from harness.run.setup import Setup
from harness.train.checkpoint import BEST, CHECKPOINT
from harness.train.record import METRICS, RUN, finished_run, stages_files


def kept_run(setup: Setup, name: str) -> dict[str, Any] | None:
    """Return run.json of a run that is kept whole, else None: nothing is left to do for it.

    The last stage's record tells that all stages were passed. A kernel that came later is asked for
    where its weights are still there; a run is not trained again for it.
    """
    folder, wanted = setup.out_folder(name), setup.fingerprint(name)
    files = [RUN, METRICS, INSPECT]
    if setup.jobs[name].is_bnn:
        files += [EXPORT]
        if finished_run(setup.work_folder(name), wanted) is not None:
            kernels = [kernel for found in setup.kernels.values() for kernel in found]
            files += map(evaluation_name, kernels)
        try:
            if read_record(folder / EXPORT, "status")["status"] == "done":
                files += [MODEL]
        except HarnessError:  # missing or damaged: to be made again
            return None
    return finished_run(folder, wanted, files)


def keep(work: Path, out: Path) -> None:
    """Copy records and packed network of a run; run.json last, which makes the copy whole.

    A run that still trains has run.json (status ``running``) and metrics.jsonl alone.
    """
    running = read_record(work / RUN, "status")["status"] == "running"
    found = [] if running else stages_files(work)
    wanted = {path.name for path in found}
    for old in stages_files(out):
        if old.name not in wanted:
            old.unlink()
    for path in [*found, work / METRICS, work / RUN]:
        if path.exists():
            with atomic_path(out / path.name) as temporary:
                shutil.copyfile(path, temporary)


def needed_elsewhere(folder: Path) -> Path | None:
    """Return what a run that was begun needs to go on on another machine, None where nothing is.

    While it trains, its checkpoint; then, until it is examined, its folder.
    """
    if (folder / CHECKPOINT).exists():
        return folder / CHECKPOINT
    return folder if (folder / BEST).exists() else None


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below ``folder``, or of a file."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
