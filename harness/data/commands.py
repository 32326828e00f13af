"""`bnn data fetch`, `bnn data verify`, `bnn data standin`."""

from pathlib import Path
from typing import Annotated

import typer

from harness.data.names import DATASETS

app = typer.Typer(
    no_args_is_help=True,
    help="Get datasets: download, generate stand-ins, verify.",
)

_Name = Annotated[str, typer.Option("--dataset", help=f"One of {', '.join(DATASETS)}.")]
_Out = Annotated[Path, typer.Option("--out", help="The data folder; made if missing.")]


@app.command()
def fetch(
    dataset: _Name,
    out: _Out,
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            help="URL of a folder that holds the files, instead of the known mirrors; repeatable."
        ),
    ] = None,
    extra: Annotated[
        bool, typer.Option(help="For svhn: also the extra training images (1.3 GB).")
    ] = True,
) -> None:
    """Download a dataset from its publisher, and verify it.

    An interrupted download goes on where it stopped when the command is run again.

    Example:

        bnn data fetch --dataset mnist --out data
    """
    from harness.data.fetch import fetch as fetch_dataset

    folder = fetch_dataset(dataset, out, mirror or (), extra)
    typer.echo(f"{folder}: official {dataset}, verified")


@app.command()
def verify(
    dataset: _Name,
    data: Annotated[Path, typer.Option("--data", help="The data folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the manifest here, as JSON.")
    ] = None,
) -> None:
    """Check a dataset against the published digests and show it.

    A stand-in is checked against its own.

    Example:

        bnn data verify --dataset cifar10 --data data --out manifest.json
    """
    from harness.data.dataset import load_dataset
    from harness.data.summary import print_summary
    from harness.files import write_json

    found = load_dataset(dataset, data)
    if out is not None:
        write_json(out, {**found.manifest, "root": str(data)})
    print_summary(found)


@app.command()
def standin(dataset: _Name, out: _Out) -> None:
    """Generate a look-alike of a dataset, a stand-in.

    About 10,000 images in the publisher's format. The same bytes on every machine. An intact
    stand-in that is already there is kept.

    Example:

        bnn data standin --dataset svhn --out standin
    """
    from harness.data.standin import write_standin

    typer.echo(f"{write_standin(dataset, out)}: stand-in of {dataset}, ready")
