"""Limits of how often and how much: decided inside the batch that posts, so that nobody passes by. Pure.

Counters of windows are loaded with the batch, raised in memory by each operation that is posted, and written with it. What could
not be loaded refuses: a limit that is not known does not let through.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo


class Scope(StrEnum):
    """Whose operations are counted together."""

    MEMBER = "MEMBER"
    MEMBER_AT_INSTITUTION = "MEMBER_AT_INSTITUTION"
    INSTITUTION = "INSTITUTION"
    PROGRAM = "PROGRAM"


class Window(StrEnum):
    """In which time: an hour, or a day of the limit's zone."""

    HOUR = "HOUR"
    DAY = "DAY"


KINDS = ("EARN", "REDEEM", "HOLD", "TRANSFER", "EXCHANGE")
SPENDING = frozenset({"REDEEM", "HOLD"})
"""A hold is a spending that was counted: its captures are not counted again."""
COUNT_MAX = POINTS_MAX = 10**15
DAYS_MAX = 3650


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit that two persons decided on. It is about a programme's points (where `program_id` says so) or about all that
    happens at an institution, or both."""

    limit_id: uuid.UUID
    scope: Scope
    window: Window
    zone: ZoneInfo
    kinds: frozenset[str]
    institution_id: str = ""
    program_id: str = ""
    count_max: int | None = None
    points_max: int | None = None
    first_days: int | None = None
    """Only for accounts in the first days after they were linked to the institution where it happens."""

    def window_start(self, now: datetime) -> datetime:
        """When the window began."""
        local = now.astimezone(self.zone)
        if self.window is Window.HOUR:
            return now.replace(minute=0, second=0, microsecond=0)
        return datetime.combine(local.date(), datetime.min.time(), self.zone)

    def free_time(self, now: datetime) -> datetime:
        """When the next window begins."""
        start = self.window_start(now)
        if self.window is Window.HOUR:
            return start + timedelta(hours=1)
        day: date = start.astimezone(self.zone).date()
        return datetime.combine(day + timedelta(days=1), datetime.min.time(), self.zone)


class Counter(NamedTuple):
    """What is counted together: a limit, for a subject, in a window."""

    limit_id: uuid.UUID
    subject: str
    window_start: datetime


class Count(NamedTuple):
    """What was done in a window."""

    operations_count: int = 0
    points: int = 0


class Asked(NamedTuple):
    """An operation as limits see it: points by programme."""

    kind: str
    account_id: uuid.UUID | None
    institution_id: str
    points: Mapping[str, int]
    now: datetime


class HasPoints(Protocol):
    """A line of a spending."""

    program_id: str
    points: int


class HasNow(Protocol):
    """The books of a batch."""

    now: datetime


def violations(limit: Limit) -> list[tuple[str, str]]:
    """What is wrong with a limit: field and rule."""
    found = []
    if not limit.program_id and not limit.institution_id:
        found.append(("program", "or institution must say what is limited"))
    if limit.scope is Scope.PROGRAM and not limit.program_id:
        found.append(("program", "must be given with scope PROGRAM"))
    if limit.scope is Scope.INSTITUTION and not limit.institution_id:
        found.append(("institution", "must be given with scope INSTITUTION"))
    if limit.count_max is None and limit.points_max is None:
        found.append(("operations_max", "or points_max must say how much"))
    for name, most in (("operations_max", limit.count_max), ("points_max", limit.points_max)):
        if most is not None and not 0 <= most <= COUNT_MAX:
            found.append((name, f"must be 0 to {COUNT_MAX}"))
    if not limit.kinds or not limit.kinds <= set(KINDS):
        found.append(("kinds", f"must be some of {', '.join(KINDS)}"))
    if limit.first_days is not None:
        if not 1 <= limit.first_days <= DAYS_MAX:
            found.append(("first_days", f"must be 1 to {DAYS_MAX}"))
        if limit.scope in (Scope.INSTITUTION, Scope.PROGRAM):
            found.append(("first_days", "is for limits of members"))
    return found


def subject(limit: Limit, asked: Asked) -> str:
    """Whose operations are counted with this one."""
    match limit.scope:
        case Scope.MEMBER:
            return str(asked.account_id)
        case Scope.MEMBER_AT_INSTITUTION:
            return f"{asked.account_id}/{asked.institution_id}"
        case Scope.INSTITUTION:
            return asked.institution_id
    return limit.program_id


class Limiter:
    """The limits of a batch. `links` says since when accounts are linked where operations happen (None: not at all)."""

    def __init__(
        self,
        limits: Sequence[Limit],
        counts: Mapping[Counter, Count],
        links: Mapping[tuple[uuid.UUID, str], datetime],
        places: Mapping[uuid.UUID, str] | None = None,
    ) -> None:
        self._limits = limits
        self._counts = dict(counts)
        self._links = links
        self._places = places or {}
        """Of quotes: where they are spent."""
        self.changed: set[Counter] = set()

    def exceeded(self, command: Any, lines: Iterable[HasPoints], books: HasNow) -> dict[str, Any] | None:
        """The first limit that this operation would pass, and when it is free again; None where it may be."""
        asked = self._asked(command, lines, books)
        for limit in self._concerning(asked):
            before = self._counts.get(Counter(limit.limit_id, subject(limit, asked), limit.window_start(asked.now)), Count())
            points = _points(limit, asked)
            if (limit.count_max is not None and before.operations_count + 1 > limit.count_max) or (
                limit.points_max is not None and before.points + points > limit.points_max
            ):
                free = limit.free_time(asked.now)
                if limit.points_max is not None and points > limit.points_max:
                    return {"limit": str(limit.limit_id), "free_time": None}  # too much at once, also tomorrow
                return {"limit": str(limit.limit_id), "free_time": free.isoformat() if limit.count_max != 0 else None}
        return None

    def count(self, command: Any, lines: Iterable[HasPoints], books: HasNow) -> None:
        """It was posted."""
        asked = self._asked(command, lines, books)
        for limit in self._concerning(asked):
            counter = Counter(limit.limit_id, subject(limit, asked), limit.window_start(asked.now))
            before = self._counts.get(counter, Count())
            self._counts[counter] = Count(before.operations_count + 1, before.points + _points(limit, asked))
            self.changed.add(counter)

    def rows(self) -> list[tuple[uuid.UUID, str, datetime, int, int]]:
        """The counters that changed, in the order of their key."""
        return [(*counter, *self._counts[counter]) for counter in sorted(self.changed)]

    def _concerning(self, asked: Asked) -> Iterable[Limit]:
        return (limit for limit in self._limits if self._concerns(limit, asked))

    def _concerns(self, limit: Limit, asked: Asked) -> bool:
        if asked.kind not in limit.kinds or (limit.institution_id and limit.institution_id != asked.institution_id):
            return False
        if limit.program_id and limit.program_id not in asked.points:
            return False
        if limit.first_days is None:
            return True
        linked = self._links.get((asked.account_id, asked.institution_id)) if asked.account_id is not None else None
        # Not linked there at all is as new as can be.
        return linked is None or asked.now < linked + timedelta(days=limit.first_days)

    def _asked(self, command: Any, lines: Iterable[HasPoints], books: HasNow) -> Asked:
        points: dict[str, int] = {}
        for line in lines:
            points[line.program_id] = points.get(line.program_id, 0) + line.points
        quote_id = getattr(command, "quote_id", None)
        place = command.institution_id if quote_id is None else self._places.get(quote_id, command.institution_id)
        return Asked(str(command.kind), command.account_id, place, points, books.now)


def _points(limit: Limit, asked: Asked) -> int:
    return asked.points.get(limit.program_id, 0) if limit.program_id else sum(asked.points.values())
