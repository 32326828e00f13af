"""The other tables: kernels, agreement, memory, runs, provenance."""

import math
from collections.abc import Mapping
from typing import Any

from harness.report.evidence import select
from harness.report.frames import Frames
from harness.report.table import Table
from harness.spec import MODES


def number(value: Any, digits: int = 3) -> str:
    """Return a number with so many significant digits, thousands grouped; "–" for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    value = float(value)
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def threads(row: Mapping[str, Any]) -> str:
    """Return a bench row's threads; "–" on a GPU, whose kernels know no such number."""
    none = row["device"] == "cuda" or math.isnan(row["threads"])
    return "–" if none else f"{int(row['threads'])}"


def share(value: Any) -> str:
    """Return an error in % with two decimals; "–" for none."""
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"


def kernels_table(frames: Frames) -> Table:
    """Return Figure 3's times: each kernel of each case, with ratios to baseline and float32."""
    data: list[dict[str, Any]] = []
    for _, case in frames.kernels.groupby(
        ["machine", "device", "group", "m", "case", "threads"], sort=True
    ):
        done = case[case["status"] == "ok"]
        base = done[done["baseline"] == True]["median_ms"].min()  # noqa: E712
        vendor = select(done, {"kernel": "vendor-fp32"})["median_ms"].min()
        for _, row in case.sort_values("median_ms", ascending=False).iterrows():
            ratios = {"over_baseline": base, "over_vendor_fp32": vendor}
            facts = {k: v / row["median_ms"] for k, v in ratios.items()}
            data.append({**row.to_dict(), **facts})
    header = ("Case", "Kernel", "Threads", "Median ms", "p20–p80", "× baseline",
              "× fp32", "TOP/s", "Timed, or why not")  # fmt: skip
    rows: list[tuple[str, ...]] = []
    heading = ""
    for row in data:
        if (where := f"{row['machine']}, {row['device']}") != heading:
            heading = where
            rows.append((heading,))
        rows.append(_kernel_cells(row))
    return Table(
        name="figure3",
        title="All times, behind Figure 3 and the ratios",
        header=header,
        rows=rows,
        data=data,
        caption="Median of the raw samples; × is how many times faster than the baseline kernel, "
        "and than the vendor's float32 product. Cases by the names that bnn bench --case takes. "
        "gemm and conv: operands packed beforehand; pack+gemm: with packing the activations; "
        "+bits: with thresholds and a packed result; network: all layers, with packing. "
        "A kernel that is wrong or cannot run has no time.",
        numeric=frozenset({2, 3, 4, 5, 6, 7}),
    )


def _kernel_cells(row: dict[str, Any]) -> tuple[str, ...]:
    spread = f"{number(row['p20_ms'])}–{number(row['p80_ms'])}"
    timed = row["includes"] + (f", {row['caches']} caches" if row["caches"] else "")
    return (
        row["case"],
        row["kernel"],
        threads(row),
        number(row["median_ms"]),
        "–" if math.isnan(row["median_ms"]) else spread,
        number(row["over_baseline"]),
        number(row["over_vendor_fp32"]),
        number(row["tops"]),
        timed if row["status"] == "ok" else f"{row['status']}: {row['reason']}",
    )


def agreement_table(frames: Frames) -> Table:
    """Return, for each packed network and kernel, on how many test images it agrees.

    A network's first layer runs in each of its ways; the cell gives the least of them.
    """
    found = frames.evaluations
    kernels = sorted(set(zip(found["kernel"], found["device"], strict=True)))
    key = ["dataset", "source", "recipe", "label", "mode", "seed", "preset", "changes"]
    rows = []
    for run, group in found.groupby(key, sort=True):
        cells = [_agreement(select(group, {"kernel": k, "device": d})) for k, d in kernels]
        error = group["training_network_error_pct"].min()
        ways = ", ".join(sorted(set(group["first_layer"]) - {""}))
        dataset, source, recipe, label, mode, seed, *_ = run
        shown = f"{dataset} [stand-in]" if source == "standin" else str(dataset)
        recipe = f"{recipe}+{label}" if label else recipe
        if all(cell.startswith("skipped") for cell in cells):
            continue  # a float network has no packed form, which is no hole
        rows.append((shown, f"{recipe} / {mode}", f"{int(seed)}", share(error), ways, *cells))
    return Table(
        name="agreement",
        title="Packed network against training network",
        header=(
            *("Dataset", "Recipe / mode", "Seed", "Error %", "First layer"),
            *(kernel_label(kernel, device) for kernel, device in kernels),
        ),
        rows=rows,
        data=found.to_dict("records"),
        caption="Test images on which the packed network predicts what the training network "
        "predicts, of all; the least over the ways to do the first layer.",
        numeric=frozenset({2, 3}),
    )


