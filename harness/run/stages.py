"""The stages after training, as the workflow's rules have them, each resumed where it stopped."""

from pathlib import Path

from harness.deploy.commands import show_record
from harness.deploy.evaluate import evaluate_run, evaluation_name
from harness.deploy.export import export_run
from harness.deploy.trained import TrainedRun
from harness.errors import HarnessError
from harness.files import read_record
from harness.inspect.run import inspect_run
from harness.run.setup import Setup
from harness.run.show import say


def _is_there(path: Path, trained: TrainedRun) -> bool:
    """Tell whether a record is of these weights: one of a run that still trained is not."""
    try:
        record = read_record(path, "status")
    except HarnessError:  # missing or damaged: to be made again
        return False
    return record.get("weights_sha256") in (None, trained.run["best_sha256"])


def examine(setup: Setup, name: str) -> None:
    """Export and evaluate a BNN, and inspect a run of any mode; records that are there stay."""
    folder = setup.work_folder(name)
    trained = TrainedRun(folder, setup.data)
    if setup.jobs[name].is_bnn:
        export_run(folder)
        for device, kernels in setup.kernels.items():
            missing = [
                k.name for k in kernels if not _is_there(folder / evaluation_name(k), trained)
            ]
            if missing:
                evaluate_run(trained, missing, on_record=show_record, device=device)
    record = inspect_run(trained)
    if record["status"] == "done":
        say(
            f"inspected: {record['test_errors']} of {record['images']} test images wrong, "
            f"calibration error {record['calibration']['ece_pct']:.2f} %"
        )
