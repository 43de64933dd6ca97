"""Limits, and what is counted in their windows."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from chassis.database import Connection
from chassis.unit_of_work import UnitOfWork
from loyalty.domain.ledger.commands import AnyCommand, Earn, Exchange, Hold, Redeem, Transfer
from loyalty.domain.ledger.configuration import Configuration
from loyalty.domain.limits import Asked, Count, Counter, Limit, Limiter, subject

KEPT = timedelta(days=3)
"""How long counters of windows that are over are kept; no window is longer than a day."""
LIMITED = (Earn, Exchange, Hold, Redeem, Transfer)
PURGED_MAX = 10_000


async def load(unit: UnitOfWork, commands: Sequence[AnyCommand], configuration: Configuration) -> Limiter | None:
    """The limits that these commands may meet, with all counters that deciding them needs. Under the head's lock.

    A statement that fails fails the batch: nothing is let through because a counter could not be read.
    """
    asked = [command for command in commands if isinstance(command, LIMITED)]
    if not configuration.limits or not asked:
        return None
    places = await _places(unit.connection, asked)
    counters = set[Counter]()
    for command in asked:
        quote_id = getattr(command, "quote_id", None)
        place = places.get(quote_id, command.institution_id) if quote_id else command.institution_id
        for limit in configuration.limits:
            if str(command.kind) in limit.kinds and limit.institution_id in ("", place):
                about = Asked(str(command.kind), command.account_id, place, {}, unit.now)
                counters.add(Counter(limit.limit_id, subject(limit, about), limit.window_start(unit.now)))
    rows = await unit.connection.fetch(
        "SELECT limit_id, subject, window_start, operations_count, points"
        " FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS c (limit_id, subject, window_start)"
        " JOIN limit_counters USING (limit_id, subject, window_start)",
        *(list(column) for column in zip(*counters, strict=True)) if counters else ([], [], []),
    )
    starts = {(counter.limit_id, counter.subject): counter for counter in counters}
    counts = {starts[row["limit_id"], row["subject"]]: Count(row["operations_count"], row["points"]) for row in rows}
    return Limiter(configuration.limits, counts, await _links(unit.connection, configuration.limits, asked), places)


async def _places(connection: Connection, commands: Sequence[AnyCommand]) -> dict[uuid.UUID, str]:
    """Where quotes are spent."""
    quote_ids = {command.quote_id for command in commands if isinstance(command, Redeem | Hold) and command.quote_id}
    if not quote_ids:
        return {}
    rows = await connection.fetch("SELECT quote_id, institution_id FROM quotes WHERE quote_id = ANY($1::uuid[])", list(quote_ids))
    return {row["quote_id"]: row["institution_id"] for row in rows}


async def _links(
    connection: Connection, limits: Sequence[Limit], commands: Sequence[AnyCommand]
) -> dict[tuple[uuid.UUID, str], datetime]:
    """Since when accounts are linked, where a limit asks."""
    if all(limit.first_days is None for limit in limits):
        return {}
    rows = await connection.fetch(
        "SELECT account_id, institution_id, create_time FROM memberships WHERE account_id = ANY($1::uuid[])",
        list({command.account_id for command in commands if command.account_id is not None}),
    )
    return {(row["account_id"], row["institution_id"]): row["create_time"] for row in rows}


async def insert(connection: Connection, limit: Limit, owner_institution_id: str, by: str, now: datetime) -> None:
    """Drafts a limit."""
    await connection.execute(
        "INSERT INTO limits (limit_id, owner_institution_id, scope, window_kind, time_zone, kinds, program_id, institution_id,"
        " count_max, points_max, first_days, state, drafted_by, create_time)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'DRAFT', $12, $13)",
        limit.limit_id, owner_institution_id, limit.scope, limit.window, limit.zone.key, sorted(limit.kinds),
        limit.program_id or None, limit.institution_id or None, limit.count_max, limit.points_max, limit.first_days, by, now,
    )  # fmt: skip


async def get(connection: Connection, limit_id: uuid.UUID, *, lock: bool = False) -> asyncpg.Record | None:
    """A limit."""
    return await connection.fetchrow(f"SELECT * FROM limits WHERE limit_id = $1{' FOR NO KEY UPDATE' if lock else ''}", limit_id)


async def list_after(connection: Connection, institution_id: str | None, after: uuid.UUID, limit: int) -> list[asyncpg.Record]:
    """Limits of an institution (None: of all), by id, after one."""
    return await connection.fetch(
        "SELECT * FROM limits WHERE ($1::text IS NULL OR owner_institution_id = $1) AND limit_id > $2 ORDER BY limit_id LIMIT $3",
        institution_id, after, limit,
    )  # fmt: skip


async def set_state(connection: Connection, limit_id: uuid.UUID, state: str, **persons: str) -> None:
    """Moves a limit on; the caller has raised the configuration's version."""
    assert persons.keys() <= {"approved_by", "ending_by"}
    changes = "".join(f", {column} = ${i}" for i, column in enumerate(persons, 3))
    await connection.execute(f"UPDATE limits SET state = $2{changes} WHERE limit_id = $1", limit_id, state, *persons.values())


async def purge(connection: Connection, now: datetime) -> int:
    """Deletes counters of windows that are long over. Returns how many."""
    rows = await connection.fetch(
        "DELETE FROM limit_counters c USING (SELECT limit_id, subject, window_start FROM limit_counters"
        " WHERE window_start < $1 LIMIT $2) old WHERE (c.limit_id, c.subject, c.window_start)"
        " = (old.limit_id, old.subject, old.window_start) RETURNING true",
        now - KEPT, PURGED_MAX,
    )  # fmt: skip
    return len(rows)
