"""The stages after training, as the workflow's rules have them, each resumed where it stopped."""

from harness.deploy.commands import show_record
from harness.deploy.evaluate import evaluate_run, evaluation_name
from harness.deploy.export import export_run
from harness.deploy.trained import TrainedRun
from harness.inspect.run import inspect_run
from harness.run.setup import Setup
from harness.run.show import say


def examine(setup: Setup, name: str) -> None:
    """Export and evaluate a BNN, and inspect a run of any mode; records that are there stay."""
    folder = setup.work_folder(name)
    trained = TrainedRun(folder, setup.data)
    if setup.jobs[name].is_bnn:
        export_run(folder)
        for device, kernels in setup.kernels.items():
            missing = [k.name for k in kernels if not (folder / evaluation_name(k)).exists()]
            if missing:
                evaluate_run(trained, missing, on_record=show_record, device=device)
    record = inspect_run(trained)
    if record["status"] == "done":
        say(
            f"inspected: {record['test_errors']} of {record['images']} test images wrong, "
            f"calibration error {record['calibration']['ece_pct']:.2f} %"
        )
