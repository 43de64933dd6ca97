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

SPENDING = ("CAPTURE", "REDEEM")
"""Kinds of operations by which members spend."""


class Movement(NamedTuple):
    """What operations of a kind at an institution did to a programme's points on a day."""

    program_id: str
    day: date
    kind: str
    institution_id: str
    up_points: int
    """Of operations that gave members points, debts among them."""
    down_points: int
    """Of those that took some: below zero."""
    debt_points: int
    """Of both, on members' debts."""
    partner_points: int
    issuer_points: int

    @property
    def net_points(self) -> int:
        """What members have more."""
        return self.up_points + self.down_points


class RollForward(NamedTuple):
    """From what members had to what they have; what lessens it is negative."""

    opening_points: int
    issued_points: int
    exchanged_in_points: int
    redeemed_own_points: int
    redeemed_elsewhere_points: int
    refunded_points: int
    exchanged_out_points: int
    expired_points: int
    reversed_points: int
    adjusted_points: int
    closing_points: int
    debt_points: int
    """Of the closing points, members' debts: below zero."""
    unsettled_points: int
    issuer_balance_points: int


def roll_forward(movements: Iterable[Movement], issuer: str, begin: date) -> RollForward:
    """The roll-forward of one programme.

    Args:
        movements: from the beginning to the last day.
        issuer: the institution whose programme it is.
        begin: first day of the period.
    """
    opening = debts = unsettled = issued = 0
    sums: dict[str, list[int]] = {}
    redeemed = {True: 0, False: 0}
    for movement in movements:
        debts += movement.debt_points
        unsettled += movement.partner_points
        issued += movement.issuer_points
        if movement.day < begin:
            opening += movement.net_points
            continue
        two = sums.setdefault(movement.kind, [0, 0])
        two[0] += movement.up_points
        two[1] += movement.down_points
        if movement.kind in SPENDING:
            redeemed[movement.institution_id == issuer] += movement.net_points
    parts = (
        sum(sums.get("EARN", ())), sums.get("EXCHANGE", [0, 0])[0], redeemed[True], redeemed[False], sum(sums.get("REFUND", ())),
        sums.get("EXCHANGE", [0, 0])[1], sum(sums.get("EXPIRE", ())),
        sum(sum(sums.get(kind, ())) for kind in ("CANCEL", "CLAWBACK", "REVERSE", "REVERSE_EARN")), sum(sums.get("ADJUST", ())),
    )  # fmt: skip
    closing = opening + sum(sum(two) for two in sums.values())
    return RollForward(opening, *parts, closing, debts, unsettled, issued)


class DayTotals(NamedTuple):
    """A programme's points on a day."""

    issued_points: int
    redeemed_points: int
    expired_points: int
    withdrawn_points: int
    outstanding_points: int


def day_totals(movements: Iterable[Movement], outstanding_before: int) -> DayTotals:
    """The totals of the movements of one day: before + issued - redeemed - expired - withdrawn = outstanding."""
    issued = redeemed = expired = withdrawn = 0
    for movement in movements:
        if movement.kind in (*SPENDING, "REFUND"):
            redeemed -= movement.net_points
        elif movement.kind == "EXCHANGE":
            issued += movement.up_points
            redeemed -= movement.down_points
        elif movement.kind == "EXPIRE":
            expired -= movement.net_points
        elif movement.kind in ("EARN", "ADJUST"):
            issued += movement.up_points
            withdrawn -= movement.down_points
        else:
            withdrawn -= movement.net_points
    return DayTotals(issued, redeemed, expired, withdrawn, outstanding_before + issued - redeemed - expired - withdrawn)


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


def revenue(allocated_minor_units: int, recognized_before_minor_units: int, redeemed_points: int, expected: Fraction) -> Revenue:
    """A cohort's revenue in a period.

    Args:
        allocated_minor_units: of the price, what was allocated to its points.
        recognized_before_minor_units: what `recognized` said when the period began.
        redeemed_points: until the end of the period, from the beginning.
        expected: points expected to be redeemed in the end, as estimated at the end of the period.
    """
    earned = recognized(allocated_minor_units, redeemed_points, expected)
    return Revenue(allocated_minor_units, expected, earned, earned - recognized_before_minor_units)
