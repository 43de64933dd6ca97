"""What is kept of a person, for an export. Records, states and links are read with the viewer's eyes."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection


async def records(
    connection: Connection, customer_id: UUID, institution_id: str | None, first: UUID | None, limit: int
) -> list[asyncpg.Record]:
    """Records of a customer by id, from this one on, with who keeps their source."""
    return await connection.fetch(_RECORDS, customer_id, institution_id, first, limit)


async def states(connection: Connection, record_ids: Sequence[UUID]) -> list[asyncpg.Record]:
    """Everything that was stated in records, sealed, the first statement first."""
    return await connection.fetch(_STATES, record_ids)


async def links(connection: Connection, record_ids: Sequence[UUID]) -> list[asyncpg.Record]:
    """Every link that records had, the first one first."""
    return await connection.fetch(_LINKS, record_ids)


async def holdings(connection: Connection, record_ids: Sequence[UUID]) -> list[asyncpg.Record]:
    """What is held through records."""
    return await connection.fetch(_HOLDINGS, record_ids)


async def activities_counts(connection: Connection, record_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many activities are kept of each record; records without any are left out."""
    rows = await connection.fetch(
        "SELECT record_id, count(*) FROM activities WHERE record_id = ANY($1::uuid[]) GROUP BY record_id", record_ids
    )
    return {row[0]: row[1] for row in rows}


async def activities(
    connection: Connection, record_id: UUID, after: tuple[datetime, UUID] | None, limit: int
) -> list[asyncpg.Record]:
    """Activities of a record, the oldest first, after one of an instant with an id."""
    at, activity_id = after or (None, None)
    return await connection.fetch(_ACTIVITIES, record_id, at, activity_id, limit)


_RECORDS = """
SELECT r.record_id, r.institution_id, s.source_system_id, i.display_name AS institution_display_name,
    s.display_name AS source_system_display_name
FROM records r
    JOIN source_systems s ON s.source_system_number = r.source_system_number
    JOIN institutions i ON i.institution_id = r.institution_id
WHERE r.customer_id = $1 AND ($2::text IS NULL OR r.institution_id = $2) AND ($3::uuid IS NULL OR r.record_id >= $3)
ORDER BY r.record_id LIMIT $4
"""
_STATES = """
SELECT record_id, state_number, observe_time, recorded_at, payload, party FROM source_records
WHERE record_id = ANY($1::uuid[]) ORDER BY record_id, state_number
"""
_LINKS = """
SELECT record_id, customer_id, origin, reason, recorded_at, superseded_at FROM links
WHERE record_id = ANY($1::uuid[]) ORDER BY record_id, link_version
"""
_HOLDINGS = """
SELECT holders.record_id, h.holding_id, h.kind, h.product_code, h.open_date, h.close_date, holders.role
FROM holders JOIN holdings h USING (holding_id) WHERE holders.record_id = ANY($1::uuid[]) ORDER BY h.holding_id
"""
_ACTIVITIES = """
SELECT activity_id, holding_id, occurred_at, recorded_at, payload FROM activities
WHERE record_id = $1 AND ($2::timestamptz IS NULL OR (occurred_at, activity_id) > ($2, $3::uuid))
ORDER BY occurred_at, activity_id LIMIT $4
"""
