"""Breakage, fair value and revenue; the published example of IFRS 15's application is here to the unit."""

from datetime import date
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from loyalty.domain.liability import Cohort, breakage_rate, expected_points, revenue, valuation

MAY = date(2026, 5, 1)


def test_kpmg_example_10():
    """9,000 allocated to points; 4,500 redeemed of 9,700 expected, then 8,500 of 9,900."""
    first = revenue(9_000, None, 4_500, Fraction(9_700))
    second = revenue(9_000, (4_500, Fraction(9_700)), 8_500, Fraction(9_900))
    assert (first.period_minor_units, second.period_minor_units) == (4_175, 3_552)
    assert second.recognized_minor_units == 4_175 + 3_552


def test_an_estimate_that_rises_takes_revenue_back():
    assert revenue(1_000, (50, Fraction(50)), 50, Fraction(100)).period_minor_units == -500


def test_breakage_by_hand():
    ended = Cohort(date(2025, 1, 1), 1_000, 600, 200, 200, 0)
    running = Cohort(MAY, 1_000, 100, 50, 0, 850)
    assert breakage_rate([ended, running]) == Fraction(1, 4)
    # A quarter of the 1,000 will expire; 50 have: 200 of the 850 are still to.
    assert expected_points(running, Fraction(1, 4)) == 100 + 650
    assert valuation([ended, running], Fraction(3, 2)) == (850, Fraction(1, 4), 200, Fraction(975))
    forever = running._replace(perpetual_points=850)
    assert valuation([ended, forever], Fraction(1)).breakage_points == 0


def test_without_a_cohort_that_ended_everything_is_expected():
    assert valuation([Cohort(MAY, 10, 0, 0, 0, 10)], Fraction(2)) == (10, 0, 0, Fraction(20))


points = st.integers(0, 10**12)
cohorts = st.builds(
    lambda redeemed, expired, withdrawn, outstanding, share: Cohort(
        MAY, redeemed + expired + withdrawn + outstanding, redeemed, expired, withdrawn, outstanding, outstanding * share // 10
    ),
    points, points, points, points, st.integers(0, 10),
)  # fmt: skip


@given(st.lists(cohorts, max_size=6), st.fractions(0, 1000))
def test_the_liability_is_never_more_than_everything_and_never_negative(made, value):
    rate = breakage_rate(made)
    found = valuation(made, value)
    assert 0 <= rate <= 1
    assert 0 <= found.breakage_points <= found.outstanding_points
    assert found.fair_value == (found.outstanding_points - found.breakage_points) * value
    for cohort in made:
        assert cohort.redeemed_points <= expected_points(cohort, rate) <= cohort.issued_points


@given(points, st.lists(st.tuples(points, points), min_size=1, max_size=6))
def test_periods_sum_to_what_is_recognized_in_the_end(allocated, states):
    before, total = None, 0
    for redeemed, more in states:
        expected = Fraction(redeemed + more)
        period = revenue(allocated, before, redeemed, expected)
        total += period.period_minor_units
        before = redeemed, expected
        assert total == period.recognized_minor_units
        assert 0 <= period.recognized_minor_units <= allocated
