"""Pins: by which steward an attribute was pinned to a record, from when to when."""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from types import MappingProxyType
from uuid import UUID

from asyncpg import Record

from chassis.database import Connection
from customer.domain.vocabulary import Attribute

Pins = Mapping[Attribute, datetime]
NO_PINS: Pins = MappingProxyType({})


def decoded(column: str | None) -> Pins:
    """The live pins of a record, as its row keeps them."""
    if column is None:
        return NO_PINS
    return {Attribute(int(number)): datetime.fromisoformat(at) for number, at in json.loads(column).items()}


async def at(connection: Connection, record_ids: Collection[UUID], instant: datetime) -> dict[UUID, Pins]:
    """The pins that lived at an instant, by record; records without one are left out.

    A pin holds from when it is recorded until it is taken back, so what was known at K to hold as of T lived at min(K, T).
    """
    found: dict[UUID, dict[Attribute, datetime]] = {}
    for record_id, attribute, pinned_at in await connection.fetch(_AT, list(record_ids), instant):
        found.setdefault(record_id, {})[Attribute(attribute)] = pinned_at
    return dict(found)


async def add(
    connection: Connection, pin_id: UUID, record_id: UUID, attribute: int, pinned_at: datetime, pinned_by: str, reason: bytes
) -> None:
    """Pins an attribute to a record, for a sealed reason. The caller holds the customer's lock, and no such pin lives."""
    await connection.execute(_ADD, pin_id, record_id, attribute, pinned_at, pinned_by, reason)
    await connection.execute(_SET_LIVE, [record_id])


async def take_back(
    connection: Connection, reasons: Mapping[UUID, bytes], attribute: int, unpinned_at: datetime, unpinned_by: str
) -> list[Record]:
    """Takes back the live pins of an attribute on records, each for its sealed reason; returns them as they are then."""
    rows: list[Record] = await connection.fetch(
        _TAKE_BACK, list(reasons), list(reasons.values()), attribute, unpinned_at, unpinned_by
    )
    await connection.execute(_SET_LIVE, [row["record_id"] for row in rows])
    return rows


async def list_of_records(connection: Connection, record_ids: Collection[UUID], limit: int) -> list[Record]:
    """All pins ever made on these records, newest first."""
    rows: list[Record] = await connection.fetch(
        "SELECT * FROM pins WHERE record_id = ANY($1::uuid[]) ORDER BY pin_id DESC LIMIT $2", list(record_ids), limit
    )
    return rows


async def forget(connection: Connection, record_ids: Collection[UUID]) -> None:
    """Deletes the pins of erased records."""
    await connection.execute("DELETE FROM pins WHERE record_id = ANY($1::uuid[])", list(record_ids))


_AT = """
SELECT p.record_id, p.attribute, p.pinned_at
FROM unnest($1::uuid[]) AS wanted (record_id)
    CROSS JOIN LATERAL (SELECT * FROM pins WHERE record_id = wanted.record_id OFFSET 0) p
WHERE p.pinned_at <= $2 AND (p.unpinned_at IS NULL OR p.unpinned_at > $2)
"""
_ADD = """
INSERT INTO pins (pin_id, record_id, attribute, pinned_at, pinned_by, reason) VALUES ($1, $2, $3, $4, $5, $6)
"""
_TAKE_BACK = """
UPDATE pins p SET unpinned_at = $4, unpinned_by = $5, unpin_reason = reasons.reason
FROM unnest($1::uuid[], $2::bytea[]) AS reasons (record_id, reason)
WHERE p.record_id = reasons.record_id AND p.attribute = $3 AND p.unpinned_at IS NULL RETURNING p.*
"""
# The row of the record repeats its live pins, so that a read of the golden customer need not look here.
_SET_LIVE = """
UPDATE records r SET pins = (
    SELECT jsonb_object_agg(p.attribute, p.pinned_at) FROM pins p WHERE p.record_id = r.record_id AND p.unpinned_at IS NULL)
WHERE r.record_id = ANY($1::uuid[])
"""