def kernel_label(kernel: str, device: str) -> str:
    """Return a kernel's name, with its device where that is a GPU."""
    return kernel if device == "cpu" else f"{kernel}, {device}"


def _agreement(group: Any) -> str:
    done = group[group["status"] == "done"]
    if len(group) == 0:
        return "–"
    if len(done) == 0:
        first = group.iloc[0]
        return f"{first['status']}: {first['reason']}"
    worst = done.loc[done["agree"].idxmin()]
    return f"{int(worst['agree']):,}/{int(worst['images']):,}"


def memory_table(frames: Frames) -> Table:
    """Return the weights' size in 32-bit floats and packed, one row a network."""
    have = frames.runs[frames.runs["bytes_packed"] > 0]
    one = have.drop_duplicates(["dataset", "network", "binary_weights"])
    data = [
        {
            "dataset": row["dataset"],
            "network": row["network"],
            "binary_weights": int(row["binary_weights"]),
            "bytes_float32": int(row["bytes_float32"]),
            "bytes_packed": int(row["bytes_packed"]),
            "ratio": round(row["bytes_float32"] / row["bytes_packed"], 3),
        }
        for _, row in one.sort_values(["dataset", "binary_weights"]).iterrows()
    ]
    rows = [
        (
            row["dataset"],
            row["network"],
            f"{row['binary_weights']:,}",
            f"{row['bytes_float32'] / 1e6:,.3f}",
            f"{row['bytes_packed'] / 1e6:,.3f}",
            f"{row['ratio']:.1f}",
        )
        for row in data
    ]
    header = ("Dataset", "Network", "Binary weights", "float32, MB", "Packed, MB", "Ratio")
    caption = "The paper: 32 times smaller. Rows are padded to whole 64-bit words."
    return Table("memory", "Size of the weights", header, rows, data, caption,
                 numeric=frozenset({2, 3, 4, 5}))  # fmt: skip


def runs_table(frames: Frames) -> Table:
    """Return every run, those without a result included."""
    order = {mode: i for i, mode in enumerate(MODES)}
    runs = frames.runs.sort_values(
        ["dataset", "recipe", "label", "mode", "seed"],
        key=lambda column: column.map(order) if column.name == "mode" else column,
    )
    rows = [
        (
            f"{row['dataset']} [stand-in]" if row["source"] == "standin" else row["dataset"],
            f"{row['recipe']}+{row['label']}" if row["label"] else row["recipe"],
            row["mode"],
            f"{int(row['seed'])}",
            row["network"],
            number(row["epochs"], 1),
            number(row["best_epoch"], 1),
            share(row["valid_error_pct"]),
            share(row["test_error_pct"]),
            number(row["train_seconds"]),
            number(row["images_per_s"]),
            row["status"] + (f": {row['failure']}" if row["failure"] else ""),
        )
        for _, row in runs.iterrows()
    ]
    header = ("Dataset", "Recipe", "Mode", "Seed", "Network", "Epochs", "Best epoch", "Valid %",
              "Test %", "Seconds", "Images/s", "Status")  # fmt: skip
    return Table(
        name="runs",
        title="All runs",
        header=header,
        rows=rows,
        data=runs.to_dict("records"),
        caption="Test error is read for the epoch of the best validation error. Seconds and "
        "images/s of seeds that trained together are each one's share of the time; of a run that "
        "trained beside another kind there is none, and seconds are a like share.",
        numeric=frozenset({3, 5, 6, 7, 8, 9, 10}),
    )


def provenance_table(frames: Frames) -> Table:
    """Return where the numbers come from: stage, machine, commit, versions, dates."""
    rows: list[tuple[str, ...]] = []
    for _, row in frames.provenance.iterrows():
        changed = " + changes" if row["dirty"] is True else ""
        versions = (f"{name} {row[name]}" for name in ("python", "torch", "numpy", "numba"))
        dates = dict.fromkeys(row[key][:16].replace("T", " ") for key in ("first", "last"))
        cpu = f"{row['cpu']}, {number(row['cores'], 1)} cores, {number(row['memory_gb'])} GB"
        rows.append(
            (
                row["stage"],
                number(row["records"], 1),
                row["machine"],
                cpu + (f", {row['gpu']}" if row["gpu"] else ""),
                (row["commit"][:10] or "no checkout") + changed,
                ", ".join(text for text in versions if not text.endswith(" ")),
                " to ".join(date for date in dates if date),
            )
        )
    return Table(
        name="provenance",
        title="Where the numbers come from",
        header=("Stage", "Records", "Machine", "Hardware", "Commit", "Versions", "When, UTC"),
        rows=rows,
        data=frames.provenance.to_dict("records"),
        caption="Read from the records themselves; “+ changes” marks a checkout with uncommitted "
        "edits.",
        numeric=frozenset({1}),
    )
