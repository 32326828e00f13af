"""How many 3x3 filters of a ConvNet are alike, and what using them again saves."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.report.evidence import (
    SCALE,
    Evidence,
    mean_evidence,
    of_scale,
    over_seeds,
    reduced_scale,
    select,
)
from harness.report.frames import Frames

if TYPE_CHECKING:
    import pandas as pd

COUNTS = {
    "share": "different 3x3 filters that meet an input map, of all that meet it, a filter and its "
    "inverse as one; mean over the convolutions",
    "operations": "multiply-accumulates of the convolutions over those left when a filter (or its "
    "inverse) is computed once for each input map",
    "most": "different 3x3 filters in a whole layer, the most of all layers",
}


def convolutions(frames: Frames, wanted: Mapping[str, Any]) -> "pd.DataFrame":
    """Return the binary convolutions of the runs wanted, with their shares in %.

    ``share_<count>``: ``count`` of all 2-D filters of the layer. ``macs``: multiply-accumulates,
    relative to the first layer's positions, which pooling quarters after every second layer.
    """
    rows = select(frames.layers, {**wanted, "kind": "conv", "binary": True}).copy()
    for count in ("distinct", "distinct_up_to_sign", "per_input", "per_input_up_to_sign"):
        rows[f"share_{count}"] = 100 * rows[count] / rows["filters"]
    rows["macs"] = rows["weights"] / 4 ** ((rows["layer"] - 1) // 2)
    return rows


def filter_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    """Return the claim's value for each source and scale, over seeds."""
    wanted = {key: measure[key] for key in ("dataset", "recipe", "mode")}
    rows, runs = convolutions(frames, wanted), select(frames.runs, wanted)
    found = []
    for scale, group in rows.groupby(SCALE):
        alike = of_scale(runs, scale)
        if alike.empty:  # frames without the run that they are of
            continue
        values = [_value(measure, layers) for _, layers in group.groupby("seed")]
        run = alike.iloc[0]
        means = group[[c for c in group if str(c).startswith("share_")]].mean()
        note = (
            f"of a layer's filters {means['share_distinct']:.1f} % differ "
            f"({means['share_distinct_up_to_sign']:.1f} % up to sign), of those at an input map "
            f"{means['share_per_input']:.1f} % ({means['share_per_input_up_to_sign']:.1f} %)"
        )
        facts = {"source": run["source"], "reduced": reduced_scale(run), "note": note}
        found.append(mean_evidence(values, **facts, **over_seeds(values)))
    return found


def _value(measure: Mapping[str, Any], layers: "pd.DataFrame") -> float:
    count = measure["count"]
    if measure["of"] == "most":
        return float(layers[count].max())
    if measure["of"] == "operations":
        left = layers["macs"] * layers[count] / layers["filters"]
        return float(layers["macs"].sum() / left.sum())
    return float(layers[f"share_{count}"].mean())
