"""Rows of the frames ``layers`` and ``predictions``, and the cost columns of ``runs``."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.files import read_record
from harness.nn.costs import layer_costs, total_macs, weight_memory_bits, word_operations
from harness.report.frames import COLUMNS
from harness.spec import Recipe, from_mapping, get_mode

Row = dict[str, Any]
INSPECT = "inspect.json"
PIXEL_INPUTS = ("scale", "global")  # preprocessing that is affine in 8-bit pixels, all alike


def inspect_rows(path: Path) -> tuple[list[Row], list[Row]]:
    """Return a run's rows of ``layers`` and of ``predictions``; none where it was skipped.

    Raises:
        HarnessError: the record is damaged; the message names it.
    """
    record = read_record(path, "status")
    if record["status"] != "done":
        return [], []
    record = read_record(path, "layers", "calibration", "confusion", "images")
    found, bins = record["layers"], record["calibration"]
    row = {key: record.get(key) for key in COLUMNS["predictions"]}
    row["confusion"] = joined(count for line in record["confusion"] for count in line)
    row |= {key: joined(bins[key]) for key in ("counts", "confidence", "correct")}
    return [_layer_row(layer) for layer in found], [{**row, "ece_pct": bins["ece_pct"]}]


def _layer_row(layer: Mapping[str, Any]) -> Row:
    row = {key: layer.get(key) for key in COLUMNS["layers"]}
    filters = layer.get("filters") or {}
    row |= {key: value for key, value in filters.items() if key in row}
    row["filters"] = filters.get("total")
    row["histogram"] = joined(layer["histogram"])
    row["patterns"] = joined(code for maps in layer.get("patterns") or [] for code in maps)
    return row


def joined(values: Iterable[Any]) -> str:
    """Return numbers joined by spaces."""
    return " ".join(map(str, values))


def numbers_of(text: str) -> list[float]:
    """Return the numbers of :func:`joined`; none for ""."""
    return [float(word) for word in text.split()]


def network_costs(run: Mapping[str, Any]) -> Row:
    """Return a run's multiply-accumulates an image, and the bits of its weights.

    ``bit_macs`` are those that are done on bits, by XNOR or on bit planes. All are None where
    this version does not know the run's recipe or mode.
    """
    try:
        recipe = from_mapping(Recipe, run.get("resolved"), "run.json: resolved")
        mode = get_mode(str(run["mode"]))
    except HarnessError:
        return dict.fromkeys(("macs", "bit_macs", "operations", "weight_bits"))
    zeros = recipe.deployed_mode(mode) != mode  # stored as numbers: -1, 0 and +1 times a scale
    real_input = recipe.preprocess not in PIXEL_INPUTS
    costs = layer_costs(recipe.network, mode, recipe.dataset, real_input, ternary=zeros)
    return {
        "macs": total_macs(costs),
        "bit_macs": total_macs(costs, "xnor", "planes", "ternary"),
        "operations": word_operations(costs),
        "weight_bits": weight_memory_bits(costs),
    }
