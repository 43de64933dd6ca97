"""Outbox rows to JetStream. One replica leads, by a fenced lease; a row is marked when the stream has acknowledged it."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import uuid
from collections.abc import Sequence

import asyncpg
from nats.aio.msg import Msg

from chassis import leases, telemetry
from chassis.bus import Bus
from chassis.database import Database
from chassis.ids import new_id
from chassis.leases import Lease
from chassis.outbox import subject

LEASE = "relay"
BATCH_ROWS_MAX = 500
IN_FLIGHT_MAX = 256
ACK_SECONDS_MAX = 5.0
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

    async def _lead(self, publisher: "Publisher", lease: Lease, stopping: asyncio.Event) -> None:
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

    async def _publish(self, publisher: "Publisher", lease: Lease, rows: Sequence[asyncpg.Record]) -> None:
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


class Publisher:
    """Publishes to JetStream with many messages in flight, through one reply subscription."""

    def __init__(self, bus: Bus, service: str) -> None:
        self._client = bus.client
        self._source = f"concord/{service}"
        self._inbox = bus.client.new_inbox()
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._sent: dict[str, uuid.UUID] = {}
        self._acknowledged: list[uuid.UUID] = []
        self._all_answered = asyncio.Event()
        self._count = 0

    async def start(self) -> None:
        """Listens for acknowledgements."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._on_answer)

    async def stop(self) -> None:
        """Stops listening."""
        with contextlib.suppress(Exception):  # the connection may be gone
            await self._subscription.unsubscribe()

    async def publish(self, rows: Sequence[asyncpg.Record]) -> list[uuid.UUID]:
        """Publishes outbox rows; returns the ids of those that the stream acknowledged in time."""
        self._acknowledged = []
        self._all_answered.clear()
        try:
            async with asyncio.timeout(ACK_SECONDS_MAX):
                for row in rows:
                    await self._room.acquire()
                    self._count += 1
                    reply = f"{self._inbox}.{self._count}"
                    self._sent[reply] = row["row_id"]
                    await self._client.publish(
                        subject(row["type"], row["target"]), row["payload"], reply=reply, headers=self._headers(row)
                    )
                while self._sent:
                    await self._all_answered.wait()
                    self._all_answered.clear()
        except TimeoutError:
            logger.warning("%d events were not acknowledged within %g s", len(self._sent), ACK_SECONDS_MAX)
        finally:
            for _ in range(len(self._sent)):
                self._room.release()
            self._sent.clear()  # a late acknowledgement means nothing any more: the row is published again, under the same id
        return self._acknowledged

    def _headers(self, row: asyncpg.Record) -> dict[str, str]:
        headers = {
            "Nats-Msg-Id": str(row["row_id"]),
            "ce-specversion": "1.0",
            "ce-id": str(row["event_id"]),
            "ce-type": row["type"],
            "ce-source": self._source,
            "ce-subject": row["aggregate_id"],
            "ce-time": row["occurred_at"].isoformat(),
            "content-type": "application/protobuf",
        }
        if row["traceparent"]:
            headers["traceparent"] = row["traceparent"]
        return headers

    async def _on_answer(self, message: Msg) -> None:
        row_id = self._sent.pop(message.subject, None)
        if row_id is None:
            return
        self._room.release()
        if message.data and "error" not in json.loads(message.data):
            self._acknowledged.append(row_id)
        if not self._sent:
            self._all_answered.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
