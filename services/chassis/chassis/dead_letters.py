"""Events that could not be applied: kept in a table, listed and replayed by command."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import asyncpg

from chassis.database import Connection
from chassis.ids import new_id
from chassis.unit_of_work import Commands

if TYPE_CHECKING:
    from chassis.consumer import Subscription

LISTED_MAX = 1000


async def keep(
    connection: Connection,
    *,
    consumer: str,
    event_id: uuid.UUID,
    event_type: str,
    aggregate_id: str,
    payload: bytes,
    occurred_at: datetime,
    error: str,
    deliveries_count: int,
    now: datetime,
) -> None:
    """Writes a dead letter; the caller owns the transaction, which also holds the event's inbox row."""
    await connection.execute(
        "INSERT INTO dead_letters (dead_letter_id, consumer, event_id, type, aggregate_id, payload, occurred_at, error,"
        " deliveries_count, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        new_id(), consumer, event_id, event_type, aggregate_id, payload, occurred_at, error, deliveries_count, now,
    )  # fmt: skip


async def open_letters(connection: Connection) -> list[asyncpg.Record]:
    """The letters not replayed yet, oldest first, at most 1000."""
    return await connection.fetch(
        "SELECT dead_letter_id, consumer, type, aggregate_id, error, deliveries_count, created_at FROM dead_letters"
        " WHERE replayed_at IS NULL ORDER BY dead_letter_id LIMIT $1",
        LISTED_MAX,
    )


async def replay(commands: Commands, subscriptions: Iterable["Subscription"], letter_id: uuid.UUID) -> None:
    """Gives a letter to its handler again and marks it replayed, in one transaction.

    Raises:
        LookupError: when there is no such open letter, or nothing here folds its type.
        Exception: whatever the handler raises; the letter then stays open.
    """
    from chassis.consumer import ReceivedEvent

    async with commands.unit() as unit:
        letter = await unit.connection.fetchrow(
            "SELECT * FROM dead_letters WHERE dead_letter_id = $1 AND replayed_at IS NULL FOR UPDATE", letter_id
        )
        if letter is None:
            raise LookupError(f"no open dead letter {letter_id}")
        subscription = next((s for s in subscriptions if s.consumer == letter["consumer"]), None)
        if subscription is None or letter["type"] not in subscription.types:
            raise LookupError(f"nothing here folds {letter['type']} for {letter['consumer']}")
        event = ReceivedEvent(
            event_id=letter["event_id"],
            type=letter["type"],
            message=subscription.types[letter["type"]].FromString(letter["payload"]),
            occurred_at=letter["occurred_at"],
            aggregate_id=letter["aggregate_id"],
        )
        await subscription.handler(unit, [event])
        await unit.connection.execute("UPDATE dead_letters SET replayed_at = $2 WHERE dead_letter_id = $1", letter_id, unit.now)


def parse_ids(texts: Sequence[str]) -> list[uuid.UUID]:
    """Ids given on the command line.

    Raises:
        ValueError: when one is not a UUID.
    """
    return [uuid.UUID(text) for text in texts]
