"""``bnn export`` and ``bnn evaluate``."""

from typing import Annotated, Any

import typer

from harness.options import Data, Device, Kernels, Model, Run, Running, Threads


def export(run: Run, out: Model = None, allow_running: Running = False) -> None:
    """Pack a trained BNN: one bit a weight, a threshold a hidden unit.

    Writes the model and export.json beside it. A run that failed, or whose weights or activations
    are real, is recorded as skipped.

    Example:

        bnn export --run results/mine/mnist
    """
    from harness.deploy.export import export_run

    record = export_run(run, out, allow_running)
    if record["status"] == "skipped":
        typer.echo(f"{run}: skipped, {record['reason']}")
        return
    typer.echo(
        f"{record['model']}: weights in {record['bytes_packed']:,} bytes, "
        f"{record['ratio']:.1f} times smaller than {record['bytes_float32']:,} in float32"
    )


def evaluate(
    run: Run,
    data: Data,
    kernel: Kernels = ["xnor-cpu"],  # noqa: B006  typer copies it
    device: Device = "auto",
    model: Model = None,
    threads: Threads = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="exit with 1 if a prediction differs or a kernel fails")
    ] = False,
    allow_running: Running = False,
) -> None:
    """Run a packed network and compare it with the training network.

    On all test images. Writes evaluate-<kernel>.json beside the model, one for each kernel; on a
    GPU, evaluate-<kernel>-cuda.json.

    Example:

        bnn evaluate --run results/mine/mnist --data data --kernel xnor-cpu --kernel naive
    """
    from harness.deploy.evaluate import evaluate_run
    from harness.deploy.trained import TrainedRun
    from kernels.cpu.threads import set_threads

    if threads:
        set_threads(threads)
    trained = TrainedRun(run, data, allow_running)
    records = evaluate_run(trained, kernel, model, show_record, device)
    if strict and any(_differing(record) or record["status"] == "failed" for record in records):
        raise typer.Exit(1)


def _differing(record: dict[str, Any]) -> int:
    """Return how many predictions differ, with the first layer where most do."""
    ways = record.get("first_layers", {}).values()
    return max((int(record["images"] - found["agree"]) for found in ways), default=0)


def show_record(record: dict[str, Any]) -> None:
    """Print what a kernel's record says, with a warning where predictions differ."""
    if record["status"] != "done":
        typer.echo(f"{record['kernel']}: {record['status']}, {record['reason']}")
        return
    for way, found in record["first_layers"].items():
        typer.echo(
            f"{record['kernel']} ({way}): {found['agree']} of {record['images']} predictions equal "
            f"the training network's, test error {found['test_error_pct']:.2f} %, "
            f"{found['seconds']:.2f} s"
        )
    if _differing(record):
        typer.secho(
            f"warning: {_differing(record)} predictions differ with {record['kernel']}; "
            "see 'disagreeing' in its record",
            fg="yellow",
            err=True,
        )
