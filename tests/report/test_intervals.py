"""Intervals against numbers of the literature and of tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.intervals import newcombe, student, wilson


def test_wilson_of_a_published_example() -> None:
    # Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662, 0 of 20 gives 0 to 0.1611.
    assert wilson(81, 263) == pytest.approx((25.53, 36.62), abs=0.005)
    assert wilson(0, 20) == pytest.approx((0, 16.11), abs=0.005)


def test_wilson_of_the_papers_mnist_error() -> None:
    assert wilson(96, 10_000) == pytest.approx((0.787, 1.171), abs=0.001)


def test_student_with_the_tables_quantile() -> None:
    # n = 3: t = 4.3027; mean 2, sd 1.
    assert student([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5),
                                                     abs=1e-4)  # fmt: skip
    assert student([1.5, 1.5]) == (1.5, 1.5)


def test_newcombe_of_a_published_example() -> None:
    # Newcombe (1998), method 10, 56/70 less 48/80: 0.0524 to 0.3339.
    first, second = ((100 * k / n, *wilson(k, n)) for k, n in ((56, 70), (48, 80)))
    assert newcombe(first, second) == pytest.approx((5.24, 33.39), abs=0.005)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_and_stays_within_bounds(counts: tuple[int, int]) -> None:
    low, high = wilson(*counts)
    rate = 100 * counts[0] / counts[1]
    assert -1e-9 <= low <= rate + 1e-9
    assert rate - 1e-9 <= high <= 100 + 1e-9
