"""``bnn track``: create the MLflow database, replay run folders into it."""

from pathlib import Path
from typing import Annotated

import typer

from harness.errors import HarnessError
from harness.text import one_line
from harness.track.store import DEFAULT_URI, Store, errors

app = typer.Typer(help="Mirror run folders in MLflow.", no_args_is_help=True)

Uri = Annotated[str, typer.Option(help="MLflow address: sqlite:///FILE or http://HOST:PORT.")]


@app.command()
def init(
    uri: Uri = DEFAULT_URI,
    preset: Annotated[str, typer.Option(help="Preset whose experiment is made.")] = "quick",
) -> None:
    """Create the database and the preset's experiment.

    Once, before any job logs to it.

    Example:

        bnn track init --uri sqlite:///results/mlflow.db --preset quick
    """
    try:
        store = Store(uri, preset)
    except errors() as error:
        raise HarnessError(f"cannot open MLflow at {uri}: {one_line(error)}") from error
    typer.echo(f"{uri}: experiment {store.experiment_id} holds preset {preset}")


@app.command()
def sync(
    runs: Annotated[Path, typer.Option(help="Results folder of one preset.")],
    uri: Uri = DEFAULT_URI,
) -> None:
    """Replay runs and metrics that MLflow lacks, from run folders.

    Never a duplicate.

    Example:

        bnn track sync --uri sqlite:///results/mlflow.db --runs results/quick
    """
    from harness.track.sync import sync_runs

    try:
        counts = sync_runs(uri, runs)
    except errors() as error:
        raise HarnessError(
            f"cannot sync {runs} to MLflow at {uri}: {one_line(error)}; the run folders lack "
            f"nothing, go on later: bnn track sync --uri {uri} --runs {runs}"
        ) from error
    typer.echo(f"{runs}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
