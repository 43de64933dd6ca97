"""Rows encoded for PostgreSQL's binary COPY ahead of their transaction, so that the transaction only sends bytes."""

import struct
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

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
_KEY_ROW = struct.Struct(">hiqi16s")


def _bytes(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def _bigints(values: Sequence[int]) -> bytes:
    if not values:
        return struct.pack(">iiii", 12, 0, 0, _BIGINT_OID)
    lengths_and_values = [part for value in values for part in (8, value)]
    return struct.pack(
        f">iiiiii{'iq' * len(values)}", 20 + 12 * len(values), 1, 0, _BIGINT_OID, len(values), 1, *lengths_and_values
    )


_KINDS: dict[str, Callable[[Any], bytes]] = {
    "uuid": lambda value: b"\0\0\0\x10" + value,
    "int2": lambda value: _SMALL.pack(2, value),
    "int4": lambda value: _INTEGER.pack(4, value),
    "int8": lambda value: _BIG.pack(8, value),
    "float8": lambda value: _DOUBLE.pack(8, value),
    "bool": lambda value: b"\0\0\0\1\1" if value else b"\0\0\0\1\0",
    "text": lambda value: _bytes(value.encode()),
    "bytea": _bytes,
    "timestamptz": lambda value: _BIG.pack(8, value),
    "int8[]": _bigints,
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


@cache
def _encoders(table: str) -> tuple[bytes, tuple[Callable[[Any], bytes], ...]]:
    columns, kinds = TABLES[table]
    return struct.pack(">h", len(columns)), tuple(_KINDS[kind] for kind in kinds)


def microseconds(instant: datetime) -> int:
    """An instant as it is sent."""
    return (instant - _EPOCH) // _MICROSECOND


def encoded(table: str, values: Sequence[Any]) -> bytes:
    """A row. Ids are their 16 bytes, instants their `microseconds`; None is null."""
    head, encoders = _encoders(table)
    return head + b"".join([_NULL if value is None else encode(value) for encode, value in zip(encoders, values, strict=True)])


def encoded_keys(keys: Iterable[int], record_id: bytes) -> bytes:
    """The rows of a record in `blocking_keys`: many, so they have a way of their own."""
    pack = _KEY_ROW.pack
    return b"".join([pack(2, 8, key, 16, record_id) for key in keys])


async def copy(connection: Connection, table: str, rows: Iterable[bytes]) -> None:
    """Writes encoded rows.

    Raises:
        RacedError: one of them is there by now.
    """
    try:
        await connection.copy_to_table(table, source=_stream(rows), columns=list(TABLES[table][0]), format="binary")
    except asyncpg.UniqueViolationError:
        raise RacedError(f"a row of {table} was written by another transaction") from None


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
