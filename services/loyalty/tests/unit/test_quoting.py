from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty.domain.quoting import NEVER, Available, Choice, Precedence, Terms, money_for, plan
from loyalty.domain.rates import converted

START = datetime(2026, 11, 24, tzinfo=UTC)
PROGRAMS = ["air", "bank", "card", "deli"]
instants = st.one_of(st.none(), st.integers(1, 6).map(lambda day: START + timedelta(days=day)))
parts = st.lists(st.builds(Available, st.sampled_from(PROGRAMS), st.integers(0, 60), instants), max_size=12)
terms_of = st.dictionaries(st.sampled_from(PROGRAMS), st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=4).map(
    lambda rates: {program: Terms(program, *rate) for program, rate in rates.items()}
)
choices_of = st.lists(
    st.builds(Choice, st.sampled_from(PROGRAMS), st.one_of(st.none(), st.integers(0, 80))),
    max_size=4, unique_by=lambda choice: choice.program_id,
)  # fmt: skip
prices = st.integers(1, 200)
precedences = st.sampled_from(Precedence)


def total(available, program, until=NEVER) -> int:
    return sum(p.points for p in available if p.program_id == program and (p.expire_time or NEVER) <= until)


@given(prices, parts, terms_of, precedences, choices_of)
def test_the_price_is_covered_exactly_by_least_points(price, available, terms, precedence, choices):
    made = plan(price, available, terms, precedence, choices)
    assert sum(line.value for line in made.lines) + made.rest == price
    assert made.rest >= 0
    for line in made.lines:
        rate = line.terms.numerator, line.terms.denominator
        assert 0 < line.points <= total(available, line.terms.program_id)
        assert converted(line.points, *rate) >= line.value > converted(line.points - 1, *rate)
        assert line.residue == Fraction(line.points * rate[0], rate[1]) - line.value
        assert 0 <= line.residue < Fraction(*rate)
    assert len({line.terms.program_id for line in made.lines}) == len(made.lines)


@given(prices, parts, terms_of, precedences, choices_of)
def test_money_is_left_only_when_the_points_are_all_used(price, available, terms, precedence, choices):
    made = plan(price, available, terms, precedence, choices)
    limits = {choice.program_id: choice.points_max for choice in choices}
    worth = 0
    for program, mine in terms.items():
        points = total(available, program)
        if precedence is Precedence.CHOICE:
            limit = limits.get(program, 0)
            points = points if limit is None else min(points, limit)
        worth += converted(points, mine.numerator, mine.denominator)
    assert made.rest == max(0, price - worth)


@given(prices, parts, terms_of)
def test_what_expires_sooner_goes_first(price, available, terms):
    """When points of one date are used, all that end before could not have covered anything more."""
    made = plan(price, available, terms, Precedence.SOONEST_EXPIRY)
    used = {line.terms.program_id: line for line in made.lines}
    for date in sorted({part.expire_time or NEVER for part in available}):
        worth = sum(converted(total(available, p, date), m.numerator, m.denominator) for p, m in terms.items())
        by_then = sum(
            min(line.value, converted(total(available, p, date), line.terms.numerator, line.terms.denominator))
            for p, line in used.items()
        )
        assert by_then == min(price, worth)


@given(prices, parts, terms_of)
def test_the_best_worth_goes_first(price, available, terms):
    made = plan(price, available, terms, Precedence.BEST_VALUE)
    values = {line.terms.program_id: line.value for line in made.lines}
    worths = [(Fraction(m.numerator, m.denominator), p) for p, m in terms.items()]
    for worth, program in worths:
        if any(values.get(other) for lesser, other in worths if lesser < worth):
            mine = terms[program]
            assert values.get(program, 0) == converted(total(available, program), mine.numerator, mine.denominator)


@given(prices, parts, terms_of, choices_of)
def test_the_customers_choice_is_kept(price, available, terms, choices):
    made = plan(price, available, terms, Precedence.CHOICE, choices)
    order = [choice.program_id for choice in choices]
    assert [line.terms.program_id for line in made.lines] == [p for p in order if p in {x.terms.program_id for x in made.lines}]
    limits = {choice.program_id: choice.points_max for choice in choices}
    assert all(limits[line.terms.program_id] is None or line.points <= limits[line.terms.program_id] for line in made.lines)


@given(prices, parts, terms_of, precedences, choices_of)
def test_the_order_in_which_lots_are_read_does_not_matter(price, available, terms, precedence, choices):
    assert plan(price, available, terms, precedence, choices) == plan(price, available[::-1], terms, precedence, choices)


def test_halves_of_two_dates_make_a_whole():
    available = [Available("air", 1, START), Available("air", 1, None)]
    made = plan(1, available, {"air": Terms("air", 1, 2)})
    assert [(line.points, line.value, line.residue) for line in made.lines] == [(2, 1, Fraction(0))]


def test_a_point_worth_more_than_the_rest_leaves_a_residue():
    made = plan(10, [Available("air", 5), Available("bank", 3, START)], {"air": Terms("air", 7, 2), "bank": Terms("bank", 1, 1)})
    assert [(line.terms.program_id, line.points, line.value, line.residue) for line in made.lines] == [
        ("bank", 3, 3, Fraction(0)), ("air", 2, 7, Fraction(0)),
    ]  # fmt: skip
    made = plan(2, [Available("air", 5)], {"air": Terms("air", 7, 2)})
    assert [(line.points, line.value, line.residue) for line in made.lines] == [(1, 2, Fraction(3, 2))]


@pytest.mark.parametrize(("rest", "expected"), [(0, 0), (1, 1), (3, 1), (4, 2), (300, 100)])
def test_money_for_points_is_rounded_up_once(rest, expected):
    assert money_for(rest, 1, 3) == expected
