"""Confidence intervals of test errors: Wilson for one run, Student's t over seeds."""

import math
from collections.abc import Sequence

CONFIDENCE = 0.95


def wilson(wrong: int, images: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval, in %, of an error rate of ``wrong`` of ``images``.

    It says how far another test set of this size could move the error, and nothing of seeds.
    """
    from scipy.stats import binomtest

    found = binomtest(wrong, images).proportion_ci(CONFIDENCE, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def student(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean: ``mean ± t(n - 1) · sd / sqrt(n)``; n at least 2."""
    from scipy.stats import t

    n = len(values)
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    reach = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return mean - reach, mean + reach


def newcombe(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float]:
    """Return Newcombe's 95 % interval of a difference of two error rates in %.

    ``first`` and ``second`` are (rate, low, high) of :func:`wilson`; the difference is first
    minus second (Newcombe, 1998, method 10). The same test images serve both networks, which
    makes the true interval narrower: this one is on the safe side.
    """
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    low = a - b - math.hypot(a - a_low, b_high - b)
    return low, a - b + math.hypot(a_high - a, b - b_low)
