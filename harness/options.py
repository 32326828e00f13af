"""Options that several sub-commands share, each with its one help text."""

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Option("--run", help="folder that bnn train wrote")]
Data = Annotated[Path, typer.Option(help="folder that holds the dataset's files")]
Running = Annotated[
    bool, typer.Option("--allow-running", help="take the best weights of a run that still trains")
]
Model = Annotated[
    Path | None,
    typer.Option(
        help="model file, its records lie beside it; default: model.bnn in the run's folder"
    ),
]
Kernels = Annotated[
    list[str], typer.Option(help="kernel of the registry, repeatable; all: every one")
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda, or auto: the first that has all kernels, a GPU first")
]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 takes all", min=0, max=1024)]
