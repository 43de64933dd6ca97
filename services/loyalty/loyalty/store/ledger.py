"""What is read of the ledger: the head that a batch locks, operations, statements, and what is said again of them."""

import uuid
from collections.abc import Sequence
from datetime import datetime

import asyncpg

from chassis.database import Connection
from loyalty.domain.ledger.types import Head
from loyalty.store import ledger_rows as rows

SHARD = 0


async def lock_head(connection: Connection) -> Head:
    """Locks the chain until the end of the transaction. A statement of its own: what is read after it sees every
    operation with a smaller sequence."""
    row = await connection.fetchrow(
        "SELECT sequence, hash, configuration_version, ledger_id || '/' || current_database() FROM ledger_heads"
        " WHERE shard = $1 FOR UPDATE",
        SHARD,
    )
    if row is None:
        raise LookupError("ledger_heads has lost its row")
    return Head(*row)


async def get_operation(connection: Connection, operation_id: uuid.UUID) -> asyncpg.Record | None:
    """An operation, with whose its account is now (None where it is about no account, or its owner was erased)."""
    return await connection.fetchrow(
        f"SELECT {_OPERATION}, holder_customer_id FROM operations LEFT JOIN accounts USING (account_id) WHERE operation_id = $1",
        operation_id,
    )


async def operations_before(
    connection: Connection, account_ids: Sequence[uuid.UUID], sequence: int | None, limit: int
) -> list[asyncpg.Record]:
    """Operations of accounts, newest first, before a sequence; refusals too."""
    return await connection.fetch(_OPERATIONS_BEFORE, account_ids, sequence, limit)


async def get_hold(connection: Connection, hold_id: uuid.UUID) -> asyncpg.Record | None:
    """A hold, with whose its account is now and its lines (JSON)."""
    return await connection.fetchrow(_HOLD, hold_id)


async def statement(
    connection: Connection, account_ids: Sequence[uuid.UUID], program_id: str, before: tuple[int, int] | None, limit: int
) -> list[asyncpg.Record]:
    """Movements of members' points, newest first, from just before a (sequence, ledger account); an empty programme means all."""
    sequence, ledger_account_id = before or (None, 0)
    return await connection.fetch(_STATEMENT, list(map(str, account_ids)), program_id, sequence, limit, ledger_account_id)


async def posted_after(connection: Connection, sequence: int, limit: int) -> list[asyncpg.Record]:
    """What posted operations moved on members' accounts, in the order of the ledger: a row for each account and programme, the
    leading one first; of `limit` operations. One that moved nothing of members has a row without an account."""
    return await connection.fetch(_POSTED_AFTER, sequence, limit)


async def holds_due(connection: Connection, now: datetime, limit: int) -> list[asyncpg.Record]:
    """Open holds whose time is over, the oldest first."""
    return await connection.fetch(
        "SELECT hold_id, account_id, institution_id, expire_time FROM holds WHERE state = 'OPEN' AND expire_time <= $1"
        " ORDER BY expire_time, hold_id LIMIT $2",
        now, limit,
    )  # fmt: skip


async def lots_to_activate(connection: Connection, now: datetime, limit: int) -> list[asyncpg.Record]:
    """Lots of promised points that become the members', the oldest promise first."""
    return await connection.fetch(
        "SELECT lot_id, program_id FROM lots WHERE open AND state = 'PENDING' AND active_time <= $1"
        " ORDER BY active_time, lot_id LIMIT $2",
        now, limit,
    )  # fmt: skip


async def lots_to_expire(connection: Connection, now: datetime, limit: int) -> list[asyncpg.Record]:
    """Lots whose time is over and that have points which no hold reserves, the oldest first."""
    return await connection.fetch(
        "SELECT lot_id, program_id FROM lots WHERE open AND expire_time <= $1 AND remaining_points > reserved_points"
        " ORDER BY expire_time, lot_id LIMIT $2",
        now, limit,
    )  # fmt: skip


_OPERATION = rows.columns(rows.OPERATION)
_OPERATIONS_BEFORE = f"""
SELECT o.* FROM unnest($1::uuid[]) AS asked (account_id)
CROSS JOIN LATERAL (
    SELECT {_OPERATION} FROM operations x
    WHERE x.account_id = asked.account_id AND ($2::bigint IS NULL OR x.sequence < $2) ORDER BY x.sequence DESC LIMIT $3
) o
ORDER BY o.sequence DESC LIMIT $3
"""
_HOLD = """
SELECT h.*, a.holder_customer_id,
       (SELECT jsonb_agg(to_jsonb(l) - 'hold_id' ORDER BY l.position)::text
        FROM hold_lines l WHERE l.hold_id = h.hold_id) AS lines
FROM holds h LEFT JOIN accounts a USING (account_id) WHERE h.hold_id = $1
"""
_STATEMENT = """
SELECT o.operation_id, a.owner, a.ledger_account_id, a.program_id, o.kind, o.institution_id, o.effective_time, o.post_time,
       line.sequence, line.version, line.amount_points, line.balance_points
FROM ledger_accounts a
CROSS JOIN LATERAL (
    SELECT * FROM entries e
    WHERE e.ledger_account_id = a.ledger_account_id
      AND ($3::bigint IS NULL OR e.sequence < $3 + CASE WHEN a.ledger_account_id < $5::bigint THEN 1 ELSE 0 END)
    ORDER BY e.sequence DESC LIMIT $4
) line
JOIN operations o ON o.sequence = line.sequence
WHERE a.owner = ANY($1::text[]) AND a.kind = 'MEMBER' AND ($2 = '' OR a.program_id = $2)
ORDER BY line.sequence DESC, a.ledger_account_id DESC LIMIT $4
"""
# In the order of `posting.grouped`.
_POSTED_AFTER = """
SELECT o.operation_id, moved.account_id, accounts.holder_customer_id AS customer_id, moved.program_id,
       o.program_id AS main_program_id, o.institution_id, o.kind, o.effective_time, o.activity_id, o.sequence,
       moved.amounts, moved.balance_points, moved.version, database_epoch.epoch
FROM (SELECT * FROM operations WHERE sequence > $1 AND outcome = 'POSTED' ORDER BY sequence LIMIT $2) o
CROSS JOIN database_epoch
LEFT JOIN LATERAL (
    SELECT a.owner::uuid AS account_id, a.program_id, jsonb_object_agg(a.kind, e.amount_points)::text AS amounts,
           coalesce(max(e.balance_points) FILTER (WHERE a.kind = 'MEMBER'), 0) AS balance_points,
           coalesce(max(e.version) FILTER (WHERE a.kind = 'MEMBER'), 0) AS version
    FROM entries e JOIN ledger_accounts a USING (ledger_account_id)
    WHERE e.sequence = o.sequence AND a.kind IN ('MEMBER', 'PENDING', 'HELD', 'DEBT')
    GROUP BY a.owner, a.program_id
) moved ON true
LEFT JOIN accounts ON accounts.account_id = moved.account_id
ORDER BY o.sequence, moved.account_id IS DISTINCT FROM o.account_id, moved.program_id IS DISTINCT FROM o.program_id,
         moved.account_id::text COLLATE "C", moved.program_id COLLATE "C"
"""
