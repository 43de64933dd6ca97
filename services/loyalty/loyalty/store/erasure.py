"""Forgets persons who are erased. The ledger's entries stay, as numbers of an account that is nobody's."""

import uuid
from collections.abc import Collection
from datetime import datetime

import asyncpg

from chassis import answers
from chassis.database import Connection
from loyalty.domain.earning import ErasureRule
from loyalty.store import pools, quotes


async def accounts_of(connection: Connection, customer_ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """The accounts that were opened for customers, locked."""
    rows = await connection.fetch(
        "SELECT account_id FROM accounts WHERE customer_id = ANY($1::uuid[]) ORDER BY account_id FOR UPDATE", list(customer_ids)
    )
    return [row["account_id"] for row in rows]


async def points_to_expire(connection: Connection, account_ids: Collection[uuid.UUID]) -> list[asyncpg.Record]:
    """What is left, also of promises, in programmes whose points end with their owner: account_id, program_id, institution_id.

    What open holds reserve stays with them, because their partners were promised it; that, and what refunds bring back, ends when
    it comes back: see `leftovers`. A debt stays a number of an account that is nobody's.
    """
    return await connection.fetch(
        "SELECT DISTINCT l.owner::uuid AS account_id, l.program_id, p.institution_id"
        " FROM ledger_accounts l JOIN programs p USING (program_id)"
        " WHERE l.owner = ANY($1::text[]) AND l.kind IN ('MEMBER', 'PENDING') AND l.balance_points > 0 AND p.erasure_rule = $2"
        " ORDER BY account_id, l.program_id",
        [str(account_id) for account_id in account_ids], ErasureRule.EXPIRE,
    )  # fmt: skip


async def remember_leftovers(connection: Connection, account_ids: Collection[uuid.UUID], erase_time: datetime) -> None:
    """Writes down in which programmes what comes back to erased accounts ends, too."""
    await connection.execute(
        "INSERT INTO erasure_leftovers (account_id, program_id, erase_time)"
        " SELECT DISTINCT l.owner::uuid, l.program_id, $3::timestamptz FROM ledger_accounts l JOIN programs p USING (program_id)"
        " WHERE l.owner = ANY($1::text[]) AND p.erasure_rule = $2 ON CONFLICT DO NOTHING",
        [str(account_id) for account_id in account_ids], ErasureRule.EXPIRE, erase_time,
    )  # fmt: skip


async def leftovers(connection: Connection, limit: int) -> list[asyncpg.Record]:
    """What came back to erased accounts and is to end: account_id, program_id, institution_id, and a version that only rises."""
    return await connection.fetch(
        "SELECT e.account_id, e.program_id, p.institution_id, sum(l.version)::bigint AS version"
        " FROM erasure_leftovers e JOIN programs p USING (program_id)"
        " JOIN ledger_accounts l ON l.owner = e.account_id::text AND l.program_id = e.program_id"
        " WHERE l.kind IN ('MEMBER', 'PENDING') GROUP BY e.account_id, e.program_id, p.institution_id"
        " HAVING sum(l.balance_points) > 0 ORDER BY e.account_id, e.program_id LIMIT $1",
        limit,
    )


async def forget_accounts(connection: Connection, account_ids: Collection[uuid.UUID], erase_time: datetime) -> None:
    """Takes away all that says whose accounts are, and what callers wrote beside their operations."""
    await connection.execute(
        "UPDATE accounts SET customer_id = NULL, holder_customer_id = NULL, parent_account_id = NULL, erase_time = $2,"
        " version = version + 1 WHERE account_id = ANY($1::uuid[])",
        list(account_ids), erase_time,
    )  # fmt: skip
    for table in ("memberships", "ended_memberships", "account_freezes", "account_families", "record_accounts"):
        await connection.execute(f"DELETE FROM {table} WHERE account_id = ANY($1::uuid[])", list(account_ids))
    await connection.execute(
        "UPDATE operations SET reference = '' WHERE account_id = ANY($1::uuid[]) AND reference <> ''", list(account_ids)
    )
    await pools.forget(connection, account_ids, erase_time)
    await quotes.forget_accounts(connection, account_ids)
    await answers.forget(connection, account_ids)


async def forget_records(connection: Connection, record_ids: Collection[uuid.UUID]) -> None:
    """Forgets which account records earned for."""
    await connection.execute("DELETE FROM record_accounts WHERE record_id = ANY($1::uuid[])", list(record_ids))


async def links_of(connection: Connection, record_ids: Collection[uuid.UUID]) -> list[tuple[uuid.UUID, str]]:
    """Which customer and institution the records link, before they are erased."""
    rows = await connection.fetch(
        "SELECT DISTINCT customer_id, institution_id FROM record_links WHERE record_id = ANY($1::uuid[])", list(record_ids)
    )
    return [(row["customer_id"], row["institution_id"]) for row in rows]


async def unlink(connection: Connection, links: Collection[tuple[uuid.UUID, str]]) -> list[uuid.UUID]:
    """Ends the memberships of (customer, institution) that have no record left. Returns the accounts that changed."""
    rows = await connection.fetch(
        "WITH lost AS (SELECT customer_id AS holder_customer_id, institution_id"
        " FROM unnest($1::uuid[], $2::text[]) AS l (customer_id, institution_id) WHERE NOT EXISTS"
        " (SELECT FROM record_links r WHERE r.customer_id = l.customer_id AND r.institution_id = l.institution_id)"
        "), gone AS (DELETE FROM memberships m USING accounts a JOIN lost USING (holder_customer_id)"
        " WHERE a.account_id = m.account_id AND m.institution_id = lost.institution_id RETURNING m.account_id)"
        " UPDATE accounts a SET version = version + 1 FROM (SELECT DISTINCT account_id FROM gone) g"
        " WHERE a.account_id = g.account_id RETURNING a.account_id",
        [customer_id for customer_id, _ in links], [institution_id for _, institution_id in links],
    )  # fmt: skip
    return [row["account_id"] for row in rows]
