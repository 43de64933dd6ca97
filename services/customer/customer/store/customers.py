"""Customers: their ids and versions, and which of them a caller may find."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection

_HIGHEST = "\U0010ffff"
_NO_CUSTOMER = UUID(int=0)
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
    await connection.execute(
        _WRITE,
        [customer.customer_id for customer in customers],
        [customer.version for customer in customers],
        [customer.create_time for customer in customers],
        now,
        [customer.merged_into for customer in customers],
        [customer.restricted for customer in customers],
    )


async def page(connection: Connection, after: str, limit: int) -> list[CustomerRow]:
    """Customers by id, for re-publication."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM customers WHERE customer_id > $1 ORDER BY customer_id LIMIT $2",
        UUID(after) if after else _NO_CUSTOMER,
        limit,
    )
    return [CustomerRow(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whose eyes search: an institution (None sees all), perhaps bound to one customer, after the last row of the page before."""

    institution_id: str | None
    customer_id: UUID | None = None
    after: UUID = _NO_CUSTOMER


async def list_linked(connection: Connection, viewer: Viewer, limit: int) -> list[UUID]:
    """Customers the viewer is linked with, by id."""
    return await _ids(connection, "TRUE", viewer, limit)


async def find_by_keys(connection: Connection, keys: Collection[bytes], viewer: Viewer, limit: int) -> list[UUID]:
    """Customers with a visible record that has one of these keys."""
    condition = "r.record_id IN (SELECT k.record_id FROM record_keys k WHERE k.key = ANY($5::bytea[]))"
    return await _ids(connection, condition, viewer, limit, list(keys))


async def find_by_name(connection: Connection, prefixes: Sequence[str], viewer: Viewer, limit: int) -> list[UUID]:
    """Customers with a visible record whose names have a word for each of these beginnings; the first should narrow most."""
    ends = [prefix + _HIGHEST for prefix in prefixes]
    return await _ids(connection, _NAMED, viewer, limit, prefixes[0], ends[0], list(prefixes[1:]), ends[1:])


async def _ids(connection: Connection, condition: str, viewer: Viewer, limit: int, *arguments: object) -> list[UUID]:
    # Two texts rather than `$2 IS NULL OR …`, which would hide the index from a prepared plan.
    institution = "$2::text IS NULL" if viewer.institution_id is None else "r.institution_id = $2"
    customer = "$3::uuid IS NULL" if viewer.customer_id is None else "r.customer_id = $3"
    rows: list[asyncpg.Record] = await connection.fetch(
        f"SELECT DISTINCT r.customer_id FROM records r WHERE r.customer_id > $1 AND {institution} AND {customer} AND {condition}"
        " ORDER BY r.customer_id LIMIT $4",
        viewer.after, viewer.institution_id, viewer.customer_id, limit, *arguments,
    )  # fmt: skip
    return [row[0] for row in rows]


# The operators of text_pattern_ops compare bytes, so that a prefix is a range of the index in any collation.
_NAMED = """r.record_id IN (
    SELECT t.record_id FROM name_tokens t
    WHERE t.token ~>=~ $5 AND t.token ~<~ $6 AND NOT EXISTS (
        SELECT FROM unnest($7::text[], $8::text[]) AS other (low, high)
        WHERE NOT EXISTS (
            SELECT FROM name_tokens n WHERE n.record_id = t.record_id AND n.token ~>=~ other.low AND n.token ~<~ other.high)))"""
_WINNER = """
WITH RECURSIVE chain (customer_id, merged_into) AS (
    SELECT customer_id, merged_into FROM customers WHERE customer_id = $1
    UNION
    SELECT c.customer_id, c.merged_into FROM chain JOIN customers c ON c.customer_id = chain.merged_into
)
SELECT customer_id FROM chain WHERE merged_into IS NULL
"""
_WRITE = """
INSERT INTO customers (customer_id, version, create_time, update_time, merged_into, restricted)
SELECT customer_id, version, create_time, $4::timestamptz, merged_into, restricted
FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $5::uuid[], $6::boolean[])
    AS row (customer_id, version, create_time, merged_into, restricted)
ON CONFLICT (customer_id) DO UPDATE SET version = excluded.version, update_time = excluded.update_time,
    merged_into = excluded.merged_into, restricted = excluded.restricted
"""
