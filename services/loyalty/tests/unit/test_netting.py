"""Settlement's arithmetic: whatever was exchanged, nothing is lost by rounding and nothing by netting."""

from datetime import UTC, datetime, time, timedelta
from fractions import Fraction
from itertools import combinations
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty.domain.netting import EXACT_INSTITUTIONS_MAX, instructions_of
from loyalty.domain.settlement import (
    Group,
    LineKind,
    Terms,
    business_date,
    cut_off_before,
    lines_of,
    merged,
    pairs_of,
    points_to_clear,
    positions_of,
)

A, B, C, X = (UUID(int=n) for n in range(4))
INSTITUTIONS = ["bank", "broker", "cafe", "hotel", "shop"]
both = st.permutations(INSTITUTIONS).map(lambda order: order[:2])


def agreed(one: str, other: str, *rest) -> Terms:
    """Terms between two institutions; an agreement is theirs in both directions, so that spans of it are mixed."""
    return Terms(one, other, UUID(int=1 << INSTITUTIONS.index(one) | 1 << INSTITUTIONS.index(other)), *rest)


terms = st.builds(
    lambda two, *rest: agreed(*two, *rest),
    both, st.integers(1, 2), st.sampled_from(["p", "q"]), st.integers(0, 10**9), st.integers(1, 10**9), st.integers(0, 10_000),
    st.booleans(),
)  # fmt: skip
groups = st.builds(Group, terms, st.integers(1, 10**6), st.integers(-(10**12), 10**12), st.booleans())


@given(st.lists(groups, max_size=30))
def test_positions_sum_to_zero_and_are_what_the_pairs_say(made):
    pairs = pairs_of(lines_of(made))
    positions = positions_of(pairs)
    assert sum(positions.values()) == 0
    for institution, position in positions.items():
        owed = sum(pair.owed_by(institution) for pair in pairs if institution in (pair.first, pair.second))
        assert position == -owed


@given(st.lists(groups, max_size=30))
def test_a_pair_is_rounded_once_and_its_residue_is_exact(made):
    lines = lines_of(made)
    for pair in pairs_of(lines):
        exact = sum((line.amount for line in lines if (line.payer, line.payee) == (pair.first, pair.second)), Fraction(0))
        exact -= sum((line.amount for line in lines if (line.payer, line.payee) == (pair.second, pair.first)), Fraction(0))
        assert exact + pair.residue == pair.amount_minor_units
        assert abs(pair.residue) <= Fraction(1, 2)
        if abs(pair.residue) == Fraction(1, 2):
            assert pair.amount_minor_units % 2 == 0


@given(st.lists(groups, max_size=30))
def test_every_item_is_in_exactly_one_leading_line(made):
    leading = [line for line in lines_of(made) if line.kind in (LineKind.PRINCIPAL, LineKind.CORRECTION)]
    assert sum(line.items_count for line in leading) == sum(group.items_count for group in made)
    assert sum(line.points for line in leading) == sum(group.points for group in made)
    by_hand = sum((Fraction(g.points * g.terms.price_numerator, g.terms.price_denominator) for g in made), Fraction(0))
    assert sum((line.amount for line in leading), Fraction(0)) == by_hand


@given(st.lists(groups, max_size=30), st.randoms(use_true_random=False))
def test_the_order_and_cutting_of_groups_change_nothing(made, chance):
    cut = []
    for group in made:
        part = chance.randint(0, group.items_count)
        cut += [
            group._replace(items_count=part, points=7),
            group._replace(items_count=group.items_count - part, points=group.points - 7),
        ]
    chance.shuffle(cut)
    assert merged(cut) == merged(made)
    assert lines_of(cut) == lines_of(made)


def test_by_hand():
    """1,001 points at 1/3 of a cent with 150 basis points of fee, and 10 back at a whole cent."""
    there = Terms("bank", "shop", A, 1, "p", 1, 3, 150)
    back = Terms("shop", "bank", B, 1, "q", 1, 1, 0)
    lines = lines_of([Group(there, 3, 1001), Group(back, 1, 10)])
    assert [(line.kind, line.payer, line.amount) for line in lines] == [
        (LineKind.PRINCIPAL, "bank", Fraction(1001, 3)),
        (LineKind.FEE, "shop", Fraction(1001, 200)),
        (LineKind.PRINCIPAL, "shop", Fraction(10)),
    ]
    [pair] = pairs_of(lines)  # 333.666… - 5.005 - 10 = 318.661…
    assert (pair.first, pair.second, pair.amount_minor_units) == ("bank", "shop", 319)
    assert pair.residue == 319 - (Fraction(1001, 3) - Fraction(1001, 200) - 10)


