"""Rates between programmes, drafted and published."""

import uuid
from datetime import datetime

import asyncpg

from chassis.database import Connection
from loyalty.domain.four_eyes import Person
from loyalty.domain.rates import Rate

_SELECT = (
    "SELECT r.*, f.institution_id AS from_institution_id, t.institution_id AS to_institution_id,"
    " (SELECT min(n.valid_from) FROM rates n WHERE n.from_program_id = r.from_program_id AND n.to_program_id = r.to_program_id"
    " AND n.valid_from > r.valid_from AND n.state = 'PUBLISHED') AS valid_until"
    " FROM rates r JOIN programs f ON f.program_id = r.from_program_id JOIN programs t ON t.program_id = r.to_program_id"
)


async def insert(connection: Connection, rate_id: uuid.UUID, rate: Rate, by: Person, now: datetime) -> bool:
    """Drafts a rate. False when the pair has one that begins at the same instant."""
    added = await connection.fetchval(
        "INSERT INTO rates (from_program_id, to_program_id, valid_from, rate_id, numerator, denominator, state, drafted_by,"
        " drafted_side, create_time) VALUES ($1, $2, $3, $4, $5, $6, 'DRAFT', $7, $8, $9) ON CONFLICT DO NOTHING RETURNING true",
        rate.from_program_id, rate.to_program_id, rate.valid_from, rate_id, rate.numerator, rate.denominator, by.subject,
        by.side, now,
    )  # fmt: skip
    return bool(added)


async def get(connection: Connection, rate_id: uuid.UUID, *, lock: bool = False) -> asyncpg.Record | None:
    """A rate with the institutions of its programmes and when the next begins."""
    return await connection.fetchrow(f"{_SELECT} WHERE r.rate_id = $1{' FOR NO KEY UPDATE OF r' if lock else ''}", rate_id)


async def at(connection: Connection, from_program_id: str, to_program_id: str, instant: datetime) -> asyncpg.Record | None:
    """The rate that is valid at an instant, be it one that closes the pair."""
    return await connection.fetchrow(
        f"{_SELECT} WHERE r.from_program_id = $1 AND r.to_program_id = $2 AND r.state = 'PUBLISHED' AND r.valid_from <= $3"
        " ORDER BY r.valid_from DESC LIMIT 1",
        from_program_id, to_program_id, instant,
    )  # fmt: skip


async def list_after(
    connection: Connection, institution_id: str | None, from_program_id: str, to_program_id: str,
    after: tuple[str, str, datetime] | None, limit: int,
) -> list[asyncpg.Record]:  # fmt: skip
    """Published rates, and drafts that concern an institution (None: all), by programmes and beginning, after one.

    Args:
        from_program_id: and `to_program_id`: empty for all.
    """
    return await connection.fetch(
        f"{_SELECT} WHERE ($1::text IS NULL OR r.state = 'PUBLISHED' OR f.institution_id = $1 OR t.institution_id = $1)"
        " AND ($2 = '' OR r.from_program_id = $2) AND ($3 = '' OR r.to_program_id = $3)"
        " AND ($4::text IS NULL OR (r.from_program_id, r.to_program_id, r.valid_from) > ($4, $5::text, $6::timestamptz))"
        " ORDER BY r.from_program_id, r.to_program_id, r.valid_from LIMIT $7",
        institution_id, from_program_id, to_program_id, *(after or (None, None, None)), limit,
    )  # fmt: skip


async def published_since(connection: Connection, instant: datetime) -> list[Rate]:
    """Of every pair the published rate that is valid at an instant, and those that begin later."""
    rows = await connection.fetch(
        "SELECT from_program_id, to_program_id, valid_from, numerator, denominator FROM rates r WHERE state = 'PUBLISHED'"
        " AND valid_from >= coalesce((SELECT max(b.valid_from) FROM rates b WHERE b.state = 'PUBLISHED' AND b.valid_from <= $1"
        " AND (b.from_program_id, b.to_program_id) = (r.from_program_id, r.to_program_id)), '-infinity')",
        instant,
    )
    return [Rate(**row) for row in rows]


async def publish(connection: Connection, rate_id: uuid.UUID, valid_from: datetime, by: Person, now: datetime) -> bool:
    """Publishes a draft from an instant on. False when the pair has another rate that begins then."""
    published = await connection.fetchval(
        "UPDATE rates r SET state = 'PUBLISHED', valid_from = $2, published_by = $3, publish_time = $4 WHERE rate_id = $1"
        " AND NOT EXISTS (SELECT FROM rates o WHERE o.from_program_id = r.from_program_id AND o.to_program_id = r.to_program_id"
        " AND o.valid_from = $2 AND o.rate_id <> $1) RETURNING true",
        rate_id, valid_from, by.subject, now,
    )  # fmt: skip
    return bool(published)


async def withdraw(connection: Connection, rate_id: uuid.UUID) -> None:
    """Takes a draft away."""
    await connection.execute("DELETE FROM rates WHERE rate_id = $1 AND state = 'DRAFT'", rate_id)


def to_rate(row: asyncpg.Record, valid_from: datetime | None = None) -> Rate:
    """The rate in a row."""
    return Rate(
        row["from_program_id"], row["to_program_id"], valid_from or row["valid_from"], row["numerator"], row["denominator"]
    )
