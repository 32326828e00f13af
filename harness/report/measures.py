"""How each kind of claim is measured on the frames, and in words."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.report.counted import QUANTITIES, counted_evidence
from harness.report.evidence import (
    SCALE,
    Evidence,
    error_evidence,
    gap_evidence,
    mean_evidence,
    network_ratio_evidence,
    of_scale,
    over_seeds,
    ratio_evidence,
    reduced_scale,
    scale_text,
    select,
)
from harness.report.filters import COUNTS, filter_evidence
from harness.report.frames import Frames
from harness.report.intervals import newcombe
from harness.spec import as_mapping, load_recipe

if TYPE_CHECKING:
    import pandas as pd

Gatherer = Callable[[Mapping[str, Any], Frames], list[Evidence]]
# What comes along when a section's kind changes: two kinds have other constants.
_NETWORK = ["preset", "dataset", "recipe", "mode", "changes", "seed"]  # of one source
_ALONG = ("kind", "eps", "momentum", "beta1", "beta2")


def gather(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    """Return the evidence for a claim's ``measure``, best first; empty where there is none.

    Variations of a recipe (runs with a label) speak in comparisons of settings alone.
    """
    gatherers: dict[str, Gatherer] = {
        "error": error_evidence,
        "error-gap": gap_evidence,
        "curve-gap": gap_evidence,
        "time-ratio": _time_evidence,
        "recipe-gap": _recipe_evidence,
        "quoted-gap": _quoted_evidence,
        "setting-gap": _setting_evidence,
        "filters": filter_evidence,
        "kernel-ratio": ratio_evidence,
        "network-ratio": network_ratio_evidence,
        "kernel-spread": _spread_evidence,
        "agreement": _agreement_evidence,
        "memory": _memory_evidence,
        "counted": counted_evidence,
        "none": lambda measure, frames: [],
    }
    kind = measure["kind"]
    found = gatherers[kind](measure, frames if kind == "setting-gap" else frames.unlabelled())
    return sorted(found, key=lambda evidence: evidence.rank)


def how(measure: Mapping[str, Any]) -> str:
    """Return in words how a claim is measured."""
    told = {key: value for key, value in measure.items() if key != "kind"}
    texts: dict[str, Callable[[], str]] = {
        "error": lambda: "test error at the best validation error, {recipe} / {mode} on {dataset}",
        "error-gap": lambda: (
            "test error of {mode} less that of {against}, seed by seed, {recipe} on {dataset}"
        ),
        "curve-gap": lambda: (
            "validation error averaged over all epochs, {mode} less {against}, "
            "{recipe} on {dataset}"
        ),
        "time-ratio": lambda: (
            "seconds of training an image, {mode} over {against}, same machine "
            "and threads, {recipe} on {dataset}"
        ),
        "recipe-gap": lambda: "test error of {first} less that of {second} on {dataset}",
        "quoted-gap": lambda: "least test error of the BNNs on {dataset} less {quoted} %",
        "setting-gap": lambda: (
            "test error with {setting} = {value} less that with "
            + " or ".join(measure["against"])
            + ", all else and the seed equal"
        ),
        "filters": lambda: COUNTS[measure["of"]] + ", {recipe} / {mode} on {dataset}",
        "kernel-ratio": lambda: (
            "median time of {over} over that of the fastest XNOR kernel, "
            "packing included where it was timed"
        ),
        "network-ratio": lambda: (
            "median time of {over} over that of the fastest XNOR kernel, an MLP of {width} units a "
            "layer on all test images"
        ),
        "kernel-spread": lambda: (
            "greatest less least test error of a packed network over the kernels, {dataset}"
        ),
        "agreement": lambda: (
            "share of equal predictions of packed and training network, every "
            "kernel and test image, first layer: {first_layer}"
        ),
        "memory": lambda: "bytes of the weights in float32 over those of the exported file",
        "counted": lambda: (
            QUANTITIES[measure["quantity"]][0] + ", counted layer by layer from "
            "the recipe {recipe} on {dataset}"
        ),
        "none": lambda: "not measured",
    }
    return texts[measure["kind"]]().format(**told)


def _time_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    wanted = {"dataset": measure["dataset"], "recipe": measure["recipe"], "status": "done"}
    runs = select(frames.runs, wanted)
    key = [*SCALE, "seed", "machine", "device", "threads"]
    speeds = runs.set_index([*key, "mode"])["images_per_s"]
    wide = speeds[~speeds.index.duplicated()].unstack("mode")
    if measure["mode"] not in wide or measure["against"] not in wide:
        return []
    ratios = (wide[measure["against"]] / wide[measure["mode"]]).dropna()
    found = []
    for scale, ratio in ratios.groupby(level=SCALE):
        run = of_scale(runs, scale).iloc[0]
        values, note = [float(v) for v in ratio], f"{run['device']}, {run['machine']}"
        facts = {"source": run["source"], "reduced": reduced_scale(run), "note": note}
        found.append(mean_evidence(values, **facts, **over_seeds(values)))
    return found


def _of_system(system: str, dataset: str, frames: Frames) -> list[Evidence]:
    recipe, mode = system.split("/")
    found = error_evidence({"dataset": dataset, "recipe": recipe, "mode": mode}, frames)
    return sorted(found, key=lambda evidence: evidence.rank)


def _recipe_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    """The gap between two recipes; reduced runs of one are no match for those of another."""
    sides = [_of_system(measure[side], measure["dataset"], frames) for side in ("first", "second")]
    if not all(sides):
        return []
    first, second = (side[0] for side in sides)
    low, high = newcombe((first.value, *first.interval), (second.value, *second.interval))
    scales = [f"{measure[k]}: {e.reduced}" for k, e in (("first", first), ("second", second))
              if e.reduced]  # fmt: skip
    return [
        Evidence(
            first.value - second.value,
            min(first.n, second.n),
            source="standin" if "standin" in (first.source, second.source) else "official",
            reduced="; ".join(scales),
            low=low,
            high=high,
            sure="95 % interval from those of both errors",
        )
    ]


def _quoted_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    quoted, found = float(measure["quoted"]), []
    for system in measure["runs"]:
        for one in _of_system(system, measure["dataset"], frames):
            found.append(
                Evidence(
                    one.value - quoted,
                    one.n,
                    one.sd,
                    one.source,
                    one.reduced,
                    f"{system} has {one.value:.2f} %",
                    one.low - quoted,
                    one.high - quoted,
                    one.sure,
                )  # fmt: skip
            )
    return sorted(found, key=lambda evidence: (*evidence.rank[:2], evidence.value))[:1]


def _setting_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    """Pairs of runs that differ in one setting alone, which a label or a recipe may vary."""
    done = select(frames.runs, {"status": "done"})
    done = done[done["mode"].str.startswith("bnn-")]
    cells: dict[tuple[Any, ...], dict[str, Any]] = {}
    for _, run in done.iterrows():
        setting = _setting_of(run, measure["setting"])
        if setting is None:
            continue
        value, rest = setting
        same = ("source", "preset", "dataset", "recipe", "mode", "seed")
        key = (*(run[name] for name in same), rest)
        cells.setdefault(key, {})[value] = run
    found = []
    for source in ("official", "standin"):
        pairs = [
            (here[measure["value"]], here[other])
            for key, here in cells.items()
            for other in measure["against"]
            if key[0] == source and measure["value"] in here and other in here
        ]
        if pairs:
            found.append(_paired(pairs, source))
    return found


def _setting_of(run: "pd.Series[Any]", setting: str) -> tuple[str, frozenset[str]] | None:
    """Return the value of a setting in a run, and the run's other changes of its recipe."""
    changed = dict(part.split("=", 1) for part in run["changes"].split("; ") if "=" in part)
    try:
        default: Any = as_mapping(load_recipe(str(run["recipe"]), str(run["dataset"])))
    except HarnessError:
        return None
    for part in setting.split("."):
        default = default[part]
    along = {setting}
    if isinstance(default, Mapping):
        along = {f"{setting}.{key}" for key in _ALONG}
        setting, default = f"{setting}.kind", default["kind"]
    rest = frozenset(f"{k}={v}" for k, v in changed.items() if k not in along)
    return changed.get(setting, str(default)), rest


