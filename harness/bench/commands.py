"""``bnn bench`` and ``bnn doctor``."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import HarnessError
from harness.options import Device, Threads

SECONDS = 5.0  # that a kernel has in a case


def bench(
    case: Annotated[
        list[str] | None,
        typer.Option(
            help="square-2048, layer-100x1024x784, conv-50x32x128x128, mnist-mlp-1024, ceilings; "
            "repeatable"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="folder; writes <machine>/<case>.json below it; with --preset, frames too "
            "(default: results/reference/<machine>)"
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="cpu or gpu: the whole set of cases, then frames; resumable")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="with --preset: bench cases again that are there")
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="with --preset: time for all of it; what no longer fits is a row that says so "
            "(default: 8 for gpu, none for cpu)"
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="with --preset: print what it would do, by counts alone")
    ] = False,
    limit: Annotated[
        float, typer.Option(min=0, help="a kernel foreseen to take more seconds a call has no time")
    ] = float("inf"),
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            help="kernel of the registry, repeatable; all: every one, as without it; with "
            "--preset: added to the preset's own"
        ),
    ] = None,
    device: Device = "auto",
    seconds: Annotated[
        float | None,
        typer.Option(
            help="with --case: time a kernel has (default: 5); at least 3 rounds, or 1 longer one"
        ),
    ] = None,
    threads: Threads = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="exit with 1 if a kernel is wrong or fails")
    ] = False,
) -> None:
    """Clock kernels, each only after its results equal the reference.

    A kernel that cannot run here, is wrong or fails becomes a row that says so, without a time.

    With --preset its kernels are checked first, on a grid of products; then everything is benched
    that the machine can do, its ceilings first. Interrupted, or out of --minutes, the same command
    goes on with what is missing. The preset gpu has all kernels; cpu has xnor-cpu, naive and the
    vendor's, and --kernel adds yours to compare with them in the same run.

    Example:

        bnn bench --preset gpu --minutes 8
        bnn bench --preset cpu --kernel mine --limit 5 --out results/mine
        bnn bench --case square-1024 --kernel naive --kernel xnor-cpu --out results/mine/bench
    """
    from harness.bench.cases import get_case
    from harness.bench.runner import Settings, run_case
    from kernels import registry
    from kernels.cpu.threads import available_threads

    if seconds is not None and not 0 < seconds < math.inf:
        raise HarnessError(f"--seconds must be above 0 and finite, found {seconds}")
    if (preset is None) == (case is None):
        raise HarnessError("give either --case or --preset")
    if minutes is not None and not minutes > 0:
        raise HarnessError(f"--minutes must be above 0, found {minutes}")
    if preset is not None:
        if seconds is not None or threads or device != "auto":
            raise HarnessError(
                "--seconds, --threads and --device need --case: a preset has its own"
            )
        _bench_preset(preset, out, limit, fresh, minutes, plan, strict, kernel or ())
        return
    if minutes is not None or plan or fresh:
        raise HarnessError("--minutes, --plan and --fresh need --preset")
    if out is None:
        raise HarnessError("--case needs --out: the folder to write below")
    try:
        wanted = kernel or ["all"]
        place = registry.device_for(wanted, device)
        names = registry.resolve(wanted, place)
    except ValueError as error:
        raise HarnessError(f"--kernel, --device: {error}") from error
    cases = [get_case(name) for name in case or ()]
    used = min(threads, available_threads()) or available_threads()
    red = False
    for found in cases:
        path, document = run_case(
            found, Settings(names, place, seconds or SECONDS, used, limit), out
        )
        rows = [row["extra_info"]["status"] for row in document["benchmarks"]]
        red = red or not {"wrong", "failed"}.isdisjoint(rows)
        _show(document)
        typer.echo(str(path))
    if strict and red:
        raise typer.Exit(1)


def _bench_preset(
    name: str,
    out: Path | None,
    limit: float,
    fresh: bool,
    minutes: float | None,
    plan: bool,
    strict: bool,
    added: Sequence[str],
) -> None:
    if plan:
        from harness.bench.estimate import show_plan

        show_plan(name, limit, minutes, added)
        return
    from harness.bench.whole import run_preset

    folder, red = run_preset(name, out, limit, fresh, minutes, _show, _show_checks, added)
    typer.echo(f"{folder}: bench files and frames; bnn report --frames {folder} draws them")
    if strict and red:
        raise typer.Exit(1)


def _show_checks(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="correctness, before any clock")
    for heading in ("kernel", "verdict"):
        table.add_column(heading, no_wrap=True)
    for heading in ("products", "one-hot bits", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in document["kernels"]:
        counts = (str(row["products"]), str(row["positions"]), f"{row['seconds']:.1f}")
        table.add_row(row["kernel"], row["status"], *counts)
    Console().print(table)
    for row in document["kernels"]:
        if row["reason"]:
            typer.echo(f"{row['kernel']}: {row['status']}, {row['reason']}")


def _show(document: dict[str, Any], progress: str = "") -> None:
    from rich.console import Console
    from rich.table import Table

    rows = document["benchmarks"]
    first = rows[0]["extra_info"]
    title = f"{progress} {first['case']}, threads: {first['threads']}".strip()
    if all(row["extra_info"].get("over_budget") for row in rows):
        why = f"{first['kernel']}: {first['reason']}"
        typer.echo(f"{title}: {len(rows)} benchmarks left out; {why}")
        return
    table = Table(title=title)
    for heading in ("kernel", "clocked"):
        table.add_column(heading, no_wrap=True)
    for heading in ("median ms", "rounds", "TOP/s", "vs baseline"):
        table.add_column(heading, justify="right", no_wrap=True)
    base_ms = next((_median_ms(row) for row in rows if row["extra_info"]["baseline"]), None)
    for row in rows:
        table.add_row(*_cells(row, base_ms))
    Console().print(table)
    for info in (row["extra_info"] for row in rows if not row["stats"]):
        typer.echo(f"{info['kernel']}, {info['includes']}: {info['status']}, {info['reason']}")


def _median_ms(row: dict[str, Any]) -> float | None:
    return 1000 * statistics.median(row["stats"]["data"]) if row["stats"] else None


def _cells(row: dict[str, Any], base_ms: float | None) -> list[str]:
    info, median_ms = row["extra_info"], _median_ms(row)
    if median_ms is None:
        return [info["kernel"], info["includes"], info["status"]]
    ratio = f"{base_ms / median_ms:.1f}x" if base_ms else ""
    rounds = str(len(row["stats"]["data"]))
    tops = f"{info['ops'] / median_ms / 1e9:.3f}" if info["ops"] else ""
    return [info["kernel"], info["includes"], f"{median_ms:.3f}", rounds, tops, ratio]


def doctor() -> None:
    """Say what this machine is, which kernels run here, and why not.

    Example:

        bnn doctor
    """
    from harness.bench.doctor import show

    show()
