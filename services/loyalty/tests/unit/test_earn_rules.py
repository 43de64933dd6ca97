from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty.domain.earn_rules import (
    CATEGORIES_OF_POINTS,
    Cap,
    Caps,
    Definition,
    Doing,
    ExpressionRule,
    RuleKind,
    Stacking,
    Standing,
    Why,
    caps_of,
    earn,
    in_force,
    violations,
)
from loyalty.domain.earning import Direction, RuleVersion, Transaction

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ZONE = ZoneInfo("Asia/Shanghai")

NOBODY = Standing()


def base(rule_id="base", points="amount / 100", most=10_000, **changes) -> ExpressionRule:
    limits = {name: changes.pop(name) for name in list(changes) if name.endswith("_points_max")}
    window = {name: changes.pop(name) for name in ("effective_time", "end_time") if name in changes}
    fields = {"kind": RuleKind.BASE, "points": points} | changes
    definition = Definition(caps=Caps(most, **limits), **fields)
    return ExpressionRule(
        "p", rule_id, changes.get("version", 1), definition, window.get("effective_time", JANUARY), window.get("end_time")
    )


def promotion(rule_id, numerator=0, denominator=0, points="", **changes) -> ExpressionRule:
    return base(rule_id, points, kind=RuleKind.PROMOTION, numerator=numerator, denominator=denominator, **changes)


def spent(minor_units=10_000, at=NOON, category="grocery", **changes) -> Doing:
    return Doing("TRANSACTION", "bank", at, Transaction("CNY", -minor_units, category, at), **changes)


def earned(rules, doing=None, standing=NOBODY, used=None, member="m"):
    return earn(rules, "bank", doing or spent(), standing, ZONE, member, {} if used is None else used)


def why(result) -> dict[str, Why]:
    return {line.rule.rule_id: line.why for line in result.lines}


LINEAR = RuleVersion("p", "linear", 1, "CNY", frozenset(), Direction.SPENT, 0, 1, 200, 1000, JANUARY)


def test_the_best_base_earns_and_linear_rules_go_on():
    result = earned([LINEAR, base()])
    assert (result.points, result.rule, why(result)["linear"]) == (100, "base/versions/1", Why.ANOTHER_GIVES_MORE)
    assert earned([LINEAR]).points == 50
    assert earned([LINEAR], spent(category="points-redemption")).points == 0
    assert earned([LINEAR], replace(spent(), institution_id="shop")).points == 0


@pytest.mark.parametrize(
    ("promotions", "points"),
    [
        ([promotion("double", 2, 1)], 200),
        ([promotion("double", 2, 1), promotion("half", 3, 2)], 250),
        ([promotion("double", 2, 1, stacking=Stacking.MAX), promotion("half", 3, 2, stacking=Stacking.MAX)], 200),
        ([promotion("double", 2, 1, stacking=Stacking.MAX), promotion("half", 3, 2, stacking=Stacking.MAX),
          promotion("plus", points="7")], 207),
        ([promotion("plus", points="tier_percent - 100")], 150),
        ([promotion("gold", 2, 1, condition="tier == 'gold'")], 200),
        ([promotion("platinum", 2, 1, condition="level == 'PLATINUM'")], 100),
        ([promotion("gone", 2, 1, end_time=NOON)], 100),
        ([promotion("later", 2, 1, effective_time=NOON + timedelta(seconds=1))], 100),
        ([promotion("capped", 2, 1, most=30)], 130),
        ([promotion("broken", points="amount / (amount - 10000)")], 100),
        ([promotion("evening", 2, 1, condition="local.hour == 20 && local.weekday == 5 && date == '2026-05-01'")], 200),
    ],
)  # fmt: skip
def test_promotions_stack_as_they_say(promotions, points):
    assert earned([base(), *promotions], standing=Standing("GOLD", "GOLD", "gold", 2, 150)).points == points


def test_a_multiplier_without_a_base_multiplies_nothing():
    result = earned([promotion("double", 2, 1)])
    assert (result.points, why(result)) == (0, {"double": Why.NO_BASE})


def test_points_never_earn_points():
    for category in CATEGORIES_OF_POINTS:
        result = earned([base(), LINEAR], spent(category=category))
        assert (result.points, set(why(result).values())) == (0, {Why.PAID_WITH_POINTS})


