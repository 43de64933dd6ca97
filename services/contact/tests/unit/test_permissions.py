"""Of a customer's statements the newest holds."""

import uuid
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from contact.domain.kinds import Permission
from contact.domain.permissions import Key, Statement, binding, decide

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
keys = st.builds(Key, st.integers(1, 2).map(lambda n: uuid.UUID(int=n)), st.just(1), st.integers(1, 2))


@st.composite
def statements(draw):
    drawn = draw(st.lists(st.tuples(keys, st.sampled_from(Permission), st.integers(0, 3)), max_size=15))
    return [
        Statement(uuid.UUID(int=100 + index), key, "north", state, NOW + timedelta(days=day))
        for index, (key, state, day) in enumerate(drawn)
    ]


@given(statements())
def test_the_newest_holds_and_the_later_of_two_of_the_same_instant(said):
    decision = decide({}, said)
    current = {statement.key: statement for statement in decision.current}
    for key in {statement.key for statement in said}:
        newest = max((s for s in said if s.key == key), key=lambda s: s.order)
        assert current[key].state is newest.state
        assert current[key].state_time == newest.state_time
    assert [said.index(statement) for statement in decision.kept] == sorted(said.index(s) for s in decision.kept)


@given(statements(), st.integers(0, 15))
def test_it_does_not_matter_how_statements_are_divided_into_batches(said, cut):
    whole = {s.key: s for s in decide({}, said).current}
    first = {s.key: s for s in decide({}, said[:cut]).current}
    second = first | {s.key: s for s in decide(first, said[cut:]).current}
    assert second == whole


def test_what_is_said():
    key = Key(uuid.UUID(int=1), 1, 1)
    yes = Statement(uuid.UUID(int=10), key, "north", Permission.GRANTED, NOW)
    earlier_no = Statement(uuid.UUID(int=11), key, "north", Permission.DENIED, NOW - timedelta(days=1))
    yes_again = Statement(uuid.UUID(int=12), key, "north", Permission.GRANTED, NOW)
    assert decide({}, [yes]).current == [yes]
    stale = decide({key: yes}, [earlier_no])
    assert (stale.held, stale.kept, stale.current) == ([False], [earlier_no], [])
    repeated = decide({key: yes}, [yes_again])
    assert (repeated.held, repeated.kept, repeated.current) == ([True], [], [])


ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)


def said(record, state, day, *covered):
    key = Key(record, 1, 1)
    at = NOW + timedelta(days=day)
    return Statement(uuid.UUID(int=1000 + day), key, "north", state, at, covered=frozenset(covered or [record]))


def test_of_two_persons_who_are_one_the_stricter_binds_until_something_new_is_said():
    yes, no = said(ONE, Permission.GRANTED, 5), said(TWO, Permission.DENIED, 1)
    assert binding([]) is None
    assert binding([yes]) == yes
    assert binding([yes, no]) == binding([no, yes]) == no, "although the permission is newer"
    confirmed = said(ONE, Permission.GRANTED, 7, ONE, TWO)
    assert binding([confirmed, no]) == confirmed, "said when both were known to be one"
    assert binding([no]) == no, "and when they are two again, each has its own"
    later = said(TWO, Permission.DENIED, 8)
    assert binding([confirmed, later]) == later


@given(st.lists(st.tuples(st.sampled_from([ONE, TWO]), st.sampled_from(Permission), st.booleans()), max_size=8))
def test_what_binds_is_a_refusal_where_an_uncovered_one_is(drawn):
    statements = {
        record: said(record, state, day, *((ONE, TWO) if both else (record,))) for day, (record, state, both) in enumerate(drawn)
    }
    bound = binding(list(statements.values()))
    if bound is None:
        assert not statements
        return
    newest = max(statements.values(), key=lambda statement: statement.order)
    if len(newest.covered) == 2:
        assert bound == newest
    elif bound.state is Permission.GRANTED:
        assert all(s.state is Permission.GRANTED or any(s.key.record_id in o.covered and o.order > s.order
                   for o in statements.values()) for s in statements.values())  # fmt: skip
