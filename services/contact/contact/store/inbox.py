"""The inbox: what was said, and the messages that lie in customers' inboxes."""

import hashlib
import uuid
from collections.abc import Sequence
from datetime import datetime

import asyncpg

from chassis.database import Connection

HASH_BYTES = 16
PageKey = tuple[datetime, uuid.UUID]
_MESSAGE = "m.touch_id, m.record_id, m.institution_id, m.delivered_at, m.read_at, c.title, c.body"


async def keep_content(connection: Connection, title: str, body: str) -> bytes:
    """Keeps what shall be said, once, and returns its hash."""
    content_hash = hashlib.blake2b(f"{len(title)}\0{title}\0{body}".encode(), digest_size=HASH_BYTES).digest()
    await connection.execute(
        "INSERT INTO contact_messages (content_hash, title, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        content_hash, title, body,
    )  # fmt: skip
    # Who erases the last contact with this text waits, and then finds that it is not the last.
    await connection.execute("SELECT FROM contact_messages WHERE content_hash = $1 FOR KEY SHARE", content_hash)
    return content_hash


async def deliver(connection: Connection, touch_ids: Sequence[uuid.UUID]) -> None:
    """Lays the messages of contacts into inboxes. A touch's second message is an error of the program: the key refuses it."""
    await connection.execute(
        "INSERT INTO inbox_messages (touch_id, record_id, institution_id, content_hash, delivered_at)"
        " SELECT contact_id, record_id, institution_id, content_hash, contact_time FROM contacts"
        " WHERE contact_id = ANY($1::uuid[])",
        list(touch_ids),
    )


async def page(
    connection: Connection, customer_id: uuid.UUID, institution_id: str | None, before: PageKey | None, limit: int
) -> list[asyncpg.Record]:
    """A customer's messages before a key, newest first; of all institutions with None."""
    return await connection.fetch(
        f"SELECT l.customer_id, {_MESSAGE} FROM record_links l CROSS JOIN LATERAL ("
        "SELECT * FROM inbox_messages WHERE record_id = l.record_id"
        " AND ($3::timestamptz IS NULL OR (delivered_at, touch_id) < ($3, $4))"
        " ORDER BY delivered_at DESC, touch_id DESC LIMIT $5"
        ") AS m JOIN contact_messages c USING (content_hash)"
        " WHERE l.customer_id = $1 AND ($2::text IS NULL OR l.institution_id = $2)"
        " ORDER BY m.delivered_at DESC, m.touch_id DESC LIMIT $5",
        customer_id, institution_id, *(before or (None, None)), limit,
    )  # fmt: skip


async def lock(connection: Connection, touch_id: uuid.UUID) -> asyncpg.Record | None:
    """One message, locked, with whose it is now."""
    return await connection.fetchrow(
        f"SELECT l.customer_id, {_MESSAGE} FROM inbox_messages m JOIN contact_messages c USING (content_hash)"
        " JOIN record_links l ON l.record_id = m.record_id WHERE m.touch_id = $1 FOR UPDATE OF m",
        touch_id,
    )


async def mark_read(connection: Connection, touch_id: uuid.UUID, read_at: datetime) -> None:
    """Notes when a message was read."""
    await connection.execute("UPDATE inbox_messages SET read_at = $2 WHERE touch_id = $1", touch_id, read_at)
