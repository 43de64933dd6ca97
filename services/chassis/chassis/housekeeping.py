"""Removes what has been kept long enough, in small batches; several replicas may do so at once."""

import asyncio
import random
from datetime import timedelta

from chassis.clock import now
from chassis.database import Database
from chassis.ids import id_floor

OUTBOX_KEPT = timedelta(days=30)
INBOX_KEPT = timedelta(days=31)
EVERY_SECONDS = 600
BATCH_ROWS_MAX = 1000

_EXPIRED = {
    "idempotency": ("caller, method, request_id", "expires_at < $1"),
    "inbox": ("consumer, event_id", "received_at < $1"),
    "outbox": ("row_id", "row_id < $1 AND published_at IS NOT NULL"),
}


async def run(database: Database) -> None:
    """Cleans up every ten minutes, until cancelled."""
    while True:
        await asyncio.sleep(EVERY_SECONDS * random.uniform(0.5, 1))
        await clean(database)


async def clean(database: Database) -> int:
    """Removes everything that is due. Returns the rows removed."""
    instant = now()
    due = {"idempotency": instant, "inbox": instant - INBOX_KEPT, "outbox": id_floor(instant - OUTBOX_KEPT)}
    total = 0
    for table, (key, condition) in _EXPIRED.items():
        statement = (
            f"DELETE FROM {table} WHERE ({key}) IN"
            f" (SELECT {key} FROM {table} WHERE {condition} LIMIT {BATCH_ROWS_MAX} FOR UPDATE SKIP LOCKED)"
        )
        removed = BATCH_ROWS_MAX
        while removed == BATCH_ROWS_MAX:
            async with database.connection() as connection:
                removed = int((await connection.execute(statement, due[table])).split()[-1])
            total += removed
    return total
