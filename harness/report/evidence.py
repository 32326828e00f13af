"""What the frames say about errors, gaps and speed: values with intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.report.frames import Frames
from harness.report.intervals import newcombe, student, wilson

if TYPE_CHECKING:
    import pandas as pd

PACKED_TOO = "pack+gemm"
FAST = "precision=fast"


@dataclass(frozen=True)
class Evidence:
    """A value of ours: mean and sample deviation over n, from which data, on what scale.

    ``low`` and ``high`` are its 95 % interval (NaN: none is known), ``sure`` says of what kind.
    ``source`` is official, standin or "" where data play no part. ``reduced`` says how the
    measurement is smaller than the paper's, "" where it is not.
    """

    value: float
    n: int
    sd: float = math.nan
    source: str = ""
    reduced: str = ""
    note: str = ""
    low: float = math.nan
    high: float = math.nan
    sure: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """The interval; the value alone where none is known."""
        return (self.value, self.value) if math.isnan(self.low) else (self.low, self.high)

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Order of preference: official before stand-in, full before reduced, many before few."""
        return self.source == "standin", bool(self.reduced), -self.n


# Runs that differ in their seed alone. Two presets may have the same seed of the same settings.
SCALE = ["preset", "source", "changes"]


def of_scale(runs: "pd.DataFrame", scale: Sequence[Any]) -> "pd.DataFrame":
    """Return the runs of one preset, source and changes."""
    return select(runs, dict(zip(SCALE, scale, strict=True)))


def select(frame: "pd.DataFrame", wanted: Mapping[str, Any]) -> "pd.DataFrame":
    """Return the rows whose columns have the wanted values."""
    for key, value in wanted.items():
        frame = frame[frame[key] == value]
    return frame


def error_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    """Return mean test error in % over seeds, one for each preset, source and scale of the runs.

    One run carries the Wilson interval of its test images, several a t interval over seeds.
    With ``weights`` in the measure it is the error of the same runs with those other weights.
    """
    wanted = {key: measure[key] for key in ("dataset", "recipe", "mode")}
    weights = measure.get("weights")
    column = "other_test_error_pct" if weights else "test_error_pct"
    wanted |= {"other_weights": weights} if weights else {}
    done = select(frames.runs, {**wanted, "status": "done"})
    found = []
    for (_, source, changes), group in done.groupby(SCALE):
        errors = [float(error) for error in group[column]]
        first = group.iloc[0]
        interval = over_seeds(errors)
        if len(errors) == 1 and first["test_images"] > 0:
            images = int(first["test_images"])
            low, high = wilson(round(errors[0] * images / 100), images)
            sure = f"95 % Wilson interval of {images:,} test images; seeds are not in it"
            interval = {"low": low, "high": high, "sure": sure}
        interval |= {"reduced": reduced_scale(first), "note": rounding_note(str(changes))}
        found.append(mean_evidence(errors, source=str(source), **interval))
    return found


def over_seeds(values: list[float], unit: str = "seeds") -> dict[str, Any]:
    """Return low, high and sure of a mean's t interval; nothing for a single value."""
    if len(values) < 2:
        return {}
    low, high = student(values)
    return {"low": low, "high": high, "sure": f"95 % t interval over {len(values)} {unit}"}


def mean_evidence(values: list[float], **facts: Any) -> Evidence:
    """Return mean, n and sample deviation of some values, with further facts."""
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    sd = math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else math.nan
    return Evidence(mean, len(values), sd, **facts)


def full_scale(changes: str) -> bool:
    """Return True where a run is its recipe's own but for how products are rounded.

    ``precision=fast`` takes no weight, epoch or image away.
    """
    return changes in ("", FAST)


def reduced_scale(run: Any) -> str:
    """Return the scale of a run that differs from its recipe; "" for a full one."""
    return "" if full_scale(run["changes"]) else scale_text(run)


def rounding_note(changes: str) -> str:
    """Return what a reader is told of a run by ``precision=fast``: see ``harness.spec.Recipe``."""
    return f"{FAST}: products of reals are rounded" if FAST in changes.split("; ") else ""


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


def gap_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    """Return the gap in points between two modes of a recipe, paired by seed.

    ``error-gap``: of test errors; ``curve-gap``: of validation errors averaged over the epochs.
    """
    wanted = {key: measure[key] for key in ("dataset", "recipe")}
    runs = select(frames.runs, {**wanted, "status": "done"})
    key = [*SCALE, "seed"]
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
    pairs = wide[[measure["mode"], measure["against"]]].dropna()
    found = []
    for scale, pair in pairs.groupby(level=SCALE):
        run = of_scale(runs, scale).iloc[0]
        gaps = [float(gap) for gap in pair[measure["mode"]] - pair[measure["against"]]]
        interval = over_seeds(gaps, "pairs of seeds")
        if len(gaps) == 1 and measure["kind"] == "error-gap" and run["test_images"] > 0:
            first, second = pair.iloc[0]
            interval = _difference(first, second, int(run["test_images"]))
        interval |= {"reduced": reduced_scale(run), "note": rounding_note(run["changes"])}
        found.append(mean_evidence(gaps, source=run["source"], **interval))
    return found


def _difference(first: float, second: float, images: int) -> dict[str, Any]:
    rates = [(e, *wilson(round(e * images / 100), images)) for e in (first, second)]
    low, high = newcombe(*rates)
    sure = f"95 % Newcombe interval of {images:,} test images; seeds are not in it"
    return {"low": low, "high": high, "sure": sure}


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


def network_ratio_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    """Return how many times faster an MLP is by XNOR; of another width it is a reduced one."""
    return ratio_evidence({**measure, "group": "mlp"}, frames)


def ratio_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    """Return how many times faster XNOR is than another kernel, one for each machine and case."""
    kernels = select(frames.kernels, {"group": measure["group"]})
    square = measure["group"] == "square"
    found = []
    for (machine, _, device), case in kernels.groupby(["machine", "case", "device"]):
        ratio = speed_ratio(case, measure["over"])
        if ratio is None:
            continue
        best, value = ratio
        size, width = int(best["m"]), int(best["n"])
        wanted = measure.get("width", width)
        same = device == measure["device"] and size >= measure["size"] and width == wanted
        what = f"{size:,}³" if square else f"{size:,} images, {width:,} units"
        papers = f"{measure['size']:,}" + ("³" if square else f" images, {wanted:,} units")
        where = "a GPU" if measure["device"] == "cuda" else measure["device"]
        here = f"{what} on {'a GPU' if device == 'cuda' else 'a CPU'}"
        reduced = "" if same else f"{here}; the paper: {papers} on {where}"
        samples = int(best["samples"])
        packing = ", packing included" if best["includes"] == PACKED_TOO else ""
        note = f"{best['kernel']} on {machine}, {what}{packing}, median of {samples}"
        order = (width != wanted, size != measure["size"], -size, -width)
        found.append((order, Evidence(value, 1, reduced=reduced, note=note)))
    # The paper's own size; of others, the largest stands nearest.
    found.sort(key=lambda pair: pair[0])
    return [evidence for _, evidence in found]
