"""``bnn collect`` and ``bnn report``."""

from pathlib import Path
from typing import Annotated

import typer


def collect(
    results: Annotated[Path, typer.Option(help="a preset's results: results/<preset>")],
    out: Annotated[
        Path | None, typer.Option(help="folder for the frames; by default, results itself")
    ] = None,
) -> None:
    """Gather run folders and bench files into tidy frames: runs.csv, epochs.csv and so on.

    A run that failed, was killed or is still training becomes a row that says so.

    Example: bnn collect --results results/quick
    """
    from harness.report.collect import collect as gather

    counts = gather(results, out)
    print(f"{out or results}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))


def report(
    frames: Annotated[Path, typer.Option(help="folder that holds the frames of bnn collect")],
    out: Annotated[Path, typer.Option(help="folder for claims.csv, tables/, figures/ and page")],
) -> None:
    """Judge the paper's claims and draw tables, figures and a page from the frames alone.

    Example: bnn report --frames results/quick --out results/quick

    The page, report.html, opens without a network.
    """
    from harness.report.frames import read_frames
    from harness.report.render import render

    page = render(read_frames(frames), out)
    print(f"wrote {page}, {out / 'claims.csv'}, {out / 'tables'} and {out / 'figures'}")
