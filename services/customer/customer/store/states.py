"""What sources stated in a record, in time."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection


@dataclass(frozen=True, slots=True)
class Statement:
    """A state, or a sighting of it."""

    state_number: int
    content_hash: bytes
    observe_time: datetime


async def statements(connection: Connection, record_ids: Collection[UUID]) -> dict[UUID, list[Statement]]:
    """Everything that was ever stated in these records."""
    found: dict[UUID, list[Statement]] = {}
    for row in await connection.fetch(_STATEMENTS, list(record_ids)):
        found.setdefault(row[0], []).append(Statement(*row[1:]))
    return found


async def page(connection: Connection, record_id: UUID, before: tuple[datetime, int] | None, limit: int) -> list[asyncpg.Record]:
    """States of a record, the latest observed first, each with when it was last seen.

    Args:
        before: instant and number of the last one of the page before.
    """
    at, number = before or (None, None)
    return await connection.fetch(_PAGE, record_id, at, number, limit)


async def payload(connection: Connection, record_id: UUID, state_number: int) -> bytes:
    """What a source said in one state, sealed."""
    sealed: bytes = await connection.fetchval(
        "SELECT payload FROM source_records WHERE record_id = $1 AND state_number = $2", record_id, state_number
    )
    return sealed


_STATEMENTS = """
SELECT s.record_id, s.state_number, s.content_hash, s.observe_time FROM source_records s WHERE s.record_id = ANY($1::uuid[])
UNION ALL
SELECT s.record_id, s.state_number, s.content_hash, seen.observe_time
FROM record_sightings seen JOIN source_records s USING (record_id, state_number) WHERE seen.record_id = ANY($1::uuid[])
"""
_PAGE = """
SELECT s.state_number, s.observe_time, s.recorded_at, s.payload, s.party, (
    SELECT max(seen.observe_time) FROM record_sightings seen
    WHERE seen.record_id = s.record_id AND seen.state_number = s.state_number) AS last_sighting
FROM source_records s
WHERE s.record_id = $1 AND ($2::timestamptz IS NULL OR (s.observe_time, s.state_number) < ($2, $3::int))
ORDER BY s.observe_time DESC, s.state_number DESC LIMIT $4
"""
