"""The customers whose rating may be behind their facts. A mark commits with its fact and goes only with the rating."""

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis.database import Connection

CLAIM_SECONDS = 30
NOBODY = uuid.UUID(int=0)


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark as it was claimed."""

    count: int
    """How often the customer was marked."""
    asks_quality: bool
    """Whether the figures of the customer master may have changed."""


async def mark(
    connection: Connection,
    now: datetime,
    customer_ids: Collection[uuid.UUID],
    record_ids: Collection[uuid.UUID] = (),
    asking_record_ids: Collection[uuid.UUID] = (),
    *,
    asks_quality: bool = True,
) -> None:
    """Marks customers, and those that records belong to.

    Args:
        connection: of the change.
        now: since when a new mark waits.
        customer_ids: to mark; the customer master is asked for their quality where `asks_quality`.
        record_ids: whose customers to mark.
        asking_record_ids: whose customers to mark and to ask for; what hangs on them may count in quality.
        asks_quality: see `customer_ids`.

    The links are locked until commit: a record cannot move away between this mark and the facts it is for. Links that are not
    known yet mark nobody; the event that brings the link does.
    """
    if customer_ids or record_ids or asking_record_ids:
        records = sorted({*record_ids, *asking_record_ids})
        await connection.execute(_MARK, sorted(customer_ids), records, now, list(asking_record_ids), asks_quality)


async def claim(
    connection: Connection, now: datetime, marked_before: datetime, limit: int
) -> tuple[uuid.UUID, dict[uuid.UUID, Mark]]:
    """Takes the oldest marks that nobody works on: a claim id, and each customer's mark.

    A claim runs out by itself, so a worker that dies loses nothing. Read facts and scorecard after claiming, never before.
    """
    claim_id = uuid.uuid4()
    rows = await connection.fetch(_CLAIM, claim_id, now, now + timedelta(seconds=CLAIM_SECONDS), marked_before, limit)
    return claim_id, {row["customer_id"]: Mark(row["marks_count"], row["asks_quality"]) for row in rows}


async def still_claimed(connection: Connection, claim_id: uuid.UUID, customer_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Locks the marks of a claim and says which are still its own: who lost a mark must not write."""
    rows = await connection.fetch(
        "SELECT customer_id FROM rerate_queue WHERE customer_id = ANY($1) AND claim_id = $2 ORDER BY customer_id FOR UPDATE",
        sorted(customer_ids), claim_id,
    )  # fmt: skip
    return {row["customer_id"] for row in rows}


async def settle(connection: Connection, now: datetime, claimed: Mapping[uuid.UUID, Mark]) -> None:
    """Removes marks that were rated; one that rose meanwhile stays, free to be claimed again."""
    customer_ids = sorted(claimed)
    seen = [claimed[customer_id].count for customer_id in customer_ids]
    await connection.execute(
        "DELETE FROM rerate_queue q USING unnest($1::uuid[], $2::bigint[]) AS seen (customer_id, marks_count)"
        " WHERE q.customer_id = seen.customer_id AND q.marks_count = seen.marks_count",
        customer_ids, seen,
    )  # fmt: skip
    await connection.execute(
        "UPDATE rerate_queue SET claim_id = NULL, claimed_until = NULL, since = $2 WHERE customer_id = ANY($1)", customer_ids, now
    )


async def postpone(connection: Connection, until: datetime, claimed: Mapping[uuid.UUID, Mark]) -> None:
    """Keeps marks that were rated without the figures asked for: free again at `until`, at once when marked anew."""
    customer_ids = sorted(claimed)
    await connection.execute(
        "UPDATE rerate_queue q SET claim_id = NULL, claimed_until = NULL, since = $3"
        " FROM unnest($1::uuid[], $2::bigint[]) AS seen (customer_id, marks_count)"
        " WHERE q.customer_id = seen.customer_id AND q.marks_count = seen.marks_count",
        customer_ids, [claimed[customer_id].count for customer_id in customer_ids], until,
    )  # fmt: skip
    await connection.execute(
        "UPDATE rerate_queue SET claim_id = NULL, claimed_until = NULL WHERE customer_id = ANY($1)", customer_ids
    )


async def mark_everybody(connection: Connection, now: datetime, limit: int) -> int:
    """Marks the next customers for a scorecard activated lately, in the order of their ids; returns how many, 0 at the end.

    Resumable: how far it came commits with the marks.
    """
    row = await connection.fetchrow(
        "SELECT marked_up_to FROM active_scorecard WHERE marked_up_to IS NOT NULL FOR UPDATE SKIP LOCKED"
    )
    if row is None:
        return 0
    customers = await connection.fetch(
        "SELECT DISTINCT customer_id FROM record_links WHERE customer_id > $1 ORDER BY customer_id LIMIT $2",
        row["marked_up_to"],
        limit,
    )
    await mark(connection, now, [customer["customer_id"] for customer in customers], asks_quality=False)
    last = customers[-1]["customer_id"] if customers else None
    await connection.execute("UPDATE active_scorecard SET marked_up_to = $1", last)
    return len(customers)


# Rows are locked in id order on both sides, links before marks, so that folding and rating cannot wait for each other in a ring.
_MARK = """
WITH linked AS MATERIALIZED (
    SELECT customer_id, record_id = ANY($4::uuid[]) AS asks FROM record_links
    WHERE record_id = ANY($2::uuid[]) ORDER BY record_id FOR SHARE
)
INSERT INTO rerate_queue AS q (customer_id, since, marks_count, asks_quality)
SELECT customer_id, $3::timestamptz, 1, bool_or(asks)
FROM (SELECT unnest($1::uuid[]) AS customer_id, $5::boolean AS asks UNION ALL SELECT customer_id, asks FROM linked) AS touched
GROUP BY customer_id
ORDER BY customer_id
ON CONFLICT (customer_id) DO UPDATE SET marks_count = q.marks_count + 1, asks_quality = q.asks_quality OR excluded.asks_quality,
    since = least(q.since, excluded.since)
"""

_CLAIM = """
WITH free AS MATERIALIZED (
    SELECT customer_id FROM rerate_queue
    WHERE since <= $4 AND (claimed_until IS NULL OR claimed_until < $2)
    ORDER BY since, customer_id LIMIT $5 FOR UPDATE SKIP LOCKED
)
UPDATE rerate_queue q SET claim_id = $1, claimed_until = $3 FROM free WHERE q.customer_id = free.customer_id
RETURNING q.customer_id, q.marks_count, q.asks_quality
"""