def test_packs_bear_whole_minor_units_and_the_rest_stays_in_the_pair():
    prepaid = Terms("bank", "shop", A, 1, "p", 1, 3, 100, True)
    lines = lines_of([Group(prepaid, 1, 1000), Group(prepaid, 1, 3, True)])
    assert [(line.kind, line.amount) for line in lines] == [
        (LineKind.PRINCIPAL, Fraction(1000, 3)),
        (LineKind.FEE, Fraction(10, 3)),
        (LineKind.PREFUNDED, Fraction(333)),
        (LineKind.CORRECTION, Fraction(1)),
        (LineKind.CORRECTION_FEE, Fraction(1, 100)),
    ]
    [pair] = pairs_of(lines)  # a third of the principal and the correction, less 1 % of both
    assert (pair.exact, pair.amount_minor_units) == (Fraction(1, 3) + 1 - Fraction(10, 3) - Fraction(1, 100), -2)


def test_half_a_minor_unit_goes_to_the_even_side():
    halves = [Terms("a", "b", X, 1, "p", numerator, 2, 0) for numerator in (1, 3, 5)]
    assert [pairs_of(lines_of([Group(one, 1, 1)]))[0].amount_minor_units for one in halves] == [0, 2, 2]


def test_what_goes_back_to_the_issuer():
    redeemed, refunded = Terms("bank", "shop", A, 1, "p", 1, 1, 0), Terms("bank", "shop", A, 2, "p", 2, 1, 0)
    sold = Terms("shop", "bank", C, 1, "p", 1, 1, 0)
    made = [Group(redeemed, 2, 100), Group(refunded, 1, -30), Group(sold, 1, 500), Group(redeemed, 1, 9, True)]
    assert points_to_clear(made, {"p": "bank"}) == {("shop", "p"): 70}


zero_sums = st.dictionaries(st.text("abcdefghijklmnop", min_size=1, max_size=2), st.integers(-(10**6), 10**6), max_size=9).map(
    lambda drawn: drawn | {"rest": -sum(drawn.values())}
)


@given(zero_sums)
def test_instructions_settle_every_position(positions):
    left = dict(positions)
    for instruction in instructions_of(positions):
        assert instruction.amount_minor_units > 0
        left[instruction.payer] += instruction.amount_minor_units
        left[instruction.payee] -= instruction.amount_minor_units
    assert not any(left.values())


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=6))
def test_there_are_never_fewer_payments(amounts):
    """Against all partitions: institutions less the most groups that sum to zero."""
    amounts = [amount for amount in [*amounts, -sum(amounts)] if amount]
    positions = {f"i{n}": amount for n, amount in enumerate(amounts)}
    assert len(instructions_of(positions)) == len(amounts) - most_groups(tuple(amounts))


def most_groups(amounts: tuple[int, ...]) -> int:
    if not amounts:
        return 0
    first, rest = amounts[0], list(range(1, len(amounts)))
    counts = [
        1 + most_groups(tuple(amounts[n] for n in rest if n not in chosen))
        for size in range(len(rest) + 1)
        for chosen in combinations(rest, size)
        if first + sum(amounts[n] for n in chosen) == 0
    ]
    return max(counts)


def test_many_institutions_and_wrong_positions():
    many = {f"i{n:02}": (-1) ** n * (n // 2 + 1) for n in range(2 * EXACT_INSTITUTIONS_MAX)}
    assert len(instructions_of(many)) < len(many)
    with pytest.raises(ValueError, match="sum to zero"):
        instructions_of({"a": 1, "b": 1})


@pytest.mark.parametrize(
    ("now", "at", "zone", "expected"),
    [
        ("2026-11-24T16:59", "17:00", "UTC", "2026-11-23T17:00"),
        ("2026-11-24T17:00", "17:00", "UTC", "2026-11-24T17:00"),
        ("2026-11-24T08:00", "17:00", "Asia/Shanghai", "2026-11-23T09:00"),
        ("2026-11-24T23:30", "00:00", "Pacific/Kiritimati", "2026-11-24T10:00"),
        ("2026-03-29T05:00", "02:30", "Europe/Prague", "2026-03-29T01:30"),  # 02:30 is left out: 03:30 summer time
        ("2026-10-25T00:45", "02:30", "Europe/Prague", "2026-10-25T00:30"),  # 02:30 comes twice: the first time
        ("2026-10-25T01:45", "02:30", "Europe/Prague", "2026-10-25T00:30"),
    ],
)
def test_cut_offs_are_local(now, at, zone, expected):
    instant = datetime.fromisoformat(now).replace(tzinfo=UTC)
    found = cut_off_before(instant, time.fromisoformat(at), ZoneInfo(zone))
    assert found == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@given(st.integers(0, 10 * 365 * 86_400), st.times(), st.sampled_from(["Europe/Prague", "America/New_York"]))
def test_there_is_one_cut_off_a_local_day(seconds, at, zone):
    now, where = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds), ZoneInfo(zone)
    last = cut_off_before(now, at, where)
    before = cut_off_before(last - timedelta(microseconds=1), at, where)
    assert before < last <= now
    assert cut_off_before(last, at, where) == last
    assert business_date(last, where) - business_date(before, where) == timedelta(days=1)
