"""``bnn inspect``."""

from pathlib import Path
from typing import Any

import typer

from harness.options import Data, Run, Running, Threads


def inspect(
    run: Run,
    data: Data,
    threads: Threads = 0,
    allow_running: Running = False,
) -> None:
    """Look inside a trained network: weights, filters, confusion.

    Of any mode; writes inspect.json beside its weights: histograms of the latent weights, how many
    3x3 filters of a layer are alike, the first layer's filters, the confusion matrix, and whether
    scores are good confidences.

    Example:

        bnn inspect --run results/mine/mnist --data data
    """
    from harness.deploy.trained import TrainedRun
    from harness.inspect.run import inspect_run
    from kernels.cpu.threads import set_threads

    if threads:
        set_threads(threads)
    show_record(run, inspect_run(TrainedRun(run, data, allow_running)))


def show_record(run: Path, record: dict[str, Any]) -> None:
    """Print what the record of the run in folder ``run`` says."""
    if record["status"] == "skipped":
        typer.echo(f"{run}: skipped, {record['reason']}")
        return
    typer.echo(
        f"{run}: {record['test_errors']} of {record['images']} test images wrong "
        f"({record['test_error_pct']:.2f} %), calibration error "
        f"{record['calibration']['ece_pct']:.2f} %"
    )
    for layer in record["layers"]:
        filters = layer.get("filters")
        alike = ""
        if filters:
            alike = (
                f"; 3x3 filters: {filters['total']}, {filters['distinct']} different, "
                f"{filters['distinct_up_to_sign']} up to sign"
            )
        clipped = "" if layer["clipped_pct"] is None else f", {layer['clipped_pct']:.1f} % clipped"
        typer.echo(
            f"  layer {layer['layer']} ({layer['kind']}, {layer['fan_in']} x {layer['outputs']}): "
            f"{layer['plus_pct']:.1f} % positive{clipped}{alike}"
        )
