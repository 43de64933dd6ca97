"""Of a customer's statements the newest holds."""

import uuid
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from contact.domain.kinds import Permission
from contact.domain.permissions import Key, Statement, decide

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
keys = st.builds(Key, st.integers(1, 2).map(lambda n: uuid.UUID(int=n)), st.just("north"), st.just(1), st.integers(1, 2))


@st.composite
def statements(draw):
    drawn = draw(st.lists(st.tuples(keys, st.sampled_from(Permission), st.integers(0, 3)), max_size=15))
    return [
        Statement(uuid.UUID(int=100 + index), key, state, NOW + timedelta(days=day))
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
    key = Key(uuid.UUID(int=1), "north", 1, 1)
    yes = Statement(uuid.UUID(int=10), key, Permission.GRANTED, NOW)
    earlier_no = Statement(uuid.UUID(int=11), key, Permission.DENIED, NOW - timedelta(days=1))
    yes_again = Statement(uuid.UUID(int=12), key, Permission.GRANTED, NOW)
    assert decide({}, [yes]).current == [yes]
    stale = decide({key: yes}, [earlier_no])
    assert (stale.held, stale.kept, stale.current) == ([False], [earlier_no], [])
    repeated = decide({key: yes}, [yes_again])
    assert (repeated.held, repeated.kept, repeated.current) == ([True], [], [])
