"""Rematch runs: what they read of the records, how far they are, what they found."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from chassis.database import Connection
from customer.domain.match_jobs import FindingKind, RunState


class RunRow(NamedTuple):
    """A run as it is kept."""

    rematch_id: UUID
    model_version: int
    apply_links: bool
    state: int
    progress: str
    progress_percent: int
    pairs_compared_count: int
    attempts_count: int
    error_reason: str
    created_by: str
    create_time: datetime
    finish_time: datetime | None


class Finding(NamedTuple):
    """What a run found; of a cluster both customers are the same. `explanation` holds no values."""

    kind: int
    customer_id: UUID
    other_customer_id: UUID
    records_apart_count: int
    zone: int
    reason: str
    explanation: bytes
    applied: bool


class Held(NamedTuple):
    """A record that holds a blocking key, with all the keys it holds."""

    key: int
    record_id: UUID
    customer_id: UUID
    keys: Sequence[int]


async def insert(connection: Connection, rematch_id: UUID, model: int, apply: bool, created_by: str, now: datetime) -> None:
    """Keeps a new run."""
    await connection.execute(
        "INSERT INTO rematches (rematch_id, model_version, apply_links, state, progress, progress_percent, pairs_compared_count,"
        " attempts_count, error_reason, created_by, create_time) VALUES ($1, $2, $3, $4, '', 0, 0, 0, '', $5, $6)",
        rematch_id, model, apply, RunState.RUNNING, created_by, now,
    )  # fmt: skip


async def get(connection: Connection, rematch_id: UUID) -> RunRow | None:
    """A run."""
    row = await connection.fetchrow(f"SELECT {_COLUMNS} FROM rematches WHERE rematch_id = $1", rematch_id)
    return RunRow(*row) if row else None


async def take(connection: Connection) -> RunRow | None:
    """The next run to work on, counted as attempted; None for none. The caller holds the lease of jobs."""
    row = await connection.fetchrow(
        "UPDATE rematches SET attempts_count = attempts_count + 1"
        f" WHERE rematch_id = (SELECT rematch_id FROM rematches WHERE state = 1 ORDER BY rematch_id LIMIT 1) RETURNING {_COLUMNS}"
    )
    return RunRow(*row) if row else None


async def progressed(connection: Connection, rematch_id: UUID, progress: str, percent: int, pairs_count: int) -> None:
    """A page is done. A run that gets on is not one that fails again and again."""
    await connection.execute(
        "UPDATE rematches SET progress = $2, progress_percent = $3, pairs_compared_count = pairs_compared_count + $4,"
        " attempts_count = 0 WHERE rematch_id = $1",
        rematch_id, progress, percent, pairs_count,
    )  # fmt: skip


async def finished(connection: Connection, rematch_id: UUID, state: RunState, reason: str, now: datetime) -> None:
    """A run has ended."""
    await connection.execute(
        "UPDATE rematches SET state = $2::smallint, error_reason = $3, finish_time = $4,"
        " progress_percent = CASE WHEN $2::smallint = 2 THEN 100 ELSE progress_percent END WHERE rematch_id = $1",
        rematch_id, state, reason, now,
    )  # fmt: skip


async def waiting(connection: Connection) -> bool:
    """Whether there is anything to train or to run."""
    there: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM rematches WHERE state = 1) OR EXISTS (SELECT FROM match_models WHERE state = 1)"
    )
    return there


# ---- what a run reads


async def page_of_keys(connection: Connection, after: int, rows_max: int, records_max: int) -> tuple[int | None, list[Held]]:
    """The last key of the next page (None at the end), and who holds its keys, where more than one customer does."""
    last: int | None = await connection.fetchval(
        "SELECT max(key) FROM (SELECT key FROM blocking_keys WHERE key > $1 ORDER BY key LIMIT $2) page", after, rows_max
    )
    if last is None:
        return None, []
    return last, [Held(*row) for row in await connection.fetch(_HELD, after, last, records_max)]


async def page_of_customers(connection: Connection, after: UUID, limit: int) -> list[UUID]:
    """Customers with more than one record."""
    rows = await connection.fetch(
        "SELECT customer_id FROM records WHERE customer_id > $1 GROUP BY customer_id HAVING count(*) > 1"
        " ORDER BY customer_id LIMIT $2",
        after, limit,
    )  # fmt: skip
    return [row[0] for row in rows]


# ---- what it found


async def keep_findings(connection: Connection, rematch_id: UUID, findings: Iterable[Finding]) -> None:
    """Keeps findings; those that are kept already stay as they are."""
    await connection.executemany(
        "INSERT INTO rematch_findings (rematch_id, kind, customer_id, other_customer_id, records_apart_count, zone, reason,"
        " explanation, applied) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        [(rematch_id, *finding) for finding in findings],
    )


async def findings(connection: Connection, rematch_id: UUID, after: int, limit: int) -> list[tuple[int, Finding]]:
    """A page of findings with their numbers."""
    rows = await connection.fetch(
        "SELECT finding_number, kind, customer_id, other_customer_id, records_apart_count, zone, reason, explanation, applied"
        " FROM rematch_findings WHERE rematch_id = $1 AND finding_number > $2 ORDER BY finding_number LIMIT $3",
        rematch_id, after, limit,
    )  # fmt: skip
    return [(row[0], Finding(*row[1:])) for row in rows]


async def counts(connection: Connection, rematch_id: UUID) -> tuple[int, int, int]:
    """(missed pairs, doubtful clusters, merged pairs)."""
    row = await connection.fetchrow(
        "SELECT count(*) FILTER (WHERE kind = $2), count(*) FILTER (WHERE kind = $3), count(*) FILTER (WHERE applied)"
        " FROM rematch_findings WHERE rematch_id = $1",
        rematch_id, FindingKind.MISSED_PAIR, FindingKind.DOUBTFUL_CLUSTER,
    )  # fmt: skip
    return (row[0], row[1], row[2]) if row else (0, 0, 0)


_COLUMNS = (
    "rematch_id, model_version, apply_links, state, progress, progress_percent, pairs_compared_count, attempts_count,"
    " error_reason, created_by, create_time, finish_time"
)
_HELD = """
WITH shared AS (
    SELECT b.key, b.record_id, r.customer_id, r.blocking_keys, count(*) OVER same AS held,
        min(r.customer_id::text) OVER same <> max(r.customer_id::text) OVER same AS several
    FROM blocking_keys b JOIN records r ON r.record_id = b.record_id
    WHERE b.key > $1 AND b.key <= $2
    WINDOW same AS (PARTITION BY b.key))
SELECT key, record_id, customer_id, blocking_keys FROM shared WHERE several AND held <= $3
"""
