"""The command line ``bnn``: one sub-command a stage."""

import re
import sys
from inspect import getdoc

import typer

from harness.bench.commands import bench, doctor
from harness.data.commands import app as data_app
from harness.deploy.commands import evaluate, export
from harness.errors import HarnessError
from harness.examine import examine
from harness.inspect.commands import inspect
from harness.plan.commands import plan
from harness.report.commands import claims, collect, report
from harness.run.commands import run
from harness.text import one_line
from harness.track.commands import app as track_app
from harness.train.commands import train

app = typer.Typer(
    name="bnn",
    help="Reproduce and benchmark Binarized Neural Networks (arXiv:1602.02830).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes leave the texts half a line, and break examples
)
app.add_typer(data_app, name="data")
app.command()(plan)
app.command()(train)
app.command()(export)
app.command()(evaluate)
app.command()(inspect)
app.command()(examine)
app.command()(run)
app.command()(bench)
app.command()(doctor)
app.command()(collect)
app.command()(claims)
app.command()(report)
app.add_typer(track_app, name="track")

for _group in (app, data_app, track_app):
    for _command in _group.registered_commands:
        # The sign of click for a block that is not to be wrapped: examples can be copied.
        _command.help = re.sub(r"\n\n(?= {4})", "\n\n\b\n", getdoc(_command.callback) or "")


def main() -> None:
    """Run the command line; an expected failure prints its message and exits with 1."""
    try:
        app()
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:  # torch's says what it wanted
        if not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):
            raise
        print(f"error: not enough memory: {one_line(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
