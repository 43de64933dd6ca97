"""What campaign can say again, from its tables."""

import uuid

from campaign.published import campaign_launched, touch_planned
from campaign.store import campaigns, touches
from campaign.store.campaigns import NIL_ID
from chassis.database import Connection
from chassis.outbox import Event
from chassis.republish import Republisher


async def launched_pages(connection: Connection, cursor: str, limit: int) -> tuple[list[Event], str | None]:
    """Every launch, by campaign."""
    rows = await campaigns.launched_page(connection, uuid.UUID(cursor) if cursor else NIL_ID, limit)
    events = [campaign_launched(**dict(row)) for row in rows]
    return events, str(rows[-1]["campaign_id"]) if len(rows) == limit else None


async def touch_pages(connection: Connection, cursor: str, limit: int) -> tuple[list[Event], str | None]:
    """Every planned touch, by campaign, wave and id."""
    after = (NIL_ID, 0, NIL_ID)
    if cursor:
        campaign_id, wave, touch_id = cursor.split("/")
        after = (uuid.UUID(campaign_id), int(wave), uuid.UUID(touch_id))
    rows = await touches.planned_page(connection, after, limit)
    events = [touch_planned(**dict(row)) for row in rows]
    if len(rows) < limit:
        return events, None
    last = rows[-1]
    return events, f"{last['campaign_id']}/{last['wave']}/{last['touch_id']}"


REPUBLISHERS = (Republisher("launches", launched_pages), Republisher("touches", touch_pages))
