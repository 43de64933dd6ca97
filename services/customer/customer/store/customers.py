"""Customers: their ids and versions, and which of them a caller may find."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chassis.database import Connection

_NO_CUSTOMER = UUID(int=0)
_WRITTEN = ("customer_id", "version", "create_time", "merged_into", "restricted")
_COLUMNS = "customer_id, version, create_time, update_time, merged_into, restricted"


@dataclass(slots=True)
class CustomerRow:
    """A customer as published: everything else is computed from its records."""

    customer_id: UUID
    version: int
    create_time: datetime
    update_time: datetime
    merged_into: UUID | None = None
    restricted: bool = False


async def lock(connection: Connection, customer_ids: Collection[UUID]) -> dict[UUID, CustomerRow]:
    """Customers, locked in the order of their ids.

    The lock guards which records belong to a customer, their states, links and pins, and its row. Whoever changes any of these
    holds the lock of every customer concerned before reading what the change rests on.
    """
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM customers WHERE customer_id = ANY($1::uuid[]) ORDER BY customer_id FOR UPDATE",
        list(customer_ids),
    )
    return {row[0]: CustomerRow(*row) for row in rows}


async def read(connection: Connection, customer_ids: Collection[UUID]) -> dict[UUID, CustomerRow]:
    """Customers, not locked, by their ids."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM customers WHERE customer_id = ANY($1::uuid[]) ORDER BY customer_id", list(customer_ids)
    )
    return {row[0]: CustomerRow(*row) for row in rows}


async def get(connection: Connection, customer_id: UUID) -> CustomerRow | None:
    """A customer; None when there never was one of this id."""
    row = await connection.fetchrow(f"SELECT {_COLUMNS} FROM customers WHERE customer_id = $1", customer_id)
    return CustomerRow(*row) if row else None


async def winner(connection: Connection, customer_id: UUID) -> UUID:
    """Who took over a merged customer's records, at the end of a chain of merges; a customer that is not merged is its own."""
    found: UUID | None = await connection.fetchval(_WINNER, customer_id)
    return found or customer_id


async def write(connection: Connection, customers: Sequence[CustomerRow], now: datetime) -> None:
    """Writes new customers and the new versions of locked ones."""
    await connection.execute(upsert(1, 6), *columns(customers), now)


def columns(customers: Sequence[CustomerRow]) -> list[list[object]]:
    """The parameters of `upsert`."""
    return [[getattr(customer, column) for customer in customers] for column in _WRITTEN]


def upsert(first: int, now: int) -> str:
    """SQL that writes customers: `first` is the number of the first of its five parameters, `now` of the instant."""
    types = zip(range(first, first + 5), ("uuid", "bigint", "timestamptz", "uuid", "boolean"), strict=True)
    return f"""
    INSERT INTO customers ({", ".join(_WRITTEN)}, update_time)
    SELECT *, ${now}::timestamptz FROM unnest({", ".join(f"${number}::{kind}[]" for number, kind in types)})
    ON CONFLICT (customer_id) DO UPDATE SET version = excluded.version, update_time = excluded.update_time,
        merged_into = excluded.merged_into, restricted = excluded.restricted"""


async def page(connection: Connection, after: str, limit: int) -> list[CustomerRow]:
    """Customers by id, for re-publication."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM customers WHERE customer_id > $1 ORDER BY customer_id LIMIT $2",
        UUID(after) if after else _NO_CUSTOMER,
        limit,
    )
    return [CustomerRow(*row) for row in rows]


_WINNER = """
WITH RECURSIVE chain (customer_id, merged_into) AS (
    SELECT customer_id, merged_into FROM customers WHERE customer_id = $1
    UNION
    SELECT c.customer_id, c.merged_into FROM chain JOIN customers c ON c.customer_id = chain.merged_into
)
SELECT customer_id FROM chain WHERE merged_into IS NULL
"""
