"""Outbox rows into JetStream: a batch at a time, stored together with one flush, or one by one where that is refused."""

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import Iterator, Sequence

import asyncpg
from nats.aio.msg import Msg

from chassis.bus import Bus
from chassis.ids import new_id
from chassis.outbox import subject

BATCH_MESSAGES_MAX = 1000  # what the server takes
BATCH_MESSAGES_MIN = 32  # below, the flushes of a batch cost more than those of its messages
BATCH_BYTES_MAX = 4 << 20
IN_FLIGHT_MAX = 256
ACK_SECONDS_MAX = 5.0

logger = logging.getLogger(__name__)


class Publisher:
    """Publishes the rows of one service. The stream knows a row again by its id for two minutes, and then stores it once."""

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
        """Publishes rows in their order; returns the ids of those that the stream acknowledged in time."""
        self._acknowledged = []
        try:
            for batch in batches(rows):
                # A batch is refused as a whole when the stream has one of its messages already: then each goes alone.
                if len(batch) < BATCH_MESSAGES_MIN or not await self._publish_together(batch):
                    await self._publish_one_by_one(batch)
        except TimeoutError:
            logger.warning("%d events were not acknowledged within %g s", len(rows) - len(self._acknowledged), ACK_SECONDS_MAX)
        return self._acknowledged

    async def _publish_together(self, rows: Sequence[asyncpg.Record]) -> bool:
        """All or none of them (ADR-50 of NATS): a flush to the disk costs the server more than storing the messages."""
        batch_id = new_id().hex
        for number, row in enumerate(rows, start=1):
            headers = self._headers(row) | {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)}
            if number < len(rows):
                await self._client.publish(subject(row["type"], row["target"]), row["payload"], headers=headers)
        last = rows[-1]
        answer = await self._client.request(
            subject(last["type"], last["target"]),
            last["payload"],
            timeout=ACK_SECONDS_MAX,
            headers=headers | {"Nats-Batch-Commit": "1"},
        )
        if "error" in json.loads(answer.data):
            return False
        self._acknowledged += [row["row_id"] for row in rows]
        return True

    async def _publish_one_by_one(self, rows: Sequence[asyncpg.Record]) -> None:
        """With many in flight, through one reply subscription."""
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
        finally:
            for _ in range(len(self._sent)):
                self._room.release()
            self._sent.clear()  # a late acknowledgement means nothing any more: the row is published again, under the same id

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


def batches(rows: Sequence[asyncpg.Record]) -> Iterator[Sequence[asyncpg.Record]]:
    """The rows in pieces of at most 1,000 messages and 4 MiB."""
    first = size_bytes = 0
    for number, row in enumerate(rows):
        size_bytes += len(row["payload"])
        if number > first and (number - first == BATCH_MESSAGES_MAX or size_bytes > BATCH_BYTES_MAX):
            yield rows[first:number]
            first, size_bytes = number, len(row["payload"])
    if rows:
        yield rows[first:]
