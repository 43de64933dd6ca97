"""What hangs on records and moves with them: consents to share, and restrictions."""

from collections.abc import Collection, Mapping
from uuid import UUID

from chassis.database import Connection
from customer.store import restrictions, sharing
from customer.store.restrictions import is_restricted
from customer.store.sharing import Consent


async def follow(
    connection: Connection, moved: Mapping[UUID, UUID], institutions_of: Mapping[UUID, Collection[str]]
) -> tuple[dict[UUID, bool], list[Consent]]:
    """Lets consents and restrictions follow their records. The customers are locked.

    Args:
        moved: where each moved record belongs now, by record.
        institutions_of: the institutions of each concerned customer's records, after the move.

    Returns: whether each of those customers is restricted now, and the consents that moved, in force.
    """
    records, customers = list(moved), list(moved.values())
    for table in ("sharing_consents", "restrictions"):
        await connection.execute(_MOVE.format(table=table), records, customers)
    restricted_for = await restrictions.restricting(connection, institutions_of)
    restricted = {
        customer_id: is_restricted(restricted_for.get(customer_id, ()), institution_ids)
        for customer_id, institution_ids in institutions_of.items()
    }
    return restricted, await sharing.of_records(connection, records)


_MOVE = """
UPDATE {table} SET customer_id = moved.customer_id FROM unnest($1::uuid[], $2::uuid[]) AS moved (record_id, customer_id)
WHERE {table}.record_id = moved.record_id AND {table}.customer_id <> moved.customer_id
"""
