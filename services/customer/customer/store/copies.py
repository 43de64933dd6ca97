"""Rows encoded for PostgreSQL's binary COPY ahead of their transaction, so that the transaction only sends bytes."""

import struct
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from chassis import outbox
from chassis.database import Connection
from customer.store import links
from customer.store.record_writes import RECORD_COLUMNS, STATE_COLUMNS, RacedError

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BIGINT_OID = 20
_SENT_BYTES = 1 << 20
_LENGTH, _SMALL, _INTEGER, _BIG, _DOUBLE = (struct.Struct(form) for form in (">i", ">ih", ">ii", ">iq", ">id"))
_EIGHT, _SIXTEEN = b"\0\0\0\x08", b"\0\0\0\x10"
_ARRAY = struct.Struct(">iiiiii")
_INSTANT = struct.Struct(">q")
_KEY_ROW_HEAD = b"\0\2" + _EIGHT
KEY_ROW_BYTES = len(_KEY_ROW_HEAD) + 8 + len(_SIXTEEN) + 16
"""Of a row of `blocking_keys`, which begins with its key."""


def sized(value: bytes) -> bytes:
    """A value behind its length."""
    return _LENGTH.pack(len(value)) + value


def _eights(values: Sequence[int]) -> list[bytes]:
    packed = struct.pack(f">{len(values)}q", *values)
    return [packed[place : place + 8] for place in range(0, len(packed), 8)]


def bigints(values: Sequence[int]) -> bytes:
    """An array of bigint behind its length."""
    count = len(values)
    if not count:
        return struct.pack(">iiii", 12, 0, 0, _BIGINT_OID)
    return _ARRAY.pack(20 + 12 * count, 1, 0, _BIGINT_OID, count, 1) + _EIGHT + _EIGHT.join(_eights(values))


def read_bigints(value: bytes) -> tuple[int, ...]:
    """The numbers of `bigints`, without its length."""
    return tuple(number for (number,) in struct.iter_unpack(">4xq", value[_ARRAY.size - _LENGTH.size :]))


_KINDS: dict[str, Callable[[Any], bytes]] = {
    "uuid": lambda value: _SIXTEEN + value,
    "int2": lambda value: _SMALL.pack(2, value),
    "int4": lambda value: _INTEGER.pack(4, value),
    "int8": lambda value: _BIG.pack(8, value),
    "float8": lambda value: _DOUBLE.pack(8, value),
    "bool": lambda value: b"\0\0\0\1\1" if value else b"\0\0\0\1\0",
    "text": lambda value: sized(value.encode()),
    "bytea": sized,
    "timestamptz": lambda value: _BIG.pack(8, value),
    "int8[]": bigints,
}
TABLES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "customers": (
        ("customer_id", "version", "create_time", "update_time", "restricted"),
        ("uuid", "int8", "timestamptz", "timestamptz", "bool"),
    ),
    "records": (
        RECORD_COLUMNS,
        ("uuid", "int4", "bytea", "text", "uuid", "int8", "int2", "int2", "int4", "int4", "bytea", "timestamptz", "timestamptz",
         "timestamptz", "bytea", "int8[]", "int8[]"),
    ),
    "source_records": (STATE_COLUMNS, ("uuid", "int4", "text", "bytea", "timestamptz", "bytea", "bytea", "timestamptz")),
    "links": (
        links.COLUMNS,
        ("uuid", "int8", "uuid", "int2", "int2", "text", "float8", "bytea", "timestamptz", "timestamptz", "text"),
    ),
    "blocking_keys": (("key", "record_id"), ("int8", "uuid")),
    "customer_qualities": (
        ("customer_id", "version", "completeness_percent", "credibility_percent"), ("uuid", "int8", "int2", "int2"),
    ),
    "outbox": (
        outbox.COLUMNS.split(", "), ("uuid", "uuid", "text", "text", "text", "bytea", "timestamptz", "text"),
    ),
}  # fmt: skip
"""The columns of each table, and of which type they are."""


def microseconds(instant: datetime) -> int:
    """An instant as it is sent, as a number."""
    return (instant - _EPOCH) // _MICROSECOND


def instant(at: datetime) -> bytes:
    """An instant as it is sent."""
    return _INSTANT.pack(microseconds(at))


VARIES: Final = object()
"""Stands in a `Form` for what differs from row to row."""
_PREFIXES = {"uuid": _SIXTEEN, "timestamptz": _EIGHT, "int2": b"\0\0\0\2"}


class Form:
    """Rows of a table that are alike in most columns: those are encoded once."""

    def __init__(self, table: str, values: Sequence[Any]) -> None:
        """Ids are their 16 bytes, instants their `microseconds`; None is null."""
        columns, kinds = TABLES[table]
        form: list[bytes | None] = [struct.pack(">h", len(columns))]
        for kind, value in zip(kinds, values, strict=True):
            if value is not VARIES:
                form.append(_NULL if value is None else _KINDS[kind](value))
            else:
                form += (_PREFIXES.get(kind, b""), None)
        self._form = b"".join(b"%b" if part is None else part.replace(b"%", b"%%") for part in form)

    def row(self, *values: bytes) -> bytes:
        """A row: the 16 bytes of an id, the 8 of an instant, the 2 of a smallint, anything else `sized`."""
        return self._form % values


def values(row: bytes) -> list[bytes]:
    """The values of an encoded row, as they are sent; nulls are empty."""
    found, place = [], 2
    while place < len(row):
        (size,) = _LENGTH.unpack_from(row, place)
        place += _LENGTH.size
        found.append(row[place : place + max(0, size)])
        place += max(0, size)
    return found


def key_rows(keys: Sequence[int], record_id: bytes) -> bytes:
    """The rows of a record in `blocking_keys`."""
    tail = _SIXTEEN + record_id
    return _KEY_ROW_HEAD + (tail + _KEY_ROW_HEAD).join(_eights(keys)) + tail if keys else b""


async def copy(connection: Connection, table: str, rows: Iterable[bytes]) -> None:
    """Writes encoded rows.

    Raises:
        RacedError: a record's source key is taken by now.
    """
    try:
        await connection.copy_to_table(table, source=_stream(rows), columns=list(TABLES[table][0]), format="binary")
    except asyncpg.UniqueViolationError:
        if table != "records":
            raise  # no race: running again would end alike
        raise RacedError("a source key was taken by another transaction") from None


async def _stream(rows: Iterable[bytes]) -> AsyncIterator[bytes]:
    pieces, size_bytes = [_SIGNATURE], 0
    for row in rows:
        pieces.append(row)
        size_bytes += len(row)
        if size_bytes > _SENT_BYTES:
            yield b"".join(pieces)
            pieces, size_bytes = [], 0
    pieces.append(_END)
    yield b"".join(pieces)
