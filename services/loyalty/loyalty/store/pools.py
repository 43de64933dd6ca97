"""Pools of accounts: who agreed to spend together, and what each may still take of the others."""

import uuid
from collections.abc import Collection
from datetime import UTC, datetime

import asyncpg

from chassis.database import Connection
from loyalty.domain.ledger.types import Pool


async def create(connection: Connection, pool_id: uuid.UUID, account_id: uuid.UUID, now: datetime) -> bool:
    """Makes a pool with its head. False where the account is in a pool already."""
    if await of_account(connection, account_id) is not None:
        return False
    await connection.execute(
        "INSERT INTO pools (pool_id, head_account_id, create_time) VALUES ($1, $2, $3)", pool_id, account_id, now
    )
    await invite(connection, pool_id, account_id, None, now)
    return await join(connection, pool_id, account_id, now)


async def of_account(connection: Connection, account_id: uuid.UUID) -> asyncpg.Record | None:
    """The pool that an account is a member of."""
    return await connection.fetchrow(
        "SELECT p.* FROM pool_members m JOIN pools p USING (pool_id) WHERE m.account_id = $1 AND m.state = 'MEMBER'", account_id
    )


async def get(connection: Connection, pool_id: uuid.UUID) -> asyncpg.Record | None:
    """A pool."""
    return await connection.fetchrow("SELECT * FROM pools WHERE pool_id = $1", pool_id)


async def members(connection: Connection, pool_id: uuid.UUID) -> list[asyncpg.Record]:
    """Members in the order in which they joined, then who is invited."""
    return await connection.fetch(
        "SELECT * FROM pool_members WHERE pool_id = $1 AND state <> 'LEFT' ORDER BY join_time, account_id", pool_id
    )


async def invite(
    connection: Connection, pool_id: uuid.UUID, account_id: uuid.UUID, draw_points_max: int | None, now: datetime
) -> None:
    """Invites an account, or changes its limit."""
    await connection.execute(
        "INSERT INTO pool_members AS t (pool_id, account_id, state, draw_points_max, invite_time)"
        " VALUES ($1, $2, 'INVITED', $3, $4) ON CONFLICT (pool_id, account_id) DO UPDATE SET draw_points_max = $3,"
        " state = CASE t.state WHEN 'LEFT' THEN 'INVITED' ELSE t.state END, leave_time = NULL",
        pool_id, account_id, draw_points_max, now,
    )  # fmt: skip


async def join(connection: Connection, pool_id: uuid.UUID, account_id: uuid.UUID, now: datetime) -> bool:
    """An invited account agrees. False where it is not invited."""
    joined = await connection.fetchval(
        "UPDATE pool_members SET state = 'MEMBER', join_time = $3 WHERE pool_id = $1 AND account_id = $2 AND state = 'INVITED'"
        " RETURNING true",
        pool_id, account_id, now,
    )  # fmt: skip
    return bool(joined)


async def leave(connection: Connection, pool_id: uuid.UUID, account_id: uuid.UUID, now: datetime) -> bool:
    """Takes an account, or its invitation, out of a pool, which is closed when it was the head. False where it is not in it."""
    return bool(await connection.fetch(_LEAVE, [account_id], now, pool_id))


async def leave_all(connection: Connection, account_ids: Collection[uuid.UUID], now: datetime) -> None:
    """Takes accounts, and their invitations, out of all pools."""
    await connection.execute(_LEAVE, list(account_ids), now, None)


async def forget(connection: Connection, account_ids: Collection[uuid.UUID], now: datetime) -> None:
    """Forgets who was in a pool with erased persons."""
    await leave_all(connection, account_ids, now)
    await connection.execute("DELETE FROM pool_members WHERE account_id = ANY($1::uuid[])", list(account_ids))


async def for_spending(connection: Connection, account_ids: Collection[uuid.UUID], now: datetime) -> dict[uuid.UUID, Pool]:
    """By account: whose points it may take, and what it took of others this month. An account that stands under another is in
    no pool meanwhile; frozen and closed ones give nothing."""
    ids = list(account_ids)
    found = {row["account_id"]: Pool(tuple(row["owners"]), row["draw_points_max"]) for row in await connection.fetch(_POOLS, ids)}
    limited = [account_id for account_id, pool in found.items() if pool.draw_points_max is not None]
    if limited:
        month = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        for row in await connection.fetch(_DRAWN, limited, month):
            found[row["account_id"]].drawn_points[row["program_id"]] = row["points"]
    return found


_LEAVE = """
WITH closed AS (
    UPDATE pools SET close_time = $2
    WHERE head_account_id = ANY($1::uuid[]) AND close_time IS NULL AND ($3::uuid IS NULL OR pool_id = $3) RETURNING pool_id
)
UPDATE pool_members SET state = 'LEFT', leave_time = $2, join_time = NULL
WHERE state <> 'LEFT' AND (account_id = ANY($1::uuid[]) AND ($3::uuid IS NULL OR pool_id = $3)
    OR pool_id IN (SELECT pool_id FROM closed))
RETURNING account_id
"""
_POOLS = """
SELECT me.account_id, me.draw_points_max, ARRAY(
    SELECT f.account_id FROM pool_members other
    JOIN accounts root ON root.account_id = other.account_id AND root.parent_account_id IS NULL AND root.status = 'OPEN'
    JOIN accounts f ON f.holder_customer_id = root.holder_customer_id AND f.status = 'OPEN'
    WHERE other.pool_id = me.pool_id AND other.state = 'MEMBER' AND root.holder_customer_id <> mine.holder_customer_id
    ORDER BY other.join_time, other.account_id, f.account_id <> root.account_id, f.account_id
) AS owners
FROM pool_members me JOIN accounts mine USING (account_id)
WHERE me.account_id = ANY($1::uuid[]) AND me.state = 'MEMBER' AND mine.parent_account_id IS NULL
"""
_DRAWN = """
SELECT o.account_id, l.program_id, sum(took.points)::bigint AS points
FROM operations o CROSS JOIN LATERAL (
    SELECT u.lot_id, u.points - u.returned_points AS points FROM lot_uses u WHERE u.sequence = o.sequence AND o.kind = 'REDEEM'
    UNION ALL
    SELECT r.lot_id, CASE h.state WHEN 'OPEN' THEN r.points ELSE r.captured_points END
    FROM holds h JOIN hold_lots r USING (hold_id) WHERE h.hold_id = o.operation_id AND o.kind = 'HOLD'
) took
JOIN lots l USING (lot_id)
JOIN accounts mine ON mine.account_id = o.account_id JOIN accounts whose ON whose.account_id = l.account_id
WHERE o.account_id = ANY($1::uuid[]) AND o.kind IN ('REDEEM', 'HOLD') AND o.outcome = 'POSTED' AND o.post_time >= $2
    AND o.result ? 'pool_points' AND whose.holder_customer_id IS DISTINCT FROM mine.holder_customer_id
GROUP BY o.account_id, l.program_id
"""
