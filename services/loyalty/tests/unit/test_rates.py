import itertools
import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from loyalty.domain import rates
from loyalty.domain.rates import Rate

START = datetime(2026, 11, 24, tzinfo=UTC)
PROGRAMS = "abcde"
fractions = st.builds(Fraction, st.integers(1, 12), st.integers(1, 12))
pairs = st.tuples(st.sampled_from(PROGRAMS), st.sampled_from(PROGRAMS)).filter(lambda pair: pair[0] != pair[1])


def best_product(edges) -> Fraction:
    """By trying every simple cycle."""
    best = Fraction(0)
    programs = {program for pair in edges for program in pair}
    for length in range(2, len(programs) + 1):
        for cycle in itertools.permutations(programs, length):
            steps = list(zip(cycle, cycle[1:] + cycle[:1], strict=True))
            if all(step in edges for step in steps):
                best = max(best, math.prod((edges[step] for step in steps), start=Fraction(1)))
    return best


def rate(source, target, numerator, denominator=1, days=0) -> Rate:
    return Rate(source, target, START + timedelta(days=days), numerator, denominator)


@given(st.dictionaries(pairs, fractions, max_size=14))
def test_a_gaining_cycle_is_found_exactly_when_there_is_one(edges):
    found = rates.gaining_cycle(edges)
    assert (found is not None) is (best_product(edges) > 1)
    if found is not None:
        steps = zip(found.programs, found.programs[1:] + found.programs[:1], strict=True)
        assert found.product == math.prod((edges[step] for step in steps), start=Fraction(1)) > 1


@given(st.lists(fractions, min_size=5, max_size=5), st.sets(pairs, max_size=20))
def test_rates_of_one_price_list_gain_nothing(values, chosen):
    edges = {(a, b): values[PROGRAMS.index(a)] / values[PROGRAMS.index(b)] for a, b in chosen}
    assert rates.gaining_cycle(edges) is None


@given(st.integers(2, 30), st.sampled_from([-1, 1]))
def test_floats_do_not_decide(length, sign):
    """A long cycle that multiplies to 1 ± 1e-18 or less: no float tells it from one."""
    big = 999_999_999
    edges = {(f"p{i:02}", f"p{(i + 1) % length:02}"): Fraction(1) for i in range(length)}
    first, second = list(edges)[:2]
    edges[first], edges[second] = Fraction(big + 1, big), Fraction(big, big + 1) + sign * Fraction(1, 10**27)
    found = rates.gaining_cycle(edges)
    assert (found is not None) is (sign > 0)
    if found is not None:
        assert 0 < found.product - 1 < Fraction(1, 10**20)


def test_a_market_of_many_programmes_is_decided_soon():
    names = [f"p{i:02}" for i in range(60)]
    value = {name: Fraction(i * 7 + 3, i + 2) for i, name in enumerate(names)}
    edges = {(a, b): value[a] / value[b] for a, b in itertools.permutations(names, 2)}
    assert rates.gaining_cycle(edges) is None
    edges["p59", "p00"] *= Fraction(10**18 + 1, 10**18)
    found = rates.gaining_cycle(edges)
    assert found is not None
    assert found.product == Fraction(10**18 + 1, 10**18)


def test_the_refusal_names_the_cycle_its_gain_and_when():
    published = [rate("a", "b", 1, 2), rate("b", "c", 3), rate("c", "a", 2, 3)]
    assert rates.gain_of_publishing(published[:2], published[2]) is None
    found = rates.gain_of_publishing(published, rate("c", "a", 7, 10, days=3))
    assert found is not None
    assert found.at == START + timedelta(days=3)
    assert str(found) == "a -> b -> c -> a multiplies points by 21/20 (a gain of 1/20)"


def test_later_rates_are_looked_at_too():
    """What is published today may gain only with what begins next week."""
    published = [rate("b", "a", 1, 2), rate("b", "a", 1, 1, days=7)]
    found = rates.gain_of_publishing(published, rate("a", "b", 2, days=1))
    assert found is not None
    assert found.at == START + timedelta(days=7)
    published.append(rate("a", "b", 1, days=7))
    assert rates.gain_of_publishing(published, rate("a", "b", 2, days=1)) is None
    assert rates.gain_of_publishing(published, rate("a", "b", 2, days=7)) is not None  # it would replace that one


def test_a_closed_pair_has_no_rate():
    published = [rate("a", "b", 2), rate("a", "b", 0, days=1)]
    assert rates.gain_of_publishing(published, rate("b", "a", 1, days=1)) is None
    assert rates.gain_of_publishing(published, rate("b", "a", 1)) is not None
    assert [list(rates.in_force(published, START + timedelta(days=d))) for d in (-1, 0, 1)] == [[], [("a", "b")], []]


@given(st.integers(0, 10**12), st.integers(1, 10**9), st.integers(1, 10**9))
def test_least_points_for_a_value(value, numerator, denominator):
    points = rates.points_needed(value, numerator, denominator)
    assert rates.converted(points, numerator, denominator) >= value
    assert points == 0 or rates.converted(points - 1, numerator, denominator) < value


@given(st.integers(0, 10**9), fractions, fractions)
def test_there_and_back_never_gains(points, there, back):
    if there * back > 1:
        back = 1 / there
    way = rates.converted(points, there.numerator, there.denominator)
    assert rates.converted(way, back.numerator, back.denominator) <= points
