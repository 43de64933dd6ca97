import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customer.domain.golden import Ranks, RecordView, Stated, golden
from customer.domain.survivorship import (
    AttributeStandard,
    Policy,
    SourceTrust,
    Verification,
    Verified,
    standard_from,
    to_data,
    violations,
)
from customer.domain.vocabulary import Attribute, SurvivorshipRule, VerificationMethod
from customer.survivorship_standard import first_policy

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=100)
NAME, PHONE = Attribute.NAME, Attribute.PHONE
R = SurvivorshipRule
SOURCES = {letter: f"institutions/bank-{letter}/sourceSystems/core" for letter in "abc"}
FIRST = first_policy()


def changed(**fields):
    """The first policy with other fields."""
    return Policy(9, replace(FIRST.standard, **fields))


def view(number, *values, rank=10, day=0, source="a", valid=True, attribute=NAME, ranks=None, failed=(), filled=1, **more):
    statements = {attribute: [Stated(value, value, valid, failed, filled) for value in values]}
    at = START + timedelta(days=day)
    return RecordView(UUID(int=number), SOURCES.get(source, source), at, Ranks(rank, ranks or {}), statements, **more)


values = st.sampled_from(["", "x", "y", "z"])
stated = st.builds(
    lambda value, valid, filled: Stated(value, value, valid, () if valid else ("FORM_WRONG",), filled),
    values,
    st.booleans(),
    st.integers(1, 3),
)
verified = st.builds(Verified, st.integers(1, 4), st.integers(0, 90).map(lambda day: date(2026, 1, 1) + timedelta(days=day)))
records = st.lists(
    st.builds(
        RecordView,
        record_id=st.uuids(),
        source_system=st.sampled_from(list(SOURCES.values())),
        observed_at=st.integers(0, 3).map(lambda day: START + timedelta(days=day)),
        ranks=st.builds(Ranks, st.integers(1, 3), st.dictionaries(st.sampled_from(list(Attribute)), st.integers(1, 3))),
        statements=st.dictionaries(st.sampled_from([NAME, PHONE]), st.lists(stated, max_size=3)),
        pins=st.dictionaries(st.sampled_from([NAME, PHONE]), st.just(START), max_size=1),
        verifications=st.dictionaries(st.sampled_from([NAME, PHONE]), st.lists(verified, max_size=2), max_size=1),
    ),
    max_size=6,
    unique_by=lambda record: record.record_id,
)
orders = st.permutations(FIRST.standard.rules[1:]).map(lambda rules: (R.PIN, *rules))
policies = st.builds(
    lambda order, half_life, trusts, days: changed(
        rules=order,
        half_life_days=half_life,
        source_trusts=tuple(SourceTrust(SOURCES[letter], points) for letter, points in trusts.items()),
        verification=Verification(("institutions/*/sourceSystems/core",), (), days),
    ),
    orders,
    st.sampled_from([0.0, 1.0, 365.0]),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([0.0, 50.0, 90.0])),
    st.sampled_from([0, 30]),
)


def told(believed):
    return {
        attribute: [(one.value, one.valid, one.record.record_id, one.trust, one.rule, one.rivals_count) for one in ones]
        for attribute, ones in believed.items()
    }


