"""``bnn collect``: run folders and bench files to tidy frames."""

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.files import read_record
from harness.preset import split_run_name
from harness.report.folders import read_epochs
from harness.report.frames import COLUMNS, write_frame
from harness.report.inspected import INSPECT, inspect_rows, network_costs
from harness.report.kept import with_kept
from harness.report.origin import Origins
from harness.spec import as_mapping, load_recipe

Row = dict[str, Any]
_IDENTITY = ("preset", "dataset", "source", "recipe", "mode", "seed")


def collect(results: Path, out: Path | None = None, keep: bool = False) -> dict[str, int]:
    """Read every record below ``results`` and write the frames into ``out`` (default: there).

    A run that failed, or whose record is missing, stays as a row that says so. With ``keep``, rows
    of ``out`` stay whose records are not below ``results`` (``harness.report.kept``).

    Returns:
        The number of rows of each frame.

    Raises:
        HarnessError: nothing to collect, or a corrupt record (named).
    """
    results = Path(results)
    if not (results / "runs").is_dir() and not (results / "bench").is_dir():
        raise HarnessError(
            f"{results} holds neither runs/ nor bench/; expected results/<preset> after "
            "`bnn train` or `bnn bench`"
        )
    origins = Origins()
    frames: dict[str, list[Row]] = {name: [] for name in COLUMNS}
    for folder in _run_folders(results / "runs"):
        _collect_run(folder, results, frames, origins)
    for path in sorted((results / "bench").glob("*/*.json")):
        if path.name.startswith("correctness"):
            frames["correctness"] += _correctness_rows(path)
        else:
            frames["kernels"] += _bench_rows(path, origins)
    frames["kernels"] = _without_made_up(frames["kernels"])
    frames["provenance"] = origins.rows()
    target = Path(out) if out is not None else results
    frames = with_kept(frames, target) if keep else frames
    for name, rows in frames.items():
        write_frame(target / f"{name}.csv", name, rows)
    return {name: len(rows) for name, rows in frames.items()}


def _run_folders(runs: Path) -> list[Path]:
    return sorted((p for p in runs.glob("*/*/seed*") if p.is_dir()), key=_by_seed)


def _by_seed(folder: Path) -> tuple[str, int]:
    digits = folder.name.removeprefix("seed")
    return str(folder.parent), int(digits) if digits.isdigit() else -1


def _collect_run(
    folder: Path, results: Path, frames: dict[str, list[Row]], origins: Origins
) -> None:
    if not (folder / "run.json").exists():
        frames["runs"].append(_missing_run(folder, results))
        return
    run = read_record(folder / "run.json", "status", *_IDENTITY)
    epochs = read_epochs(folder, run)
    who: Row = {key: run[key] for key in _IDENTITY}
    who |= {"label": run.get("label", ""), "changes": changes(run)}
    run["epochs_done"] = run.get("epochs_done") or len(epochs)  # written when the run ends
    frames["runs"].append(_run_row(run, folder) | who)
    frames["epochs"] += [{**row, **who} for row in epochs]
    for origin in (run.get("provenance"), *(run.get("earlier_code") or [])):
        origins.add("train", origin, run.get("started"), run.get("finished"))
    if (folder / INSPECT).exists():
        layers, predictions = inspect_rows(folder / INSPECT)
        frames["layers"] += [{**row, **who} for row in layers]
        network = network_name((run.get("resolved") or {}).get("network") or {})
        frames["predictions"] += [{**row, "network": network, **who} for row in predictions]
    for path in sorted(folder.glob("evaluate-*.json")):
        record = read_record(path, "status", "kernel")
        frames["evaluations"] += [{**row, **who} for row in _evaluation_rows(record)]
        if record["status"] == "done":
            origins.add("evaluate", record.get("provenance"), None, None)


def _missing_run(folder: Path, results: Path) -> Row:
    recipe, label, mode = split_run_name(folder.parent.name)
    return {
        "preset": results.name,
        "dataset": folder.parent.parent.name,
        "recipe": recipe,
        "label": label,
        "mode": mode,
        "seed": _by_seed(folder)[1],
        "status": "missing",
        "failure": "no run.json: training did not end",
    }


def _run_row(run: Mapping[str, Any], folder: Path) -> Row:
    row = {key: run.get(key) for key in COLUMNS["runs"]}
    provenance = run.get("provenance") or {}
    counts = run.get("parameters") or {}
    row |= {
        **network_costs(run),
        "test_images": ((run.get("data") or {}).get("counts") or {}).get("test"),
        "data_variant": (run.get("data") or {}).get("variant"),
        "failure": failure_text(run),
        "epochs": run.get("epochs_done"),
        "machine": (provenance.get("machine") or {}).get("name"),
        "commit": provenance.get("commit"),
        "dirty": provenance.get("dirty"),
        "network": network_name((run.get("resolved") or {}).get("network") or {}),
        "method": ((run.get("resolved") or {}).get("method") or {}).get("kind", "backprop"),
        "parameters": counts.get("total"),
        "binary_weights": counts.get("binary_weights"),
    }
    if run["status"] == "running":
        row["valid_error_pct"] = row["test_error_pct"] = row["other_test_error_pct"] = None
    return row | _export_row(folder / "export.json")


