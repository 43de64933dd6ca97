"""Forgets persons who are erased: their facts, and the ratings that stand on them."""

import uuid
from collections.abc import Collection

from chassis.database import Connection


async def facts(connection: Connection, record_ids: Collection[uuid.UUID]) -> None:
    """Deletes what hangs on records; a holding goes with its last owner. Lock the records' links before."""
    records = list(record_ids)
    await connection.execute("DELETE FROM activities WHERE record_id = ANY($1::uuid[])", records)
    left = await connection.fetch("DELETE FROM holding_owners WHERE record_id = ANY($1::uuid[]) RETURNING holding_id", records)
    await holdings_without_owner(connection, [row["holding_id"] for row in left])


async def holdings_without_owner(connection: Connection, holding_ids: Collection[uuid.UUID]) -> None:
    """Deletes those of the holdings that nobody owns."""
    await connection.execute(
        "DELETE FROM holdings h WHERE holding_id = ANY($1::uuid[])"
        " AND NOT EXISTS (SELECT FROM holding_owners o WHERE o.holding_id = h.holding_id)",
        list(holding_ids),
    )


async def customers_of(connection: Connection, record_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Whose records are."""
    rows = await connection.fetch("SELECT customer_id FROM record_links WHERE record_id = ANY($1::uuid[])", list(record_ids))
    return {row["customer_id"] for row in rows}


async def customers(connection: Connection, customer_ids: Collection[uuid.UUID]) -> None:
    """Deletes what is known of customers, with their history. Who is rating one now has lost its mark, and writes nothing."""
    for table in ("rerate_queue", "customers", "customer_qualities", "ratings", "rating_versions"):
        await connection.execute(f"DELETE FROM {table} WHERE customer_id = ANY($1::uuid[])", list(customer_ids))


async def history(connection: Connection, customer_ids: Collection[uuid.UUID]) -> None:
    """Forgets what ratings said of customers who live on without some of their records; numbers of versions go on rising.

    The current state keeps level and stage, and no degrees, until the customer is rated again. Mark them after.
    """
    ids = sorted(customer_ids)
    for table in ("rerate_queue", "customer_qualities"):
        await connection.execute(f"DELETE FROM {table} WHERE customer_id = ANY($1::uuid[])", ids)
    await connection.execute(
        "DELETE FROM rating_versions v USING ratings r WHERE v.customer_id = ANY($1::uuid[])"
        " AND (r.customer_id, r.scope) = (v.customer_id, v.scope) AND v.version < r.version",
        ids,
    )
    await connection.execute("UPDATE rating_versions SET degrees = '[]' WHERE customer_id = ANY($1::uuid[])", ids)
