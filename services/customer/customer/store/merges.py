"""Merges and manual relinks: what was decided, and exactly what a loser had."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection

CHAIN_MAX = 1000
"""Merges followed from a loser to the customer that is alive."""


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge of one customer into another."""

    merge_id: UUID
    loser_id: UUID
    winner_id: UUID
    reason_code: str
    override_reason: str
    decided_by: str
    decided_at: datetime
    undone_at: datetime | None = None
    records_count: int = 0


async def chains(connection: Connection, customer_ids: Collection[UUID]) -> dict[UUID, list[UUID]]:
    """For each customer that exists: itself, whom it was merged into, and so on to the one that is alive."""
    rows = await connection.fetch(_CHAINS, list(customer_ids), CHAIN_MAX)
    found: dict[UUID, list[UUID]] = {}
    for row in rows:
        found.setdefault(row["first_id"], []).append(row["customer_id"])
    return found


async def insert_unless_known(connection: Connection, merge: Merge, record_ids: Sequence[UUID]) -> None:
    """Keeps a merge with the records that the loser had, unless the decision that made it was kept already."""
    inserted = await connection.fetchval(
        "INSERT INTO merges (merge_id, loser_id, winner_id, reason_code, override_reason, decided_by, decided_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (loser_id) WHERE undone_at IS NULL DO NOTHING RETURNING true",
        merge.merge_id, merge.loser_id, merge.winner_id, merge.reason_code, merge.override_reason, merge.decided_by,
        merge.decided_at,
    )  # fmt: skip
    if not inserted:
        return
    await connection.execute(
        "INSERT INTO merge_records (merge_id, record_id) SELECT $1, * FROM unnest($2::uuid[])", merge.merge_id, record_ids
    )


async def live(connection: Connection, loser_id: UUID) -> Merge | None:
    """The merge of this loser that stands; None when there is none."""
    row = await connection.fetchrow(f"{_SELECT} WHERE m.loser_id = $1 AND m.undone_at IS NULL", loser_id)
    return _merge(row) if row else None


async def of_ids(connection: Connection, merge_ids: Sequence[UUID]) -> list[Merge]:
    """Merges by id, the latest first."""
    rows = await connection.fetch(f"{_SELECT} WHERE m.merge_id = ANY($1::uuid[]) ORDER BY m.merge_id DESC", merge_ids)
    return [_merge(row) for row in rows]


async def standing(connection: Connection, merge_ids: Sequence[UUID]) -> list[Merge]:
    """Those of these merges that are not undone, the latest first."""
    return [merge for merge in await of_ids(connection, merge_ids) if merge.undone_at is None]


async def of_customer(
    connection: Connection, customer_id: UUID, institution_id: str | None, before: UUID | None, limit: int
) -> list[Merge]:
    """Merges that a customer lost or won, the newest first; for an institution those that moved records of its own."""
    rows = await connection.fetch(_OF_CUSTOMER, customer_id, institution_id, before, limit)
    return [_merge(row) for row in rows]


async def owners(connection: Connection, record_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """Whom records belong to now; those that do not exist are left out."""
    rows = await connection.fetch(
        "SELECT record_id, customer_id FROM records WHERE record_id = ANY($1::uuid[])", list(record_ids)
    )
    return {row[0]: row[1] for row in rows}


async def named(connection: Connection, record_ids: Collection[UUID], institution_id: str | None) -> dict[UUID, str]:
    """Resource names of records, for an institution of its own."""
    rows = await connection.fetch(
        "SELECT r.record_id, format('institutions/%s/sourceSystems/%s/records/%s', s.institution_id, s.source_system_id,"
        " r.record_id) FROM records r JOIN source_systems s USING (source_system_number)"
        " WHERE r.record_id = ANY($1::uuid[]) AND ($2::text IS NULL OR r.institution_id = $2)",
        list(record_ids), institution_id,
    )  # fmt: skip
    return {row[0]: row[1] for row in rows}


async def records_of(connection: Connection, merge_id: UUID) -> dict[UUID, UUID | None]:
    """The records that the loser had at the merge, and whom each belongs to now; None for an erased one."""
    rows = await connection.fetch(
        "SELECT m.record_id, r.customer_id FROM merge_records m LEFT JOIN records r USING (record_id) WHERE m.merge_id = $1",
        merge_id,
    )
    return {row[0]: row[1] for row in rows}


async def undo(connection: Connection, merge_id: UUID, undone_by: str, reason_code: str, now: datetime) -> None:
    """A merge stands no more."""
    await connection.execute(
        "UPDATE merges SET undone_by = $2, undo_reason_code = $3, undone_at = $4 WHERE merge_id = $1",
        merge_id, undone_by, reason_code, now,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Relink:
    """A single record moved by hand."""

    relink_id: UUID
    record_id: UUID
    from_customer_id: UUID
    to_customer_id: UUID
    reason_code: str
    override_reason: str
    decided_by: str
    decided_at: datetime


async def insert_relink(connection: Connection, relink: Relink) -> None:
    """Keeps why a record was moved."""
    await connection.execute(
        "INSERT INTO relinks (relink_id, record_id, from_customer_id, to_customer_id, reason_code, override_reason, decided_by,"
        " decided_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        relink.relink_id, relink.record_id, relink.from_customer_id, relink.to_customer_id, relink.reason_code,
        relink.override_reason, relink.decided_by, relink.decided_at,
    )  # fmt: skip


def _merge(row: asyncpg.Record) -> Merge:
    return Merge(*row)


_SELECT = """
SELECT m.merge_id, m.loser_id, m.winner_id, m.reason_code, m.override_reason, m.decided_by, m.decided_at, m.undone_at,
    (SELECT count(*)::int FROM merge_records mr WHERE mr.merge_id = m.merge_id)
FROM merges m"""
_OF_CUSTOMER = """
SELECT * FROM (
    SELECT m.merge_id, m.loser_id, m.winner_id, m.reason_code, m.override_reason, m.decided_by, m.decided_at, m.undone_at,
        (SELECT count(*)::int FROM merge_records mr JOIN records r USING (record_id)
         WHERE mr.merge_id = m.merge_id AND ($2::text IS NULL OR r.institution_id = $2)) AS records_count
    FROM merges m WHERE (m.loser_id = $1 OR m.winner_id = $1) AND ($3::uuid IS NULL OR m.merge_id < $3)) seen
WHERE $2::text IS NULL OR records_count > 0
ORDER BY merge_id DESC LIMIT $4
"""
_CHAINS = """
WITH RECURSIVE chain AS (
    SELECT customer_id AS first_id, customer_id, merged_into, 1 AS place FROM customers WHERE customer_id = ANY($1::uuid[])
    UNION ALL
    SELECT chain.first_id, c.customer_id, c.merged_into, chain.place + 1
    FROM chain JOIN customers c ON c.customer_id = chain.merged_into WHERE chain.place < $2
)
SELECT first_id, customer_id FROM chain ORDER BY first_id, place
"""
