"""Permissions: every statement ever made, and which of them holds."""

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime

import asyncpg

from chassis.database import Connection
from contact.domain.kinds import Permission
from contact.domain.permissions import Key, Statement

PageKey = tuple[str, int, int]
_COLUMNS = "customer_id, institution_id, purpose, channel, statement_id, state, state_time, evidence_reference, version"


async def current(connection: Connection, keys: Collection[Key]) -> dict[Key, Statement]:
    """The statements that hold; lock the customers before."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM permissions WHERE (customer_id, institution_id, purpose, channel) IN"
        " (SELECT * FROM unnest($1::uuid[], $2::text[], $3::smallint[], $4::smallint[]))",
        *_columns(keys, 4),
    )
    return {_key(row): _statement(row) for row in rows}


async def add_statements(
    connection: Connection, statements: Sequence[Statement], recorded_at: datetime, recorded_by: str
) -> None:
    """Adds statements to the history."""
    await connection.execute(
        "INSERT INTO permission_events (statement_id, customer_id, institution_id, purpose, channel, state, state_time,"
        " evidence_reference, recorded_at, recorded_by)"
        " SELECT statement_id, customer_id, institution_id, purpose, channel, state, state_time, evidence_reference, $9, $10"
        f" FROM {_STATEMENTS}",
        *_arrays(statements), recorded_at, recorded_by,
    )  # fmt: skip


async def let_hold(connection: Connection, statements: Sequence[Statement]) -> list[asyncpg.Record]:
    """Makes these the statements that hold, and returns the new rows."""
    return await connection.fetch(
        f"INSERT INTO permissions AS p ({_COLUMNS})"
        " SELECT customer_id, institution_id, purpose, channel, statement_id, state, state_time, evidence_reference, 1"
        f" FROM {_STATEMENTS}"
        " ON CONFLICT (customer_id, institution_id, purpose, channel) DO UPDATE SET"
        " statement_id = excluded.statement_id, state = excluded.state, state_time = excluded.state_time,"
        " evidence_reference = excluded.evidence_reference, version = p.version + 1"
        f" RETURNING {_COLUMNS}",
        *_arrays(statements),
    )


async def permitted(
    connection: Connection, institution_id: str, purpose: int, channel: int, customer_ids: Collection[uuid.UUID]
) -> frozenset[uuid.UUID]:
    """Those of the customers who have said yes."""
    rows = await connection.fetch(
        "SELECT customer_id FROM permissions WHERE customer_id = ANY($1::uuid[]) AND institution_id = $2 AND purpose = $3"
        " AND channel = $4 AND state = $5",
        list(set(customer_ids)), institution_id, purpose, channel, Permission.GRANTED,
    )  # fmt: skip
    return frozenset(row["customer_id"] for row in rows)


async def page(
    connection: Connection, customer_id: uuid.UUID, institution_id: str | None, after: PageKey | None, limit: int
) -> list[asyncpg.Record]:
    """A customer's permissions after a key, by institution, purpose and channel; of all institutions with None."""
    institution, purpose, channel = after or ("", 0, 0)
    return await connection.fetch(
        f"SELECT {_COLUMNS} FROM permissions WHERE customer_id = $1 AND ($2::text IS NULL OR institution_id = $2)"
        " AND (institution_id, purpose, channel) > ($3, $4, $5) ORDER BY institution_id, purpose, channel LIMIT $6",
        customer_id, institution_id, institution, purpose, channel, limit,
    )  # fmt: skip


async def all_after(connection: Connection, after: Key | None, limit: int) -> list[asyncpg.Record]:
    """Everybody's permissions after a key, with the database's epoch."""
    after = after or Key(uuid.UUID(int=0), "", 0, 0)
    return await connection.fetch(
        f"SELECT {_COLUMNS}, (SELECT epoch FROM database_epoch) AS epoch FROM permissions"
        " WHERE (customer_id, institution_id, purpose, channel) > ($1, $2, $3, $4)"
        " ORDER BY customer_id, institution_id, purpose, channel LIMIT $5",
        *after, limit,
    )  # fmt: skip


_STATEMENTS = (
    "unnest($1::uuid[], $2::uuid[], $3::text[], $4::smallint[], $5::smallint[], $6::smallint[], $7::timestamptz[], $8::text[])"
    " AS s (statement_id, customer_id, institution_id, purpose, channel, state, state_time, evidence_reference)"
)


def _arrays(statements: Sequence[Statement]) -> list[list[object]]:
    # In id order, so that two batches never wait for each other's rows.
    ordered = sorted(statements, key=lambda statement: statement.statement_id)
    return _columns([(s.statement_id, *s.key, s.state, s.state_time, s.evidence_reference) for s in ordered], 8)


def _columns(rows: Collection[tuple[object, ...]], count: int) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(count)]


def _key(row: asyncpg.Record) -> Key:
    return Key(row["customer_id"], row["institution_id"], row["purpose"], row["channel"])


def _statement(row: asyncpg.Record) -> Statement:
    return Statement(row["statement_id"], _key(row), Permission(row["state"]), row["state_time"], row["evidence_reference"])
