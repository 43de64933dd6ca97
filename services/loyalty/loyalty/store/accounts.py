"""Member accounts and their memberships at institutions."""

import secrets
import uuid
from collections.abc import Collection, Sequence
from datetime import datetime

import asyncpg

from chassis.database import Connection
from chassis.ids import new_id

MEMBER_ID_BYTES = 16


async def open_account(connection: Connection, customer_id: uuid.UUID, now: datetime) -> tuple[uuid.UUID, bool]:
    """The account of a customer who was not merged, locked, and whether it was opened, or opened again, now; then call
    `families.regroup`."""
    opened = await connection.fetchval(
        "INSERT INTO accounts (account_id, customer_id, holder_customer_id, version, create_time) VALUES ($1, $2, $2, 1, $3)"
        " ON CONFLICT (customer_id) DO NOTHING RETURNING account_id",
        new_id(), customer_id, now,
    )  # fmt: skip
    if opened is not None:
        return opened, True
    row = await connection.fetchrow("SELECT account_id, status FROM accounts WHERE customer_id = $1 FOR UPDATE", customer_id)
    assert row is not None
    if row["status"] != "CLOSED":
        return row["account_id"], False
    await connection.execute(
        "UPDATE accounts SET status = 'OPEN', close_time = NULL, version = version + 1 WHERE account_id = $1", row["account_id"]
    )
    return row["account_id"], True


async def link(
    connection: Connection,
    account_id: uuid.UUID,
    institution_ids: Sequence[str],
    now: datetime,
    consent_reference: str = "",
    consent_time: datetime | None = None,
) -> bool:
    """Links an account to institutions, each with a member id of its own that says nothing. Whether any link is new."""
    rows = await connection.fetch(
        "INSERT INTO memberships (account_id, institution_id, member_id, create_time, consent_reference, consent_time)"
        " SELECT $1, institution_id, member_id, $4, $5, $6"
        " FROM unnest($2::text[], $3::text[]) AS link (institution_id, member_id)"
        " ON CONFLICT (account_id, institution_id) DO NOTHING RETURNING true",
        account_id, institution_ids, [secrets.token_urlsafe(MEMBER_ID_BYTES) for _ in institution_ids], now,
        consent_reference, consent_time or now,
    )  # fmt: skip
    return bool(rows)


async def unlink(
    connection: Connection, account_ids: Collection[uuid.UUID], institution_id: str | None, now: datetime
) -> list[asyncpg.Record]:
    """Ends memberships at an institution (None: at all). Returns those that ended; versions are the caller's to raise."""
    return await connection.fetch(_UNLINK, list(account_ids), institution_id, now)


async def freeze(
    connection: Connection, account_id: uuid.UUID, institution_id: str, reason_code: str, frozen_by: str, now: datetime
) -> bool:
    """Freezes a locked account for an institution, or the operator. False where that one has frozen it before."""
    added = await connection.fetchval(
        "INSERT INTO account_freezes (account_id, institution_id, freeze_time, reason_code, frozen_by)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING true",
        account_id, institution_id, now, reason_code, frozen_by,
    )  # fmt: skip
    await _set_frozen(connection, account_id)
    return bool(added)


async def thaw(
    connection: Connection, account_id: uuid.UUID, institution_id: str, reason_code: str, ended_by: str, now: datetime
) -> bool:
    """Takes the freeze of an institution away from a locked account. False where there is none."""
    ended = await connection.fetchval(
        "UPDATE account_freezes SET end_time = $3, end_reason_code = $4, ended_by = $5"
        " WHERE account_id = $1 AND institution_id = $2 AND end_time IS NULL RETURNING true",
        account_id, institution_id, now, reason_code, ended_by,
    )  # fmt: skip
    await _set_frozen(connection, account_id)
    return bool(ended)


async def _set_frozen(connection: Connection, account_id: uuid.UUID) -> None:
    await connection.execute(
        "UPDATE accounts a SET version = version + 1, status = CASE WHEN EXISTS ("
        " SELECT FROM account_freezes f WHERE f.account_id = a.account_id AND f.end_time IS NULL) THEN 'FROZEN' ELSE 'OPEN' END"
        " WHERE account_id = $1",
        account_id,
    )


async def close(connection: Connection, account_ids: Collection[uuid.UUID], now: datetime) -> None:
    """Closes locked accounts; their versions rise."""
    await connection.execute(
        "UPDATE accounts SET status = 'CLOSED', close_time = $2, version = version + 1 WHERE account_id = ANY($1::uuid[])",
        list(account_ids), now,
    )  # fmt: skip


async def raise_version(connection: Connection, account_id: uuid.UUID) -> int:
    """The account's next version, after a change of its links."""
    version: int = await connection.fetchval(
        "UPDATE accounts SET version = version + 1 WHERE account_id = $1 RETURNING version", account_id
    )
    return version


async def get(connection: Connection, account_id: uuid.UUID, *, lock: bool = False) -> asyncpg.Record | None:
    """An account; locked until the end of the transaction where asked."""
    return await connection.fetchrow(f"SELECT * FROM accounts WHERE account_id = $1{' FOR UPDATE' if lock else ''}", account_id)


async def of_customer(connection: Connection, customer_id: uuid.UUID) -> uuid.UUID | None:
    """The account of a customer: of several the one under which the others stand."""
    account_id: uuid.UUID | None = await connection.fetchval(
        "SELECT account_id FROM accounts WHERE holder_customer_id = $1 AND parent_account_id IS NULL", customer_id
    )
    return account_id


