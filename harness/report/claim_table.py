"""The verdicts as a table, and as text for a terminal."""

import textwrap
from collections import Counter
from collections.abc import Sequence

from harness.report.claims import VERDICTS, Judged
from harness.report.table import Table
from harness.report.tables import number

POINTS = ("%", "points")


def claims_table(judged: Sequence[Judged]) -> Table:
    """Return the verdict on each claim."""
    rows = [
        (
            claim.verdict,
            claim.statement,
            claim.where,
            paper_text(claim),
            ours_text(claim),
            claim.rule,
            claim.reason,
            claim.how,
            claim.note,
        )
        for claim in judged
    ]
    data = [
        {"id": c.id, "verdict": c.verdict, "reason": c.reason, "paper": c.paper, "ours": c.ours,
         "low": c.low, "high": c.high, "n": c.n}
        for c in judged
    ]  # fmt: skip
    header = ("Verdict", "Claim", "Where", "Paper", "Ours", "Counts as reproduced", "Reason",
              "How measured", "Note")  # fmt: skip
    title = "Verdicts on the paper's claims"
    return Table("claims", title, header, rows, data, numeric=frozenset({3, 4}))


def paper_text(claim: Judged) -> str:
    """Return the paper's number: ``0.96 %``, ``23 ×``; "–" where it gives none."""
    if claim.paper is None:
        return "–"
    decimals = claim.unit == "%" and claim.paper != int(claim.paper)
    if decimals:
        return f"{claim.paper:.2f} %"
    return f"{claim.paper:,.10g} {claim.unit}"


def ours_text(claim: Judged) -> str:
    """Return our value: ``1.62 ± 0.05 % (n = 3; 1.50 to 1.74)``; "–" where there is none."""
    if claim.ours is None:
        return "–"

    def text(value: float, digits: int = 3) -> str:
        if claim.unit in POINTS:
            return f"{value:.2f}"
        whole = value == int(value) and abs(value) >= 100
        return f"{value:,.0f}" if whole else number(value, digits)

    spread = "" if claim.sd is None else f" ± {text(claim.sd, 2)}"
    facts = [f"n = {claim.n}"] if claim.source else []
    if claim.low is not None and claim.high is not None:
        facts.append(f"{text(claim.low)} to {text(claim.high)}")
    tail = f" ({'; '.join(facts)})" if facts else ""
    label = " [stand-in]" if claim.source == "standin" else ""
    return f"{text(claim.ours)}{spread} {claim.unit}{tail}{label}"


def claims_text(judged: Sequence[Judged], width: int = 100) -> str:
    """Return the verdicts for a terminal: counts, then each claim in a few lines."""
    counts = Counter(claim.verdict for claim in judged)
    head = f"{len(judged)} claims: " + ", ".join(f"{counts[v]} {v}" for v in VERDICTS)
    return "\n\n".join([head, *(_claim_text(claim, width) for claim in judged)])


def _claim_text(claim: Judged, width: int) -> str:
    reason = f" ({claim.reason})" if claim.reason else ""
    lines = [
        f"{claim.verdict.upper()}{reason}",
        f"{claim.statement}. [{claim.where}; {claim.id}]",
        f"paper: {paper_text(claim)}   ours: {ours_text(claim)}   rule: {claim.rule}",
        f"measured: {claim.how}",
        f"why this rule: {claim.why}",
        *([f"note: {claim.note}"] if claim.note else []),
    ]
    indents = ["", *["  "] * (len(lines) - 1)]
    return "\n".join(
        textwrap.fill(line, width, initial_indent=indent, subsequent_indent="    ")
        for indent, line in zip(indents, lines, strict=True)
    )
