"""Whose accounts are: after a merge the loser's stands under the winner's, and leaves it again when that is undone.

The holder of an account is the customer that took over the one it was opened for; of a holder's accounts its own comes first, or
else the oldest, a closed one last, and the others stand under it. Entries never move.
"""

import uuid
from collections.abc import Collection, Iterable
from datetime import datetime

import asyncpg

from chassis import customer_states
from chassis.database import Connection


async def follow(connection: Connection, customer_ids: Collection[uuid.UUID], now: datetime) -> list[uuid.UUID]:
    """Finds the holders again of all accounts that a change of these customers concerns. Lock the ledger's head before.

    Returns:
        The accounts that changed.
    """
    concerned = await customer_states.merged_into(connection, customer_ids)
    rows = await connection.fetch(
        "SELECT account_id, customer_id, holder_customer_id FROM accounts WHERE customer_id = ANY($1::uuid[])"
        " ORDER BY account_id FOR UPDATE",
        list(concerned),
    )
    holders = await customer_states.survivors(connection, [row["customer_id"] for row in rows])
    moved = [row for row in rows if holders[row["customer_id"]] != row["holder_customer_id"]]
    if not moved:
        return []
    await connection.execute(
        "UPDATE accounts a SET holder_customer_id = n.holder FROM unnest($1::uuid[], $2::uuid[]) AS n (account_id, holder)"
        " WHERE a.account_id = n.account_id",
        [row["account_id"] for row in moved],
        [holders[row["customer_id"]] for row in moved],
    )
    touched = {row["holder_customer_id"] for row in moved} | {holders[row["customer_id"]] for row in moved}
    return await regroup(connection, touched, now, [row["account_id"] for row in moved])


async def regroup(
    connection: Connection, holders: Iterable[uuid.UUID], now: datetime, moved: Collection[uuid.UUID] = ()
) -> list[uuid.UUID]:
    """Puts each holder's accounts under the first of them, and writes down what changed, also of those that moved.

    Returns:
        The accounts that changed; their versions have risen.
    """
    rows = await connection.fetch(_REGROUP, list(set(holders)), list(moved), now)
    return [row["account_id"] for row in rows]


async def pin(connection: Connection, moved: Collection[asyncpg.Record]) -> None:
    """Remembers which account each record's doings earned for before it moved, unless it has one that moved along.

    Args:
        moved: rows of `record_links.fold`; after `follow`, so that families are those of after the move.
    """
    left = [row for row in moved if row["former_customer_id"] is not None and row["former_customer_id"] != row["customer_id"]]
    if not left:
        return
    survivors = await customer_states.survivors(connection, [row["customer_id"] for row in left])
    await connection.execute(
        _PIN,
        [row["record_id"] for row in left],
        [row["former_customer_id"] for row in left],
        [survivors[row["customer_id"]] for row in left],
    )


_REGROUP = """
WITH grouped AS (
    SELECT account_id, first_value(account_id) OVER (
        PARTITION BY holder_customer_id ORDER BY status = 'CLOSED', customer_id <> holder_customer_id, account_id
    ) AS first_account_id
    FROM accounts WHERE holder_customer_id = ANY($1::uuid[])
), changed AS (
    UPDATE accounts a SET parent_account_id = nullif(g.first_account_id, a.account_id), version = a.version + 1
    FROM grouped g WHERE g.account_id = a.account_id
        AND (a.parent_account_id IS DISTINCT FROM nullif(g.first_account_id, a.account_id) OR a.account_id = ANY($2::uuid[]))
    RETURNING a.account_id, a.version, a.holder_customer_id, a.parent_account_id, a.customer_id
)
INSERT INTO account_families
    (account_id, version, holder_customer_id, parent_account_id, customer_epoch, customer_version, change_time)
SELECT c.account_id, c.version, c.holder_customer_id, c.parent_account_id, coalesce(s.epoch, 0), coalesce(s.version, 0), $3
FROM changed c LEFT JOIN customer_states s ON s.customer_id = c.customer_id
RETURNING account_id
"""
_PIN = """
INSERT INTO record_accounts AS t (record_id, account_id)
SELECT moved.record_id, a.account_id FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS moved (record_id, former_id, survivor_id)
JOIN accounts a ON a.customer_id = moved.former_id
WHERE NOT EXISTS (
    SELECT FROM record_accounts known JOIN accounts k USING (account_id)
    WHERE known.record_id = moved.record_id AND k.holder_customer_id = moved.survivor_id
)
ON CONFLICT (record_id) DO UPDATE SET account_id = excluded.account_id
"""
