"""Points that are about to end: which lots have passed a mark and were not told of."""

from datetime import datetime, timedelta

import asyncpg

from chassis.database import Connection

KEPT = timedelta(days=1)
"""How long it is remembered that a lot was told of, after its end."""


async def take(
    connection: Connection, days_before: int, now: datetime, after: tuple[datetime, int], limit: int
) -> tuple[list[asyncpg.Record], tuple[datetime, int] | None]:
    """Marks lots that end within so many days as told, and sums them up by account, programme and day.

    A day is told whole: with a lot go all others that end for the same account on the same day. Two that take at the same time
    take different lots.

    Args:
        after: (expire time, lot) where to go on looking.
        limit: of lots to look for.

    Returns:
        The sums, and where to go on; None at the end.
    """
    seen = await connection.fetch(_DUE, days_before, now, now + timedelta(days=days_before), *after, limit)
    if not seen:
        return [], None
    sums = await connection.fetch(_TAKE, days_before, now, now + timedelta(days=days_before), [row["lot_id"] for row in seen])
    last = seen[-1]
    return sums, (last["expire_time"], last["lot_id"]) if len(seen) == limit else None


async def forget(connection: Connection, now: datetime) -> None:
    """Forgets what was told of lots that have ended."""
    await connection.execute("DELETE FROM expiry_notices WHERE expire_time < $1", now - KEPT)


_ELIGIBLE = (
    "l.open AND l.state = 'ACTIVE' AND l.remaining_points > l.reserved_points AND l.expire_time > $2 AND l.expire_time <= $3"
)
_DUE = f"""
SELECT l.lot_id, l.expire_time FROM lots l
WHERE {_ELIGIBLE} AND (l.expire_time, l.lot_id) > ($4, $5::bigint)
    AND NOT EXISTS (SELECT FROM expiry_notices n WHERE n.lot_id = l.lot_id AND n.days_before = $1::bigint)
ORDER BY l.expire_time, l.lot_id LIMIT $6
"""
_TAKE = f"""
WITH days AS (
    SELECT DISTINCT l.account_id, l.program_id, p.time_zone, (l.expire_time AT TIME ZONE p.time_zone)::date AS expire_date
    FROM lots l JOIN programs p USING (program_id) WHERE l.lot_id = ANY($4::bigint[])
), gathered AS (
    SELECT l.lot_id, l.account_id, l.program_id, d.expire_date, l.expire_time, l.remaining_points - l.reserved_points AS points
    FROM days d JOIN lots l USING (account_id, program_id)
    WHERE {_ELIGIBLE} AND (l.expire_time AT TIME ZONE d.time_zone)::date = d.expire_date
), told AS (
    INSERT INTO expiry_notices (lot_id, days_before, expire_time)
    SELECT lot_id, $1, expire_time FROM gathered ORDER BY lot_id
    ON CONFLICT DO NOTHING RETURNING lot_id
)
SELECT g.account_id, a.holder_customer_id, g.program_id, g.expire_date, min(g.expire_time) AS expire_time,
    sum(g.points)::bigint AS points
FROM told JOIN gathered g USING (lot_id) JOIN accounts a ON a.account_id = g.account_id AND a.erase_time IS NULL
GROUP BY g.account_id, a.holder_customer_id, g.program_id, g.expire_date
ORDER BY g.expire_date, g.account_id, g.program_id
"""
