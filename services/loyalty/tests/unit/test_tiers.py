from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty.domain.tiers import (
    Basis,
    Scheme,
    Standing,
    Tier,
    Window,
    first_month,
    months_after,
    next_tier,
    raised,
    review_after,
    reviewed,
    violations,
)

SILVER, GOLD = Tier("silver", "Silver", 1000, 800), Tier("gold", "Gold", 5000, 4000, 150)
SCHEME = Scheme("p", 1, Basis.POINTS, Window.ROLLING, (SILVER, GOLD), 12, 12)
TODAY = date(2026, 5, 17)


def test_up_at_once_and_never_down_between_reviews():
    silver = raised(SCHEME, Standing(), 1000, TODAY)
    assert silver == Standing("silver", date(2027, 5, 1))
    assert raised(SCHEME, silver, 0, TODAY) == silver
    assert raised(SCHEME, silver, 5000, date(2026, 8, 1)) == Standing("gold", date(2027, 8, 1))
    assert raised(SCHEME, Standing(), 999, TODAY) == Standing()


@pytest.mark.parametrize(
    ("day", "ended", "present", "tier"),
    [
        (date(2027, 4, 30), 0, 0, "gold"),
        (date(2027, 5, 1), 4000, 0, "gold"),
        (date(2027, 5, 1), 0, 4000, "gold"),
        (date(2027, 5, 1), 3999, 0, "silver"),
        (date(2027, 5, 1), 800, 0, "silver"),
        (date(2027, 5, 1), 799, 799, ""),
    ],
)
def test_down_only_at_the_review_and_below_the_lower_mark(day, ended, present, tier):
    assert reviewed(SCHEME, Standing("gold", date(2027, 5, 1)), (ended, present), day).tier_id == tier


def test_windows_and_reviews_are_of_whole_months():
    year = Scheme("p", 1, Basis.POINTS, Window.CALENDAR_YEAR, (SILVER,))
    assert (first_month(SCHEME, TODAY), first_month(year, TODAY)) == (date(2025, 6, 1), date(2026, 1, 1))
    assert (months_after(date(2026, 12, 31), 1), months_after(TODAY, -5)) == (date(2027, 1, 1), date(2025, 12, 1))
    assert review_after(SCHEME, date(2024, 2, 29)) == date(2025, 2, 1)


def test_the_next_tier_says_what_is_missing():
    assert next_tier(SCHEME, Standing(), 300) == (SILVER, 700)
    assert next_tier(SCHEME, Standing("silver", TODAY), 6000) == (GOLD, 0)
    assert next_tier(SCHEME, Standing("gold", TODAY), 0) is None


@given(st.lists(st.integers(0, 6000), min_size=1, max_size=30))
def test_nobody_flaps(amounts):
    """A member whose amount is the same before and after a review does not come back up without earning more."""
    standing, day = Standing(), TODAY
    for amount in amounts:
        standing = raised(SCHEME, standing, amount, day)
        day = months_after(day, 13)
        down = reviewed(SCHEME, standing, (amount, amount), day)
        assert SCHEME.rank(down.tier_id) <= SCHEME.rank(standing.tier_id)
        assert raised(SCHEME, down, amount, day) == down
        if down.tier_id:
            assert amount >= SCHEME.tiers[SCHEME.rank(down.tier_id) - 1].keep_threshold
        standing = down


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tiers": ()}, "tiers"),
        ({"tiers": (GOLD, SILVER)}, "tiers[1].threshold"),
        ({"tiers": (SILVER, SILVER)}, "tiers"),
        ({"tiers": (Tier("a", "A", 10, 11),)}, "tiers[0].keep_threshold"),
        ({"tiers": (Tier("a", "A", 10, 9, 99),)}, "tiers[0].percent"),
        ({"currency_code": "CNY"}, "currency_code"),
        ({"basis": Basis.AMOUNT}, "currency_code"),
        ({"window_months": 0}, "window_months"),
    ],
)
def test_what_is_wrong_with_tiers_is_named(changes, field):
    fields = {"basis": Basis.POINTS, "window": Window.ROLLING, "tiers": (SILVER, GOLD)} | changes
    assert field in [name for name, _ in violations(Scheme("p", 1, **fields))]
    assert violations(SCHEME) == []
