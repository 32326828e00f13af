"""Every claim of the paper, with made-up results on each side of each boundary of its rule."""

from typing import Any

import pytest

from harness.report.evidence import Evidence
from harness.report.paper import Claim, load_paper
from harness.report.verdict import DIGITS, VERDICTS, by_rule, decide

CLAIMS = load_paper().claims
EPS = 10**-DIGITS


def of_rule(*rules: str) -> list[Any]:
    return [pytest.param(c, id=c.id) for c in CLAIMS if c.verdict["rule"] in rules]


def says(claim: Claim, value: float, low: float | None = None, high: float | None = None) -> str:
    """Return the verdict on a full, official value, with an interval where one end is given."""
    facts = {}
    if low is not None or high is not None:
        facts = {"low": value if low is None else low, "high": value if high is None else high}
    return decide(claim, Evidence(value, 3, source="official", **facts))[0]


def test_the_issue_of_at_least_30_claims_with_a_rule_and_a_reason_each() -> None:
    assert len(CLAIMS) >= 30
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert all(c.verdict["why"] and c.where and c.statement for c in CLAIMS)


@pytest.mark.parametrize("claim", of_rule("near"))
def test_near_the_papers_number(claim: Claim) -> None:
    low, high = claim.band
    lower_is_better = claim.verdict["better"] == "lower"
    below, above = ("better", "not reproduced")[:: 1 if lower_is_better else -1]
    assert [says(claim, v) for v in (low, claim.paper or 0, high)] == ["reproduced"] * 3
    assert (says(claim, low - EPS), says(claim, high + EPS)) == (below, above)
    # An interval decides between partly and the side; inside of the band the value does.
    assert says(claim, high + 1, low=high) == "partly"
    assert says(claim, high + 1, low=high + EPS) == above
    assert says(claim, low - 1, high=low) == "partly"
    assert says(claim, low - 1, high=low - EPS) == below
    assert says(claim, low, low=low - 9, high=high + 9) == "reproduced"


@pytest.mark.parametrize("claim", of_rule("at-most", "at-least"))
def test_a_bound(claim: Claim) -> None:
    bound, sign = float(claim.verdict["bound"]), 1 if claim.verdict["rule"] == "at-most" else -1

    def with_ends(value: float, towards: float) -> str:
        ends = {"high" if (towards - value) > 0 else "low": towards}
        return says(claim, value, **ends)

    assert says(claim, bound) == "reproduced"
    assert says(claim, bound - sign) == "reproduced"
    assert says(claim, bound + sign * 1e-6) == "not reproduced"
    assert with_ends(bound - sign, bound) == "reproduced"
    assert with_ends(bound - sign, bound + sign * 1e-6) == "partly"
    assert with_ends(bound + sign, bound) == "partly"
    assert with_ends(bound + sign, bound + sign * 1e-6) == "not reproduced"


@pytest.mark.parametrize("claim", of_rule("at-most", "at-least"))
def test_a_gap_at_the_bound_holds_whatever_its_two_errors_are(claim: Claim) -> None:
    bound = float(claim.verdict["bound"])
    for wrong in range(100, 1500, 7):
        error = wrong / 100
        assert says(claim, (error + bound) - error) == "reproduced"


@pytest.mark.parametrize("claim", of_rule("exactly"))
def test_exact_numbers(claim: Claim) -> None:
    assert claim.paper is not None
    assert says(claim, claim.paper) == "reproduced"
    for other in (claim.paper - 0.01, claim.paper + 0.01):
        assert says(claim, other) == "not reproduced"


@pytest.mark.parametrize("claim", of_rule("near", "at-most", "at-least", "exactly"))
def test_nothing_but_the_very_thing_decides(claim: Claim) -> None:
    good = claim.paper if claim.paper is not None else float(claim.verdict["bound"])
    verdict, reason = decide(claim, Evidence(good, 1, source="standin"))
    if "official" in claim.needs:
        assert (verdict, reason.split(":")[0]) == ("not measured", "stand-in only")
    verdict, reason = decide(claim, Evidence(good, 1, source="official", reduced="MLP 3 × 9"))
    if "full" in claim.needs:
        assert verdict == ("partly" if claim.reduced else "not measured")
        assert "MLP 3 × 9" in reason
    for nothing in (None, Evidence(float("nan"), 0)):
        assert decide(claim, nothing)[0] == "not measured"


@pytest.mark.parametrize("claim", [pytest.param(c, id=c.id) for c in CLAIMS if c.reduced])
def test_a_direction_that_a_reduced_network_does_not_show_is_not_measured(claim: Claim) -> None:
    bound, sign = float(claim.verdict["bound"]), 1 if claim.verdict["rule"] == "at-most" else -1
    reduced = {"source": "official", "reduced": "MLP 3 × 9"}
    against = Evidence(bound + sign, 1, **reduced)  # type: ignore[arg-type]
    assert decide(claim, against) == (
        "not measured", "reduced only, and it does not hold there: MLP 3 × 9",
    )  # fmt: skip
    ends = sorted((bound - 1, bound + 1))
    crossing = Evidence(bound, 3, low=ends[0], high=ends[1], **reduced)  # type: ignore[arg-type]
    verdict, reason = decide(claim, crossing)
    assert verdict == "not measured"
    assert reason.startswith("reduced only, and it holds within its interval only")


def test_generated_data_never_decide_even_where_reduced_may_speak() -> None:
    claim = next(c for c in CLAIMS if c.reduced)
    evidence = Evidence(float(claim.verdict["bound"]), 9, source="standin", reduced="small")
    assert decide(claim, evidence)[1].startswith("stand-in only")


def test_the_five_verdicts() -> None:
    assert VERDICTS == ("reproduced", "better", "partly", "not reproduced", "not measured")
    claim = next(c for c in CLAIMS if c.id == "mnist-theano")
    found = {by_rule(claim, Evidence(v, 1))[0] for v in (0.5, 0.96, 2.0)}
    assert found == {"better", "reproduced", "not reproduced"}
