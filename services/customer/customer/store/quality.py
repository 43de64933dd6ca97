"""The quality of customers as it was last published, and what it rests on beside the records."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from asyncpg import Record

from chassis.database import Connection

_NO_CUSTOMER = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What was last published of a customer's quality; version 0 for nothing."""

    version: int = 0
    completeness_percent: int = 0
    credibility_percent: int = 0


async def remembered(connection: Connection, customer_ids: Collection[UUID]) -> dict[UUID, Remembered]:
    """What was last published, by customer; those of whom nothing was are left out."""
    rows = await connection.fetch(
        "SELECT customer_id, version, completeness_percent, credibility_percent FROM customer_qualities"
        " WHERE customer_id = ANY($1::uuid[])",
        list(customer_ids),
    )
    return {row[0]: Remembered(row[1], row[2], row[3]) for row in rows}


async def remember(connection: Connection, qualities: Mapping[UUID, Remembered]) -> None:
    """Writes what is being published."""
    if qualities:
        await connection.execute(upsert(1), *columns(qualities))


def columns(qualities: Mapping[UUID, Remembered]) -> list[list[object]]:
    """The parameters of `upsert`."""
    rows = sorted(qualities.items(), key=lambda one: one[0])
    return [
        [customer_id for customer_id, _ in rows],
        [one.version for _, one in rows],
        [one.completeness_percent for _, one in rows],
        [one.credibility_percent for _, one in rows],
    ]


def upsert(first: int) -> str:
    """SQL that remembers qualities: `first` is the number of the first of its four parameters."""
    types = zip(range(first, first + 4), ("uuid", "bigint", "smallint", "smallint"), strict=True)
    return f"""
    INSERT INTO customer_qualities (customer_id, version, completeness_percent, credibility_percent)
    SELECT * FROM unnest({", ".join(f"${number}::{kind}[]" for number, kind in types)})
    ON CONFLICT (customer_id) DO UPDATE SET version = excluded.version,
        completeness_percent = excluded.completeness_percent, credibility_percent = excluded.credibility_percent"""


async def page(connection: Connection, after: str, limit: int) -> list[Record]:
    """Published qualities by customer."""
    rows: list[Record] = await connection.fetch(
        "SELECT * FROM customer_qualities WHERE customer_id > $1 ORDER BY customer_id LIMIT $2",
        UUID(after) if after else _NO_CUSTOMER, limit,
    )  # fmt: skip
    return rows


async def forget(connection: Connection, customer_ids: Collection[UUID]) -> None:
    """Deletes what is remembered of erased customers."""
    await connection.execute("DELETE FROM customer_qualities WHERE customer_id = ANY($1::uuid[])", list(customer_ids))


async def holding_kinds(
    connection: Connection, customer_ids: Sequence[UUID], institution_id: str | None, today: date
) -> dict[UUID, list[int]]:
    """Kinds of the open holdings of customers, at one institution or (None) anywhere."""
    rows = await connection.fetch(_HOLDING_KINDS, list(customer_ids), institution_id, today)
    return {row[0]: row[1] for row in rows}


# Sub-queries that cannot be flattened: one index look-up for each customer, however small the tables were at the first plan.
_HOLDING_KINDS = """
SELECT wanted.customer_id, array_agg(DISTINCT h.kind ORDER BY h.kind)
FROM unnest($1::uuid[]) AS wanted (customer_id)
    CROSS JOIN LATERAL (
        SELECT record_id FROM records
        WHERE customer_id = wanted.customer_id AND ($2::text IS NULL OR institution_id = $2) OFFSET 0) r
    CROSS JOIN LATERAL (SELECT holding_id FROM holders WHERE record_id = r.record_id OFFSET 0) o
    CROSS JOIN LATERAL (
        SELECT kind FROM holdings WHERE holding_id = o.holding_id AND (close_date IS NULL OR close_date > $3) OFFSET 0) h
GROUP BY wanted.customer_id
"""
