"""Adjustments: points given or taken by decision of two persons of the issuer."""

import uuid
from datetime import datetime

import asyncpg

from chassis.database import Connection
from loyalty.domain.four_eyes import Person


async def insert(
    connection: Connection,
    adjustment_id: uuid.UUID,
    account_id: uuid.UUID,
    program: asyncpg.Record,
    change_points: int,
    expire_time: datetime | None,
    reason_code: str,
    drafter: Person,
    now: datetime,
) -> asyncpg.Record:
    """Adds a draft."""
    row = await connection.fetchrow(
        "INSERT INTO adjustments (adjustment_id, account_id, program_id, institution_id, change_points, expire_time, reason_code,"
        " state, drafted_by, draft_side, create_time) VALUES ($1, $2, $3, $4, $5, $6, $7, 'DRAFT', $8, $9, $10) RETURNING *",
        adjustment_id, account_id, program["program_id"], program["institution_id"], change_points, expire_time, reason_code,
        drafter.subject, drafter.side, now,
    )  # fmt: skip
    assert row is not None
    return row


async def get(connection: Connection, adjustment_id: uuid.UUID, *, lock: bool = False) -> asyncpg.Record | None:
    """An adjustment; locked until the end of the transaction where asked."""
    return await connection.fetchrow(
        f"SELECT * FROM adjustments WHERE adjustment_id = $1{' FOR UPDATE' if lock else ''}", adjustment_id
    )


async def list_before(
    connection: Connection, institution_id: str | None, state: str, before: uuid.UUID | None, limit: int
) -> list[asyncpg.Record]:
    """Adjustments of an issuer (None: of all), newest first, before one; an empty state means all."""
    return await connection.fetch(
        "SELECT * FROM adjustments WHERE ($1::text IS NULL OR institution_id = $1) AND ($2 = '' OR state = $2)"
        " AND ($3::uuid IS NULL OR adjustment_id < $3) ORDER BY adjustment_id DESC LIMIT $4",
        institution_id, state, before, limit,
    )  # fmt: skip


async def decide(
    connection: Connection,
    adjustment_id: uuid.UUID,
    state: str,
    decider: Person,
    now: datetime,
    operation_id: uuid.UUID | None = None,
    outcome: str | None = None,
) -> asyncpg.Record:
    """Writes what was decided of a locked draft."""
    row = await connection.fetchrow(
        "UPDATE adjustments SET state = $2, decided_by = $3, decide_side = $4, decide_time = $5, operation_id = $6, outcome = $7"
        " WHERE adjustment_id = $1 RETURNING *",
        adjustment_id, state, decider.subject, decider.side, now, operation_id, outcome,
    )  # fmt: skip
    assert row is not None
    return row
