"""Erasures: what is asked for, what the law keeps, and the deletion of everything that hangs on records."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import IntEnum
from uuid import UUID

from chassis import answers
from chassis.database import Connection
from customer.domain.retention import Relationship
from customer.store import imports, kyc, pins, portfolios, restrictions, reviews, sharing
from customer.store import relationships as relationships_of_records

NEXT_DUE_ERASURES_MAX = 20


class ErasureState(IntEnum):
    """How far an erasure is."""

    RETAINED = 1
    SHREDDING = 2
    ERASED = 3
    CANCELLED = 4


@dataclass(slots=True)
class Erasure:
    """An erasure. `institution_id` is empty for the records of all; `record_ids` are what was asked to be erased."""

    erasure_id: UUID
    customer_id: UUID
    institution_id: str
    state: int
    legal_basis_code: str
    due_date: date
    retention_rules: Sequence[str]
    record_ids: Sequence[UUID]
    requested_by: str
    create_time: datetime
    erased_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands."""

    record_id: UUID
    customer_id: UUID
    institution_id: str
    source_system_number: int
    source_key: bytes


async def write(connection: Connection, erasure: Erasure) -> None:
    """Writes an erasure in its new state."""
    values = [getattr(erasure, column) for column in _COLUMNS]
    await connection.execute(_WRITE, *values)


async def get(connection: Connection, erasure_id: UUID, institution_id: str | None, *, lock: bool = False) -> Erasure | None:
    """An erasure that the institution asked for; any for None."""
    row = await connection.fetchrow(
        f"{_SELECT} WHERE erasure_id = $1 AND ($2::text IS NULL OR institution_id = $2) {'FOR UPDATE' if lock else ''}",
        erasure_id, institution_id,
    )  # fmt: skip
    return Erasure(*row) if row else None


async def page(connection: Connection, institution_id: str | None, state: int, before: UUID | None, limit: int) -> list[Erasure]:
    """Erasures that the institution asked for (None: all), the newest first; a state of 0 means any."""
    rows = await connection.fetch(
        f"{_SELECT} WHERE ($1::text IS NULL OR institution_id = $1) AND ($2 = 0 OR state = $2)"
        " AND ($3::uuid IS NULL OR erasure_id < $3) ORDER BY erasure_id DESC LIMIT $4",
        institution_id, state, before, limit,
    )  # fmt: skip
    return [Erasure(*row) for row in rows]


async def unfinished(connection: Connection, today: date) -> list[UUID]:
    """Erasures that are due, or whose keys are still to be destroyed."""
    rows = await connection.fetch(_UNFINISHED, today, NEXT_DUE_ERASURES_MAX)
    return [row[0] for row in rows]


async def places(connection: Connection, record_ids: Collection[UUID]) -> list[Place]:
    """Where those of these records stand that are not erased."""
    rows = await connection.fetch(_PLACES, list(record_ids))
    return [Place(*row) for row in rows]


async def relationships(connection: Connection, record_ids: Collection[UUID]) -> list[Relationship]:
    """What was between the owner of these records and each of their institutions."""
    rows = await connection.fetch(_RELATIONSHIPS, list(record_ids))
    return [Relationship(row[0], row[1], row[2], row[3], row[4]) for row in rows]


async def tombstones(connection: Connection, keys: Iterable[tuple[int, bytes]]) -> dict[tuple[int, bytes], datetime]:
    """When records of these (source system, key hash) were erased last; those that never were are left out."""
    columns = [list(column) for column in zip(*keys, strict=True)]
    if not columns:
        return {}
    return {(row[0], row[1]): row[2] for row in await connection.fetch(_TOMBSTONES, *columns)}


async def purge(connection: Connection, erased: Sequence[Place], now: datetime) -> list[UUID]:
    """Deletes records and everything that hangs on them, and leaves tombstones. Their keys are destroyed after the commit.

    The customers are locked. Holdings that nobody else holds go, too; answers the ids of those that others hold still. What was
    answered to earlier requests about the customers whose the records ever were may tell of them: it is forgotten.
    """
    record_ids = [place.record_id for place in erased]
    named = [*record_ids, *(row[0] for row in await connection.fetch(_EVER_OWNERS, record_ids))]
    await connection.execute(
        _BURY,
        record_ids,
        [place.customer_id for place in erased],
        [place.source_system_number for place in erased],
        [place.source_key for place in erased],
        now,
    )
    await reviews.forget(connection, record_ids)
    await kyc.forget(connection, record_ids)
    await pins.forget(connection, record_ids)
    await sharing.forget(connection, record_ids)
    await restrictions.forget(connection, record_ids)
    await relationships_of_records.forget(connection, record_ids)
    await portfolios.forget(connection, record_ids)
    await imports.forget_rejections(connection, [(place.source_system_number, place.source_key) for place in erased])
    held = [row[0] for row in await connection.fetch(_UNHOLD, record_ids)]
    await connection.execute(_DELETE_UNHELD, held)
    for statement in _PURGE:
        await connection.execute(statement, record_ids)
    await answers.forget(connection, named)
    return [row[0] for row in await connection.fetch(_RAISE_HELD, held)]


