"""Relationships between records, and the customers at their ends."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection
from customer.store.record_writes import RacedError

BY_PLATFORM = 0
"""Instead of a source system's number."""
_NOTHING = UUID(int=0)


@dataclass(slots=True)
class RelationshipRow:
    """A relationship in its present state."""

    relationship_id: UUID
    institution_id: str
    source_system_number: int
    source_key: bytes
    content_hash: bytes
    observe_time: datetime
    version: int
    kind: int
    from_record_id: UUID
    to_record_id: UUID
    status: int
    legal_basis_code: str
    share_basis_points: int
    position_code: str
    begin_date: date | None
    end_date: date | None
    decided_by: str
    decide_time: datetime | None
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Seen:
    """A relationship with what it is read by: the customers at its ends, and its source system's id (empty for the platform)."""

    row: RelationshipRow
    from_customer_id: UUID
    to_customer_id: UUID
    source_system_id: str


async def lock_by_source_key(
    connection: Connection, institution_id: str, number: int, keys: Iterable[bytes]
) -> dict[bytes, RelationshipRow]:
    """The relationships of a source system with these key hashes, locked in the order of their ids."""
    rows = await connection.fetch(_LOCK_BY_SOURCE_KEY, institution_id, number, list(keys))
    return {row["source_key"]: RelationshipRow(*row) for row in rows}


async def lock(connection: Connection, relationship_id: UUID) -> RelationshipRow | None:
    """A relationship, locked; None when there is none."""
    row = await connection.fetchrow(f"{_SELECT} WHERE e.relationship_id = $1 FOR UPDATE", relationship_id)
    return RelationshipRow(*row) if row else None


async def write(connection: Connection, relationships: Sequence[RelationshipRow]) -> None:
    """Writes relationships in their new state.

    Raises:
        RacedError: a new one's source key is taken by now.
    """
    rows = sorted(relationships, key=lambda row: (row.source_system_number, row.source_key))
    written = await connection.fetch(_WRITE, *([getattr(row, column) for row in rows] for column in _COLUMNS))
    if len(written) < len(rows):
        raise RacedError("a source key was taken by another transaction")


async def of_customer(
    connection: Connection,
    customer_id: UUID,
    institution_id: str | None,
    kind: int,
    with_rejected: bool,
    after: UUID | None,
    limit: int,
) -> list[Seen]:
    """Relationships of a customer that an institution (None: any) states, by id; 0 for any kind.

    One whose ends are one customer by now, after a merge, is left out.
    """
    rows = await connection.fetch(_OF_CUSTOMER, customer_id, institution_id, kind, with_rejected, after or _NOTHING, limit)
    return [_seen(row) for row in rows]


async def by_ids(connection: Connection, relationship_ids: Collection[UUID]) -> list[Seen]:
    """Relationships by id."""
    rows = await connection.fetch(
        f"{_SEEN} WHERE e.relationship_id = ANY($1::uuid[]) ORDER BY e.relationship_id", list(relationship_ids)
    )
    return [_seen(row) for row in rows]


async def forget(connection: Connection, record_ids: Collection[UUID]) -> None:
    """Deletes the relationships of erased records."""
    await connection.execute(
        "DELETE FROM relationships WHERE from_record_id = ANY($1::uuid[]) OR to_record_id = ANY($1::uuid[])", list(record_ids)
    )


def _seen(row: asyncpg.Record) -> Seen:
    return Seen(RelationshipRow(*row[: len(_COLUMNS)]), *row[len(_COLUMNS) :])


_COLUMNS = [
    "relationship_id", "institution_id", "source_system_number", "source_key", "content_hash", "observe_time", "version", "kind",
    "from_record_id", "to_record_id", "status", "legal_basis_code", "share_basis_points", "position_code", "begin_date",
    "end_date", "decided_by", "decide_time", "create_time", "update_time",
]  # fmt: skip
_LISTED = ", ".join(f"e.{column}" for column in _COLUMNS)
_SELECT = f"SELECT {_LISTED} FROM relationships e"
_SEEN = f"""
SELECT {_LISTED}, f.customer_id, t.customer_id, coalesce(s.source_system_id, '')
FROM relationships e JOIN records f ON f.record_id = e.from_record_id JOIN records t ON t.record_id = e.to_record_id
    LEFT JOIN source_systems s ON s.source_system_number = e.source_system_number
"""
_LOCK_BY_SOURCE_KEY = f"""{_SELECT}
WHERE e.institution_id = $1 AND e.source_system_number = $2 AND e.source_key = ANY($3::bytea[])
ORDER BY e.relationship_id FOR UPDATE
"""
_WRITE = f"""
INSERT INTO relationships ({", ".join(_COLUMNS)})
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::int[], $4::bytea[], $5::bytea[], $6::timestamptz[], $7::bigint[], $8::smallint[], $9::uuid[],
    $10::uuid[], $11::smallint[], $12::text[], $13::int[], $14::text[], $15::date[], $16::date[], $17::text[], $18::timestamptz[],
    $19::timestamptz[], $20::timestamptz[])
ON CONFLICT (institution_id, source_system_number, source_key) DO UPDATE SET
    content_hash = excluded.content_hash, observe_time = excluded.observe_time, version = excluded.version, kind = excluded.kind,
    from_record_id = excluded.from_record_id, to_record_id = excluded.to_record_id, status = excluded.status,
    legal_basis_code = excluded.legal_basis_code, share_basis_points = excluded.share_basis_points,
    position_code = excluded.position_code, begin_date = excluded.begin_date, end_date = excluded.end_date,
    decided_by = excluded.decided_by, decide_time = excluded.decide_time, update_time = excluded.update_time
WHERE relationships.relationship_id = excluded.relationship_id
RETURNING 1
"""
_OF_CUSTOMER = f"""{_SEEN}
WHERE e.relationship_id IN (
        SELECT relationship_id FROM relationships JOIN records ON record_id = from_record_id WHERE customer_id = $1
        UNION ALL
        SELECT relationship_id FROM relationships JOIN records ON record_id = to_record_id WHERE customer_id = $1)
    AND ($2::text IS NULL OR e.institution_id = $2) AND ($3::int = 0 OR e.kind = $3) AND ($4 OR e.status <> 4)
    AND f.customer_id <> t.customer_id AND e.relationship_id > $5
ORDER BY e.relationship_id LIMIT $6
"""
