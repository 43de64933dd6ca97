"""Member accounts and their memberships at institutions."""

import secrets
import uuid
from collections.abc import Sequence
from datetime import datetime

import asyncpg

from chassis.database import Connection
from chassis.ids import new_id

MEMBER_ID_BYTES = 16


async def open_account(connection: Connection, customer_id: uuid.UUID, now: datetime) -> tuple[uuid.UUID, bool]:
    """The account of a customer who was not merged, locked, and whether it was opened now; then call `families.regroup`."""
    opened = await connection.fetchval(
        "INSERT INTO accounts (account_id, customer_id, holder_customer_id, version, create_time) VALUES ($1, $2, $2, 1, $3)"
        " ON CONFLICT (customer_id) DO NOTHING RETURNING account_id",
        new_id(), customer_id, now,
    )  # fmt: skip
    if opened is not None:
        return opened, True
    row = await connection.fetchrow("SELECT account_id FROM accounts WHERE customer_id = $1 FOR UPDATE", customer_id)
    assert row is not None
    return row["account_id"], False


async def link(connection: Connection, account_id: uuid.UUID, institution_ids: Sequence[str], now: datetime) -> bool:
    """Links an account to institutions, each with a member id of its own that says nothing. Whether any link is new."""
    rows = await connection.fetch(
        "INSERT INTO memberships (account_id, institution_id, member_id, create_time)"
        " SELECT $1, institution_id, member_id, $4 FROM unnest($2::text[], $3::text[]) AS link (institution_id, member_id)"
        " ON CONFLICT (account_id, institution_id) DO NOTHING RETURNING true",
        account_id, institution_ids, [secrets.token_urlsafe(MEMBER_ID_BYTES) for _ in institution_ids], now,
    )  # fmt: skip
    return bool(rows)


async def raise_version(connection: Connection, account_id: uuid.UUID) -> int:
    """The account's next version, after a change of its links."""
    version: int = await connection.fetchval(
        "UPDATE accounts SET version = version + 1 WHERE account_id = $1 RETURNING version", account_id
    )
    return version


async def get(connection: Connection, account_id: uuid.UUID, *, lock: bool = False) -> asyncpg.Record | None:
    """An account; locked until the end of the transaction where asked."""
    return await connection.fetchrow(f"SELECT * FROM accounts WHERE account_id = $1{' FOR UPDATE' if lock else ''}", account_id)


async def of_customer(connection: Connection, customer_id: uuid.UUID) -> asyncpg.Record | None:
    """The account of a customer: of several the one under which the others stand."""
    return await connection.fetchrow(
        "SELECT * FROM accounts WHERE holder_customer_id = $1 AND parent_account_id IS NULL", customer_id
    )


async def children(connection: Connection, account_id: uuid.UUID) -> list[uuid.UUID]:
    """Accounts that stand under an account, oldest first."""
    rows = await connection.fetch("SELECT account_id FROM accounts WHERE parent_account_id = $1 ORDER BY account_id", account_id)
    return [row["account_id"] for row in rows]


async def balances(connection: Connection, account_ids: Sequence[uuid.UUID]) -> list[asyncpg.Record]:
    """Balances of accounts in the programmes that ever moved, by programme; account_id is the account's."""
    return await connection.fetch(
        "SELECT owner::uuid AS account_id, program_id, balance_points, version FROM ledger_accounts"
        " WHERE owner = ANY($1::text[]) AND kind = 'MEMBER' AND version > 0 ORDER BY program_id, owner",
        [str(account_id) for account_id in account_ids],
    )


async def memberships(connection: Connection, account_ids: Sequence[uuid.UUID]) -> list[asyncpg.Record]:
    """The links of accounts, by institution."""
    return await connection.fetch(
        "SELECT * FROM memberships WHERE account_id = ANY($1::uuid[]) ORDER BY institution_id, account_id", list(account_ids)
    )


async def states(connection: Connection, account_ids: Sequence[uuid.UUID]) -> list[asyncpg.Record]:
    """What is published of accounts, by id."""
    return await connection.fetch(f"{_STATE} WHERE a.account_id = ANY($1::uuid[]) ORDER BY a.account_id", list(account_ids))


async def page_after(connection: Connection, account_id: uuid.UUID, limit: int) -> list[asyncpg.Record]:
    """Accounts by id with the institutions they are linked to, for a re-publication."""
    return await connection.fetch(f"{_STATE} WHERE a.account_id > $1 ORDER BY a.account_id LIMIT $2", account_id, limit)


async def redeem_context(
    connection: Connection,
    account_ids: Sequence[uuid.UUID],
    program_ids: Sequence[str],
    institution_ids: Sequence[str],
    caller_institution_ids: Sequence[str | None],
) -> list[asyncpg.Record]:
    """For each redemption, in order: whose the account is, its parent, its children, and whether programme, institution and the
    caller's link exist."""
    return await connection.fetch(_REDEEM_CONTEXT, account_ids, program_ids, institution_ids, caller_institution_ids)


_STATE = """
SELECT a.account_id, a.holder_customer_id, a.parent_account_id, a.version, epoch,
    ARRAY(SELECT institution_id FROM memberships m WHERE m.account_id = a.account_id) AS institution_ids
FROM accounts a CROSS JOIN database_epoch
"""
_REDEEM_CONTEXT = """
SELECT a.holder_customer_id, a.parent_account_id, family.account_ids AS child_account_ids,
       EXISTS (SELECT FROM programs p WHERE p.program_id = asked.program_id) AS program_exists,
       EXISTS (SELECT FROM institutions i WHERE i.institution_id = asked.institution_id) AS institution_exists,
       EXISTS (
           SELECT FROM record_links r WHERE r.customer_id = a.holder_customer_id AND r.institution_id = asked.caller
       ) AS linked
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY
    AS asked (account_id, program_id, institution_id, caller, position)
LEFT JOIN accounts a USING (account_id)
LEFT JOIN LATERAL (
    SELECT array_agg(f.account_id ORDER BY f.account_id) AS account_ids FROM accounts f
    WHERE f.holder_customer_id = a.holder_customer_id AND f.parent_account_id IS NOT NULL
) AS family ON a.parent_account_id IS NULL
ORDER BY asked.position
"""
