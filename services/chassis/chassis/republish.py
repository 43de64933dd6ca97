"""Owners say again what their tables hold, for one service that lost or never had it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from chassis import outbox
from chassis.clock import now
from chassis.database import Connection, Database
from chassis.outbox import Event

PAGE_EVENTS_MAX = 1000
UNPUBLISHED_MAX = 20_000
PAUSE_SECONDS = 0.5

logger = logging.getLogger(__name__)
Pages: TypeAlias = Callable[[Connection, str, int], Awaitable[tuple[Sequence[Event], str | None]]]


@dataclass(frozen=True, slots=True)
class Republisher:
    """One kind of state or fact that an owner can say again.

    Args:
        name: unique in the service, such as `accounts`.
        pages: `(connection, cursor, limit) -> (events, next cursor)`; the cursor is "" at the start, None at the end.
    """

    name: str
    pages: Pages


async def republish(database: Database, republishers: Iterable[Republisher], target: str) -> int:
    """Writes everything to the outbox for `target`; an interrupted run goes on where it stopped. Returns the events written."""
    republishers = list(republishers)
    await _begin(database, [republisher.name for republisher in republishers], target)
    total = 0
    for republisher in republishers:
        finished = False
        while not finished:
            await _wait_for_relay(database)
            count, finished = await _write_page(database, republisher, target)
            total += count
    return total


async def _begin(database: Database, names: list[str], target: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            "DELETE FROM republish_runs WHERE target = $1 AND NOT EXISTS"
            " (SELECT FROM republish_runs WHERE target = $1 AND finished_at IS NULL)",
            target,
        )
        await connection.execute(
            "INSERT INTO republish_runs (target, source, cursor, events_count, started_at)"
            " SELECT $1, source, '', 0, $3 FROM unnest($2::text[]) AS s (source) ON CONFLICT DO NOTHING",
            target, sorted(names), now(),
        )  # fmt: skip


async def _write_page(database: Database, republisher: Republisher, target: str) -> tuple[int, bool]:
    async with database.transaction() as connection:
        run = await connection.fetchrow(
            "SELECT cursor, finished_at FROM republish_runs WHERE target = $1 AND source = $2 FOR UPDATE",
            target,
            republisher.name,
        )
        if run is None or run["finished_at"] is not None:
            return 0, True
        events, cursor = await republisher.pages(connection, run["cursor"], PAGE_EVENTS_MAX)
        await outbox.write(connection, [replace(event, target=target) for event in events], now())
        await connection.execute(
            "UPDATE republish_runs SET cursor = coalesce($3, cursor), events_count = events_count + $4, finished_at = $5"
            " WHERE target = $1 AND source = $2",
            target, republisher.name, cursor, len(events), None if cursor is not None else now(),
        )  # fmt: skip
        return len(events), cursor is None


async def _wait_for_relay(database: Database) -> None:
    """Pauses while the relay is far behind, so that the outbox stays bounded."""
    said = False
    while True:
        async with database.connection() as connection:
            waiting = await connection.fetchval(
                "SELECT count(*) FROM (SELECT FROM outbox WHERE published_at IS NULL LIMIT $1) AS rows", UNPUBLISHED_MAX
            )
        if waiting < UNPUBLISHED_MAX:
            return
        if not said:
            logger.warning("waiting for the relay: %d events are not published yet; is the service running?", waiting)
            said = True
        await asyncio.sleep(PAUSE_SECONDS)


async def republish_since(database: Database, since: datetime) -> int:
    """Publishes the outbox's rows since an instant again, to everybody: for a stream that lost messages. Returns their number."""
    from chassis.ids import id_floor

    async with database.transaction() as connection:
        await connection.execute("SET LOCAL statement_timeout = 0")
        status = await connection.execute(
            "UPDATE outbox SET published_at = NULL WHERE row_id >= $1 AND published_at IS NOT NULL", id_floor(since)
        )
    return int(status.split()[-1])


async def rebuild(database: Database, projections: Sequence[str], consumers: Sequence[str]) -> None:
    """Empties projections and forgets the inbox of their consumers, in one transaction; owners then re-publish."""
    async with database.transaction() as connection:
        if projections:
            await connection.execute(f"TRUNCATE {', '.join(projections)}")
        await connection.execute("DELETE FROM inbox WHERE consumer = ANY($1::text[])", list(consumers))
