"""A verdict on each of the paper's claims."""

import math
from dataclasses import asdict, dataclass

from harness.report.evidence import Evidence, failures, gather
from harness.report.frames import Frames
from harness.report.paper import Claim, Paper

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
REDUCED = "reduced only"
STANDIN = "stand-in only"
NOT_MEASURED = "not measured"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, REDUCED, STANDIN, NOT_MEASURED)


@dataclass(frozen=True)
class Judged:
    """One row of ``claims.csv``; ``ours`` and ``sd`` are None where nothing was measured."""

    id: str
    where: str
    statement: str
    paper: float | None
    ours: float | None
    sd: float | None
    n: int
    unit: str
    rule: str
    why: str
    verdict: str
    source: str
    note: str


def judge(claim: Claim, frames: Frames) -> Judged:
    """Return the verdict on a claim.

    The rule decides only where the best evidence is what the claim needs: a run on generated
    data is ``stand-in only``, a smaller one ``reduced only``, and neither is held against a
    number of the paper's.
    """
    found = gather(claim.measure, frames)
    best = found[0] if found else None
    notes = [best.note, best.reduced] if best else [str(claim.measure.get("why", ""))]
    notes += failures(claim.measure, frames)
    return Judged(
        id=claim.id,
        where=claim.where,
        statement=claim.statement,
        paper=claim.paper,
        ours=best.value if best else None,
        sd=None if best is None or math.isnan(best.sd) else best.sd,
        n=best.n if best else 0,
        unit=claim.unit,
        rule=claim.rule,
        why=str(claim.verdict.get("why", "")),
        verdict=_verdict(claim, best),
        source=best.source if best else "",
        note="; ".join(note for note in notes if note),
    )


def _verdict(claim: Claim, best: Evidence | None) -> str:
    if best is None or math.isnan(best.value):
        return NOT_MEASURED
    if "official" in claim.needs and best.source == "standin":
        return STANDIN
    if "full" in claim.needs and best.reduced:
        return REDUCED
    return REPRODUCED if claim.holds(best.value) else NOT_REPRODUCED


def judge_all(paper: Paper, frames: Frames) -> list[Judged]:
    """Return the verdicts on all claims, in the paper's order."""
    return [judge(claim, frames) for claim in paper.claims]


def as_rows(judged: list[Judged]) -> list[dict[str, object]]:
    """Return the verdicts as rows of ``claims.csv``, numbers rounded to six digits."""
    return [
        {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in asdict(one).items()}
        for one in judged
    ]
