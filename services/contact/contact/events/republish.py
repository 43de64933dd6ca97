"""Says again what the tables hold, page by page."""

import uuid

from chassis.database import Connection
from chassis.outbox import Event
from contact.domain.permissions import Key
from contact.published import contact_recorded, permission_changed
from contact.store import contacts, permissions

NO_ID = uuid.UUID(int=0)


async def contact_pages(connection: Connection, cursor: str, limit: int) -> tuple[list[Event], str | None]:
    """Contacts after the cursor, by id."""
    rows = await contacts.all_after(connection, uuid.UUID(cursor) if cursor else NO_ID, limit)
    events = [contact_recorded(row, row["epoch"]) for row in rows]
    return events, str(rows[-1]["contact_id"]) if len(rows) == limit else None


async def permission_pages(connection: Connection, cursor: str, limit: int) -> tuple[list[Event], str | None]:
    """Permissions after the cursor, by key."""
    rows = await permissions.all_after(connection, _key(cursor), limit)
    events = [permission_changed(row, row["epoch"]) for row in rows]
    return events, events[-1].aggregate_id if len(rows) == limit else None


def _key(cursor: str) -> Key | None:
    if not cursor:
        return None
    record_id, purpose, channel = cursor.split("/")
    return Key(uuid.UUID(record_id), int(purpose), int(channel))
