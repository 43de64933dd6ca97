from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty.domain.earning import Direction, RuleVersion, Transaction, earn, in_force, points_earned

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)


def rule(rule_id="all", version=1, program_id="p", **changes) -> RuleVersion:
    fields: dict[str, Any] = {
        "currency_code": "USD", "categories": frozenset(), "direction": Direction.SPENT, "amount_minor_units_min": 0,
        "points_numerator": 1, "points_denominator": 100, "points_max": 1000, "effective_time": JANUARY,
    }  # fmt: skip
    return RuleVersion(program_id, rule_id, version, **fields | changes)


def spent(minor_units, category="grocery", currency_code="USD", occurred_at=JANUARY) -> Transaction:
    return Transaction(currency_code, -minor_units, category, occurred_at)


@pytest.mark.parametrize(
    ("changes", "transaction", "points"),
    [
        ({}, spent(12_345), 123),
        ({}, spent(99), 0),
        ({}, spent(10_000_000), 1000),
        ({}, Transaction("USD", 12_345, "grocery", JANUARY), 0),
        ({"direction": Direction.RECEIVED}, Transaction("USD", 12_345, "salary", JANUARY), 123),
        ({"direction": Direction.RECEIVED}, spent(12_345), 0),
        ({}, spent(0), 0),
        ({}, spent(12_345, currency_code="EUR"), 0),
        ({"categories": frozenset({"fuel"})}, spent(12_345), 0),
        ({"categories": frozenset({"fuel", "grocery"})}, spent(12_345), 123),
        ({"amount_minor_units_min": 500}, spent(499), 0),
        ({"amount_minor_units_min": 500}, spent(500), 5),
        ({"points_numerator": 3, "points_denominator": 7}, spent(100), 42),
    ],
)
def test_points_of_a_transaction(changes, transaction, points):
    assert points_earned(rule(**changes), transaction) == points


@given(st.integers(1, 10**15), st.integers(1, 10**9), st.integers(1, 10**9), st.integers(1, 10**12))
def test_points_are_exact_rounded_down_and_capped(amount, numerator, denominator, most):
    points = points_earned(rule(points_numerator=numerator, points_denominator=denominator, points_max=most), spent(amount))
    exact = Fraction(amount * numerator, denominator)
    assert points == most or (points <= exact < points + 1 and points <= most)
    assert points <= most


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_spending_more_never_earns_less(one, other):
    less, more = sorted((one, other))
    assert points_earned(rule(), spent(less)) <= points_earned(rule(), spent(more))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5)), max_size=8), st.integers(-1, 6))
def test_the_newest_effective_version_is_in_force(made, day):
    counts: dict[str, int] = {}
    versions = []
    for rule_id, effective in made:
        counts[rule_id] = counts.get(rule_id, 0) + 1
        versions.append(rule(rule_id, counts[rule_id], effective_time=JANUARY + timedelta(days=effective)))
    at = JANUARY + timedelta(days=day)
    found = {version.rule_id: version.version for version in in_force(versions, at)}
    for rule_id in "ab":
        effective = [v.version for v in versions if v.rule_id == rule_id and v.effective_time <= at]
        assert found.get(rule_id) == (max(effective) if effective else None)


def test_each_programme_earns_once_by_its_best_rule():
    rules = [
        rule("b", points_numerator=2), rule("a", points_numerator=2), rule("c"),
        rule("x", program_id="q"), rule("y", program_id="r", categories=frozenset({"fuel"})),
    ]  # fmt: skip
    assert [(e.rule.program_id, e.rule.rule_id, e.points) for e in earn(rules, spent(500))] == [("p", "a", 10), ("q", "x", 5)]
    assert earn(rules, spent(500, occurred_at=JANUARY - timedelta(seconds=1))) == []