def _paired(pairs: "list[tuple[pd.Series[Any], pd.Series[Any]]]", source: str) -> Evidence:
    gaps = [float(a["test_error_pct"] - b["test_error_pct"]) for a, b in pairs]
    scales = sorted({f"{a['dataset']}: {scale_text(a)}" for a, b in pairs
                     if reduced_scale(a) and reduced_scale(b)})  # fmt: skip
    return mean_evidence(
        gaps,
        source=source,
        reduced="; ".join(scales),
        note=f"{len(pairs)} pairs of runs",
        **over_seeds(gaps, "pairs of runs"),
    )


def _spread_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    done = select(frames.evaluations, {"status": "done", "dataset": measure["dataset"]})
    found = []
    for source, group in done.groupby("source"):
        place = group["kernel"] + " " + group["device"]
        several = place.groupby([group[key] for key in _NETWORK]).transform("nunique") > 1
        group = group[several]
        if group.empty:
            continue
        by_run = group.groupby(_NETWORK)["test_error_pct"]
        spread = by_run.max() - by_run.min()
        kernels = ", ".join(sorted(set(group["kernel"])))
        note = f"{_networks(len(spread))} × {kernels}"
        found.append(Evidence(float(spread.max()), len(spread), source=str(source), note=note))
    return found


def _agreement_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    done = select(frames.evaluations, {"status": "done"})
    if measure["first_layer"] != "any":
        done = select(done, {"first_layer": measure["first_layer"]})
    found = []
    for source, group in done.groupby("source"):
        share = 100 * float(group["agree"].sum() / group["images"].sum())
        networks = len(group.groupby(_NETWORK))
        kernels = ", ".join(sorted(set(group["kernel"])))
        note = f"{_networks(networks)} × {kernels}; {int(group['images'].sum()):,} predictions"
        found.append(Evidence(share, networks, source=str(source), note=note))
    return found


def _networks(count: int) -> str:
    return f"{count} network{'s' if count != 1 else ''}"


def _memory_evidence(measure: Mapping[str, Any], frames: Frames) -> list[Evidence]:
    done = frames.runs[frames.runs["bytes_packed"] > 0]
    return [_least_ratio(group) for _, group in done.groupby("changes")]


def _least_ratio(done: "pd.DataFrame") -> Evidence:
    # A network's size does not depend on the seed: one value a network.
    one = done.drop_duplicates(["dataset", "network", "binary_weights"])
    ratios = one["bytes_float32"] / one["bytes_packed"]
    worst = one.loc[ratios.idxmin()]
    note = f"the least of {len(one)} networks: " if len(one) > 1 else ""
    # Word padding and thresholds weigh more in a small network than in the paper's.
    return Evidence(
        float(ratios.min()),
        len(one),
        reduced=reduced_scale(worst),
        note=f"{note}{worst['network']} on {worst['dataset']}",
    )
