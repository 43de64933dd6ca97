"""Deletes what was kept of persons who are erased."""

import uuid
from collections.abc import Collection

from chassis.database import Connection

_READ_MESSAGE = "/concord.contact.v1.ContactService/ReadInboxMessage"


async def erase(connection: Connection, record_ids: Collection[uuid.UUID], customer_ids: Collection[uuid.UUID]) -> None:
    """Deletes everything that hangs on records, and what is left of customers. Lock the records' links before.

    What was said goes when nobody else heard it; so do the answers kept for retries that hold a message.
    """
    records = list(record_ids)
    messages = await connection.fetch(
        "DELETE FROM inbox_messages WHERE record_id = ANY($1::uuid[]) RETURNING touch_id, content_hash", records
    )
    contacts = await connection.fetch("DELETE FROM contacts WHERE record_id = ANY($1::uuid[]) RETURNING content_hash", records)
    await connection.execute("DELETE FROM permissions WHERE record_id = ANY($1::uuid[])", records)
    await connection.execute("DELETE FROM permission_events WHERE record_id = ANY($1::uuid[])", records)
    await connection.execute("DELETE FROM contact_subjects WHERE customer_id = ANY($1::uuid[])", list(customer_ids))
    await connection.execute(
        "DELETE FROM contact_messages m WHERE content_hash = ANY($1::bytea[])"
        " AND NOT EXISTS (SELECT FROM contacts c WHERE c.content_hash = m.content_hash)",
        sorted({row["content_hash"] for row in contacts if row["content_hash"]}),
    )
    if messages:
        await connection.execute(
            "DELETE FROM idempotency WHERE method = $1 AND EXISTS"
            " (SELECT FROM unnest($2::text[]) AS touch (id) WHERE position(convert_to(touch.id, 'UTF8') IN response) > 0)",
            _READ_MESSAGE, [str(row["touch_id"]) for row in messages],
        )  # fmt: skip
