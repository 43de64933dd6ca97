"""Levels by thresholds; stages of life; rules of a scorecard."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.domain.facts import ALLIANCE, Facts, Holding, MonthTurnover, month_of
from rating.domain.levels import customer_level
from rating.domain.lifecycle import Stage, lifecycle_stage
from rating.domain.scorecard import (
    DegreeKind,
    Level,
    LevelThreshold,
    LoyaltyParameters,
    PiecewiseLinearMap,
    Scorecard,
    violations,
)

THRESHOLDS = (
    LevelThreshold(Level.PLATINUM, ((DegreeKind.LOYALTY, 80.0), (DegreeKind.CREDIT, 50.0))),
    LevelThreshold(Level.GOLD, ((DegreeKind.CONTRIBUTION, 60.0),)),
    LevelThreshold(Level.SILVER, ((DegreeKind.LOYALTY, 30.0),)),
)
values = st.dictionaries(st.sampled_from(DegreeKind), st.none() | st.floats(0, 100))


@given(values, st.sampled_from(DegreeKind), st.floats(0, 100))
def test_a_better_degree_never_lowers_the_level(values, kind, value):
    before = values.get(kind)
    if before is None or value >= before:
        assert customer_level(values | {kind: value}, THRESHOLDS) >= customer_level(values, THRESHOLDS)


def test_the_first_level_from_the_top_whose_minimums_are_all_met():
    assert customer_level({DegreeKind.LOYALTY: 80, DegreeKind.CREDIT: 50}, THRESHOLDS) is Level.PLATINUM
    assert customer_level({DegreeKind.LOYALTY: 80, DegreeKind.CREDIT: None}, THRESHOLDS) is Level.SILVER
    assert customer_level({DegreeKind.CONTRIBUTION: 60, DegreeKind.LOYALTY: 30}, THRESHOLDS) is Level.GOLD
    assert customer_level({DegreeKind.LOYALTY: 29.99}, THRESHOLDS) is Level.BASIC
    assert customer_level({}, THRESHOLDS) is Level.BASIC


AS_OF = datetime(2016, 12, 31, tzinfo=UTC)
MONTH = month_of(AS_OF.date())
OLD = Holding("DEPOSIT", date(2010, 1, 1), None)


def stage(*holdings, before=0, last=0):
    """The stage with a turnover in each month of the earlier half year, and in each of the later."""
    months = [(MONTH - i, last if i < 6 else before) for i in range(12)]
    turnover = tuple(MonthTurnover(month, "CZK", amount, 0, 0, 1) for month, amount in months if amount)
    return lifecycle_stage(Facts(scope=ALLIANCE, as_of=AS_OF, holdings=holdings, turnover=turnover))


def test_stages():
    assert stage() is Stage.PROSPECT
    assert stage(replace(OLD, close_date=date(2016, 1, 1))) is Stage.LOST
    assert stage(replace(OLD, open_date=date(2016, 1, 1))) is Stage.GROWTH
    assert stage(replace(OLD, open_date=date(2015, 12, 31))) is Stage.MATURE
    assert stage(OLD, replace(OLD, close_date=date(2016, 1, 1))) is Stage.MATURE
    assert stage(OLD, before=100, last=76) is Stage.MATURE
    assert stage(OLD, before=100, last=75) is Stage.DECLINE
    assert stage(OLD, before=100, last=0) is Stage.DECLINE
    assert stage(replace(OLD, open_date=date(2016, 2, 1)), before=100, last=0) is Stage.GROWTH


def test_a_fall_needs_enough_months_and_a_month_that_has_just_begun_is_not_one():
    two_months = tuple(MonthTurnover(MONTH - i, "CZK", 100, 0, 0, 1) for i in (7, 8))
    assert lifecycle_stage(Facts(ALLIANCE, AS_OF, holdings=(OLD,), turnover=two_months)) is Stage.MATURE
    steady = tuple(MonthTurnover(MONTH - i, "CZK", 1 if i == 0 else 100, 0, 0, 1) for i in range(13))
    begun = datetime(2016, 12, 2, tzinfo=UTC)
    assert lifecycle_stage(Facts(ALLIANCE, begun, holdings=(OLD,), turnover=steady)) is Stage.MATURE


GOOD = Scorecard(
    loyalty=LoyaltyParameters(0.4, 3.0, 0.3, 5, 0.3),
    contribution=PiecewiseLinearMap(((0.0, 0.0), (1.0, 100.0))),
    credit=PiecewiseLinearMap(((0.0, 100.0), (1.0, 0.0))),
    level_thresholds=THRESHOLDS,
    reference_currency_code="CNY",
)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"loyalty": LoyaltyParameters(0.4, 3.0, 0.3, 5, 0.2)}, "loyalty"),
        ({"loyalty": LoyaltyParameters(float("nan"), 3.0, 0.3, 5, 0.2)}, "loyalty"),
        ({"contribution": PiecewiseLinearMap(((1.0, 0.0), (1.0, 9.0)))}, "contribution.points[1].x"),
        ({"credit": PiecewiseLinearMap(((0.0, 0.0), (float("inf"), 9.0)))}, "credit.points[1].x"),
        ({"credit": PiecewiseLinearMap(((0.0, 0.0), (1.0, 101.0)))}, "credit.points[1].y"),
        ({"level_thresholds": THRESHOLDS[::-1]}, "level_thresholds[1].customer_level"),
        ({"level_thresholds": (LevelThreshold(Level.BASIC, ()),)}, "level_thresholds[0].customer_level"),
        (
            {"level_thresholds": (LevelThreshold(Level.GOLD, ((DegreeKind.CREDIT, 1.0), (DegreeKind.CREDIT, 2.0))),)},
            "level_thresholds[0].degree_minimums[1].degree_kind",
        ),
    ],
)
def test_a_scorecard_that_breaks_a_rule_is_told_which(change, field):
    assert field in [found for found, _ in violations(replace(GOOD, **change))]


def test_a_good_scorecard_breaks_none():
    assert violations(GOOD) == []
