"""What stewards decided, what that did, and how the queues stand."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection
from customer.domain.reviews import Decision
from customer.store import reviews


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, with what it did, so that it can be undone exactly."""

    review_item_id: UUID
    decision_number: int
    decision: Decision
    reason_code: str
    decided_by: str
    decided_at: datetime
    merge_ids: Sequence[UUID] = field(default=())
    rejection_id: UUID | None = None
    split_customer_id: UUID | None = None
    chosen_record_id: UUID | None = None
    pinned_before: datetime | None = None


async def insert(connection: Connection, decided: Decided, defer_until: datetime | None) -> None:
    """Keeps a decision. The item is decided, or with `defer_until` open again from then on."""
    await connection.execute(
        f"INSERT INTO review_decisions ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        decided.review_item_id, decided.decision_number, int(decided.decision), decided.reason_code, decided.decided_by,
        decided.decided_at, list(decided.merge_ids), decided.rejection_id, decided.split_customer_id, decided.chosen_record_id,
        decided.pinned_before,
    )  # fmt: skip
    await connection.execute(
        "UPDATE review_items SET state = CASE WHEN $3::timestamptz IS NULL THEN 2 ELSE 1 END, decision_number = $2,"
        " defer_until = coalesce($3, defer_until), claimed_by = NULL, lease_until = NULL, update_time = $4"
        " WHERE review_item_id = $1",
        decided.review_item_id, decided.decision_number, defer_until, decided.decided_at,
    )  # fmt: skip


async def last(connection: Connection, review_item_ids: Collection[UUID]) -> dict[UUID, Decided]:
    """The decisions that stand, by item."""
    rows = await connection.fetch(
        f"SELECT DISTINCT ON (review_item_id) {_COLUMNS} FROM review_decisions"
        " WHERE review_item_id = ANY($1::uuid[]) AND undone_at IS NULL ORDER BY review_item_id, decision_number DESC",
        list(review_item_ids),
    )
    return {row["review_item_id"]: _decided(row) for row in rows}


async def undo(connection: Connection, decided: Decided, undone_by: str, reason_code: str, now: datetime) -> None:
    """A decision stands no more; its item is open again.

    Raises:
        asyncpg.UniqueViolationError: another item about the same is open by now.
    """
    await connection.execute(
        "UPDATE review_decisions SET undone_by = $3, undone_at = $4, undo_reason_code = $5"
        " WHERE review_item_id = $1 AND decision_number = $2",
        decided.review_item_id, decided.decision_number, undone_by, now, reason_code,
    )  # fmt: skip
    await connection.execute(
        "UPDATE review_items SET state = 1, defer_until = $2, claim_number = claim_number + 1, claimed_by = NULL,"
        " lease_until = NULL, update_time = $2 WHERE review_item_id = $1",
        decided.review_item_id, now,
    )  # fmt: skip


async def undo_of_rejection(connection: Connection, rejection_id: UUID, undone_by: str, reason_code: str, now: datetime) -> None:
    """The decision NOT_SAME that made a rejection stands no more: its item is open again, unless another one is by now."""
    await connection.execute(_UNDO_OF_REJECTION, rejection_id, undone_by, now, reason_code, int(Decision.NOT_SAME))


async def queues(connection: Connection, institution_id: str | None, now: datetime) -> list[asyncpg.Record]:
    """For each kind: counts by state, and ages of what is not decided, in seconds."""
    visible = "TRUE" if institution_id is None else reviews.visible("$2")
    return await connection.fetch(_QUEUES.format(visible=visible), now, institution_id)


async def throughputs(connection: Connection, institution_id: str | None, since: datetime) -> list[asyncpg.Record]:
    """Decisions that stand by day (UTC), steward and kind; the latest day first."""
    return await connection.fetch(_THROUGHPUTS, since, None if institution_id is None else f"{institution_id}/")


def _decided(row: asyncpg.Record) -> Decided:
    return Decided(row[0], row[1], Decision(row[2]), *list(row)[3:])


_COLUMNS = (
    "review_item_id, decision_number, decision, reason_code, decided_by, decided_at, merge_ids, rejection_id, split_customer_id,"
    " chosen_record_id, pinned_before"
)
_UNDO_OF_REJECTION = """
WITH undone AS (
    UPDATE review_decisions SET undone_by = $2, undone_at = $3, undo_reason_code = $4
    WHERE rejection_id = $1 AND decision = $5 AND undone_at IS NULL RETURNING review_item_id
)
UPDATE review_items i SET state = 1, defer_until = $3, claim_number = claim_number + 1, claimed_by = NULL, lease_until = NULL,
    update_time = $3
FROM undone
WHERE i.review_item_id = undone.review_item_id AND i.state = 2
    AND NOT EXISTS (SELECT FROM review_items o WHERE o.state = 1 AND o.subject_key = i.subject_key)
"""
_QUEUES = f"""
WITH seen AS (
    SELECT i.kind, i.state, i.defer_until > $1 AS deferred, coalesce(i.lease_until > $1, false) AS claimed,
        extract(epoch FROM $1 - i.create_time) AS age_seconds
    FROM review_items i
    WHERE i.state <> 3 AND (i.state = 2 OR {reviews.STILL_IN_QUESTION}) AND ($2::text IS NULL OR true) AND {{visible}}
)
SELECT kind,
    count(*) FILTER (WHERE state = 1 AND NOT claimed AND NOT deferred) AS open_count,
    count(*) FILTER (WHERE state = 1 AND claimed) AS claimed_count,
    count(*) FILTER (WHERE state = 1 AND deferred AND NOT claimed) AS deferred_count,
    count(*) FILTER (WHERE state = 2) AS decided_count,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY age_seconds) FILTER (WHERE state = 1) AS p50,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY age_seconds) FILTER (WHERE state = 1) AS p90,
    max(age_seconds) FILTER (WHERE state = 1) AS oldest
FROM seen GROUP BY kind ORDER BY kind
"""
_THROUGHPUTS = """
SELECT (d.decided_at AT TIME ZONE 'UTC')::date AS day, d.decided_by, i.kind, count(*) AS decided_count
FROM review_decisions d JOIN review_items i USING (review_item_id)
WHERE d.decided_at >= $1 AND d.undone_at IS NULL AND ($2::text IS NULL OR starts_with(d.decided_by, $2))
GROUP BY 1, 2, 3 ORDER BY 1 DESC, 2, 3
"""
