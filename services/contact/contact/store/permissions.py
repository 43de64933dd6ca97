"""Permissions: every statement ever made, and which of them holds."""

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime

import asyncpg

from chassis.database import Connection
from contact.domain.kinds import Permission
from contact.domain.permissions import Key, Statement, binding

Scope = tuple[str, int, int]
"""Institution, purpose, channel: a customer has one permission in each."""
_COLUMNS = (
    "record_id, purpose, channel, institution_id, covered_record_ids, statement_id, state, state_time, evidence_reference,"
    " version"
)
_READ = (
    ", ".join(f"p.{column.strip()}" for column in _COLUMNS.split(","))
    + ", (SELECT l.customer_id FROM record_links l WHERE l.record_id = p.record_id) AS customer_id"
)


async def current(connection: Connection, keys: Collection[Key]) -> dict[Key, Statement]:
    """The statements that hold for records; lock the customers before."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM permissions WHERE (record_id, purpose, channel) IN"
        " (SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::smallint[]))",
        *_columns(keys, 3),
    )
    return {statement.key: statement for statement in map(_statement, rows)}


async def add_statements(
    connection: Connection, statements: Sequence[Statement], recorded_at: datetime, recorded_by: str
) -> None:
    """Adds statements to the history."""
    await connection.execute(
        "INSERT INTO permission_events (statement_id, record_id, purpose, channel, institution_id, covered_record_ids, state,"
        " state_time, evidence_reference, recorded_at, recorded_by)"
        f" SELECT {_FIELDS}, $10, $11 FROM {_STATEMENTS}",
        *_arrays(statements), recorded_at, recorded_by,
    )  # fmt: skip


async def let_hold(connection: Connection, statements: Sequence[Statement]) -> list[asyncpg.Record]:
    """Makes these the statements that hold for their records, and returns the new rows."""
    return await connection.fetch(
        f"INSERT INTO permissions AS p (statement_id, record_id, purpose, channel, institution_id, covered_record_ids, state,"
        f" state_time, evidence_reference, version) SELECT {_FIELDS}, 1 FROM {_STATEMENTS}"
        " ON CONFLICT (record_id, purpose, channel) DO UPDATE SET"
        " statement_id = excluded.statement_id, covered_record_ids = excluded.covered_record_ids, state = excluded.state,"
        " state_time = excluded.state_time, evidence_reference = excluded.evidence_reference, version = p.version + 1"
        f" RETURNING {_READ}",
        *_arrays(statements),
    )


async def binding_of(
    connection: Connection, customer_ids: Collection[uuid.UUID], institution_id: str | None, purpose: int = 0, channel: int = 0
) -> dict[uuid.UUID, dict[Scope, Statement]]:
    """What binds for customers: at one institution or all (None), for one purpose and channel or all (0)."""
    rows = await connection.fetch(
        f"SELECT {_READ} FROM record_links l JOIN permissions p ON p.record_id = l.record_id"
        " WHERE l.customer_id = ANY($1::uuid[]) AND ($2::text IS NULL OR p.institution_id = $2)"
        " AND $3::smallint IN (0, p.purpose) AND $4::smallint IN (0, p.channel)",
        list(set(customer_ids)), institution_id, purpose, channel,
    )  # fmt: skip
    said: dict[tuple[uuid.UUID, Scope], list[Statement]] = {}
    for row in rows:
        scope = row["institution_id"], row["purpose"], row["channel"]
        said.setdefault((row["customer_id"], scope), []).append(_statement(row))
    bound: dict[uuid.UUID, dict[Scope, Statement]] = {}
    for (customer_id, scope), statements in sorted(said.items(), key=lambda item: item[0]):
        statement = binding(statements)
        assert statement is not None
        bound.setdefault(customer_id, {})[scope] = statement
    return bound


async def permitted(
    connection: Connection, institution_id: str, purpose: int, channel: int, customer_ids: Collection[uuid.UUID]
) -> frozenset[uuid.UUID]:
    """Those of the customers who have said yes."""
    bound = await binding_of(connection, customer_ids, institution_id, purpose, channel)
    scope = institution_id, purpose, channel
    return frozenset(customer_id for customer_id, scopes in bound.items() if scopes[scope].state is Permission.GRANTED)


async def all_after(connection: Connection, after: Key | None, limit: int) -> list[asyncpg.Record]:
    """Everybody's permissions after a key, with the database's epoch."""
    after = after or Key(uuid.UUID(int=0), 0, 0)
    return await connection.fetch(
        f"SELECT {_READ}, (SELECT epoch FROM database_epoch) AS epoch FROM permissions p"
        " WHERE (record_id, purpose, channel) > ($1, $2, $3) ORDER BY record_id, purpose, channel LIMIT $4",
        *after, limit,
    )  # fmt: skip


_FIELDS = (
    "statement_id, record_id, purpose, channel, institution_id,"
    " string_to_array(covered, ',')::uuid[], state, state_time, evidence_reference"
)
# An array of arrays must not be ragged, so the records covered travel as text.
_STATEMENTS = (
    "unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::smallint[], $5::text[], $6::text[], $7::smallint[], $8::timestamptz[],"
    " $9::text[])"
    " AS s (statement_id, record_id, purpose, channel, institution_id, covered, state, state_time, evidence_reference)"
)


def _arrays(statements: Sequence[Statement]) -> list[list[object]]:
    # In id order, so that two batches never wait for each other's rows.
    ordered = sorted(statements, key=lambda statement: statement.statement_id)
    rows = [
        (
            s.statement_id, *s.key, s.institution_id, ",".join(map(str, sorted(s.covered))), s.state, s.state_time,
            s.evidence_reference,
        )
        for s in ordered
    ]  # fmt: skip
    return _columns(rows, 9)


def _columns(rows: Collection[tuple[object, ...]], count: int) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(count)]


def _statement(row: asyncpg.Record) -> Statement:
    return Statement(
        statement_id=row["statement_id"],
        key=Key(row["record_id"], row["purpose"], row["channel"]),
        institution_id=row["institution_id"],
        state=Permission(row["state"]),
        state_time=row["state_time"],
        evidence_reference=row["evidence_reference"],
        covered=frozenset(row["covered_record_ids"]),
    )
