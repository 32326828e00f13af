"""``bnn examine``: the stages after training, in one process."""

from pathlib import Path
from typing import Annotated

import typer


def examine(
    run: Annotated[Path, typer.Option("--run", help="folder that bnn train wrote")],
    data: Annotated[Path, typer.Option(help="folder that holds the dataset's files")],
    kernel: Annotated[
        list[str], typer.Option(help="kernel of the registry, repeatable; all: every one")
    ] = ["xnor-cpu"],  # noqa: B006  typer copies it
    threads: Annotated[int, typer.Option(help="CPU threads; 0 takes all", min=0)] = 0,
) -> None:
    """Export, evaluate and inspect a trained run in one process.

    As the workflow does: the same records as of bnn export, bnn evaluate and bnn inspect one after
    the other, without the seconds that each process takes to start, and with one pass of the
    training network.

    Example:

        bnn examine --run results/mine/mnist --data data --kernel xnor-cpu --kernel naive
    """
    from harness.deploy.commands import export, show_record
    from harness.deploy.evaluate import evaluate_run
    from harness.deploy.trained import TrainedRun
    from harness.inspect import commands
    from harness.inspect.run import inspect_run
    from kernels.cpu.threads import set_threads

    export(run)
    if threads:
        set_threads(threads)
    trained = TrainedRun(run, data)
    evaluate_run(trained, kernel, on_record=show_record)
    commands.show_record(run, inspect_run(trained))
