"""``bnn collect``, ``bnn claims`` and ``bnn report``."""

from pathlib import Path
from typing import Annotated

import typer


def collect(
    results: Annotated[Path, typer.Option(help="a preset's results: results/<preset>")],
    out: Annotated[
        Path | None, typer.Option(help="folder for the frames; by default, results itself")
    ] = None,
) -> None:
    """Gather run folders and bench files into tidy frames.

    runs.csv, epochs.csv, evaluations.csv, layers.csv, predictions.csv, kernels.csv and the like.

    A run that failed, was killed or is still training becomes a row that says so.

    Example:

        bnn collect --results results/quick
    """
    from harness.report.collect import collect as gather

    counts = gather(results, out)
    print(f"{out or results}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))


def claims(
    frames: Annotated[
        Path | None,
        typer.Option(help="folder that holds the frames of bnn collect; without it, no run counts"),
    ] = None,
    verdict: Annotated[
        str, typer.Option(help="show claims of this verdict alone, such as 'not measured'")
    ] = "",
) -> None:
    """Print the paper's claims with verdicts and how each is measured.

    Verdicts: reproduced, better, partly, not reproduced, not measured (with the reason). Generated
    data decide nothing. Without --frames only what is counted from the networks has a verdict.

    Example:

        bnn claims --frames results/quick
    """
    import shutil

    from harness.errors import HarnessError
    from harness.report.claim_table import claims_text
    from harness.report.claims import VERDICTS, judge_all
    from harness.report.frames import empty_frames, read_frames
    from harness.report.paper import load_paper

    if verdict and verdict not in VERDICTS:
        raise HarnessError(f"--verdict {verdict!r} is not one of {', '.join(VERDICTS)}")
    found = judge_all(load_paper(), empty_frames() if frames is None else read_frames(frames))
    shown = [claim for claim in found if verdict in ("", claim.verdict)]
    print(claims_text(shown, min(shutil.get_terminal_size().columns, 110)))


def report(
    frames: Annotated[Path, typer.Option(help="folder that holds the frames of bnn collect")],
    out: Annotated[Path, typer.Option(help="folder for claims.csv, tables/, figures/ and page")],
) -> None:
    """Draw verdicts, tables, figures and a page from the frames alone.

    Example:

        bnn report --frames results/quick --out results/quick

    The page, report.html, opens without a network.
    """
    from harness.report.frames import read_frames
    from harness.report.render import render

    page = render(read_frames(frames), out)
    print(f"wrote {page}, {out / 'claims.csv'}, {out / 'tables'} and {out / 'figures'}")
