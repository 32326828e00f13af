"""How many times faster XNOR is, case by case, with the paper's ratios beside ours."""

from typing import TYPE_CHECKING, Any

from harness.report.evidence import PACKED_TOO, select
from harness.report.frames import Frames
from harness.report.paper import Paper
from harness.report.table import Table
from harness.report.tables import number, threads

if TYPE_CHECKING:
    import pandas as pd

# What is clocked of each group of cases, in the order of the table; a network packs anyway.
_CLOCKED = {"square": "gemm", "mlp": "network", "conv": "conv", "layer": "gemm"}


def ratios_table(frames: Frames, paper: Paper) -> Table:
    """Return one row a machine, device, case and number of threads that an XNOR kernel has.

    The fastest XNOR kernel's median against the baseline's, float32's and the fastest vendor
    line's; products with operands packed beforehand, and over float32 also with packing; networks
    with packing. The share of the ceiling is of the rate, measured in the same run, of the unit
    that the kernel multiplies with: ``1-bit-tensor`` for ``xnor-tensor`` and its like,
    ``xor+popcount`` for the others.
    """
    data = []
    keys = ["machine", "device", "group", "m", "n", "case", "threads"]
    for place, case in select(frames.kernels, {"status": "ok"}).groupby(keys, sort=True):
        where: dict[str, Any] = dict(zip(keys, place, strict=True))
        if where["group"] in _CLOCKED:
            row = _ratios(case, where, frames, paper)
            data += [row] if row else []
    order = list(_CLOCKED)
    data.sort(key=lambda row: (row["machine"], row["device"], order.index(row["group"])))
    rows: list[tuple[str, ...]] = []
    for row in data:
        heading = (f"{row['machine']}, {row['device']}",)
        rows += [heading] * (heading not in rows)
        rows.append(
            (
                row["case"],
                threads(row),
                row["kernel"],
                number(row["median_ms"]),
                number(row["over_baseline"]),
                number(row["paper_over_baseline"]),
                number(row["over_fp32"]),
                number(row["paper_over_fp32"]),
                number(row["over_fp32_with_packing"]),
                f"{number(row['over_vendor'])} {row['vendor']}".strip(),
                number(row["ceiling_pct"], 2),
            )
        )
    header = ("Case", "Threads", "XNOR kernel", "Median ms", "× baseline", "paper", "× fp32",
              "paper", "× fp32, packing too", "× best vendor", "% of ceiling")  # fmt: skip
    device = paper.facts["figure3"]["device"]
    return Table(
        name="ratios",
        title="How many times faster XNOR is",
        header=header,
        rows=rows,
        data=data,
        caption="Medians, operands packed beforehand (mnist-mlp: the network with its packing); "
        f"cases by the names that bnn bench --case takes. The paper's ratios are of one {device}, "
        "its product of 8192³. "
        "% of ceiling: of xor and popcount on operands in registers or the L1 cache, for 1-bit "
        "tensor cores of their product on operands in shared memory, measured in the same run.",
        numeric=frozenset({1, 3, 4, 5, 6, 7, 8, 9, 10}),
    )


def _ratios(
    case: "pd.DataFrame", where: dict[str, Any], frames: Frames, paper: Paper
) -> dict[str, Any] | None:
    clocked = select(case, {"includes": _CLOCKED[where["group"]]})
    ours = clocked[clocked["kernel"].str.startswith("xnor")]
    if ours.empty:
        return None
    best = ours.loc[ours["median_ms"].idxmin()]
    float32 = select(clocked, {"kernel": "vendor-fp32"})["median_ms"].min()
    packed = select(case, {"includes": PACKED_TOO, "kernel": best["kernel"]})["median_ms"].min()
    vendors = clocked[clocked["kernel"].str.startswith("vendor")]
    fastest = vendors.loc[vendors["median_ms"].idxmin()] if len(vendors) else None
    quoted = _paper_ratios(where, paper)
    time = float(best["median_ms"])
    baseline = clocked[clocked["baseline"] == True]["median_ms"].min()  # noqa: E712
    return {
        **where,
        "kernel": best["kernel"],
        "median_ms": time,
        "over_baseline": baseline / time,
        "paper_over_baseline": quoted.get("xnor_over_baseline"),
        "over_fp32": float32 / time,
        "paper_over_fp32": quoted.get("xnor_over_vendor"),
        "over_fp32_with_packing": float32 / packed,
        "over_vendor": None if fastest is None else float(fastest["median_ms"]) / time,
        "vendor": "" if fastest is None else f"({fastest['kernel'].removeprefix('vendor-')})",
        "ceiling_pct": _ceiling_pct(best["kernel"], float(best["tops"]), where, frames),
    }


def _paper_ratios(where: dict[str, Any], paper: Paper) -> dict[str, Any]:
    facts = paper.facts["figure3"]
    if where["group"] == "square" and where["m"] == facts["product"]["m"]:
        return dict(facts["product"])
    mlp = facts["mlp"]
    if where["group"] == "mlp" and (where["m"], where["n"]) == (mlp["images"], mlp["width"]):
        return dict(mlp)
    return {}


def _ceiling_pct(kernel: str, tops: float, where: dict[str, Any], frames: Frames) -> float | None:
    same = {key: where[key] for key in ("machine", "device", "threads")}
    unit = "1-bit-tensor" if kernel.startswith("xnor-tensor") else "xor+popcount"
    peak = select(frames.kernels, {**same, "kernel": unit, "status": "ok"})["tops"]
    return 100 * tops / float(peak.max()) if len(peak) else None
