import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty.domain.ledger.types import OperationKind, SpendLine
from loyalty.domain.limits import Limit, Limiter, Scope, Window, violations

NOW = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
SHANGHAI = ZoneInfo("Asia/Shanghai")
ANN, BOB = uuid.UUID(int=1), uuid.UUID(int=2)
DAILY = Limit(uuid.UUID(int=9), Scope.MEMBER, Window.DAY, SHANGHAI, frozenset({"REDEEM", "HOLD"}), program_id="p", points_max=100)


@dataclass
class Command:
    account_id: uuid.UUID = ANN
    kind: OperationKind = OperationKind.REDEEM
    institution_id: str = "shop"
    quote_id: uuid.UUID | None = None


@dataclass
class Books:
    now: datetime = NOW


def lines(points, program_id="p"):
    return [SpendLine(program_id, points, points)]


def done(limiter, points=10, command=None, now=NOW, program_id="p") -> bool:
    books, command = Books(now), command or Command()
    if limiter.exceeded(command, lines(points, program_id), books):
        return False
    limiter.count(command, lines(points, program_id), books)
    return True


def test_a_limit_says_which_it_is_and_when_it_is_free():
    limiter = Limiter([DAILY], {}, {})
    assert done(limiter, 90)
    told = limiter.exceeded(Command(), lines(11), Books())
    assert told == {"limit": str(DAILY.limit_id), "free_time": "2026-05-02T00:00:00+08:00"}
    assert limiter.exceeded(Command(), lines(101), Books()) == {"limit": str(DAILY.limit_id), "free_time": None}
    assert done(limiter, 10)
    assert limiter.rows() == [(DAILY.limit_id, str(ANN), datetime(2026, 5, 1, tzinfo=SHANGHAI), 2, 100)]
    assert done(limiter, 100, now=NOW + timedelta(hours=4))  # the next day in Shanghai
    assert done(limiter, 100, Command(BOB))
    assert done(limiter, 100, program_id="q")
    assert done(limiter, 100, Command(kind=OperationKind.TRANSFER))


@pytest.mark.parametrize(
    ("scope", "other", "passes"),
    [
        (Scope.MEMBER, Command(institution_id="broker"), False),
        (Scope.MEMBER, Command(BOB), True),
        (Scope.MEMBER_AT_INSTITUTION, Command(institution_id="broker"), True),
        (Scope.INSTITUTION, Command(BOB), False),
        (Scope.PROGRAM, Command(BOB, institution_id="broker"), False),
    ],
)
def test_scopes_say_what_is_counted_together(scope, other, passes):
    limiter = Limiter([replace(DAILY, scope=scope, count_max=1, points_max=None)], {}, {})
    assert done(limiter)
    assert not done(limiter)
    assert done(limiter, command=other) is passes


def test_hours_are_windows_too():
    limiter = Limiter([replace(DAILY, window=Window.HOUR, count_max=1, points_max=None)], {}, {})
    assert [done(limiter, now=NOW + timedelta(minutes=minutes)) for minutes in (0, 29, 30)] == [True, False, True]


def test_newly_linked_accounts_cool_off():
    limit = replace(DAILY, count_max=0, points_max=None, first_days=3)
    links = {(ANN, "shop"): NOW - timedelta(days=3), (BOB, "shop"): NOW - timedelta(days=2)}
    limiter = Limiter([limit], {}, links)
    assert done(limiter, command=Command(ANN))
    assert not done(limiter, command=Command(BOB))
    assert not done(limiter, command=Command(ANN, institution_id="broker")), "not linked is as new as can be"


def test_a_quote_is_spent_where_it_was_made_for():
    quote_id = uuid.UUID(int=7)
    limit = replace(DAILY, program_id="", institution_id="shop", count_max=0)
    assert not done(Limiter([limit], {}, {}, {quote_id: "shop"}), command=Command(institution_id="bank", quote_id=quote_id))


@given(st.lists(st.tuples(st.sampled_from([ANN, BOB]), st.integers(1, 60), st.integers(0, 3000)), max_size=50), st.integers(1, 5))
def test_no_window_is_ever_exceeded(asked, count_max):
    limit = replace(DAILY, count_max=count_max)
    limiter, sums = Limiter([limit], {}, {}), {}  # type: ignore[var-annotated]
    for account_id, points, minutes in asked:
        now = NOW + timedelta(minutes=minutes)
        key = account_id, now.astimezone(SHANGHAI).date()
        count, total = sums.get(key, (0, 0))
        allowed = count < count_max and total + points <= 100
        assert done(limiter, points, Command(account_id), now) is allowed
        if allowed:
            sums[key] = count + 1, total + points
    assert sorted(row[3:] for row in limiter.rows()) == sorted(sums.values())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"program_id": ""}, "program"),
        ({"points_max": None}, "operations_max"),
        ({"points_max": -1}, "points_max"),
        ({"kinds": frozenset()}, "kinds"),
        ({"kinds": frozenset({"VOID"})}, "kinds"),
        ({"scope": Scope.INSTITUTION}, "institution"),
        ({"scope": Scope.PROGRAM, "program_id": "", "institution_id": "shop"}, "program"),
        ({"scope": Scope.PROGRAM, "first_days": 2}, "first_days"),
        ({"first_days": 0}, "first_days"),
    ],
)
def test_what_is_wrong_with_a_limit_is_named(changes, field):
    assert violations(DAILY) == []
    assert field in [name for name, _ in violations(replace(DAILY, **changes))]
