"""Deletes what was kept of persons who are erased."""

import uuid
from collections.abc import Collection

from chassis import answers
from chassis.database import Connection


async def erase(connection: Connection, record_ids: Collection[uuid.UUID], customer_ids: Collection[uuid.UUID]) -> None:
    """Deletes everything that hangs on records, and what is left of customers. Lock the records' links before.

    What was said goes when nobody else heard it. Answers that name a message may have been given under another customer's id, so
    they are found by the message's.
    """
    records = list(record_ids)
    await connection.execute("DELETE FROM inbox_messages WHERE record_id = ANY($1::uuid[])", records)
    contacts = await connection.fetch(
        "DELETE FROM contacts WHERE record_id = ANY($1::uuid[]) RETURNING contact_id, content_hash", records
    )
    await answers.forget(connection, [row["contact_id"] for row in contacts])
    await connection.execute("DELETE FROM permissions WHERE record_id = ANY($1::uuid[])", records)
    await connection.execute("DELETE FROM permission_events WHERE record_id = ANY($1::uuid[])", records)
    await connection.execute("DELETE FROM contact_subjects WHERE customer_id = ANY($1::uuid[])", list(customer_ids))
    await connection.execute(
        "DELETE FROM contact_messages m WHERE content_hash = ANY($1::bytea[])"
        " AND NOT EXISTS (SELECT FROM contacts c WHERE c.content_hash = m.content_hash)",
        sorted({row["content_hash"] for row in contacts if row["content_hash"]}),
    )
