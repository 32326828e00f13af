"""What the frames say about a claim: candidates, best first."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.report.frames import Frames

if TYPE_CHECKING:
    import pandas as pd

PACKED_TOO = "pack+gemm"


@dataclass(frozen=True)
class Evidence:
    """A value of ours: mean and sample deviation over n, from which data, on what scale.

    ``source`` is official, standin or "" where data play no part. ``reduced`` says how the
    measurement is smaller than the paper's, "" where it is not.
    """

    value: float
    n: int
    sd: float = math.nan
    source: str = ""
    reduced: str = ""
    note: str = ""

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Order of preference: official before stand-in, full before reduced, many before few."""
        return self.source == "standin", bool(self.reduced), -self.n


def gather(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    """Return the evidence for a claim's ``measure``, best first; empty where there is none."""
    gatherers: dict[str, Callable[[Mapping[str, Any], Frames], list[Evidence]]] = {
        "error": error_evidence,
        "error-gap": _gap_evidence,
        "curve-gap": _gap_evidence,
        "kernel-ratio": _ratio_evidence,
        "agreement": _agreement_evidence,
        "memory": _memory_evidence,
        "none": lambda measure, frames: [],
    }
    found = gatherers[measure["kind"]](measure, frames)
    return sorted(found, key=lambda evidence: evidence.rank)


def select(frame: "pd.DataFrame", wanted: Mapping[str, Any]) -> "pd.DataFrame":
    """Return the rows whose columns have the wanted values."""
    for key, value in wanted.items():
        frame = frame[frame[key] == value]
    return frame


def error_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    """Return mean test error in % over seeds, one for each source and scale of the runs."""
    wanted = {key: measure[key] for key in ("dataset", "recipe", "mode")}
    done = select(frames.runs, {**wanted, "status": "done"})
    return [
        Evidence(
            value=float(group["test_error_pct"].mean()),
            n=len(group),
            sd=float(group["test_error_pct"].std()),
            source=source,
            reduced=scale_text(group.iloc[0]) if changes else "",
        )
        for (source, changes), group in done.groupby(["source", "changes"])
    ]


def scale_text(run: Any) -> str:
    """Return a reduced run's scale for a reader: ``MLP 3 × 1024, 50 epochs``."""
    epochs = int(run["epochs"])
    return f"{run['network']}, {epochs} epoch{'s' if epochs != 1 else ''}"


def lost_runs(measure: Mapping[str, Any], frames: Frames) -> "pd.DataFrame":
    """Return the runs that the measure wants and that have no result."""
    keys = [key for key in ("dataset", "recipe") if key in measure]
    if not keys:
        return frames.runs.iloc[:0]
    runs = select(frames.runs, {key: measure[key] for key in keys})
    modes = [measure[key] for key in ("mode", "against") if key in measure]
    return runs[runs["mode"].isin(modes) & (runs["status"] != "done")]


def failures(measure: Mapping[str, Any], frames: Frames) -> list[str]:
    """Return why runs that the measure wants have no result, one line a run."""
    return [
        f"{run['mode']} seed {int(run['seed'])} {run['status']} ({run['failure']})"
        for _, run in lost_runs(measure, frames).iterrows()
    ]


def _gap_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    wanted = {key: measure[key] for key in ("dataset", "recipe")}
    runs = select(frames.runs, {**wanted, "status": "done"})
    key = ["source", "changes", "seed"]
    if measure["kind"] == "error-gap":
        values = runs.set_index([*key, "mode"])["test_error_pct"]
    else:
        # Of runs that ended only: over fewer epochs a mean says something else.
        ended = runs[[*key, "mode"]].drop_duplicates()
        epochs = select(frames.epochs, wanted).merge(ended, on=[*key, "mode"])
        values = epochs.groupby([*key, "mode"])["valid_error_pct"].mean()
    wide = values[~values.index.duplicated()].unstack("mode")
    if measure["mode"] not in wide or measure["against"] not in wide:
        return []
    gaps = (wide[measure["mode"]] - wide[measure["against"]]).dropna()
    found = []
    for (source, changes), gap in gaps.groupby(level=["source", "changes"]):
        run = select(runs, {"source": source, "changes": changes})
        scale = scale_text(run.iloc[0]) if changes and len(run) else changes
        found.append(Evidence(float(gap.mean()), len(gap), float(gap.std()), source, scale))
    return found


def speed_ratio(case: "pd.DataFrame", over: str) -> "tuple[pd.Series[Any], float] | None":
    """Return the fastest XNOR row of a case and how many times faster it is than ``over``.

    Where packing the activations was timed too, that time counts, as it does in the paper.
    ``over`` is ``baseline`` (the case's one baseline) or a kernel's name.
    """
    done = case[case["status"] == "ok"]
    other = done[done["baseline"] == True] if over == "baseline" else select(done, {"kernel": over})  # noqa: E712
    ours = done[done["kernel"].str.startswith("xnor")]
    if (ours["includes"] == PACKED_TOO).any():
        ours = select(ours, {"includes": PACKED_TOO})
    if other.empty or ours.empty:
        return None
    best = ours.loc[ours["median_ms"].idxmin()]
    return best, float(other["median_ms"].min() / best["median_ms"])


def _ratio_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    kernels = select(frames.kernels, {"group": measure["group"]})
    found = []
    for (machine, _, device), case in kernels.groupby(["machine", "case", "device"]):
        ratio = speed_ratio(case, measure["over"])
        if ratio is None:
            continue
        best, value = ratio
        size = int(best["m"])
        same = device == measure["device"] and size >= measure["size"]
        unit = "³" if measure["group"] == "square" else " images"
        where = "a GPU" if measure["device"] == "cuda" else measure["device"]
        reduced = "" if same else f"the paper's: {measure['size']:,}{unit} on {where}"
        samples = int(best["samples"])
        packing = ", packing included" if best["includes"] == PACKED_TOO else ""
        note = f"{best['kernel']} on {machine}, {size:,}{unit}{packing}, median of {samples}"
        found.append((size, Evidence(value, 1, reduced=reduced, note=note)))
    found.sort(key=lambda pair: -pair[0])  # of the reduced ones, the largest stands nearest
    return [evidence for _, evidence in found]


def _agreement_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    done = select(frames.evaluations, {"status": "done"})
    found = []
    for source, group in done.groupby("source"):
        share = 100 * float(group["agree"].sum() / group["images"].sum())
        networks = len(group.groupby(["dataset", "recipe", "mode", "seed"]))
        kernels = ", ".join(sorted(set(group["kernel"])))
        note = f"{networks} networks × {kernels}; {int(group['images'].sum()):,} predictions"
        found.append(Evidence(share, networks, source=source, note=note))
    return found


def _memory_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    done = frames.runs[frames.runs["bytes_packed"] > 0]
    if done.empty:
        return []
    return [
        _least_ratio(group, reduced=bool(changes)) for changes, group in done.groupby("changes")
    ]


def _least_ratio(done: "pd.DataFrame", reduced: bool) -> Evidence:
    # A network's size does not depend on the seed: one value a network.
    one = done.drop_duplicates(["dataset", "network", "binary_weights"])
    ratios = one["bytes_float32"] / one["bytes_packed"]
    worst = one.loc[ratios.idxmin()]
    note = f"the least of {len(one)} networks: " if len(one) > 1 else ""
    # Word padding and thresholds weigh more in a small network than in the paper's.
    return Evidence(
        float(ratios.min()),
        len(one),
        reduced=scale_text(worst) if reduced else "",
        note=f"{note}{worst['network']} on {worst['dataset']}",
    )
