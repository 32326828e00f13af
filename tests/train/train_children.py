"""What runs in child processes: the command line, ended by a signal at a chosen moment."""

import os
import signal
import sys
from pathlib import Path


def run_cli(arguments: list[str], log: str) -> None:
    """Run ``bnn`` with its output in the file ``log``; exits as the command does."""
    with Path(log).open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.argv = ["bnn", *arguments]
    from harness.cli import main

    main()


def run_cli_and_die(arguments: list[str], log: str, moment: str, count: int, number: int) -> None:
    """Send this process signal ``number`` at its ``count``-th ``moment``.

    ``step``: before a training step; ``rename``: a checkpoint is written but not yet in place;
    else the name of a file that is written but not yet in place.
    """
    left = count

    def tick() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), number)

    if moment == "step":
        from harness.train.steps import EagerSteps

        step = EagerSteps.learn

        def dying_step(self, x, labels):  # type: ignore[no-untyped-def]
            tick()
            return step(self, x, labels)

        EagerSteps.learn = dying_step  # type: ignore[method-assign]
    else:
        replace = os.replace

        def dying_replace(source, target, **options):  # type: ignore[no-untyped-def]
            if Path(target).name == ("checkpoint.pt" if moment == "rename" else moment):
                tick()
            replace(source, target, **options)

        os.replace = dying_replace
    assert number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    run_cli(arguments, log)
