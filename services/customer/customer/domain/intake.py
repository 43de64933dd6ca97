"""Rules of the intake: which state of a record wins, which instants and dates are accepted."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid5

from customer.domain.vocabulary import Outcome

NAMESPACE = UUID("6f1c0c7e-8a57-5d0e-9d55-0a4c7c1f2b61")
"""Of ids that are computed. Never changes."""
FUTURE_MAX = timedelta(days=1)
"""Clocks differ; an instant further ahead would block every later state."""
EARLIEST = datetime(1850, 1, 1, tzinfo=UTC)
SECONDS_MIN = int(EARLIEST.timestamp())


class Rejected(Exception):
    """One item of a batch is refused; the others are not.

    Args:
        field: path within the item.
        reason: UPPER_SNAKE.
        description: what would be right; holds no value of the item.
    """

    def __init__(self, field: str, reason: str, description: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason
        self.description = description


def outcome_of_state(known_content: bytes | None, known_at: datetime | None, content: bytes, observed_at: datetime) -> Outcome:
    """What a state does to what is known of its record or holding.

    The same content is UNCHANGED, whenever it was seen. Other content is STALE when it was seen before the known one; at the same
    instant the one that comes later wins.
    """
    if known_content is None or known_at is None:
        return Outcome.CREATED
    if content == known_content:
        return Outcome.UNCHANGED
    return Outcome.STALE if observed_at < known_at else Outcome.UPDATED


def instant(seconds: int, nanos: int, field: str, now: datetime) -> datetime:
    """The instant a source states, to the microsecond.

    Raises:
        Rejected: TIME_OUT_OF_RANGE, before 1850 or more than a day ahead.
    """
    if SECONDS_MIN <= seconds <= now.timestamp() + FUTURE_MAX.total_seconds():
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanos // 1000)
    raise Rejected(field, "TIME_OUT_OF_RANGE", "must lie between the year 1850 and one day from now")


def day(text: str, field: str) -> date | None:
    """A day in ISO 8601, None for an empty text.

    Raises:
        Rejected: DATE_INVALID.
    """
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Rejected(field, "DATE_INVALID", "must be a day that exists, such as 1996-02-29") from None


def activity_id(source_system: str, source_activity_key: str) -> UUID:
    """The id of an activity, computed from its source, so that a reversal knows it even before the activity arrived.

    Args:
        source_system: its resource name.
        source_activity_key: the source's own key.
    """
    return uuid5(NAMESPACE, f"{source_system}/activities/{source_activity_key}")