def test_other_activities_earn_where_a_rule_names_their_kind():
    welcome = base("welcome", "100", activity_kinds=frozenset({"LIFE_EVENT"}), condition="detail == 'FIRST_SALARY'")
    event = Doing("LIFE_EVENT", "bank", NOON, detail="FIRST_SALARY")
    assert earned([base(), welcome], event).points == 100
    assert earned([base(), welcome]).points == 100
    assert why(earned([base(), welcome]))["welcome"] is Why.OTHER_KIND


def test_a_rule_for_partners_applies_there_and_not_at_home():
    abroad = base("abroad", institution_ids=frozenset({"shop"}))
    assert earned([abroad], replace(spent(), institution_id="shop")).points == 100
    assert why(earned([abroad])) == {"abroad": Why.OTHER_INSTITUTION}


def test_days_and_months_are_those_of_the_zone():
    rule = base(member_day_points_max=150)
    used: dict[Cap, int] = {}
    late = datetime(2026, 5, 1, 15, 59, tzinfo=UTC)  # 23:59 in Shanghai
    assert [earned([rule], spent(at=at), used=used).points for at in (late, late, late + timedelta(minutes=1))] == [100, 50, 100]
    assert {cap.start for cap in used} == {date(2026, 5, 1), date(2026, 5, 2)}


def test_a_newer_version_replaces_across_forms():
    newer = replace(base("linear"), version=2, effective_time=NOON)
    assert in_force([LINEAR, newer], NOON) == [newer]
    assert in_force([LINEAR, newer], NOON - timedelta(seconds=1)) == [LINEAR]
    assert in_force([LINEAR, replace(newer, end_time=NOON)], NOON) == []


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50_000), st.integers(0, 90)), max_size=40),
    st.integers(1, 300), st.integers(1, 200), st.integers(1, 400), st.integers(1, 500), st.integers(1, 900),
)  # fmt: skip
def test_no_cap_is_ever_exceeded_and_nothing_is_withheld_below_it(doings, activity, day, month, member, total):
    caps = {
        "member_day_points_max": day,
        "member_month_points_max": month,
        "member_points_max": member,
        "total_points_max": total,
    }
    rule, used, sums = base(most=activity, **caps), {}, {}  # type: ignore[var-annotated]
    for who, amount, days in doings:
        at = NOON + timedelta(days=days)
        local = at.astimezone(ZONE).date()
        result = earned([rule], spent(amount, at), used=used, member=who)
        room = [activity]
        for cap, most in caps_of(rule, who, local):
            room.append(most - sums.get(cap, 0))
            sums[cap] = sums.get(cap, 0) + result.points
            assert sums[cap] <= most
        assert result.points == max(0, min(amount // 100, *room))
    assert {cap: points for cap, points in sums.items() if points} == used


@given(st.lists(st.tuples(st.integers(2, 50), st.integers(1, 49)), max_size=5), st.integers(0, 10**9))
def test_the_sum_of_multipliers_is_exact(fractions, amount):
    multipliers = [(n, d) for n, d in fractions if n > d]
    promotions = [promotion(f"x{i}", n, d, most=10**12) for i, (n, d) in enumerate(multipliers)]
    whole = min(amount // 100, 10**12)
    wanted = whole + sum(whole * (n - d) // d for n, d in multipliers)
    assert earned([base(most=10**12), *promotions], spent(amount)).points == wanted


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, []),
        ({"condition": "amount >"}, ["condition"]),
        ({"condition": ""}, ["condition"]),
        ({"points": "amount * 1.5"}, ["points"]),
        ({"points": ""}, ["points"]),
        ({"numerator": 1, "denominator": 2}, ["points"]),
        ({"points": "", "numerator": 1, "denominator": 0}, ["fraction"]),
        ({"points": "", "kind": RuleKind.PROMOTION, "numerator": 1, "denominator": 2}, ["fraction"]),
        ({"activity_kinds": frozenset({"DANCE"})}, ["activity_kinds"]),
        ({"caps": Caps(0)}, ["caps.activity_points_max"]),
        ({"caps": Caps(1, total_points_max=0)}, ["caps.total_points_max"]),
    ],
)
def test_what_is_wrong_with_a_rule_is_named(changes, fields):
    definition = Definition(**{"kind": RuleKind.BASE, "caps": Caps(10), "points": "1"} | changes)
    assert [field for field, _ in violations(definition)] == fields
