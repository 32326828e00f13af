"""``bnn train``."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from harness.errors import HarnessError
from harness.options import Data, Threads

EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
FAILED_RUN = 3  # the run ended as failed and run.json says why; the workflow goes on


def parse_overrides(settings: list[str]) -> dict[str, Any]:
    """Parse ``key=value`` settings; values are YAML.

    Raises:
        HarnessError: a setting without ``=``, or a value that is no YAML.
    """
    values = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise HarnessError(f"--set takes key=value such as epochs=5, found {setting!r}")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise HarnessError(
                f"--set {setting}: {text!r} is no value; write a number, a word or [1, 2]"
            ) from error
        # YAML 1.1 reads 1e-3 as text: it asks for 1.0e-3.
        exponent = isinstance(value, str) and EXPONENT.fullmatch(value)
        values[key.strip()] = float(value) if exponent else value
    return values


def train(
    dataset: Annotated[str, typer.Option(help="mnist, cifar10 or svhn")],
    data: Data,
    out: Annotated[Path, typer.Option(help="run folder; the same one resumes the run")],
    recipe: Annotated[
        str,
        typer.Option(help="recipe, such as theano, binaryconnect or ebp"),
    ] = "theano",
    mode: Annotated[
        str,
        typer.Option(
            help="float, bc-det, bc-stoch, bnn-det, bnn-stoch, bnn-stoch-w or bnn-w-stoch"
        ),
    ] = "bnn-det",
    seed: Annotated[
        list[int],
        typer.Option(
            help="seed of weights, shuffling and draws; repeated, several runs train together, "
            "in folders seed<k> below --out",
            min=0,
        ),
    ] = [0],  # noqa: B006  typer copies it
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="change the recipe: key=value, such as epochs=5, network.hidden=[256,256,256] or "
            "precision=fast (packed products); repeatable",
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="preset the run belongs to")] = "adhoc",
    label: Annotated[
        str, typer.Option(help="name of a variation of the recipe, such as no-clip")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Threads = 0,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="time between checkpoints", min=0)
    ] = 60.0,
    track: Annotated[str | None, typer.Option(help="MLflow URI to mirror the run to")] = None,
    track_after: Annotated[
        float, typer.Option(help="seconds; a run that ends sooner is left to bnn track sync", min=0)
    ] = 0.0,
) -> None:
    """Train a network and record the run.

    Interrupt it at any time; the same command goes on.

    Example:

        bnn train --dataset mnist --data data --out results/mine/mnist --set epochs=5

    With --seed 0 --seed 1 --seed 2 three runs take their steps in turn: on a GPU, which a small
    network leaves idle, in little more time than one.

    Exit status: 0 done, 3 a run diverged (run.json names the epoch), 1 an error.
    """
    import logging
    from functools import partial

    from harness.device import device_of
    from harness.preset import check_label
    from harness.spec import get_mode, load_recipe
    from harness.track import Tracking
    from harness.train.loop import Interrupted
    from harness.train.progress import ProgressBar
    from harness.train.record import RunSpec
    from harness.train.run import train_together
    from kernels.cpu.threads import set_threads

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folders = [out] if len(seed) == 1 else [out / f"seed{one}" for one in seed]
    found = load_recipe(recipe, dataset, parse_overrides(settings or []))
    specs = [
        RunSpec(found, get_mode(mode), one, preset, folder, check_label(label))
        for one, folder in zip(seed, folders, strict=True)
    ]
    shows: list[Any] = [ProgressBar]
    if len(seed) > 1:
        shows = [partial(ProgressBar, name=f"seed {one}") for one in seed]
    if threads:
        set_threads(threads)
    try:
        runs = train_together(
            specs, data, device_of(device), checkpoint_seconds, Tracking(track, track_after), shows
        )
    except Interrupted as interrupted:
        typer.echo(f"stopped by {interrupted}; the same command goes on", err=True)
        raise typer.Exit(128 + interrupted.number) from interrupted
    for folder, run in zip(folders, runs, strict=True):
        _report(folder, run)
    if any(run["status"] == "failed" for run in runs):
        raise typer.Exit(FAILED_RUN)


def _report(folder: Path, run: dict[str, Any]) -> None:
    if run["status"] == "failed":
        typer.echo(f"the run failed: {run['failure']['reason']}", err=True)
        return
    typer.echo(
        f"best epoch {run['best_epoch']}: validation error {run['valid_error_pct']:.2f} %, "
        f"test error {run['test_error_pct']:.2f} % ({folder / 'run.json'})"
    )
