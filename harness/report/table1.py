"""Table 1: test error rates, ours beside the paper's."""

import math
from collections.abc import Iterator
from typing import Any

from harness.modes import in_order
from harness.report.evidence import Evidence, error_evidence, failures, lost_runs
from harness.report.frames import Frames
from harness.report.paper import Paper, System
from harness.report.table import Table

OWN_GROUP = "Ours, with no row in the paper's table"
_NAME = "table1"


def table1(paper: Paper, frames: Frames) -> Table:
    """Return Table 1 with a column of the paper's and one of ours for each dataset.

    Ours is mean ± sample deviation over n seeds of the test error at the best validation error.
    Stand-in data and reduced networks or schedules are labelled in the cell; where every run
    failed the cell says why.
    """
    datasets = list(paper.datasets)
    rows: list[tuple[str, ...]] = []
    data: list[dict[str, Any]] = []
    for group, systems in _groups(paper, frames):
        rows.append((group,))
        for system in systems:
            cells = [_cell(system, dataset, frames) for dataset in datasets]
            data += [
                {"group": group, "system": system.name, "dataset": d, **facts}
                for d, (_, _, facts) in zip(datasets, cells, strict=True)
            ]
            rows.append((system.name, *(text for cell in cells for text in cell[:2])))
    names = paper.datasets.values()
    header = ("System", *(f"{name}, {whose}" for name in names for whose in ("paper", "ours")))
    return Table(
        name=_NAME,
        title="Test error rates (%), ours beside Table 1 of the paper",
        header=header,
        rows=rows,
        data=data,
        caption="Ours: mean ± sample standard deviation over n seeds, at the best validation "
        "error; then its 95 % interval, Wilson's of the test images for one run, Student's over "
        "the seeds for several.",
        notes=(*_notes(data), *_uncertain(paper)),
        numeric=frozenset(range(1, len(header))),
    )


def _groups(paper: Paper, frames: Frames) -> Iterator[tuple[str, list[System]]]:
    taken = set()
    for group in paper.table1:
        yield group.group, list(group.systems)
        taken |= {_key(s.ours) for s in group.systems if s.ours}
    columns = ["recipe", "mode", "other_weights"]
    ours: set[tuple[str, str, str]] = set()
    for recipe, mode, other in frames.runs[columns].drop_duplicates().itertuples(index=False):
        ours |= {(str(recipe), str(mode), ""), (str(recipe), str(mode), str(other))}
    order = in_order(mode for _, mode, _ in ours)
    own = sorted(ours - taken, key=lambda key: (key[0], order.index(key[1]), key[2]))
    if own:
        yield OWN_GROUP, [_own_system(*key) for key in own]


def _key(ours: dict[str, str]) -> tuple[str, str, str]:
    return ours["recipe"], ours["mode"], ours.get("weights", "")


def _own_system(recipe: str, mode: str, weights: str) -> System:
    ours = {"recipe": recipe, "mode": mode} | ({"weights": weights} if weights else {})
    name = f"{recipe} / {mode}" + (f", tested with {weights} weights" if weights else "")
    return System(name, {}, ours=ours)


def _cell(system: System, dataset: str, frames: Frames) -> tuple[str, str, dict[str, Any]]:
    error = system.errors.get(dataset)
    deviation = system.deviations.get(dataset)
    facts: dict[str, Any] = {"paper_pct": error, "paper_sd": deviation, "n": 0}
    paper = "–" if error is None else f"{error:g}" if error < 1 else f"{error:.2f}"
    if deviation is not None:
        paper += f" ± {deviation:g}"
    if system.ours is None:
        return paper, "" if error is None else "quoted only", facts | {"quoted": True}
    measure = {"dataset": dataset, **system.ours}
    found = sorted(error_evidence(measure, frames), key=lambda evidence: evidence.rank)
    lost = failures(measure, frames)
    facts |= {"note": "; ".join(lost)}
    if not found:
        states = set(lost_runs(measure, frames)["status"])
        return paper, f"[{', '.join(sorted(states))}]" if states else "–", facts
    best = found[0]
    facts |= {"ours_pct": round(best.value, 4), "n": best.n, "source": best.source}
    facts |= {"ours_sd": _rounded(best.sd)}
    facts |= {"reduced": best.reduced, "note": "; ".join([*lost, *filter(None, [best.note])])}
    facts |= {"ours_low": _rounded(best.low), "ours_high": _rounded(best.high)}
    return paper, evidence_text(best, lost), facts


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def evidence_text(best: Evidence, lost: list[str]) -> str:
    """Return ``1.62 ± 0.05 (n = 3; 1.50–1.74) [stand-in, reduced]``."""
    interval = "" if math.isnan(best.low) else f"; {best.low:.2f}–{best.high:.2f}"
    spread = "" if math.isnan(best.sd) else f" ± {best.sd:.2f}"
    labels = ["stand-in"] if best.source == "standin" else []
    labels += ["reduced"] if best.reduced else []
    labels += [f"{len(lost)} without a result"] if lost else []
    tail = f" [{', '.join(labels)}]" if labels else ""
    return f"{best.value:.2f}{spread} (n = {best.n}{interval}){tail}"


def _uncertain(paper: Paper) -> list[str]:
    systems = [system for group in paper.table1 for system in group.systems if system.uncertain]
    return [f"{system.name}, not certain: {system.uncertain}." for system in systems]


def _notes(data: list[dict[str, Any]]) -> tuple[str, ...]:
    notes = []
    if any(row.get("source") == "standin" for row in data):
        notes.append(
            "stand-in: trained and tested on generated look-alikes of the dataset; the number says "
            "nothing about the paper's."
        )
    scales = sorted({f"{row['dataset']}: {row['reduced']}" for row in data if row.get("reduced")})
    if scales:
        notes.append(f"reduced: a smaller network or a shorter schedule ({'; '.join(scales)}).")
    lost = [f"{row['system']}, {row['dataset']}: {row['note']}" for row in data if row.get("note")]
    return (*notes, *lost)
