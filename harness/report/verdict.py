"""From a rule and a value of ours with its interval to one of five verdicts, with a reason."""

import math

from harness.report.evidence import Evidence
from harness.report.paper import Claim

REPRODUCED = "reproduced"
BETTER = "better"
PARTLY = "partly"
NOT_REPRODUCED = "not reproduced"
NOT_MEASURED = "not measured"
# After the point: a gap of 15 images in 10,000 is 0.15 points, of whatever two errors it is.
DIGITS = 6
_NOTHING = {"kernel-spread": "no network that several kernels evaluated"}
VERDICTS = (REPRODUCED, BETTER, PARTLY, NOT_REPRODUCED, NOT_MEASURED)


def decide(claim: Claim, best: Evidence | None) -> tuple[str, str]:
    """Return the verdict and its reason.

    Generated data never decide. A reduced measurement is not held against a number of the
    paper's; where the claim is a direction (``reduced: partly``), it can show it in part.
    """
    if best is None or math.isnan(best.value):
        nothing = _NOTHING.get(claim.measure["kind"], "no run or bench of this claim")
        return NOT_MEASURED, str(claim.measure.get("why", nothing))
    if "official" in claim.needs and best.source == "standin":
        return NOT_MEASURED, "stand-in only: generated data decide nothing"
    verdict, reason = by_rule(claim, best)
    if "full" not in claim.needs or not best.reduced:
        return verdict, reason
    if claim.reduced != PARTLY:
        return NOT_MEASURED, f"reduced only: {best.reduced}"
    if verdict in (REPRODUCED, BETTER):
        return PARTLY, f"holds on a reduced scale: {best.reduced}"
    tail = "holds within its interval only" if verdict == PARTLY else "does not hold there"
    return NOT_MEASURED, f"reduced only, and it {tail}: {best.reduced}"


def by_rule(claim: Claim, best: Evidence) -> tuple[str, str]:
    """Return what the claim's rule says of a value and its interval, whatever the scale.

    ``near``: reproduced within the band paper ± tolerance; outside of it partly where the
    interval reaches into the band; else better or not reproduced, by the side.
    ``at-most``, ``at-least``: reproduced where value and interval hold; partly where only one
    of value and an end of the interval does; else not reproduced. ``exactly``: equal or not.

    But for ``exactly`` numbers are compared to :data:`DIGITS`.
    """
    if claim.verdict["rule"] == "exactly":
        return (REPRODUCED if best.value == claim.paper else NOT_REPRODUCED), ""
    value, low, high = (round(x, DIGITS) for x in (best.value, *best.interval))
    if claim.verdict["rule"] == "near":
        return _near(claim, value, low, high)
    bound, most = float(claim.verdict["bound"]), claim.verdict["rule"] == "at-most"
    worst, kindest = (high, low) if most else (low, high)
    if _holds(worst, bound, most) and _holds(value, bound, most):
        return REPRODUCED, ""
    if _holds(value, bound, most):
        return PARTLY, "the value holds, its 95 % interval does not"
    if _holds(kindest, bound, most):
        return PARTLY, "the value does not hold, its 95 % interval reaches the bound"
    return NOT_REPRODUCED, ""


def _holds(value: float, bound: float, most: bool) -> bool:
    return value <= bound if most else value >= bound


def _near(claim: Claim, value: float, low: float, high: float) -> tuple[str, str]:
    least, most = claim.band
    if least <= value <= most:
        return REPRODUCED, ""
    if low <= most and high >= least:
        return PARTLY, "outside the tolerance, the 95 % interval reaches into it"
    below = value < least
    return (BETTER if below == (claim.verdict["better"] == "lower") else NOT_REPRODUCED), ""
