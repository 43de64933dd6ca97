"""Campaigns and the waves shown with them."""

import uuid
from collections.abc import Sequence
from datetime import datetime

import asyncpg

from campaign.domain import audience
from campaign.domain.campaign import CampaignState, Draft, WaveState, offer_prefix
from chassis.database import Connection

NIL_ID = uuid.UUID(int=0)
LAST_ID = uuid.UUID(int=(1 << 128) - 1)
_COLUMNS = (
    "campaign_id, institution_id, display_name, offer_id, channel, audience_rule, audience_expression, state, version,"
    " create_time, launch_time"
)


async def insert(
    connection: Connection, campaign_id: uuid.UUID, institution_id: str, draft: Draft, create_time: datetime
) -> asyncpg.Record:
    """A new draft."""
    row = await connection.fetchrow(
        f"INSERT INTO campaigns ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9, NULL) RETURNING {_COLUMNS}",
        campaign_id, institution_id, *_values(draft, institution_id), CampaignState.DRAFT, create_time,
    )  # fmt: skip
    assert row is not None
    return row


async def update(connection: Connection, campaign_id: uuid.UUID, institution_id: str, draft: Draft) -> asyncpg.Record:
    """Changes a draft; the caller holds its row."""
    row = await connection.fetchrow(
        "UPDATE campaigns SET display_name = $2, offer_id = $3, channel = $4, audience_rule = $5, audience_expression = $6,"
        f" version = version + 1 WHERE campaign_id = $1 RETURNING {_COLUMNS}",
        campaign_id, *_values(draft, institution_id),
    )  # fmt: skip
    assert row is not None
    return row


def _values(draft: Draft, institution_id: str) -> tuple[str, ...]:
    offer_id = draft.offer.removeprefix(offer_prefix(institution_id))
    return draft.display_name, offer_id, draft.channel, audience.to_json(draft.rule), audience.expression(draft.rule)


async def get(
    connection: Connection, institution_id: str, campaign_id: uuid.UUID, *, lock: bool = False
) -> asyncpg.Record | None:
    """The institution's campaign, or None; with `lock` nobody else can change it until the transaction ends."""
    return await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM campaigns WHERE campaign_id = $1 AND institution_id = $2{' FOR UPDATE' if lock else ''}",
        campaign_id, institution_id,
    )  # fmt: skip


async def page_before(connection: Connection, institution_id: str, before: uuid.UUID, limit: int) -> list[asyncpg.Record]:
    """Campaigns of an institution, newest first."""
    return await connection.fetch(
        f"SELECT {_COLUMNS} FROM campaigns WHERE institution_id = $1 AND campaign_id < $2 ORDER BY campaign_id DESC LIMIT $3",
        institution_id, before, limit,
    )  # fmt: skip


async def launch(connection: Connection, campaign_id: uuid.UUID, now: datetime) -> asyncpg.Record:
    """Starts a draft and makes its wave; the caller holds its row."""
    row = await connection.fetchrow(
        f"UPDATE campaigns SET state = $2, launch_time = $3, version = version + 1 WHERE campaign_id = $1 RETURNING {_COLUMNS}",
        campaign_id, CampaignState.RUNNING, now,
    )  # fmt: skip
    assert row is not None
    await connection.execute(
        "INSERT INTO waves (campaign_id, wave, state, cursor_customer_id, examined_count, rule_failures_count, fence,"
        " claimable_at, failures_count, settled_touch_id) VALUES ($1, 1, $2, $3, 0, 0, 0, clock_timestamp(), 0, $3)",
        campaign_id, WaveState.PLANNING, NIL_ID,
    )  # fmt: skip
    return row


async def waves_of(connection: Connection, campaign_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[asyncpg.Record]]:
    """The waves of campaigns, by number."""
    waves: dict[uuid.UUID, list[asyncpg.Record]] = {campaign_id: [] for campaign_id in campaign_ids}
    for row in await connection.fetch(
        "SELECT campaign_id, wave, state, examined_count, finish_time FROM waves WHERE campaign_id = ANY($1) ORDER BY wave",
        list(campaign_ids),
    ):
        waves[row["campaign_id"]].append(row)
    return waves


async def launched_page(connection: Connection, after: uuid.UUID, limit: int) -> list[asyncpg.Record]:
    """Campaigns that were launched, of all institutions, by id."""
    return await connection.fetch(
        "SELECT campaign_id, institution_id, launch_time FROM campaigns WHERE campaign_id > $1 AND launch_time IS NOT NULL"
        " ORDER BY campaign_id LIMIT $2",
        after, limit,
    )  # fmt: skip
