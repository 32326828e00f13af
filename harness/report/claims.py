"""A verdict on each of the paper's claims."""

import math
from dataclasses import asdict, dataclass

from harness.report.evidence import failures
from harness.report.frames import Frames
from harness.report.measures import gather, how
from harness.report.paper import Claim, Paper
from harness.report.verdict import VERDICTS, decide

__all__ = ["VERDICTS", "Judged", "as_rows", "judge", "judge_all"]


@dataclass(frozen=True)
class Judged:
    """One row of ``claims.csv``; ours, sd, low and high are None where nothing is known."""

    id: str
    where: str
    statement: str
    paper: float | None
    ours: float | None
    sd: float | None
    low: float | None
    high: float | None
    n: int
    unit: str
    how: str
    rule: str
    why: str
    verdict: str
    reason: str
    source: str
    note: str


def judge(claim: Claim, frames: Frames) -> Judged:
    """Return the verdict on a claim, from the best evidence that the frames hold."""
    found = gather(claim.measure, frames)
    best = found[0] if found else None
    verdict, reason = decide(claim, best)
    notes = [best.note, best.sure] if best else []
    notes += failures(claim.measure, frames.unlabelled())
    notes += [f"not certain: {claim.uncertain}"] if claim.uncertain else []
    return Judged(
        id=claim.id,
        where=claim.where,
        statement=claim.statement,
        paper=claim.paper,
        ours=_known(best.value) if best else None,
        sd=_known(best.sd) if best else None,
        low=_known(best.low) if best else None,
        high=_known(best.high) if best else None,
        n=best.n if best else 0,
        unit=claim.unit,
        how=how(claim.measure),
        rule=claim.rule,
        why=str(claim.verdict.get("why", "")),
        verdict=verdict,
        reason=reason,
        source=best.source if best else "",
        note="; ".join(note for note in notes if note),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def judge_all(paper: Paper, frames: Frames) -> list[Judged]:
    """Return the verdicts on all claims, in the paper's order.

    Runs with a label are variations of a recipe: they count where a claim compares settings, and
    nowhere else (see :func:`harness.report.measures.gather`).
    """
    return [judge(claim, frames) for claim in paper.claims]


def as_rows(judged: list[Judged]) -> list[dict[str, object]]:
    """Return the verdicts as rows of ``claims.csv``, numbers rounded to six digits."""
    return [
        {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in asdict(one).items()}
        for one in judged
    ]
