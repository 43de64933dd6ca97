"""Events on their way in: batches, each applied in one transaction with its inbox rows."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg

from chassis import dead_letters, streams, telemetry
from chassis.bus import Bus
from chassis.database import RETRYABLE_ERRORS, is_unavailable
from chassis.unit_of_work import Commands, UnitOfWork

BATCH_MAX = 500
FETCH_SECONDS_MAX = 1.0
DELIVERIES_MAX = 8
BACKOFF_SECONDS = (1, 2, 4, 8, 15, 30, 60)
UNAVAILABLE_PAUSE_SECONDS = 1.0
ATTEMPTS_MAX = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event as a consumer gets it.

    `event_id` is unique: of a fact it is the fact's own id. `sequence` is its place in the stream; 0 of a dead letter.
    """

    event_id: uuid.UUID
    type: str
    message: Any
    occurred_at: datetime
    aggregate_id: str
    sequence: int = 0


Handler: TypeAlias = Callable[[UnitOfWork, list[ReceivedEvent]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a service folds from one owner's stream.

    Args:
        stream: the owner service, such as `customer`.
        durable: the name of the consumer: the folding service's name.
        types: event type to message class; the server sends no others.
        handler: applies a batch of fresh events inside the unit; all or nothing.
        batch_max: events in a transaction.
    """

    stream: str
    durable: str
    types: Mapping[str, type[Message]]
    handler: Handler
    batch_max: int = BATCH_MAX

    @property
    def consumer(self) -> str:
        """The key of its inbox and dead letters."""
        return f"{self.stream}/{self.durable}"


class Consumer:
    """Runs one subscription. Several replicas share the same durable consumer."""

    def __init__(self, service: str, subscription: Subscription, commands: Commands) -> None:
        self.subscription = subscription
        self._service = service
        self._commands = commands

    async def run(self, bus: Bus, stopping: asyncio.Event) -> None:
        """Fetches and applies batches until `stopping` is set; the batch in hand is finished."""
        await bus.ensure_stream(self.subscription.stream)
        stream = self.subscription.stream.upper()
        config = streams.consumer_config(self._service, self.subscription.durable, self.subscription.types)
        await streams.ensure_consumer(bus.jetstream, stream, config)
        pull = await bus.jetstream.pull_subscribe_bind(self.subscription.durable, stream)
        while not stopping.is_set():
            try:
                messages = await pull.fetch(self.subscription.batch_max, FETCH_SECONDS_MAX)
            except TimeoutError:
                messages = []
            if not messages:  # nothing new: nats-py says so in both ways
                continue
            telemetry.consumer_lag.set(messages[-1].metadata.num_pending, {"consumer": self.subscription.consumer})
            await self._receive(messages)

    async def _receive(self, messages: Sequence[Msg]) -> None:
        events: list[tuple[Msg, ReceivedEvent]] = []
        for message in messages:
            try:
                event = self._decode(message)
            except (DecodeError, KeyError, ValueError) as error:
                await self._bury(message, error)
                continue
            if event is None:
                telemetry.events_ignored.add(1, {"consumer": self.subscription.consumer})
                await message.ack()
            else:
                events.append((message, event))
        if events:
            await self._apply_or_retry(events)

    async def _apply_or_retry(self, events: list[tuple[Msg, ReceivedEvent]]) -> None:
        try:
            await self.apply([event for _, event in events])
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the events stay
            if is_unavailable(error):
                logger.warning("%s waits for its database: %s", self.subscription.consumer, telemetry.failure_text(error))
                for message, _ in events:
                    await message.nak(UNAVAILABLE_PAUSE_SECONDS)
                await asyncio.sleep(UNAVAILABLE_PAUSE_SECONDS)
            elif len(events) > 1:
                for pair in events:
                    await self._apply_or_retry([pair])
            else:
                await self._failed(events[0][0], error)
            return
        for message, _ in events:
            await message.ack()

    async def apply(self, events: Sequence[ReceivedEvent]) -> None:
        """Applies events that are not in the inbox yet, in one transaction; run again after a deadlock."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                await self._apply_once(events)
                return
            except RETRYABLE_ERRORS:
                if attempt == ATTEMPTS_MAX:
                    raise

    async def _apply_once(self, events: Sequence[ReceivedEvent]) -> None:
        consumer = self.subscription.consumer
        async with self._commands.unit() as unit:
            rows = await unit.connection.fetch(INSERT_INBOX, consumer, sorted({event.event_id for event in events}))
            fresh_ids = {row["event_id"] for row in rows}
            fresh = []
            for event in events:  # in the order of the stream, each once
                if event.event_id in fresh_ids:
                    fresh_ids.remove(event.event_id)
                    fresh.append(event)
            if fresh:
                with telemetry.span(f"fold {consumer}"):
                    await self.subscription.handler(unit, fresh)
        telemetry.events_applied.add(len(fresh), {"consumer": consumer})

    def _decode(self, message: Msg) -> ReceivedEvent | None:
        headers = message.headers or {}
        message_class = self.subscription.types.get(headers["ce-type"])
        if message_class is None:
            return None
        return ReceivedEvent(
            event_id=uuid.UUID(headers["ce-id"]),
            type=headers["ce-type"],
            message=message_class.FromString(message.data),
            occurred_at=datetime.fromisoformat(headers["ce-time"]),
            aggregate_id=headers["ce-subject"],
            sequence=message.metadata.sequence.stream,
        )

    async def _failed(self, message: Msg, error: Exception) -> None:
        deliveries = message.metadata.num_delivered
        if deliveries >= DELIVERIES_MAX:
            await self._bury(message, error)
            return
        delay = BACKOFF_SECONDS[min(deliveries, len(BACKOFF_SECONDS)) - 1]
        logger.warning(
            "%s failed on an event, delivery %d, again in %d s: %s",
            self.subscription.consumer, deliveries, delay, telemetry.failure_text(error),
        )  # fmt: skip
        await message.nak(delay)

    async def _bury(self, message: Msg, error: Exception) -> None:
        """Keeps the event as a dead letter, together with its inbox row, and asks for no more deliveries."""
        headers = message.headers or {}
        sequence = message.metadata.sequence.stream
        try:
            event_id = uuid.UUID(headers.get("ce-id", ""))
        except ValueError:
            event_id = uuid.uuid5(uuid.NAMESPACE_OID, f"{self.subscription.stream}:{sequence}")
        try:
            occurred_at = datetime.fromisoformat(headers.get("ce-time", ""))
        except ValueError:
            occurred_at = datetime.now(UTC)
        async with self._commands.unit() as unit:
            fresh = await unit.connection.fetch(INSERT_INBOX, self.subscription.consumer, [event_id])
            if fresh:
                await dead_letters.keep(
                    unit.connection,
                    consumer=self.subscription.consumer,
                    event_id=event_id,
                    event_type=headers.get("ce-type", "unknown"),
                    aggregate_id=headers.get("ce-subject", ""),
                    payload=message.data,
                    occurred_at=occurred_at,
                    error=telemetry.failure_text(error),
                    deliveries_count=message.metadata.num_delivered,
                    now=unit.now,
                )
        telemetry.events_dead.add(1, {"consumer": self.subscription.consumer})
        logger.error("%s keeps a dead letter: %s", self.subscription.consumer, telemetry.failure_text(error))
        await message.term()


INSERT_INBOX = (
    "INSERT INTO inbox (consumer, event_id) SELECT $1, event_id FROM unnest($2::uuid[]) AS event (event_id)"
    " ON CONFLICT DO NOTHING RETURNING event_id"
)
