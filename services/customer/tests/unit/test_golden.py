from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customer.domain.golden import Ranks, RecordView, Stated, golden
from customer.domain.vocabulary import Attribute, SurvivorshipRule

START = datetime(2026, 1, 1, tzinfo=UTC)
NAME, PHONE = Attribute.NAME, Attribute.PHONE


def view(number, *values, rank=10, day=0, source="a", valid=True, attribute=NAME, ranks=None):
    statements = {attribute: [Stated(value, value, valid) for value in values]}
    return RecordView(UUID(int=number), source, START + timedelta(days=day), Ranks(rank, ranks or {}), statements)


values = st.sampled_from(["", "x", "y", "z"])
records = st.lists(
    st.builds(
        RecordView,
        record_id=st.uuids(),
        source_system=st.sampled_from("abc"),
        observed_at=st.integers(0, 3).map(lambda day: START + timedelta(days=day)),
        ranks=st.builds(Ranks, st.integers(1, 3), st.dictionaries(st.sampled_from(list(Attribute)), st.integers(1, 3))),
        statements=st.dictionaries(
            st.sampled_from([NAME, PHONE]),
            st.lists(st.builds(lambda value, valid: Stated(value, value, valid), values, st.booleans()), max_size=3),
        ),
    ),
    max_size=6,
    unique_by=lambda record: record.record_id,
)


def told(believed):
    return {
        attribute: [(one.value, one.valid, one.record.record_id, one.rank, one.rule, one.rivals_count) for one in ones]
        for attribute, ones in believed.items()
    }


@given(records, st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(given_records, random):
    shuffled = list(given_records)
    random.shuffle(shuffled)
    assert told(golden(shuffled)) == told(golden(given_records))


@given(records)
def test_every_value_that_is_stated_is_kept_once_and_has_its_origin(given_records):
    believed = golden(given_records)
    for attribute in (NAME, PHONE):
        stated = {one.value for record in given_records for one in record.statements.get(attribute, ()) if one.value != ""}
        kept = believed.get(attribute, [])
        assert sorted(one.value for one in kept) == sorted(stated)
        for one in kept:
            assert Stated(one.value, one.value, one.valid) in one.record.statements[attribute]
            assert one.rank == one.record.ranks.of(attribute)
            sources = {
                record.source_system for record in given_records if any(s.value for s in record.statements.get(attribute, ()))
            }
            assert one.agreeing_count >= 1
            assert one.agreeing_count + one.conflicting_count == len(sources)


@given(records)
def test_the_best_is_not_beaten_by_any_rule(given_records):
    for attribute, ones in golden(given_records).items():
        best = ones[0]
        mine = (not best.valid, best.rank, -best.record.observed_at.timestamp(), best.record.record_id)
        for record in given_records:
            for stated in record.statements.get(attribute, ()):
                if stated.value:
                    rank = record.ranks.of(attribute)
                    assert mine <= (not stated.valid, rank, -record.observed_at.timestamp(), record.record_id)


@pytest.mark.parametrize(
    ("records", "value", "rule"),
    [
        ([view(1, "x")], "x", SurvivorshipRule.ONLY_VALUE),
        ([view(1, "x"), view(2, "x", rank=1)], "x", SurvivorshipRule.ONLY_VALUE),
        ([view(1, "x", rank=1, valid=False), view(2, "y", rank=9)], "y", SurvivorshipRule.VALID),
        ([view(1, "x", rank=1), view(2, "y", day=9)], "x", SurvivorshipRule.RANK),
        ([view(1, "x", rank=1), view(2, "y", rank=9, ranks={NAME: 0})], "y", SurvivorshipRule.RANK),
        ([view(1, "x"), view(2, "y", day=1)], "y", SurvivorshipRule.RECENCY),
        ([view(1, "x"), view(2, "y")], "x", SurvivorshipRule.TIE),
        ([view(1, "", rank=1, day=9), view(2, "y", valid=False)], "y", SurvivorshipRule.ONLY_VALUE),
    ],
)
def test_the_rules_in_their_order(records, value, rule):
    best = golden(records)[NAME][0]
    assert (best.value, best.rule) == (value, rule)


def test_sources_count_once_and_many_values_are_all_kept_best_first():
    believed = golden(
        [
            view(1, "x", "y", attribute=PHONE, source="a"),
            view(2, "x", attribute=PHONE, source="a", day=1),
            view(3, "z", attribute=PHONE, source="b", rank=20),
            view(4, "x", attribute=PHONE, source="c", rank=30),
        ]
    )[PHONE]
    assert [(one.value, one.record.record_id.int, one.rivals_count) for one in believed] == [
        ("x", 2, 2),
        ("y", 1, 1),
        ("z", 3, 0),
    ]
    assert [(one.agreeing_count, one.conflicting_count) for one in believed] == [(2, 1), (1, 2), (1, 2)]
    assert [one.rule for one in believed] == [SurvivorshipRule.RECENCY, SurvivorshipRule.RANK, SurvivorshipRule.RANK]