_COLUMNS = (
    "erasure_id", "customer_id", "institution_id", "state", "legal_basis_code", "due_date", "retention_rules", "record_ids",
    "requested_by", "create_time", "erased_at",
)  # fmt: skip
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM erasures"
_WRITE = f"""
INSERT INTO erasures ({", ".join(_COLUMNS)}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (erasure_id) DO UPDATE SET state = excluded.state, due_date = excluded.due_date,
    retention_rules = excluded.retention_rules, erased_at = excluded.erased_at
"""
_UNFINISHED = """
SELECT erasure_id FROM erasures WHERE state = 2 OR (state = 1 AND due_date <= $1) ORDER BY due_date, erasure_id LIMIT $2
"""
_PLACES = """
SELECT record_id, customer_id, institution_id, source_system_number, source_key FROM records
WHERE record_id = ANY($1::uuid[]) ORDER BY record_id
"""
_RELATIONSHIPS = """
SELECT r.institution_id, i.country_code,
    CASE i.kind WHEN 1 THEN 'BANK' WHEN 2 THEN 'BROKER' WHEN 3 THEN 'INSURER' WHEN 4 THEN 'RETAILER' ELSE 'FEEDER' END,
    coalesce(bool_or(h.holding_id IS NOT NULL AND h.close_date IS NULL), false),
    greatest(max(h.close_date), max(c.decide_time)::date)
FROM records r
    JOIN institutions i USING (institution_id)
    LEFT JOIN holders USING (record_id)
    LEFT JOIN holdings h USING (holding_id)
    LEFT JOIN kyc_cases c ON c.record_id = r.record_id AND c.decide_time IS NOT NULL
WHERE r.record_id = ANY($1::uuid[])
GROUP BY r.institution_id, i.country_code, i.kind ORDER BY r.institution_id
"""
_TOMBSTONES = """
SELECT wanted.number, wanted.key, max(e.erased_at)
FROM unnest($1::int[], $2::bytea[]) AS wanted (number, key)
    CROSS JOIN LATERAL (
        SELECT erased_at FROM erased_records WHERE source_system_number = wanted.number AND source_key = wanted.key OFFSET 0) e
GROUP BY wanted.number, wanted.key
"""
_BURY = """
INSERT INTO erased_records (record_id, customer_id, source_system_number, source_key, erased_at)
SELECT *, $5::timestamptz FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::bytea[])
"""
_EVER_OWNERS = "SELECT DISTINCT customer_id FROM links WHERE record_id = ANY($1::uuid[])"
_UNHOLD = "DELETE FROM holders WHERE record_id = ANY($1::uuid[]) RETURNING holding_id"
_DELETE_UNHELD = """
DELETE FROM holdings h WHERE holding_id = ANY($1::uuid[])
    AND NOT EXISTS (SELECT FROM holders WHERE holders.holding_id = h.holding_id)
"""
_RAISE_HELD = "UPDATE holdings SET version = version + 1 WHERE holding_id = ANY($1::uuid[]) RETURNING holding_id"
_PURGE = (
    """DELETE FROM blocking_keys b USING (
        SELECT record_id, unnest(blocking_keys) AS key FROM records WHERE record_id = ANY($1::uuid[])) old
    WHERE b.key = old.key AND b.record_id = old.record_id""",
    "DELETE FROM activities WHERE record_id = ANY($1::uuid[])",
    "DELETE FROM links WHERE record_id = ANY($1::uuid[])",
    "DELETE FROM record_sightings WHERE record_id = ANY($1::uuid[])",
    "DELETE FROM source_records WHERE record_id = ANY($1::uuid[])",
    "DELETE FROM records WHERE record_id = ANY($1::uuid[])",
)
