"""Events on their way out: rows written in the transaction of the change they tell about."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.message import Message

from chassis.database import Connection
from chassis.ids import new_id
from chassis.telemetry import current_traceparent

PAYLOAD_BYTES_MAX = 512 << 10

COLUMNS = "row_id, event_id, type, target, aggregate_id, payload, occurred_at, traceparent"
ROWS_FROM_ARRAYS = (
    "unnest({}::uuid[], {}::uuid[], {}::text[], {}::text[], {}::text[], {}::bytea[], {}::timestamptz[], {}::text[])"
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Args:
        type: such as `concord.loyalty.v1.account.changed`; also the subject.
        aggregate_id: whose state or fact it is; opaque, never personal.
        message: the protobuf message.
        event_id: of a fact the fact's own id; of a state None (a new id).
        occurred_at: when; None means the unit's now.
        target: the one service a re-publication is for.
    """

    type: str
    aggregate_id: str
    message: Message
    event_id: uuid.UUID | None = None
    occurred_at: datetime | None = None
    target: str | None = None


def subject(event_type: str, target: str | None) -> str:
    """The NATS subject of an event: its type, or for a re-publication one that only the target listens to."""
    if target is None:
        return event_type
    root, owner, rest = event_type.split(".", 2)
    return f"{root}.{owner}.republish.{target}.{rest}"


def arrays(events: Sequence[Event], now: datetime) -> list[list[object]]:
    """The rows of events as one array for each column, in the order of COLUMNS."""
    for event in events:
        size_bytes = event.message.ByteSize()
        if size_bytes > PAYLOAD_BYTES_MAX:  # refused here, because a row that NATS refuses would stop the relay
            raise ValueError(f"{event.type}: {size_bytes} bytes are more than an event's {PAYLOAD_BYTES_MAX}")
    traceparent = current_traceparent()
    rows = [
        (
            new_id(),
            event.event_id or new_id(),
            event.type,
            event.target,
            event.aggregate_id,
            event.message.SerializeToString(),
            event.occurred_at or now,
            traceparent,
        )
        for event in events
    ]
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(8)]


async def write(connection: Connection, events: Sequence[Event], now: datetime) -> None:
    """Writes the rows; the caller owns the transaction."""
    source = ROWS_FROM_ARRAYS.format(*(f"${i}" for i in range(1, 9)))
    await connection.execute(f"INSERT INTO outbox ({COLUMNS}) SELECT * FROM {source}", *arrays(events, now))
