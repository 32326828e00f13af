"""``bnn examine``: the stages after training, in one process."""

from harness.options import Data, Kernels, Run, Threads


def examine(
    run: Run,
    data: Data,
    kernel: Kernels = ["xnor-cpu"],  # noqa: B006  typer copies it
    threads: Threads = 0,
) -> None:
    """Export, evaluate and inspect a trained run in one process.

    As the workflow does: the same records as of bnn export, bnn evaluate and bnn inspect one after
    the other, without the seconds that each process takes to start, and with one pass of the
    training network. Kernels run on the CPU; bnn evaluate and bnn run take those of a GPU.

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
    evaluate_run(trained, kernel, on_record=show_record, device="cpu")
    commands.show_record(run, inspect_run(trained))
