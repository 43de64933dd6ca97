"""Long jobs about survivorship policies: dry runs, calibrations, sweeps. A page commits with the place where the next begins."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any
from uuid import UUID

from asyncpg import Record

from chassis.database import Connection
from chassis.ids import new_id

_NO_CUSTOMER = UUID(int=0)


class JobKind(IntEnum):
    """Kinds of jobs."""

    DRY_RUN = 1
    CALIBRATION = 2
    SWEEP = 3


@dataclass(frozen=True, slots=True)
class Job:
    """A job in its present state. `standard` is what a dry run tries, as JSON.

    `skipped`: how often each customer failed that holds up nobody. After the last page they are tried again from `retry_at` on.
    """

    job_id: UUID
    kind: JobKind
    policy_version: int
    base_version: int
    content_hash: bytes
    standard: str | None
    sample_percent: int
    begin_time: datetime
    cursor: UUID
    customers_total_count: int
    customers_done_count: int
    result: dict[str, Any]
    skipped: dict[str, int]
    retry_at: datetime | None
    created_by: str
    create_time: datetime
    finish_time: datetime | None


async def start(
    connection: Connection,
    kind: JobKind,
    *,
    policy_version: int,
    base_version: int,
    by: str,
    now: datetime,
    begin_time: datetime | None = None,
    sample_percent: int = 100,
    content_hash: bytes = b"",
    standard: str | None = None,
) -> Job:
    """A new job, to be worked on from `begin_time` on."""
    total = await connection.fetchval("SELECT count(*) FROM customers")
    row = await connection.fetchrow(
        _START, new_id(), int(kind), policy_version, base_version, content_hash, standard, sample_percent, begin_time or now,
        _NO_CUSTOMER, total * sample_percent // 100, by, now,
    )  # fmt: skip
    assert row is not None
    return _job(row)


async def start_sweep(
    connection: Connection, policy_version: int, base_version: int, begin_time: datetime, by: str, now: datetime
) -> Job:
    """A sweep: what was published of customers under the base policy follows the policy.

    With one policy for both it publishes only the qualities that were not: after a bulk load.
    """
    return await start(
        connection, JobKind.SWEEP, policy_version=policy_version, base_version=base_version, by=by, now=now, begin_time=begin_time
    )


async def get(connection: Connection, job_id: UUID, kind: JobKind) -> Job | None:
    """A job of this kind."""
    row = await connection.fetchrow("SELECT * FROM survivorship_jobs WHERE job_id = $1 AND kind = $2", job_id, int(kind))
    return _job(row) if row else None


async def last_of_policies(connection: Connection, kind: JobKind, versions: Sequence[int]) -> dict[int, list[Job]]:
    """Jobs of this kind by the policy they are about, newest first."""
    rows = await connection.fetch(
        "SELECT * FROM survivorship_jobs WHERE policy_version = ANY($1::int[]) AND kind = $2 ORDER BY job_id DESC",
        list(versions), int(kind),
    )  # fmt: skip
    found: dict[int, list[Job]] = {}
    for row in rows:
        found.setdefault(row["policy_version"], []).append(_job(row))
    return found


async def claim(connection: Connection, now: datetime) -> Job | None:
    """The oldest job that is due and that no other process works on; it is locked until the transaction ends."""
    row = await connection.fetchrow(_CLAIM, now)
    return _job(row) if row else None


async def next_customers(connection: Connection, job: Job, limit: int) -> list[UUID]:
    """The next customers of a job, by id. A sample is by the id's last digits, so the same each time."""
    rows = await connection.fetch(_NEXT, job.cursor, job.sample_percent, limit)
    return [row[0] for row in rows]


async def skip(connection: Connection, job_id: UUID, customer_id: UUID) -> None:
    """Goes on behind a customer that fails. Nothing, when another process has come past it."""
    await connection.execute(_SKIP, job_id, customer_id)


async def retry(connection: Connection, job: Job, skipped: Mapping[str, int], retry_at: datetime) -> None:
    """When the skipped are tried again, and how often each has failed by then."""
    await connection.execute(
        "UPDATE survivorship_jobs SET skipped = $2, retry_at = $3 WHERE job_id = $1", job.job_id, json.dumps(skipped), retry_at
    )


async def advance(
    connection: Connection, job: Job, customer_ids: Sequence[UUID], result: Mapping[str, Any], finish_time: datetime | None,
    policy_version: int,
) -> None:  # fmt: skip
    """Writes what a page has found, and where the next begins."""
    cursor = customer_ids[-1] if customer_ids else job.cursor
    done_count = job.customers_done_count + len(customer_ids)
    await connection.execute(_ADVANCE, job.job_id, cursor, done_count, json.dumps(result), finish_time, policy_version)


def _job(row: Record) -> Job:
    read = {"kind": JobKind(row["kind"]), "result": json.loads(row["result"]), "skipped": json.loads(row["skipped"])}
    return Job(**(dict(row) | read))


_START = """
INSERT INTO survivorship_jobs (
    job_id, kind, policy_version, base_version, content_hash, standard, sample_percent, begin_time, cursor,
    customers_total_count, customers_done_count, result, created_by, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, '{}', $11, $12) RETURNING *
"""
_CLAIM = """
SELECT * FROM survivorship_jobs WHERE finish_time IS NULL AND coalesce(retry_at, begin_time) <= $1
ORDER BY create_time LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_NEXT = """
SELECT customer_id FROM customers
WHERE customer_id > $1 AND ($2 = 100 OR ('x' || right(customer_id::text, 6))::bit(24)::int % 100 < $2)
ORDER BY customer_id LIMIT $3
"""
_ADVANCE = """
UPDATE survivorship_jobs SET cursor = $2, customers_done_count = $3, result = $4, finish_time = $5, policy_version = $6,
    customers_total_count = CASE WHEN $5::timestamptz IS NULL THEN greatest(customers_total_count, $3) ELSE $3 END
WHERE job_id = $1
"""
_SKIP = """
UPDATE survivorship_jobs SET cursor = $2, customers_done_count = customers_done_count + 1,
    skipped = skipped || jsonb_build_object($2::uuid::text, 1)
WHERE job_id = $1 AND cursor < $2
"""
