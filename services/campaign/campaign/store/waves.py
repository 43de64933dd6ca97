"""Waves: planned in claims of one page each, by any of several replicas; settled when every touch has arrived or failed."""

import uuid
from dataclasses import dataclass
from datetime import datetime

from campaign.domain.campaign import CampaignState, WaveState
from campaign.domain.touch import SETTLED_CONTACT_STATES
from chassis.database import Connection


@dataclass(frozen=True, slots=True)
class ClaimedWave:
    """A wave to plan a page of. The claim holds as long as nobody has a higher fence."""

    campaign_id: uuid.UUID
    wave: int
    fence: int
    cursor_customer_id: uuid.UUID
    failures_count: int
    institution_id: str
    channel: str
    audience_expression: str
    title: str
    body: str


async def claim(connection: Connection, claim_seconds: float) -> ClaimedWave | None:
    """The wave that has waited longest, for so many seconds; None when there is none to plan now."""
    row = await connection.fetchrow(_CLAIM, claim_seconds)
    return None if row is None else ClaimedWave(**dict(row))


async def advance(
    connection: Connection,
    claimed: ClaimedWave,
    *,
    cursor_customer_id: uuid.UUID,
    examined_count: int,
    rule_failures_count: int,
    finish_time: datetime | None,
) -> bool:
    """Records a page and ends the claim; False, and nothing is done, when another planner took the wave meanwhile."""
    state = WaveState.PLANNING if finish_time is None else WaveState.PLANNED
    advanced = await connection.fetchval(
        "UPDATE waves SET cursor_customer_id = $4, examined_count = examined_count + $5,"
        " rule_failures_count = rule_failures_count + $6, state = $7, finish_time = $8,"
        " claimable_at = clock_timestamp(), failures_count = 0"
        " WHERE campaign_id = $1 AND wave = $2 AND fence = $3 RETURNING true",
        claimed.campaign_id, claimed.wave, claimed.fence,
        cursor_customer_id, examined_count, rule_failures_count, state, finish_time,
    )  # fmt: skip
    return bool(advanced)


async def pause(connection: Connection, claimed: ClaimedWave, pause_seconds: float) -> None:
    """Ends a claim that failed: the wave may be claimed again after a pause."""
    await connection.execute(
        "UPDATE waves SET failures_count = failures_count + 1, claimable_at = clock_timestamp() + make_interval(secs => $4)"
        " WHERE campaign_id = $1 AND wave = $2 AND fence = $3",
        claimed.campaign_id, claimed.wave, claimed.fence, pause_seconds,
    )  # fmt: skip


async def settle(connection: Connection) -> list[uuid.UUID]:
    """Finishes the campaigns of which every planned touch has arrived or failed; returns them."""
    rows = await connection.fetch(_FIRST_OPEN, CampaignState.RUNNING, WaveState.PLANNED, list(SETTLED_CONTACT_STATES))
    moved = [row for row in rows if row["open_touch_id"] not in (None, row["settled_touch_id"])]
    if moved:
        await connection.execute(
            "UPDATE waves SET settled_touch_id = open_touch_id"
            " FROM unnest($1::uuid[], $2::int[], $3::uuid[]) AS moved (id, number, open_touch_id)"
            " WHERE campaign_id = moved.id AND wave = moved.number",
            *([row[name] for row in moved] for name in ("campaign_id", "wave", "open_touch_id")),
        )
    still_open = {row["campaign_id"] for row in rows if row["open_touch_id"] is not None}
    settled = sorted({row["campaign_id"] for row in rows} - still_open)
    if settled:
        await connection.execute(
            "UPDATE campaigns SET state = $2, version = version + 1 WHERE campaign_id = ANY($1) AND state = $3",
            settled, CampaignState.FINISHED, CampaignState.RUNNING,
        )  # fmt: skip
    return settled


_CLAIM = f"""
WITH claimed AS (
    UPDATE waves SET fence = fence + 1, claimable_at = clock_timestamp() + make_interval(secs => $1)
    WHERE (campaign_id, wave) = (
        SELECT campaign_id, wave FROM waves WHERE state = '{WaveState.PLANNING}' AND claimable_at <= clock_timestamp()
        ORDER BY claimable_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING campaign_id, wave, fence, cursor_customer_id, failures_count
)
SELECT claimed.*, c.institution_id, c.channel, c.audience_expression, o.title, o.body
FROM claimed JOIN campaigns c USING (campaign_id) JOIN offers o USING (institution_id, offer_id)
"""
# Touches never open again, so each look begins where the one before found the first open one.
_FIRST_OPEN = """
SELECT w.campaign_id, w.wave, w.settled_touch_id, (
    SELECT t.touch_id FROM touches t LEFT JOIN contact_states s USING (touch_id)
    WHERE t.campaign_id = w.campaign_id AND t.wave = w.wave AND t.touch_id >= w.settled_touch_id
        AND t.refused_reason IS NULL AND (s.state IS NULL OR s.state <> ALL($3::text[]))
    ORDER BY t.touch_id LIMIT 1
) AS open_touch_id
FROM campaigns c JOIN waves w USING (campaign_id)
WHERE c.state = $1 AND NOT EXISTS (SELECT FROM waves u WHERE u.campaign_id = c.campaign_id AND u.state <> $2)
ORDER BY w.campaign_id, w.wave
"""
