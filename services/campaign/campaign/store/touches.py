"""Touches as they were planned, joined with what contact says of them."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from campaign.store.waves import ClaimedWave
from chassis.database import Connection


@dataclass(frozen=True, slots=True)
class PlannedTouch:
    """What became of a member when a slot was asked for."""

    touch_id: uuid.UUID
    record_id: uuid.UUID
    customer_id: uuid.UUID
    refused_reason: str | None
    next_free_time: datetime | None


async def insert(
    connection: Connection, campaign_id: uuid.UUID, wave: int, touches: Sequence[PlannedTouch], create_time: datetime
) -> None:
    """Adds the touches of a page."""
    await connection.execute(
        "INSERT INTO touches (campaign_id, wave, create_time, touch_id, record_id, refused_reason, next_free_time)"
        " SELECT $1, $2, $3, * FROM unnest($4::uuid[], $5::uuid[], $6::text[], $7::timestamptz[])",
        campaign_id, wave, create_time,
        [touch.touch_id for touch in touches],
        [touch.record_id for touch in touches],
        [touch.refused_reason for touch in touches],
        [touch.next_free_time for touch in touches],
    )  # fmt: skip


async def reached(
    connection: Connection, claimed: ClaimedWave, customer_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, uuid.UUID | None]:
    """Those of the customers for whom a touch of the wave was planned already: under another id, before a merge.

    With the oldest record of each that has no part in that touch: a refusal hangs there, so that undoing the merge parts the two.
    """
    rows = await connection.fetch(
        "SELECT l.customer_id, (array_agg(l.record_id ORDER BY l.record_id) FILTER (WHERE t.touch_id IS NULL))[1] AS record_id"
        " FROM record_links l LEFT JOIN touches t"
        " ON t.record_id = l.record_id AND t.campaign_id = $1 AND t.wave = $2 AND t.refused_reason IS NULL"
        " WHERE l.institution_id = $3 AND l.customer_id = ANY($4::uuid[])"
        " GROUP BY l.customer_id HAVING count(t.touch_id) > 0",
        claimed.campaign_id, claimed.wave, claimed.institution_id, list(customer_ids),
    )  # fmt: skip
    return {row["customer_id"]: row["record_id"] for row in rows}


async def page(connection: Connection, campaign_id: uuid.UUID, wave: int, after: uuid.UUID, limit: int) -> list[asyncpg.Record]:
    """Touches of a wave, by id."""
    return await connection.fetch(
        "SELECT touch_id, l.customer_id, t.refused_reason, t.next_free_time, t.create_time,"
        " coalesce(t.last_contact_state, s.state) AS contact_state"
        " FROM touches t LEFT JOIN contact_states s USING (touch_id) LEFT JOIN record_links l USING (record_id)"
        " WHERE t.campaign_id = $1 AND t.wave = $2 AND touch_id > $3 ORDER BY touch_id LIMIT $4",
        campaign_id, wave, after, limit,
    )  # fmt: skip


async def counts(connection: Connection, campaign_id: uuid.UUID) -> list[asyncpg.Record]:
    """How many touches there are of each (refused_reason, contact_state)."""
    return await connection.fetch(
        "SELECT t.refused_reason, coalesce(t.last_contact_state, s.state) AS contact_state, count(*) AS count"
        " FROM touches t LEFT JOIN contact_states s USING (touch_id) WHERE t.campaign_id = $1 GROUP BY 1, 2 ORDER BY 1, 2",
        campaign_id,
    )


async def planned_page(connection: Connection, after: tuple[uuid.UUID, int, uuid.UUID], limit: int) -> list[asyncpg.Record]:
    """Touches that were given a slot, of all campaigns, by campaign, wave and id."""
    return await connection.fetch(
        "SELECT t.campaign_id, t.wave, t.touch_id, t.record_id, l.customer_id, t.create_time, c.institution_id, c.channel"
        " FROM touches t JOIN campaigns c USING (campaign_id) LEFT JOIN record_links l USING (record_id)"
        " WHERE (t.campaign_id, t.wave, t.touch_id) > ($1, $2, $3) AND t.refused_reason IS NULL AND t.record_id IS NOT NULL"
        " ORDER BY t.campaign_id, t.wave, t.touch_id LIMIT $4",
        *after, limit,
    )  # fmt: skip
