"""The plan of a preset as a table."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from harness.errors import HarnessError
from harness.plan.calibrate import Calibration, Throughput, describe, key_of, measure_throughput
from harness.plan.cost import Cost, cost_of
from harness.preset import Job, check_form, check_settings, jobs_of, load_preset
from harness.spec import Recipe
from harness.text import bytes_text, hours_text


@dataclass(frozen=True)
class Planned:
    """One run of the plan."""

    job: Job
    recipe: Recipe
    throughput: Throughput
    cost: Cost


def make_plan(
    preset: str, groups: Sequence[str], device: torch.device, cache: Path, console: Console
) -> list[Planned]:
    """Return every run of a preset with its cost; measures what ``cache`` does not hold.

    Raises:
        HarnessError: an unknown preset, group or setting.
    """
    try:
        values = load_preset(preset)
        check_form(values, f"--preset {preset}")
        jobs = jobs_of(values, groups)
        check_settings(jobs.values())
    except ValueError as error:
        raise HarnessError(str(error)) from error
    calibration = Calibration(cache)
    recipes = {folder: job.resolved_recipe() for folder, job in jobs.items()}
    keys = {folder: key_of(job, recipes[folder], device.type) for folder, job in jobs.items()}
    missing = [key for key in dict.fromkeys(keys.values()) if key not in calibration]
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if missing and load > cores:
        console.print(
            f"The machine is busy (load {load:.0f} on {cores} cores): throughputs measured now "
            "are too low; measure on a quiet one."
        )
    found = []
    for folder, job in jobs.items():
        recipe, key = recipes[folder], keys[folder]
        if key not in calibration:
            console.print(f"measuring {missing.index(key) + 1} of {len(missing)}: {key}")
        measured = calibration.get(key, lambda j=job, r=recipe: measure_throughput(j, r, device))  # type: ignore[misc]
        found.append(
            Planned(job, recipe, measured, cost_of(job, recipe, values["source"], measured))
        )
    return found


def print_plan(preset: str, groups: Sequence[str], device: torch.device, cache: Path) -> None:
    """Print the runs of a preset by dataset, recipe and network, with hours and disk, and a sum."""
    console = Console()
    if not console.is_terminal:
        console.width = 110
    planned = make_plan(preset, groups, device, cache, console)
    table = Table(title=f"preset {preset} on {device.type}", title_justify="left")
    for name in ("runs of", "network"):
        table.add_column(name)
    for name in ("modes", "runs", "epochs", "images/s", "a run", "all", "disk"):
        table.add_column(name, justify="right")
    for rows in _grouped(planned).values():
        first, hours = rows[0], sum(row.cost.hours for row in rows)
        modes = {row.job.mode for row in rows}
        table.add_row(
            f"{first.job.dataset}, {first.job.recipe}",
            describe(first.recipe) + (", fast" if first.recipe.precision == "fast" else ""),
            f"{len(modes)}",
            f"{len(rows)}",
            f"{first.recipe.epochs}",
            _range([row.throughput.images_per_s for row in rows]),
            hours_text(hours / len(rows)),
            hours_text(hours),
            bytes_text(sum(row.cost.kept_bytes for row in rows)),
        )
    console.print(table)
    for line in summary(planned, device.type):
        console.print(line)
    console.print(f"Throughputs: {cache}; delete it to measure again.")


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
    return low if low == high else f"{low} to {high}"


def _grouped(planned: Sequence[Planned]) -> dict[tuple[object, ...], list[Planned]]:
    groups: dict[tuple[object, ...], list[Planned]] = {}
    for row in planned:
        recipe = row.recipe
        network = (row.job.dataset, row.job.recipe, describe(recipe), recipe.precision)
        key = (*network, recipe.epochs, recipe.batch)
        groups.setdefault(key, []).append(row)
    return groups


def summary(planned: Sequence[Planned], device: str) -> list[str]:
    """Return the sums: jobs, hours one after another and side by side, disk kept and at work."""
    cores = os.cpu_count() or 1
    threads = max(row.job.threads for row in planned)
    slots = 1 if device == "cuda" else max(cores // threads, 1)
    hours = sum(row.cost.hours for row in planned)
    longest = max(row.cost.hours for row in planned)
    working = slots * max(row.cost.working_bytes for row in planned)
    disk = bytes_text(sum(row.cost.kept_bytes for row in planned))
    return [
        f"{len(planned)} training runs, {hours_text(hours)} one after another; {slots} at a time "
        f"({cores} cores, {threads} a run): about {hours_text(max(hours / slots, longest))}.",
        f"Disk: {disk} of weights, models and metrics, {bytes_text(working)} of checkpoints while "
        "it runs. Benches and the data are not counted.",
    ]