@given(records, policies, st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(given_records, policy, random):
    shuffled = list(given_records)
    random.shuffle(shuffled)
    assert told(golden(shuffled, policy, NOW)) == told(golden(given_records, policy, NOW))


@given(records, policies)
def test_a_policy_that_was_written_and_read_decides_alike(given_records, policy):
    again = Policy(policy.version, standard_from(to_data(policy.standard)))
    assert violations(policy.standard) == []
    assert to_data(again.standard) == to_data(policy.standard)
    assert told(golden(given_records, again, NOW)) == told(golden(given_records, policy, NOW))


@given(records, policies)
def test_every_value_that_is_stated_is_kept_once_and_has_its_origin(given_records, policy):
    believed = golden(given_records, policy, NOW)
    for attribute in (NAME, PHONE):
        said = {one.value for record in given_records for one in record.statements.get(attribute, ()) if one.value != ""}
        kept = believed.get(attribute, [])
        assert sorted(one.value for one in kept) == sorted(said)
        for one in kept:
            assert one.candidate.stated in one.record.statements[attribute]
            assert one.rank == one.record.ranks.of(attribute)
            sources = {
                record.source_system for record in given_records if any(s.value for s in record.statements.get(attribute, ()))
            }
            assert one.agreeing_count >= 1
            assert one.agreeing_count + one.conflicting_count == len(sources)


@given(records, policies)
def test_a_record_that_states_nothing_changes_nothing(given_records, policy):
    silent = RecordView(
        UUID(int=0), SOURCES["a"], NOW, Ranks(1, {}), {NAME: [Stated("", "")], Attribute.SEX: [Stated(1, 1)]}, {NAME: NOW},
        {NAME: [Verified(1, NOW.date())]},
    )  # fmt: skip
    before, after = golden(given_records, policy, NOW), golden([*given_records, silent], policy, NOW)
    assert told(before) == told({attribute: ones for attribute, ones in after.items() if attribute is not Attribute.SEX})


@given(records, policies, st.data())
def test_the_latest_pin_always_wins(given_records, policy, data):
    saying = [record for record in given_records if any(one.value for one in record.statements.get(NAME, ()))]
    if not saying:
        return
    pinned = data.draw(st.sampled_from(saying))
    later = [replace(record, pins={NAME: START + timedelta(days=50)}) if record is pinned else record for record in given_records]
    best = golden(later, policy, NOW)[NAME][0]
    assert best.record.record_id == pinned.record_id
    unanimous = len(golden(later, policy, NOW)[NAME]) == 1
    same_record = not unanimous and golden(later, policy, NOW)[NAME][1].record.record_id == pinned.record_id
    assert unanimous or same_record or best.rule is R.PIN


@pytest.mark.parametrize(
    ("records", "value", "rule"),
    [
        ([view(1, "x")], "x", R.ONLY_VALUE),
        ([view(1, "x"), view(2, "x", rank=1)], "x", R.ONLY_VALUE),
        ([view(1, "x", rank=1, valid=False), view(2, "y", rank=9)], "y", R.VALID),
        ([view(1, "x", rank=1, valid=False), view(2, "y", rank=1000)], "y", R.VALID),
        ([view(1, "x", rank=1), view(2, "y", day=9)], "x", R.RANK),
        ([view(1, "x", rank=999), view(2, "y", rank=1000, day=9)], "x", R.RANK),
        ([view(1, "x", rank=1), view(2, "y", rank=9, ranks={NAME: 0})], "x", R.TIE),
        ([view(1, "x", rank=2), view(2, "y", rank=9, ranks={NAME: 1})], "y", R.RANK),
        ([view(1, "x"), view(2, "y", day=1)], "y", R.RECENCY),
        ([view(1, "x"), view(2, "y")], "x", R.TIE),
        ([view(1, "", rank=1, day=9), view(2, "y", valid=False)], "y", R.ONLY_VALUE),
        ([view(1, "x"), view(2, "y", source="a"), view(3, "y", source="b")], "y", R.FREQUENCY),
        ([view(1, "x"), view(2, "y", filled=2)], "y", R.COMPLETENESS),
        ([view(1, "x", rank=1), view(2, "y", rank=99, pins={NAME: START})], "y", R.PIN),
        ([view(1, "x", pins={NAME: START}), view(2, "y", pins={NAME: NOW})], "y", R.PIN),
        ([view(1, "x", rank=1), view(2, "", rank=99, pins={NAME: START})], "x", R.ONLY_VALUE),
    ],
)
def test_the_rules_of_the_first_policy_in_their_order(records, value, rule):
    best = golden(records, FIRST, NOW)[NAME][0]
    assert (best.value, best.rule) == (value, rule)


def one_rule(rule):
    return changed(rules=(R.PIN, rule), verification=Verification((SOURCES["b"],)))


@pytest.mark.parametrize(
    ("rule", "loser", "winner"),
    [
        (R.VERIFIED, {"rank": 1, "day": 9}, {"source": "b", "verifications": {NAME: [Verified(1, date(2026, 1, 1))]}}),
        (R.TRUST, {"rank": 9, "day": 9, "filled": 9}, {"rank": 8}),
        (R.RECENCY, {"rank": 1, "filled": 9}, {"rank": 9, "day": 1}),
        (R.COMPLETENESS, {"rank": 1, "day": 9}, {"rank": 9, "filled": 2}),
    ],
)
def test_each_rule_alone_decides_as_it_says(rule, loser, winner):
    # The loser has the lower id and everything that other rules ask for: a rule that fell back to another would show.
    best = golden([view(1, "x", **loser), view(2, "y", **winner)], one_rule(rule), NOW)[NAME][0]
    assert (best.value, best.rule) == ("y", R.RANK if rule is R.TRUST else rule)


def test_frequency_counts_sources_not_records():
    said = [view(1, "x", rank=1), view(2, "x", rank=1), view(3, "y", source="b", rank=9), view(4, "y", source="c", rank=9)]
    best = golden(said, one_rule(R.FREQUENCY), NOW)[NAME][0]
    assert (best.value, best.rule, best.agreeing_count, best.conflicting_count) == ("y", R.FREQUENCY, 2, 1)


def test_trust_is_base_by_decay_by_validation_and_never_below_the_reserve():
    policy = changed(
        half_life_days=50.0,
        failed_check_kept_percent=50.0,
        failed_checks={"CHECK_DIGIT_WRONG": 10.0},
        reserve_trust_points=5.0,
        source_trusts=(SourceTrust("institutions/*/sourceSystems/core", 40.0), SourceTrust(SOURCES["a"], 80.0)),
        attributes=(AttributeStandard(PHONE, half_life_days=0.0, source_trusts=(SourceTrust(SOURCES["a"], 60.0),)),),
    )

    def trust(**fields):
        attribute = fields.pop("attribute", NAME)
        return golden([view(1, "x", attribute=attribute, **fields)], policy, NOW)[attribute][0].trust

    assert trust().points == pytest.approx(20)  # 80 halved twice in 100 days
    assert trust(day=50).points == pytest.approx(40)
    assert trust(day=200).points == pytest.approx(80)  # seen after the asked instant: not older than new
    assert trust(source="b", day=100).points == pytest.approx(40)
    assert trust(day=100, valid=False).points == pytest.approx(40)
    assert trust(day=100, valid=False, failed=("CHECK_DIGIT_WRONG", "EXPIRED")) == (5, 80, 1, pytest.approx(0.05), False)
    assert trust(attribute=PHONE).points == 60
    assert trust(source="institutions/other/sourceSystems/other", rank=51, day=100) == (50, 50, 1, 1, True)


def test_a_named_source_or_age_decides_as_trust_and_the_asked_instant_counts():
    policy = changed(source_trusts=(SourceTrust(SOURCES["b"], 99.0),), half_life_days=30.0, reserve_trust_points=10.0)
    old, new = view(1, "x", rank=1), view(2, "y", source="b", day=-10)
    assert golden([old, new], policy, START)[NAME][0].value == "x"
    best = golden([view(1, "x", rank=1, day=-90), new], policy, START)[NAME][0]
    assert (best.value, best.rule) == ("y", R.TRUST)
    # Both have sunk to the reserve: what is left is recency.
    best = golden([old, new], policy, START + timedelta(days=900))[NAME][0]
    assert (best.value, best.rule) == ("x", R.RECENCY)


def test_only_verifications_of_admitted_sources_count_and_only_as_long_as_the_policy_says():
    policy = changed(verification=Verification((SOURCES["b"],), (VerificationMethod.REGISTRY,), 30))
    on = date(2026, 3, 1)

    def best(source, method, at):
        said = view(2, "y", source=source, rank=99, verifications={NAME: [Verified(method, on)]})
        return golden([view(1, "x", rank=1), said], policy, at)[NAME][0].value

    after = datetime(2026, 3, 5, tzinfo=UTC)
    assert best("b", VerificationMethod.REGISTRY, after) == "y"
    assert best("a", VerificationMethod.REGISTRY, after) == "x"
    assert best("b", VerificationMethod.CODE_SENT, after) == "x"
    assert best("b", VerificationMethod.REGISTRY, datetime(2026, 3, 31, tzinfo=UTC)) == "y"
    assert best("b", VerificationMethod.REGISTRY, datetime(2026, 4, 1, tzinfo=UTC)) == "x"
    assert best("b", VerificationMethod.REGISTRY, datetime(2026, 2, 1, tzinfo=UTC)) == "x"


def test_sources_count_once_and_many_values_are_all_kept_best_first():
    believed = golden(
        [
            view(1, "x", "y", attribute=PHONE, source="a"),
            view(2, "x", attribute=PHONE, source="a", day=1),
            view(3, "z", attribute=PHONE, source="b", rank=20),
            view(4, "x", attribute=PHONE, source="c", rank=30),
        ],
        FIRST,
        NOW,
    )[PHONE]
    assert [(one.value, one.record.record_id.int, one.rivals_count) for one in believed] == [
        ("x", 2, 2),
        ("y", 1, 1),
        ("z", 3, 0),
    ]
    assert [(one.agreeing_count, one.conflicting_count) for one in believed] == [(2, 1), (1, 2), (1, 2)]
    assert [one.rule for one in believed] == [R.RECENCY, R.RANK, R.RANK]


def test_of_a_shared_record_only_the_shared_attributes_count():
    mine = view(1, "x", rank=9)
    theirs = replace(view(2, "y", rank=1), statements={NAME: [Stated("y", "y")], PHONE: [Stated("1", "1")]})
    believed = golden([mine, replace(theirs, shared=frozenset({PHONE}))], FIRST, NOW)
    assert [one.value for one in believed[NAME]] == ["x"]
    assert [one.value for one in believed[PHONE]] == ["1"]


@pytest.mark.parametrize(
    ("fields", "field", "right"),
    [
        ({"title": " "}, "title", "few words"),
        ({"rules": ()}, "rules", "PIN, VERIFIED"),
        ({"rules": (R.TRUST, R.PIN)}, "rules[0]", "must be PIN"),
        ({"rules": (R.PIN, R.TRUST, R.TRUST)}, "rules[2]", "named once"),
        ({"rules": (R.PIN, R.RANK)}, "rules[1]", "RANK is never asked by itself"),
        ({"half_life_days": float("nan")}, "half_life_days", "0 to 36500"),
        ({"half_rank": 1}, "rank_trust.half_rank", "2 to 1000"),
        ({"source_trusts": (SourceTrust("bank/core", 1.0),)}, "source_trusts[0].source_system", "must be institutions/"),
        ({"source_trusts": (SourceTrust(SOURCES["a"], 101.0),)}, "source_trusts[0].trust_points", "0 to 100"),
        ({"verification": Verification(("*",))}, "verification.source_systems[0]", "must be institutions/"),
        ({"attributes": (AttributeStandard(NAME), AttributeStandard(NAME))}, "attributes[1].attribute", "named once"),
        ({"attributes": (AttributeStandard(NAME, rules=(R.TRUST,)),)}, "attributes[0].rules[0]", "must be PIN"),
    ],
)
def test_a_wrong_policy_is_named_by_field_and_by_what_would_be_right(fields, field, right):
    [broken] = violations(replace(FIRST.standard, **fields))
    assert broken[0] == field
    assert right in broken[1]


def test_trust_from_rank_falls_with_every_rank():
    rules = FIRST.of(NAME)
    trusts = [rules.trust("s", rank, True, (), 0).points for rank in range(1, 1001)]
    assert trusts[0] == 100
    assert trusts[50] == 50
    assert all(better > worse for better, worse in itertools.pairwise(trusts))
    assert rules.trust("s", 1, False, (), 0).points < trusts[-1]
