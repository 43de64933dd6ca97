"""Owners say again what their tables hold, for one service that lost or never had it."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from chassis import outbox
from chassis.clock import now
from chassis.database import Connection, Database
from chassis.ids import id_floor, new_id
from chassis.outbox import Event
from chassis.record_links import ERASED_EPOCH
from concord.common.v1.event_pb2 import Republished

PAGE_EVENTS_MAX = 1000
UNPUBLISHED_MAX = 20_000
POLL_SECONDS = 0.1
STANDSTILL_SECONDS = 10.0
CLOSING = "republished"
"""The row of a run for its last event; its cursor is the run's id."""

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


@dataclass(frozen=True, slots=True)
class Pause:
    """Work that must not be done from projections filled in part.

    Args:
        begin: `(connection, run id, owners)`, in the transaction that empties the projections.
        end: `(connection)`, on the operator's word; returns how many owners it waited for.
    """

    begin: Callable[[Connection, uuid.UUID, Sequence[str]], Awaitable[None]]
    end: Callable[[Connection], Awaitable[int]]


async def republish(
    database: Database, republishers: Iterable[Republisher], target: str, owner: str = "", run_id: str = ""
) -> int:
    """Writes everything to the outbox for `target`; an interrupted run goes on where it stopped.

    Args:
        owner: this service, needed with `run_id`.
        run_id: the rebuild that asks. A run of another id is begun anew, because what it said is gone; and when all of the run is
            in the stream, a last event, `Republished`, says so.

    Returns:
        The events written, without that last one.
    """
    republishers = list(republishers)
    await _begin(database, [republisher.name for republisher in republishers], target, run_id)
    total = 0
    for republisher in republishers:
        finished = False
        while not finished:
            await _wait_for_relay(database, UNPUBLISHED_MAX)
            count, finished = await _write_page(database, republisher, target)
            total += count
    if run_id:
        await _wait_for_relay(database, 1, target)
        await _close(database, owner, target, run_id)
    return total


async def _begin(database: Database, names: list[str], target: str, run_id: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            "DELETE FROM republish_runs WHERE target = $1 AND ("
            "NOT EXISTS (SELECT FROM republish_runs WHERE target = $1 AND finished_at IS NULL)"
            " OR coalesce((SELECT cursor FROM republish_runs WHERE target = $1 AND source = $2), '') <> $3)",
            target, CLOSING, run_id,
        )  # fmt: skip
        await connection.execute(
            "INSERT INTO republish_runs (target, source, cursor, events_count, started_at)"
            " SELECT $1, source, '', 0, $3 FROM unnest($2::text[]) AS s (source) ON CONFLICT DO NOTHING",
            target, sorted(names), now(),
        )  # fmt: skip
        if run_id:
            await connection.execute(
                "INSERT INTO republish_runs (target, source, cursor, events_count, started_at) VALUES ($1, $2, $3, 0, $4)"
                " ON CONFLICT DO NOTHING",
                target, CLOSING, run_id, now(),
            )  # fmt: skip


async def _close(database: Database, owner: str, target: str, run_id: str) -> None:
    """Writes the last event, once: unless another process has done so, or has begun a run of another id meanwhile."""
    async with database.transaction() as connection:
        closed = await connection.execute(
            "UPDATE republish_runs SET finished_at = $4, events_count = 1"
            " WHERE target = $1 AND source = $2 AND cursor = $3 AND finished_at IS NULL",
            target, CLOSING, run_id, now(),
        )  # fmt: skip
        if closed == "UPDATE 1":
            last = Event(f"concord.{owner}.v1.republished", target, Republished(run_id=run_id), target=target)
            await outbox.write(connection, [last], now())


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


async def _wait_for_relay(database: Database, unpublished_max: int, target: str | None = None) -> None:
    """Waits until fewer events than that (for the target) are unpublished; warns only when none leaves for a while."""
    oldest, moved_at = None, asyncio.get_running_loop().time()
    while True:
        async with database.connection() as connection:
            waiting = await connection.fetchrow(
                "SELECT count(*) AS count, min(row_id::text) AS oldest FROM (SELECT row_id FROM outbox"
                " WHERE published_at IS NULL AND ($2::text IS NULL OR target = $2) ORDER BY row_id LIMIT $1) AS rows",
                unpublished_max, target,
            )  # fmt: skip
        assert waiting is not None
        if waiting["count"] < unpublished_max:
            return
        instant = asyncio.get_running_loop().time()
        if waiting["oldest"] != oldest:
            oldest, moved_at = waiting["oldest"], instant
        elif instant - moved_at > STANDSTILL_SECONDS:
            logger.warning("no event was published for %g s; is the service running?", STANDSTILL_SECONDS)
            moved_at = instant
        await asyncio.sleep(POLL_SECONDS)


async def republish_since(database: Database, since: datetime) -> int:
    """Publishes the outbox's rows since an instant again, to everybody: for a stream that lost messages. Returns their number."""
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL statement_timeout = 0")
        status = await connection.execute(
            "UPDATE outbox SET published_at = NULL WHERE row_id >= $1 AND published_at IS NOT NULL", id_floor(since)
        )
    return int(status.split()[-1])


async def rebuild(
    database: Database,
    projections: Sequence[str],
    consumers: Sequence[str],
    pause: Pause | None = None,
    owners: Sequence[str] = (),
) -> str:
    """Empties projections, forgets the inbox of their consumers and begins the pause, in one transaction.

    Tombstones stay: nobody says again that somebody was erased, and what is told of them late must bring nothing back.

    Returns:
        The run id that owners then republish with.
    """
    run_id = new_id()
    async with database.transaction() as connection:
        if projections:
            burying = [table for table in ("record_links", "customer_states") if table in projections]
            for table in burying:
                await connection.execute(
                    f"CREATE TEMPORARY TABLE tombstones_of_{table} ON COMMIT DROP AS"
                    f" SELECT * FROM {table} WHERE epoch = {ERASED_EPOCH}"
                )
            await connection.execute(f"TRUNCATE {', '.join(projections)}")
            for table in burying:
                await connection.execute(f"INSERT INTO {table} SELECT * FROM tombstones_of_{table}")
        await connection.execute("DELETE FROM inbox WHERE consumer = ANY($1::text[])", list(consumers))
        if pause is not None:
            await pause.begin(connection, run_id, owners)
    return str(run_id)