async def children(connection: Connection, account_id: uuid.UUID, *, frozen: bool = True) -> list[uuid.UUID]:
    """Accounts that stand under an account, oldest first; without frozen ones, whose points are not spent, where asked."""
    rows = await connection.fetch(
        "SELECT account_id FROM accounts WHERE parent_account_id = $1 AND ($2 OR status <> 'FROZEN') ORDER BY account_id",
        account_id, frozen,
    )  # fmt: skip
    return [row["account_id"] for row in rows]


async def locked_family(connection: Connection, account_id: uuid.UUID) -> list[asyncpg.Record]:
    """An account and those that stand under it, locked, by id."""
    return await connection.fetch(
        "SELECT * FROM accounts WHERE account_id = $1 OR parent_account_id = $1 ORDER BY account_id FOR UPDATE", account_id
    )


async def view(connection: Connection, account_id: uuid.UUID, institution_id: str, now: datetime) -> asyncpg.Record | None:
    """All that is told of an account, by one statement: its row, whether the institution has a link with its customer, and as
    JSON family, balances, what ends next, memberships and freezes."""
    return await connection.fetchrow(_VIEW, account_id, institution_id, now)


async def balances(connection: Connection, account_ids: Collection[uuid.UUID]) -> list[asyncpg.Record]:
    """What accounts have or owe of each programme: account_id, program_id, kind, balance_points, institution_id (the issuer)."""
    return await connection.fetch(
        "SELECT l.owner::uuid AS account_id, l.program_id, l.kind, l.balance_points, p.institution_id"
        " FROM ledger_accounts l JOIN programs p USING (program_id)"
        " WHERE l.owner = ANY($1::text[]) AND l.balance_points <> 0 ORDER BY l.owner, l.program_id, l.kind",
        [str(account_id) for account_id in account_ids],
    )


async def membership(connection: Connection, account_id: uuid.UUID, institution_id: str) -> asyncpg.Record | None:
    """The link of an account to an institution."""
    return await connection.fetchrow(
        "SELECT * FROM memberships WHERE account_id = $1 AND institution_id = $2", account_id, institution_id
    )


async def was_linked(connection: Connection, account_id: uuid.UUID, institution_id: str) -> bool:
    """Whether a link of the account to the institution has ended before."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM ended_memberships WHERE account_id = $1 AND institution_id = $2)", account_id, institution_id
    )
    return found


async def states(connection: Connection, account_ids: Sequence[uuid.UUID]) -> list[asyncpg.Record]:
    """What is published of accounts, by id."""
    return await connection.fetch(f"{_STATE} WHERE a.account_id = ANY($1::uuid[]) ORDER BY a.account_id", list(account_ids))


async def page_after(connection: Connection, account_id: uuid.UUID, limit: int) -> list[asyncpg.Record]:
    """Accounts by id with the institutions they are linked to, for a re-publication."""
    return await connection.fetch(f"{_STATE} WHERE a.account_id > $1 ORDER BY a.account_id LIMIT $2", account_id, limit)


_UNLINK = """
WITH gone AS (
    DELETE FROM memberships WHERE account_id = ANY($1::uuid[]) AND ($2::text IS NULL OR institution_id = $2) RETURNING *
)
INSERT INTO ended_memberships
    (member_id, account_id, institution_id, create_time, consent_reference, consent_time, end_time)
SELECT member_id, account_id, institution_id, create_time, consent_reference, consent_time, greatest($3, create_time) FROM gone
RETURNING *
"""
_STATE = """
SELECT a.account_id, a.holder_customer_id, a.parent_account_id, a.status, a.version, epoch,
    ARRAY(SELECT institution_id FROM memberships m WHERE m.account_id = a.account_id) AS institution_ids
FROM accounts a CROSS JOIN database_epoch
"""
_VIEW = """
WITH family AS (
    SELECT account_id, account_id::text AS owner FROM accounts WHERE account_id = $1 OR parent_account_id = $1
), balances AS (
    SELECT f.account_id, l.kind, l.program_id, l.balance_points, l.version
    FROM family f JOIN ledger_accounts l ON l.owner = f.owner WHERE l.version > 0
), ending AS (
    SELECT b.account_id, b.program_id, next.*
    FROM balances b CROSS JOIN LATERAL (
        SELECT l.expire_time, sum(l.remaining_points - l.reserved_points)::bigint AS points FROM lots l
        WHERE l.account_id = b.account_id AND l.program_id = b.program_id AND l.open AND l.state = 'ACTIVE'
            AND l.remaining_points > l.reserved_points AND l.expire_time > $3
        GROUP BY l.expire_time ORDER BY l.expire_time LIMIT 1
    ) next
    WHERE b.kind = 'MEMBER' AND b.balance_points > 0
)
SELECT a.*,
    EXISTS (SELECT FROM record_links r WHERE r.customer_id = a.holder_customer_id AND r.institution_id = $2) AS linked,
    ARRAY(SELECT account_id FROM family f WHERE f.account_id <> a.account_id ORDER BY account_id) AS child_account_ids,
    (SELECT jsonb_agg(to_jsonb(b)) FROM balances b)::text AS balances,
    (SELECT jsonb_agg(to_jsonb(e)) FROM ending e)::text AS ending,
    (SELECT jsonb_agg(to_jsonb(m) ORDER BY m.institution_id, m.account_id)
     FROM memberships m JOIN family USING (account_id))::text AS memberships,
    (SELECT jsonb_agg(to_jsonb(z) ORDER BY z.institution_id)
     FROM account_freezes z WHERE z.account_id = a.account_id AND z.end_time IS NULL)::text AS freezes
FROM accounts a WHERE a.account_id = $1
"""
