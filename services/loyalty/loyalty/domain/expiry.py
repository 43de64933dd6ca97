"""When points expire: policies of a programme in dated versions. A lot keeps the policy under which it was issued. Pure."""

import calendar
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

MONTHS_MAX = 1200
DAYS_MAX = 36_500


class ExpiryKind(StrEnum):
    """How a lot's end follows from the day on which its points became active."""

    NEVER = "NEVER"
    MONTHS = "MONTHS"
    """With the end of the month that lies `months` after the active one."""
    DAYS = "DAYS"
    """With the end of the day that lies `days` after the active one."""
    FIXED_DATE = "FIXED_DATE"
    """With the end of `fixed_date`; a lot that becomes active after it, with the next same day of a year."""


@dataclass(frozen=True, slots=True)
class ExpiryPolicy:
    """One version of a policy: it holds for lots that are issued from `effective_time` on, until the next version begins."""

    version: int
    effective_time: datetime
    kind: ExpiryKind
    months: int | None = None
    days: int | None = None
    fixed_date: date | None = None


@cache
def time_zones() -> frozenset[str]:
    """The names of the IANA time zones."""
    return frozenset(available_timezones())


def violations(policy: ExpiryPolicy) -> list[tuple[str, str]]:
    """What is wrong with a policy: (field, rule)."""
    wrong = []
    for kind, field in ((ExpiryKind.MONTHS, "months"), (ExpiryKind.DAYS, "days"), (ExpiryKind.FIXED_DATE, "fixed_date")):
        given = getattr(policy, field) is not None
        if given is not (policy.kind is kind):
            wrong.append((field, f"must be {'left out' if given else 'given'} where the kind is {policy.kind}"))
    if policy.months is not None and not 0 <= policy.months <= MONTHS_MAX:
        wrong.append(("months", f"must be 0 (the end of the same month) to {MONTHS_MAX}"))
    if policy.days is not None and not 1 <= policy.days <= DAYS_MAX:
        wrong.append(("days", f"must be 1 to {DAYS_MAX}"))
    return wrong


def in_force(policies: Iterable[ExpiryPolicy], at: datetime) -> ExpiryPolicy | None:
    """The policy for a lot issued at an instant: of those effective by then the newest version. None: it never expires."""
    return max((policy for policy in policies if policy.effective_time <= at), key=lambda policy: policy.version, default=None)


def expire_time(policy: ExpiryPolicy | None, zone: ZoneInfo, active_time: datetime) -> datetime | None:
    """The instant at and after which points that became active at `active_time` cannot be used; None for never.

    Days and months end at midnight in the programme's zone, so a lot is never born expired.
    """
    if policy is None or policy.kind is ExpiryKind.NEVER:
        return None
    return _end_of(_last_day(policy, active_time.astimezone(zone).date()), zone)


def _last_day(policy: ExpiryPolicy, active: date) -> date:
    if policy.kind is ExpiryKind.DAYS:
        assert policy.days is not None
        return active + timedelta(days=policy.days)
    if policy.kind is ExpiryKind.MONTHS:
        assert policy.months is not None
        year, month = divmod(active.year * 12 + active.month - 1 + policy.months, 12)
        return date(year, month + 1, calendar.monthrange(year, month + 1)[1])
    assert policy.fixed_date is not None
    if active <= policy.fixed_date:
        return policy.fixed_date
    this_year = _day_in(policy.fixed_date, active.year)
    return this_year if active <= this_year else _day_in(policy.fixed_date, active.year + 1)


def _day_in(day: date, year: int) -> date:
    """The same day of another year; 29 February is the 28th where the year has none."""
    return date(year, day.month, min(day.day, calendar.monthrange(year, day.month)[1]))


def _end_of(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)
