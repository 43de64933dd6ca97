"""Breakage, fair value and revenue; the published example of IFRS 15's application is here to the unit."""

from datetime import date
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from loyalty.domain.liability import (
    Cohort,
    Movement,
    breakage_rate,
    day_totals,
    expected_points,
    recognized,
    revenue,
    roll_forward,
    valuation,
)

MAY = date(2026, 5, 1)


def test_kpmg_example_10():
    """9,000 allocated to points; 4,500 redeemed of 9,700 expected, then 8,500 of 9,900."""
    first = revenue(9_000, 0, 4_500, Fraction(9_700))
    second = revenue(9_000, first.recognized_minor_units, 8_500, Fraction(9_900))
    assert (first.period_minor_units, second.period_minor_units) == (4_175, 3_552)
    assert second.recognized_minor_units == 4_175 + 3_552


def test_an_estimate_that_rises_takes_revenue_back():
    assert revenue(1_000, recognized(1_000, 50, Fraction(50)), 50, Fraction(100)).period_minor_units == -500


def test_breakage_by_hand():
    ended = Cohort(date(2025, 1, 1), 1_000, 600, 200, 200, 0)
    running = Cohort(MAY, 1_000, 100, 50, 0, 850)
    assert breakage_rate([ended, running]) == Fraction(1, 4)
    # A quarter of the 1,000 will expire; 50 have: 200 of the 850 are still to.
    assert expected_points(running, Fraction(1, 4)) == 100 + 650
    assert tuple(valuation([ended, running], Fraction(3, 2))) == (850, Fraction(1, 4), 200, Fraction(975))
    forever = running._replace(perpetual_points=850)
    assert valuation([ended, forever], Fraction(1)).breakage_points == 0


def test_without_a_cohort_that_ended_everything_is_expected():
    assert tuple(valuation([Cohort(MAY, 10, 0, 0, 0, 10)], Fraction(2))) == (10, 0, 0, Fraction(20))


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
    total = 0
    for redeemed, more in states:
        expected = Fraction(redeemed + more)
        period = revenue(allocated, total, redeemed, expected)
        total += period.period_minor_units
        assert total == period.recognized_minor_units
        assert 0 <= period.recognized_minor_units <= allocated


def moved(day: int, kind: str, up: int, down: int = 0, institution: str = "bank", partner: int = 0) -> Movement:
    return Movement("p", date(2026, 5, day), kind, institution, up, down, 0, partner, -up - down - partner)


def test_the_roll_forward_by_hand():
    movements = [
        moved(1, "EARN", 1_000), moved(1, "REDEEM", 0, -100), moved(2, "EARN", 500, 0, "shop"),
        moved(2, "CAPTURE", 0, -70, "shop", 70), moved(3, "REFUND", 20, 0, "shop", -20), moved(3, "REDEEM", 0, -30),
        moved(3, "EXPIRE", 0, -40), moved(3, "CLAWBACK", 0, -50), moved(3, "ADJUST", 5, -1), moved(3, "EXCHANGE", 9, -8),
    ]  # fmt: skip
    rolled = roll_forward(movements, "bank", date(2026, 5, 2))
    assert rolled == (900, 500, 9, -30, -70, 20, -8, -40, -50, 4, 1_235, 0, 50, -1_285)
    third = [movement for movement in movements if movement.day == date(2026, 5, 3)]
    assert day_totals(third, 1_330) == (14, 18, 40, 51, 1_235)


kinds = st.sampled_from(
    ["EARN", "CANCEL", "HOLD", "REDEEM", "CAPTURE", "REFUND", "CLAWBACK", "ADJUST", "TRANSFER", "EXCHANGE", "EXPIRE", "REVERSE"]
)
some_movements = st.lists(
    st.builds(
        lambda day, kind, up, down, place: moved(day, kind, up * (kind not in ("HOLD", "TRANSFER")),
                                                 -down * (kind not in ("HOLD", "TRANSFER")), place),
        st.integers(1, 9), kinds, st.integers(0, 99), st.integers(0, 99), st.sampled_from(["bank", "shop"]),
    ), max_size=20,
)  # fmt: skip


@given(some_movements, st.integers(1, 9))
def test_the_parts_of_a_roll_forward_and_the_days_sum_to_its_closing(movements, begin):
    rolled = roll_forward(movements, "bank", date(2026, 5, begin))
    assert sum(rolled[:10]) == rolled.closing_points == sum(movement.net_points for movement in movements)
    outstanding = 0
    for day in range(1, 10):
        today = [movement for movement in movements if movement.day.day == day]
        outstanding = day_totals(today, outstanding).outstanding_points
    assert outstanding == rolled.closing_points