def failure_text(run: Mapping[str, Any]) -> str:
    """Return why a run has no result: ``epoch 3: loss is NaN``; "" where it has one."""
    if run["status"] == "running":
        return f"reached epoch {run.get('epochs_done') or 0}; still training, or killed"
    failure = run.get("failure")
    return f"epoch {failure['epoch']}: {failure['reason']}" if failure else ""


def _export_row(path: Path) -> Row:
    if not path.exists():
        return {"export": "missing"}
    record = read_record(path, "status")
    sizes = {key: record.get(key) for key in ("bytes_packed", "bytes_float32")}
    return {"export": record["status"], "export_reason": record.get("reason"), **sizes}


def network_name(network: Mapping[str, Any]) -> str:
    """Return ``MLP 3 × 1024`` or ``ConvNet(128)`` for a resolved network."""
    if network.get("kind") == "mlp":
        hidden = list(network.get("hidden") or [])
        alike = len(set(hidden)) == 1
        return f"MLP {len(hidden)} × {hidden[0]}" if alike else f"MLP {'-'.join(map(str, hidden))}"
    return f"ConvNet({network['width']})" if network.get("kind") == "convnet" else ""


def changes(run: Mapping[str, Any]) -> str:
    """Return how a run departs from its recipe as published: ``epochs=5; network.hidden=[64]``.

    A dataset taken without a part of it counts too. "" means the full recipe.
    """
    found = []
    try:
        published = as_mapping(load_recipe(str(run["recipe"]), str(run["dataset"])))
    except HarnessError:
        published = None
        found.append("recipe not in this version")
    if published is not None:
        found += _differences(published, run.get("resolved") or {})
    variant = (run.get("data") or {}).get("variant")
    if run.get("source") == "official" and variant not in (None, "full"):
        found.append(f"data {variant}")
    return "; ".join(found)


def _differences(
    published: Mapping[str, Any], used: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    found = []
    for key, value in used.items():
        before = published.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            found += _differences(before, value, f"{prefix}{key}.")
        elif value != before:
            found.append(f"{prefix}{key}={str(value).replace(' ', '')}")
    return sorted(found)


def _evaluation_rows(record: Mapping[str, Any]) -> list[Row]:
    provenance = record.get("provenance") or {}
    row = {key: record.get(key) for key in COLUMNS["evaluations"]}
    row["device"] = record.get("device") or "cpu"  # as records were before kernels had devices
    row["machine"] = (provenance.get("machine") or {}).get("name")
    row["commit"] = provenance.get("commit")
    ways = record.get("first_layers") or {}
    if record["status"] != "done" or not ways:
        return [row]
    return [{**row, "first_layer": way, **figures} for way, figures in ways.items()]


def _bench_rows(path: Path, origins: Origins) -> list[Row]:
    record = read_record(path, "benchmarks")
    rows = record["benchmarks"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise HarnessError(f"{path}: 'benchmarks' is no list of objects; bench it again")
    machine = record.get("machine_info") or {}
    provenance = machine.get("provenance") or {}
    when = record.get("datetime")
    origins.add("bench", provenance, when, when)
    where = {"machine": path.parent.name, "commit": provenance.get("commit")}
    return [_kernel_row(benchmark, path) | where for benchmark in rows]


def _correctness_rows(path: Path) -> list[Row]:
    record = read_record(path, "kernels", "commit_info")
    where = {"machine": path.parent.name, "commit": record["commit_info"].get("id")}
    return [{**row, **where} for row in record["kernels"]]


def _without_made_up(rows: list[Row]) -> list[Row]:
    """Leave out the rows over a budget that a later run of the same command has made up for."""
    keys = ("machine", "device", "case", "kernel", "includes", "threads")
    measured = {tuple(row[key] for key in keys) for row in rows if not row.get("over_budget")}
    left: dict[tuple[Any, ...], Row] = {}
    kept = []
    for row in rows:
        key = tuple(row[key] for key in keys)
        if not row.pop("over_budget", None):
            kept.append(row)
        elif key not in measured:
            left[key] = row  # once, however often it was left out
    return kept + list(left.values())


def _kernel_row(benchmark: Mapping[str, Any], path: Path) -> Row:
    info = benchmark.get("extra_info") or {}
    for key in ("group", "kernel", "status"):
        if key not in info:
            raise HarnessError(f"{path}: a benchmark's extra_info lacks {key!r}; bench it again")
    row = {key: info.get(key) for key in COLUMNS["kernels"]}
    row["case"] = info.get("case") or path.stem
    row["over_budget"] = bool(info.get("over_budget"))
    if info["status"] != "ok":  # a red gate gives no number
        return row | {"samples": 0}
    samples = [1000 * s for s in (benchmark.get("stats") or {}).get("data") or []]
    if not samples:
        raise HarnessError(f"{path}: kernel {info['kernel']!r} is ok but has no raw samples")
    median, p20, p80 = _quantiles(samples)
    tops = info["ops"] / median / 1e9 if info.get("ops") else None
    times = {"median_ms": median, "p20_ms": p20, "p80_ms": p80, "tops": tops}
    return row | times | {"samples": len(samples)}


def _quantiles(samples: Iterable[float]) -> tuple[float, float, float]:
    values = sorted(samples)
    if len(values) == 1:
        return values[0], values[0], values[0]
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return statistics.median(values), fifths[0], fifths[3]
