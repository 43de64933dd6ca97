"""What an issuer owes its members in points: breakage from cohorts, fair value, and revenue by IFRS 15. Pure, exact.

A cohort is the points that were issued in one month. What becomes of them is estimated from the cohorts that have ended:

    breakage rate   = expired / (expired + redeemed), of the cohorts that have ended
    still to expire = min(open, max(0, (redeemed + expired + open) x breakage rate - expired)), open: outstanding ones that can
    expected points = redeemed + outstanding - still to expire
    fair value      = (outstanding - still to expire) x value of a point

Revenue follows IFRS 15 B44 to B47: of the price that was allocated to points, the part redeemed / expected is earned; when the
estimate changes, the period takes the difference for everything before (cumulative catch-up).
"""

from collections.abc import Iterable, Sequence
from datetime import date
from fractions import Fraction
from typing import NamedTuple


class Cohort(NamedTuple):
    """What became of the points issued in a month, up to a day. Points that were transferred stay in their first cohort."""

    month: date
    issued_points: int
    redeemed_points: int
    expired_points: int
    withdrawn_points: int
    """Taken back otherwise: clawed back, cancelled, adjusted, exchanged away for nothing."""
    outstanding_points: int
    perpetual_points: int = 0
    """Of the outstanding ones, those that never expire."""

    @property
    def ended(self) -> bool:
        """Whether nothing of it is outstanding any more."""
        return self.outstanding_points == 0


class Valuation(NamedTuple):
    """A programme's liability in exact minor units."""

    outstanding_points: int
    breakage_rate: Fraction
    breakage_points: Fraction
    fair_value: Fraction


class Revenue(NamedTuple):
    """Of a cohort's allocated price what is earned, in whole minor units."""

    allocated_minor_units: int
    expected_points: Fraction
    recognized_minor_units: int
    """From the beginning until the end of the period."""
    period_minor_units: int
    """In the period: the cumulative amount now less the one before, so that changed estimates are caught up."""


def breakage_rate(cohorts: Iterable[Cohort]) -> Fraction:
    """Expired points of ended cohorts over those that could have been redeemed or expired; zero before any cohort has ended.

    Points taken back are in neither number: they were no choice of the member's."""
    ended = [cohort for cohort in cohorts if cohort.ended]
    expired = sum(cohort.expired_points for cohort in ended)
    decided = expired + sum(cohort.redeemed_points for cohort in ended)
    return Fraction(expired, decided) if decided else Fraction(0)


def expected_points(cohort: Cohort, rate: Fraction) -> Fraction:
    """Points of a cohort that will have been redeemed in the end, those redeemed already among them.

    Outstanding points that expire are expected to, as far as the cohort's expiry so far is below the rate.
    """
    open_points = cohort.outstanding_points - cohort.perpetual_points
    base = cohort.redeemed_points + cohort.expired_points + open_points
    still_to_expire = min(Fraction(open_points), max(Fraction(0), base * rate - cohort.expired_points))
    return cohort.redeemed_points + cohort.outstanding_points - still_to_expire


def valuation(cohorts: Sequence[Cohort], value: Fraction) -> Valuation:
    """The liability of a programme.

    Args:
        cohorts: all of the programme.
        value: of a point, in minor units.
    """
    rate = breakage_rate(cohorts)
    outstanding = sum(cohort.outstanding_points for cohort in cohorts)
    redeemable = sum((expected_points(cohort, rate) - cohort.redeemed_points for cohort in cohorts), Fraction(0))
    return Valuation(outstanding, rate, outstanding - redeemable, redeemable * value)


def recognized(allocated_minor_units: int, redeemed_points: int, expected: Fraction) -> int:
    """Of an allocated price the part that is earned, half to even in whole minor units; all when nothing more is expected."""
    if redeemed_points >= expected:
        return allocated_minor_units
    return round(allocated_minor_units * redeemed_points / expected)


def revenue(allocated_minor_units: int, before: tuple[int, Fraction] | None, redeemed_points: int, expected: Fraction) -> Revenue:
    """A cohort's revenue in a period.

    Args:
        allocated_minor_units: of the price, what was allocated to its points.
        before: points redeemed, and those expected, as they stood when the period began; None in the first period.
        redeemed_points: until the end of the period, from the beginning.
        expected: points expected to be redeemed in the end, as estimated at the end of the period.
    """
    earned = recognized(allocated_minor_units, redeemed_points, expected)
    earned_before = recognized(allocated_minor_units, *before) if before else 0
    return Revenue(allocated_minor_units, expected, earned, earned - earned_before)
