"""What the ledger has to know of activities: which were decided, and whose they are."""

import uuid
from collections.abc import Iterable
from typing import NamedTuple

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
    """By record: the account of the record's customer, where it is linked to the record's institution."""
    rows = await connection.fetch(
        "SELECT r.record_id, a.account_id, a.customer_id FROM record_links r JOIN accounts a USING (customer_id)"
        " JOIN memberships m ON m.account_id = a.account_id AND m.institution_id = r.institution_id"
        " WHERE r.record_id = ANY($1::uuid[])",
        list(set(record_ids)),
    )
    return {row["record_id"]: Member(row["account_id"], row["customer_id"]) for row in rows}


async def customers(connection: Connection, account_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID]:
    """The customer of each account."""
    rows = await connection.fetch(
        "SELECT account_id, customer_id FROM accounts WHERE account_id = ANY($1::uuid[])", list(set(account_ids))
    )
    return {row["account_id"]: row["customer_id"] for row in rows}
