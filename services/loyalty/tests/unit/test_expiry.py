from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty.domain import expiry
from loyalty.domain.expiry import ExpiryKind, ExpiryPolicy

START = datetime(2026, 11, 24, 10, tzinfo=UTC)
SHANGHAI, PRAGUE = ZoneInfo("Asia/Shanghai"), ZoneInfo("Europe/Prague")
policies = st.one_of(
    st.builds(lambda n: ExpiryPolicy(1, START, ExpiryKind.MONTHS, months=n), st.integers(0, 60)),
    st.builds(lambda n: ExpiryPolicy(1, START, ExpiryKind.DAYS, days=n), st.integers(1, 2000)),
    st.builds(
        lambda d: ExpiryPolicy(1, START, ExpiryKind.FIXED_DATE, fixed_date=d), st.dates(date(2020, 1, 1), date(2040, 1, 1))
    ),
)
zones = st.sampled_from(["Asia/Shanghai", "Europe/Prague", "America/New_York", "Pacific/Apia", "Africa/Cairo", "America/Havana"])


def policy(kind, **fields) -> ExpiryPolicy:
    return ExpiryPolicy(1, START, kind, **fields)


@pytest.mark.parametrize(
    ("kind", "fields", "zone", "active", "expected"),
    [
        (ExpiryKind.NEVER, {}, PRAGUE, START, None),
        (ExpiryKind.MONTHS, {"months": 12}, PRAGUE, START, datetime(2027, 11, 30, 23, tzinfo=UTC)),
        (ExpiryKind.MONTHS, {"months": 3}, PRAGUE, START, datetime(2027, 2, 28, 23, tzinfo=UTC)),
        (
            ExpiryKind.MONTHS,
            {"months": 0},
            SHANGHAI,
            datetime(2026, 12, 31, 16, tzinfo=UTC),
            datetime(2027, 1, 31, 16, tzinfo=UTC),
        ),
        (ExpiryKind.DAYS, {"days": 1}, SHANGHAI, START, datetime(2026, 11, 25, 16, tzinfo=UTC)),
        (ExpiryKind.DAYS, {"days": 150}, PRAGUE, START, datetime(2027, 4, 23, 22, tzinfo=UTC)),  # across the change of clocks
        (ExpiryKind.FIXED_DATE, {"fixed_date": date(2026, 12, 31)}, PRAGUE, START, datetime(2026, 12, 31, 23, tzinfo=UTC)),
        (ExpiryKind.FIXED_DATE, {"fixed_date": date(2026, 6, 30)}, PRAGUE, START, datetime(2027, 6, 30, 22, tzinfo=UTC)),
        (ExpiryKind.FIXED_DATE, {"fixed_date": date(2024, 2, 29)}, PRAGUE, START, datetime(2027, 2, 28, 23, tzinfo=UTC)),
    ],
)
def test_when_a_lot_expires(kind, fields, zone, active, expected):
    assert expiry.violations(policy(kind, **fields)) == []
    assert expiry.expire_time(policy(kind, **fields), zone, active) == expected


@given(policies, zones, st.integers(0, 150_000).map(lambda hours: START + timedelta(hours=hours - 50_000)))
def test_no_lot_is_born_expired_and_each_ends_with_a_day(made, zone, active):
    end = expiry.expire_time(made, ZoneInfo(zone), active)
    assert end is not None
    assert end > active
    local, before = end.astimezone(ZoneInfo(zone)), (end - timedelta(microseconds=1)).astimezone(ZoneInfo(zone))
    assert local.date() > before.date()


def test_a_new_policy_is_for_new_lots():
    first, second = policy(ExpiryKind.MONTHS, months=24), ExpiryPolicy(2, START + timedelta(days=1), ExpiryKind.MONTHS, months=1)
    for days, expected in ((-1, None), (0, first), (1, second), (90, second)):
        assert expiry.in_force([second, first], START + timedelta(days=days)) == expected


@pytest.mark.parametrize(
    ("made", "field"),
    [
        (policy(ExpiryKind.MONTHS), "months"),
        (policy(ExpiryKind.NEVER, days=1), "days"),
        (policy(ExpiryKind.DAYS, days=0), "days"),
        (policy(ExpiryKind.MONTHS, months=-1), "months"),
        (policy(ExpiryKind.FIXED_DATE), "fixed_date"),
    ],
)
def test_a_policy_says_what_its_kind_needs(made, field):
    assert [name for name, _ in expiry.violations(made)] == [field]
