"""Pairs of records that are never linked by a rule. They hang on records, so they follow every merge and relink."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection

LEFT, RIGHT = 1, 2


@dataclass(frozen=True, slots=True)
class Rejection:
    """Two sides that are not the same."""

    rejection_id: UUID
    reason_code: str
    decided_by: str
    decided_at: datetime
    withdrawn_at: datetime | None = None
    pairs_count: int = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """A record of the left side with one of the right side, and what they said when they were rejected."""

    left: UUID
    right: UUID
    content_key: bytes


async def rejected_with(connection: Connection, record_ids: Collection[UUID]) -> dict[UUID, frozenset[UUID]]:
    """For each of these records that has live rejections: the records that it is never linked with by a rule."""
    rows = await connection.fetch(_REJECTED_WITH, list(record_ids))
    found: dict[UUID, set[UUID]] = {}
    for record_id, other in rows:
        found.setdefault(record_id, set()).add(other)
    return {record_id: frozenset(others) for record_id, others in found.items()}


async def between(connection: Connection, record_ids: Collection[UUID], others: Collection[UUID]) -> list[UUID]:
    """Live rejections of a pair with one record from each."""
    rows = await connection.fetch(_BETWEEN, list(record_ids), list(others))
    return [row[0] for row in rows]


async def insert(connection: Connection, rejection: Rejection, pairs: Iterable[Pair]) -> None:
    """Keeps a rejection with its pairs."""
    await connection.execute(
        "INSERT INTO rejections (rejection_id, reason_code, decided_by, decided_at) VALUES ($1, $2, $3, $4)",
        rejection.rejection_id, rejection.reason_code, rejection.decided_by, rejection.decided_at,
    )  # fmt: skip
    rows = [
        (min(pair.left, pair.right), max(pair.left, pair.right), LEFT if pair.left < pair.right else RIGHT, pair.content_key)
        for pair in pairs
    ]
    await connection.execute(
        "INSERT INTO rejected_pairs (low_record_id, high_record_id, rejection_id, low_side, content_key, live)"
        " SELECT low, high, $1, side, content, true"
        " FROM unnest($2::uuid[], $3::uuid[], $4::smallint[], $5::bytea[]) AS pair (low, high, side, content)",
        rejection.rejection_id, *(list(column) for column in zip(*rows, strict=True)),
    )  # fmt: skip


async def get(connection: Connection, rejection_id: UUID, institution_id: str | None, *, lock: bool = False) -> Rejection | None:
    """A rejection that the institution may see (None: any), for a change locked; None when there is none.

    Of pairs those of the institution's own records are counted.
    """
    row = await connection.fetchrow(
        f"{_SELECT} WHERE j.rejection_id = $1 AND {_VISIBLE}" + (" FOR UPDATE OF j" if lock else ""), rejection_id, institution_id
    )
    return _rejection(row) if row else None


async def of_customer(
    connection: Connection, customer_id: UUID, institution_id: str | None, before: UUID | None, limit: int
) -> list[Rejection]:
    """Rejections that concern records of a customer and that the institution may see (None: all), the newest first."""
    rows = await connection.fetch(_OF_CUSTOMER, customer_id, institution_id, before, limit)
    return [_rejection(row) for row in rows]


async def sides(connection: Connection, rejection_ids: Sequence[UUID]) -> dict[UUID, dict[int, list[UUID]]]:
    """For each rejection and side: the customers of its records now."""
    found: dict[UUID, dict[int, list[UUID]]] = {one: {LEFT: [], RIGHT: []} for one in rejection_ids}
    for row in await connection.fetch(_SIDES, rejection_ids):
        found[row["rejection_id"]][row["side"]].append(row["customer_id"])
    return found


async def pairs(connection: Connection, rejection_id: UUID) -> list[tuple[UUID, UUID]]:
    """The pairs of records that a rejection tells apart."""
    rows = await connection.fetch(
        "SELECT low_record_id, high_record_id FROM rejected_pairs WHERE rejection_id = $1", rejection_id
    )
    return [(row[0], row[1]) for row in rows]


async def withdraw(connection: Connection, rejection_id: UUID, withdrawn_by: str, now: datetime) -> None:
    """A rejection counts no more."""
    await connection.execute(
        "UPDATE rejections SET withdrawn_by = $2, withdrawn_at = $3 WHERE rejection_id = $1", rejection_id, withdrawn_by, now
    )
    await connection.execute("UPDATE rejected_pairs SET live = false WHERE rejection_id = $1", rejection_id)


def _rejection(row: asyncpg.Record) -> Rejection:
    return Rejection(*row)


_SELECT = """
SELECT j.rejection_id, j.reason_code, j.decided_by, j.decided_at, j.withdrawn_at,
    (SELECT count(*)::int FROM rejected_pairs p WHERE p.rejection_id = j.rejection_id AND ($2::text IS NULL OR NOT EXISTS (
        SELECT FROM records r WHERE r.record_id IN (p.low_record_id, p.high_record_id) AND r.institution_id <> $2)))
FROM rejections j"""
_REJECTED_WITH = """
SELECT low_record_id, high_record_id FROM rejected_pairs WHERE live AND low_record_id = ANY($1::uuid[])
UNION ALL
SELECT high_record_id, low_record_id FROM rejected_pairs WHERE live AND high_record_id = ANY($1::uuid[])
"""
_BETWEEN = """
SELECT rejection_id FROM rejected_pairs WHERE live AND low_record_id = ANY($1::uuid[]) AND high_record_id = ANY($2::uuid[])
UNION
SELECT rejection_id FROM rejected_pairs WHERE live AND low_record_id = ANY($2::uuid[]) AND high_record_id = ANY($1::uuid[])
"""
# An institution sees a rejection when it is linked with the customers of all its records.
_VISIBLE = """($2::text IS NULL OR NOT EXISTS (
    SELECT FROM rejected_pairs p JOIN records r ON r.record_id IN (p.low_record_id, p.high_record_id)
    WHERE p.rejection_id = j.rejection_id
        AND NOT EXISTS (SELECT FROM records mine WHERE mine.customer_id = r.customer_id AND mine.institution_id = $2)))"""
_OF_CUSTOMER = f"""{_SELECT}
WHERE {_VISIBLE} AND ($3::uuid IS NULL OR j.rejection_id < $3) AND j.rejection_id IN (
    SELECT p.rejection_id FROM records r JOIN rejected_pairs p ON p.low_record_id = r.record_id WHERE r.customer_id = $1
    UNION
    SELECT p.rejection_id FROM records r JOIN rejected_pairs p ON p.high_record_id = r.record_id WHERE r.customer_id = $1)
ORDER BY j.rejection_id DESC LIMIT $4
"""
_SIDES = """
SELECT DISTINCT s.rejection_id, s.side, r.customer_id
FROM (
    SELECT rejection_id, low_record_id AS record_id, low_side AS side FROM rejected_pairs WHERE rejection_id = ANY($1::uuid[])
    UNION
    SELECT rejection_id, high_record_id, (3 - low_side)::smallint FROM rejected_pairs WHERE rejection_id = ANY($1::uuid[])) s
    JOIN records r ON r.record_id = s.record_id
ORDER BY s.rejection_id, s.side, r.customer_id
"""
