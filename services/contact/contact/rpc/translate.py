"""Small translations that several servicers need."""

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import pages
from chassis.errors import InvalidArgument
from chassis.identity import Principal

PAGE_ROWS_DEFAULT = 50
PAGE_ROWS_MAX = 200
CLOCK_SKEW_MAX = timedelta(minutes=1)


def past_instant(timestamp: Timestamp, field: str, now: datetime) -> datetime:
    """A time at which something happened.

    Raises:
        InvalidArgument: TIME_INVALID, when it is out of range or later than the caller's clock may go ahead.
    """
    try:
        instant = timestamp.ToDatetime(tzinfo=now.tzinfo)
    except (ValueError, OverflowError):
        raise _time_invalid(field, "must be between the years 1 and 9999") from None
    if instant > now + CLOCK_SKEW_MAX:
        raise _time_invalid(field, "must not be in the future: it says when something took place")
    return instant


def _time_invalid(field: str, rule: str) -> InvalidArgument:
    return InvalidArgument("TIME_INVALID", f"{field} {rule}", field_violations=[(field, rule)])


def timestamp(instant: datetime | None) -> Timestamp | None:
    """An instant in a message; None leaves the field unset."""
    if instant is None:
        return None
    made = Timestamp()
    made.FromDatetime(instant)
    return made


def institution_seen_by(principal: Principal) -> str | None:
    """Whose contacts and permissions a caller sees: its institution's, or everybody's (None)."""
    return None if principal.sees_all else principal.institution


def page_keys(request: Any, *parse: Callable[[str], Any]) -> tuple[Any, ...] | None:
    """The sort keys of the row that the page comes after; None on the first page.

    Raises:
        InvalidArgument: PAGE_TOKEN_INVALID.
    """
    keys = pages.decode(request.page_token, request)
    if not keys:
        return None
    try:
        return tuple(parser(key) for parser, key in zip(parse, keys, strict=True))
    except ValueError:
        rule = "must be the next_page_token of the page before"
        raise InvalidArgument("PAGE_TOKEN_INVALID", f"page_token {rule}", field_violations=[("page_token", rule)]) from None


def page_size(request: Any) -> int:
    """Rows in the page that is asked for."""
    return pages.page_size(request.page_size, PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX)


def next_page_token(request: Message, rows: Sequence[Any], limit: int, *columns: str) -> str:
    """The token of the next page, when one row more than the limit was found; keys as text that `page_keys` parses."""
    if len(rows) <= limit:
        return ""
    return pages.encode([_text(rows[limit - 1][column]) for column in columns], request)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def id_in(name: str, index: int) -> uuid.UUID:
    """The UUID at a place in a resource name whose form the contract has checked already."""
    return uuid.UUID(name.split("/")[index])
