"""``bnn plan``."""

from pathlib import Path
from typing import Annotated

import typer


def plan(
    preset: Annotated[str, typer.Option(help="name of a preset, or the path of a YAML file")],
    groups: Annotated[str, typer.Option(help="only these ablations of the preset, by comma")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    cache: Annotated[
        Path | None,
        typer.Option(help="file of measured throughputs; default results/plan/<machine>.json"),
    ] = None,
) -> None:
    """Say what a preset costs on this machine: jobs, hours and disk.

    Trains nothing: each network is timed for a few training steps on noise, a large one on part of
    a batch and scaled by its multiply-accumulates; what was measured is kept for the next time. No
    data needed.

    Example:

        bnn plan --preset paper
    """
    from harness.device import device_of
    from harness.plan.show import print_plan
    from harness.provenance import machine_name

    place = device_of(device)
    path = cache or Path("results") / "plan" / f"{machine_name()}.json"
    print_plan(preset, [name for name in groups.split(",") if name], place, path)
