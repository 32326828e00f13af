"""``bnn run``."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    preset: Annotated[str, typer.Option(help="name of a preset, or the path of a YAML file")],
    data: Annotated[
        Path | None,
        typer.Option(help="folder that holds the datasets' files; a stand-in is generated"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="folder for what is kept: frames, records, packed networks "
            "(default: results/reference/<machine>)"
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="folder to train in: checkpoints, weights (default: results/<preset>)"),
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="end within so many minutes from the start; 0: no end", min=0)
    ] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option(help="only runs whose folder fits, such as 'mnist/*-bnn-*'; repeatable"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[
        int,
        typer.Option(
            help="CPU threads; 0: the preset's for training on the CPU, all for the rest", min=0
        ),
    ] = 0,
    together: Annotated[
        int,
        typer.Option(
            help="seeds of one recipe that train in turns, at most; 1: one run after the other; "
            "0: up to four on a GPU, one on the CPU",
            min=0,
            max=32,
        ),
    ] = 0,
    mixed: Annotated[
        bool,
        typer.Option("--mixed", help="let neighbours of any kind train in turns, not seeds alone"),
    ] = False,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="time between checkpoints", min=0)
    ] = 60.0,
) -> None:
    """Train and examine a preset's runs in pieces of limited time.

    In one process, without Snakemake and MLflow. Runs go by the preset's order: trained, exported,
    evaluated with the preset's kernels (on a GPU also with all of the GPU's) and inspected, as the
    workflow does; after each the frames are written. A run that is done is skipped, one that fails
    is reported and the next goes on. Frames also hold a run that still trains: its status is
    "running" and it has a curve, but no result.

    On a GPU, which a small network leaves idle, neighbours that differ in their seed alone take
    their steps in turn (--together), to the numbers that each has alone. One that ends before the
    others is examined and kept at once. After an error they go on one by one. With --mixed
    neighbours of any kind do so, such as an MLP, which waits for memory, beside a ConvNet, which
    does not; seconds and images/s of each are then no measure of its kind. Where none would end
    within --minutes, the one that is nearest to its end goes on alone, if it can end by that: what
    has ended is kept, also where the machine is lost.

    Interrupted at any moment, even by kill -9, the same command goes on to the same weights, bit
    for bit on the CPU. With --minutes it ends by itself, a checkpoint and the frames written:

        until bnn run --preset gpu --data data --minutes 9; do [ $? -eq 75 ] || break; done

    On a machine that is lost between two pieces, keep the folder --out: it is small and tells which
    runs are done. The run that still trains begins anew there, unless its checkpoint.pt below
    --work is kept too, the one file that it goes on from; the last lines name it and its size.

    Exit status: 0 all done; 75 the time is over, the same command goes on; 3 the end is reached,
    but some run failed; 143 or 130 stopped by SIGTERM or Ctrl-C, the same command goes on; 1 an
    error.
    """
    import logging
    import sys

    from harness.run.clock import Clock, process_age

    clock = Clock(minutes, process_age())

    from harness.device import device_of
    from harness.run.piece import Piece
    from harness.run.setup import make_setup

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    setup = make_setup(preset, data, out, work, only or (), device_of(device))
    status = Piece(setup, clock, threads, checkpoint_seconds, together, mixed).run()
    if status:
        raise typer.Exit(status)
