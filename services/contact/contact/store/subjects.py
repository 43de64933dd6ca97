"""Locks on customers: whatever decides about a customer's contacts waits its turn here."""

import uuid
from collections.abc import Collection
from datetime import datetime

from chassis.database import Connection


async def lock(connection: Connection, customer_ids: Collection[uuid.UUID]) -> datetime:
    """Locks the customers until the transaction ends, in id order.

    Read what you decide upon in a later statement: only that one sees what the former holder of the lock committed.

    Returns:
        The instant after the lock was got, by the database's clock: in the order of the locks for all replicas.
    """
    ordered = sorted(set(customer_ids))
    await connection.execute(
        "INSERT INTO contact_subjects (customer_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING", ordered
    )
    await connection.execute(
        "SELECT FROM contact_subjects WHERE customer_id = ANY($1::uuid[]) ORDER BY customer_id FOR UPDATE", ordered
    )
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return now
