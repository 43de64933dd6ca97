"""Restrictions: a customer that is kept, for an institution or for all, but used for nothing."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection

FOR_ALL = ""


@dataclass(frozen=True, slots=True)
class Restriction:
    """A restriction; `institution_id` is empty when it holds for all. It hangs on a record, and moves with it."""

    restriction_id: UUID
    record_id: UUID
    customer_id: UUID
    institution_id: str
    reason_code: str
    until_date: date | None
    erasure_id: UUID | None
    create_time: datetime
    lifted_at: datetime | None = None


async def write(connection: Connection, restriction: Restriction) -> None:
    """Writes a new one."""
    values = [getattr(restriction, column) for column in COLUMNS]
    places = ", ".join(f"${place}" for place in range(1, len(COLUMNS) + 1))
    await connection.execute(f"INSERT INTO restrictions ({', '.join(COLUMNS)}) VALUES ({places})", *values)


async def lift(connection: Connection, restriction_ids: Collection[UUID], now: datetime) -> None:
    """Ends restrictions."""
    await connection.execute(
        "UPDATE restrictions SET lifted_at = $2 WHERE restriction_id = ANY($1::uuid[]) AND lifted_at IS NULL",
        list(restriction_ids), now,
    )  # fmt: skip


async def of_customer(
    connection: Connection, customer_id: UUID, institution_id: str | None, *, lifted: bool = False
) -> list[Restriction]:
    """Restrictions of a customer that hold for the institution (None: all of them), the oldest first."""
    rows = await connection.fetch(_OF_CUSTOMER, customer_id, institution_id, lifted)
    return [restriction_of(row) for row in rows]


async def restricting(connection: Connection, customer_ids: Collection[UUID]) -> dict[UUID, set[str]]:
    """For whom each customer is restricted now, empty text for all; customers without restriction are left out."""
    found: dict[UUID, set[str]] = {}
    for row in await connection.fetch(_RESTRICTING, list(customer_ids)):
        found.setdefault(row[0], set()).add(row[1])
    return found


async def forget(connection: Connection, record_ids: Collection[UUID]) -> None:
    """Deletes those that hang on erased records."""
    await connection.execute("DELETE FROM restrictions WHERE record_id = ANY($1::uuid[])", list(record_ids))


def restriction_of(row: asyncpg.Record) -> Restriction:
    """A row as a restriction."""
    return Restriction(**dict(row))


def is_restricted(restricted_for: Collection[str], institution_ids: Collection[str]) -> bool:
    """Whether a customer of these institutions is restricted as a whole: for all, or for each of them."""
    return FOR_ALL in restricted_for or (bool(restricted_for) and set(institution_ids) <= set(restricted_for))


COLUMNS = (
    "restriction_id", "record_id", "customer_id", "institution_id", "reason_code", "until_date", "erasure_id", "create_time",
    "lifted_at",
)  # fmt: skip
_OF_CUSTOMER = f"""
SELECT {", ".join(COLUMNS)} FROM restrictions
WHERE customer_id = $1 AND ($2::text IS NULL OR institution_id IN ('', $2)) AND ($3 OR lifted_at IS NULL)
ORDER BY restriction_id
"""
_RESTRICTING = """
SELECT DISTINCT customer_id, institution_id FROM restrictions WHERE customer_id = ANY($1::uuid[]) AND lifted_at IS NULL
"""
RESTRICTED = """EXISTS (
    SELECT FROM restrictions x
    WHERE x.customer_id = r.customer_id AND x.lifted_at IS NULL AND x.institution_id IN ('', r.institution_id))"""
"""SQL: whether the customer of a record `r` is restricted for the record's institution; no search finds it by that record."""
