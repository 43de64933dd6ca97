"""What the ledger has to know of activities: which were decided, and whose they are."""

import uuid
from collections.abc import Iterable
from typing import NamedTuple

from chassis import customer_states
from chassis.database import Connection


class Member(NamedTuple):
    """The member an activity belongs to."""

    account_id: uuid.UUID
    customer_id: uuid.UUID


async def decide(connection: Connection, activity_ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Marks activities as decided, in id order. Returns those that were not decided before."""
    rows = await connection.fetch(
        "INSERT INTO decided_activities (activity_id) SELECT * FROM unnest($1::uuid[])"
        " ON CONFLICT DO NOTHING RETURNING activity_id",
        sorted(set(activity_ids)),
    )
    return {row["activity_id"] for row in rows}


async def members(connection: Connection, record_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Member]:
    """By record: the account that its doings earn for, one that is linked to the record's institution.

    Of several that the record's customer holds: that which the record came with, else the customer's own, else the oldest.
    """
    links = await connection.fetch(
        "SELECT record_id, customer_id, institution_id FROM record_links WHERE record_id = ANY($1::uuid[])", list(set(record_ids))
    )
    holders = await customer_states.survivors(connection, [link["customer_id"] for link in links])
    rows = await connection.fetch(
        _MEMBERS,
        [link["record_id"] for link in links],
        [link["institution_id"] for link in links],
        [holders[link["customer_id"]] for link in links],
    )
    return {row["record_id"]: Member(row["account_id"], row["holder_customer_id"]) for row in rows}


async def customers(connection: Connection, account_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID | None]:
    """Whose each account is; None of an erased one."""
    rows = await connection.fetch(
        "SELECT account_id, holder_customer_id FROM accounts WHERE account_id = ANY($1::uuid[])", list(set(account_ids))
    )
    return {row["account_id"]: row["holder_customer_id"] for row in rows}


_MEMBERS = """
SELECT DISTINCT ON (r.record_id) r.record_id, a.account_id, a.holder_customer_id
FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS r (record_id, institution_id, holder_customer_id)
JOIN accounts a USING (holder_customer_id)
JOIN memberships m ON m.account_id = a.account_id AND m.institution_id = r.institution_id
LEFT JOIN record_accounts pinned ON pinned.record_id = r.record_id AND pinned.account_id = a.account_id
ORDER BY r.record_id, pinned.record_id IS NULL, a.customer_id <> a.holder_customer_id, a.account_id
"""
