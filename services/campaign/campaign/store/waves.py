"""Waves: planned in claims of one page each, by any of several replicas; settled when every touch has arrived or failed."""

import uuid
from dataclasses import dataclass
from datetime import datetime

from campaign.domain.campaign import CampaignState, WaveState
from campaign.domain.touch import SETTLED_CONTACT_STATES
from chassis.database import Connection

SETTLED_TOUCHES_MAX = 1000
"""Touches looked at in one go."""


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


async def give_back(connection: Connection, claimed: ClaimedWave, *, pause_seconds: float, failures_count: int) -> None:
    """Ends a claim of which nothing came: the wave may be claimed again after a pause."""
    await connection.execute(
        "UPDATE waves SET failures_count = $5, claimable_at = clock_timestamp() + make_interval(secs => $4)"
        " WHERE campaign_id = $1 AND wave = $2 AND fence = $3",
        claimed.campaign_id, claimed.wave, claimed.fence, pause_seconds, failures_count,
    )  # fmt: skip


async def settle(connection: Connection) -> bool:
    """Looks on for touches that wait, and finishes the campaigns that have none left; True when there is more to look at now."""
    rows = await connection.fetch(
        _LOOK_ON, CampaignState.RUNNING, WaveState.PLANNED, list(SETTLED_CONTACT_STATES), SETTLED_TOUCHES_MAX
    )
    more = [row for row in rows if row["open_touch_id"] is None and row["seen_count"] == SETTLED_TOUCHES_MAX]
    moved = [row for row in rows if row["reached_touch_id"] not in (None, row["settled_touch_id"])]
    if moved:
        await connection.execute(
            "UPDATE waves SET settled_touch_id = reached"
            " FROM unnest($1::uuid[], $2::int[], $3::uuid[]) AS moved (id, number, reached)"
            " WHERE campaign_id = moved.id AND wave = moved.number",
            *([row[name] for row in moved] for name in ("campaign_id", "wave", "reached_touch_id")),
        )
    waiting = {row["campaign_id"] for row in rows if row["open_touch_id"] is not None or row in more}
    finished = sorted({row["campaign_id"] for row in rows} - waiting)
    if finished:
        await connection.execute(
            "UPDATE campaigns SET state = $2, version = version + 1 WHERE campaign_id = ANY($1) AND state = $3",
            finished, CampaignState.FINISHED, CampaignState.RUNNING,
        )  # fmt: skip
    return bool(more)


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
# A touch that has settled stays so: each look begins where the one before ended, at the first that waits.
_LOOK_ON = """
SELECT w.campaign_id, w.wave, w.settled_touch_id, seen.*, coalesce(open_touch_id, last_touch_id) AS reached_touch_id
FROM campaigns c JOIN waves w USING (campaign_id) CROSS JOIN LATERAL (
    SELECT count(*) AS seen_count,
        (array_agg(t.touch_id ORDER BY t.touch_id DESC))[1] AS last_touch_id,
        (array_agg(t.touch_id ORDER BY t.touch_id) FILTER (
            WHERE t.refused_reason IS NULL AND t.last_contact_state IS NULL AND (s.state IS NULL OR s.state <> ALL($3::text[]))
        ))[1] AS open_touch_id
    FROM (
        SELECT touch_id, refused_reason, last_contact_state FROM touches
        WHERE campaign_id = w.campaign_id AND wave = w.wave AND touch_id >= w.settled_touch_id ORDER BY touch_id LIMIT $4
    ) AS t LEFT JOIN contact_states s USING (touch_id)
) AS seen
WHERE c.state = $1 AND NOT EXISTS (SELECT FROM waves u WHERE u.campaign_id = c.campaign_id AND u.state <> $2)
ORDER BY w.campaign_id, w.wave
"""
