"""Activities: written once, never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection

_NO_ACTIVITY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class ActivityRow:
    """An activity to write."""

    activity_id: UUID
    record_id: UUID
    holding_id: UUID | None
    source_system_number: int
    occurred_at: datetime
    content_hash: bytes
    payload: bytes


async def insert(connection: Connection, rows: Sequence[ActivityRow], now: datetime) -> set[UUID]:
    """Writes the activities that are new; returns their ids."""
    # In the order of their ids: two batches with the same activities wait for each other instead of dying.
    ordered = sorted(rows, key=lambda row: row.activity_id)
    inserted = await connection.fetch(
        _INSERT,
        [row.activity_id for row in ordered],
        [row.record_id for row in ordered],
        [row.holding_id for row in ordered],
        [row.source_system_number for row in ordered],
        [row.occurred_at for row in ordered],
        [row.content_hash for row in ordered],
        [row.payload for row in ordered],
        now,
    )
    return {row[0] for row in inserted}


async def content_hashes(connection: Connection, activity_ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """Content hashes of known activities."""
    rows = await connection.fetch(
        "SELECT activity_id, content_hash FROM activities WHERE activity_id = ANY($1::uuid[])", activity_ids
    )
    return {row[0]: row[1] for row in rows}


async def page(connection: Connection, after: str, limit: int) -> list[asyncpg.Record]:
    """Activities by id with the present links of their records, for re-publication."""
    return await connection.fetch(_PAGE, UUID(after) if after else _NO_ACTIVITY, limit)


_INSERT = """
INSERT INTO activities (activity_id, record_id, holding_id, source_system_number, occurred_at, content_hash, payload, recorded_at)
SELECT *, $8::timestamptz
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::timestamptz[], $6::bytea[], $7::bytea[])
ON CONFLICT DO NOTHING
RETURNING activity_id
"""
_PAGE = """
SELECT a.activity_id, a.record_id, a.holding_id, a.occurred_at, a.payload, s.institution_id, s.source_system_id, r.customer_id,
    r.link_version
FROM activities a JOIN records r USING (record_id) JOIN source_systems s ON s.source_system_number = a.source_system_number
WHERE a.activity_id > $1 ORDER BY a.activity_id LIMIT $2
"""
