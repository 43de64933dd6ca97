"""Outbox rows to JetStream. One replica leads, by a fenced lease; a row is marked when the stream has acknowledged it."""

import asyncio
import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Sequence

import asyncpg

from chassis import leases, telemetry
from chassis.bus import Bus
from chassis.database import Database
from chassis.ids import new_id
from chassis.leases import Lease
from chassis.publisher import Publisher

LEASE = "relay"
BATCH_ROWS_MAX = 1000
POLL_SECONDS = 0.05

logger = logging.getLogger(__name__)

_SELECT = (
    "SELECT row_id, event_id, type, target, aggregate_id, payload, occurred_at, traceparent FROM outbox"
    " WHERE published_at IS NULL ORDER BY row_id LIMIT $1"
)
# Marking renews the lease in the same statement: a deposed leader finds no row of its fence, and marks nothing.
_MARK = (
    "WITH lease AS (UPDATE leases SET expires_at = clock_timestamp() + make_interval(secs => $3)"
    " WHERE name = $1 AND fence = $2 RETURNING true)"
    " UPDATE outbox SET published_at = clock_timestamp() WHERE row_id = ANY($4::uuid[]) AND EXISTS (SELECT FROM lease)"
)


class Deposed(Exception):
    """Another relay leads now."""


class Relay:
    """Publishes the outbox of one service."""

    def __init__(self, service: str, database: Database, wake: asyncio.Event) -> None:
        self._service = service
        self._database = database
        self._wake = wake
        self._holder = f"{socket.gethostname()}/{os.getpid()}/{new_id()}"

    async def run(self, bus: Bus, stopping: asyncio.Event) -> None:
        """Leads whenever nobody else does, until `stopping` is set; gives the lease up when publishing fails."""
        await bus.ensure_stream(self._service)
        publisher = Publisher(bus, self._service)
        await publisher.start()
        try:
            while not stopping.is_set():
                lease = await leases.acquire(self._database, LEASE, self._holder)
                if lease is None:
                    await _wait(stopping, leases.RENEW_SECONDS)
                    continue
                try:
                    await self._lead(publisher, lease, stopping)
                except Deposed:
                    logger.warning("%s: another relay leads now", self._service)
                finally:
                    await leases.release(self._database, lease)
        finally:
            await publisher.stop()

    async def _lead(self, publisher: Publisher, lease: Lease, stopping: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        renew_at = loop.time() + leases.RENEW_SECONDS
        while not stopping.is_set():
            self._wake.clear()  # before reading: a commit after this wakes again
            async with self._database.connection() as connection:
                rows = await connection.fetch(_SELECT, BATCH_ROWS_MAX)
            if rows:
                await self._publish(publisher, lease, rows)
                renew_at = loop.time() + leases.RENEW_SECONDS
                continue
            if loop.time() >= renew_at:
                async with self._database.connection() as connection:
                    if not await leases.renew(connection, lease):
                        raise Deposed
                renew_at = loop.time() + leases.RENEW_SECONDS
            await _wait(self._wake, POLL_SECONDS)

    async def _publish(self, publisher: Publisher, lease: Lease, rows: Sequence[asyncpg.Record]) -> None:
        try:
            acknowledged = await publisher.publish(rows)
        finally:
            telemetry.outbox_waiting.set(len(rows))
        await self.mark(lease, acknowledged)
        telemetry.events_published.add(len(acknowledged))
        if len(acknowledged) < len(rows):
            kept = set(acknowledged)
            types = {row["type"] for row in rows if row["row_id"] not in kept}
            logger.warning("%s: not acknowledged: %s", self._service, ", ".join(sorted(types)))
            raise ConnectionError

    async def mark(self, lease: Lease, row_ids: Sequence[uuid.UUID]) -> None:
        """Marks rows published, if this lease is still the present one.

        Raises:
            Deposed: when it is not; nothing is marked then.
        """
        if not row_ids:
            return
        async with self._database.connection() as connection:
            status = await connection.execute(_MARK, LEASE, lease.fence, leases.LEASE_SECONDS, row_ids)
        if status == "UPDATE 0":
            raise Deposed


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
