"""Answers kept for retries: which ids they name, so that the erasure of a person finds them although they are sealed."""

import re
import uuid
from collections.abc import Iterable

from chassis.database import Connection

_NAMED = re.compile(rb"/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-([0-9a-f]{4})-([0-9a-f]{12})")
NUMBER_BITS = 64
"""How much of an id is kept: the half of a UUIDv7 that is random, which an index holds at little more than half the price."""


def numbers_named(*messages: bytes) -> set[int]:
    """The numbers of all ids in resource names (`customers/{id}`, `…/records/{id}`) of serialized messages.

    The bytes are searched, because no contract then can forget to say which of its fields name somebody.
    """
    return {_signed(int(high + low, 16)) for message in messages for high, low in _NAMED.findall(message)}


def number_of(named: uuid.UUID) -> int:
    """What is kept of an id: its last 64 bits, signed."""
    return _signed(named.int % (1 << NUMBER_BITS))


async def forget(connection: Connection, named: Iterable[uuid.UUID]) -> None:
    """Deletes the kept answers of requests that, or whose answers, name any of these ids.

    Call it where what the ids stand for is locked or deleted: who changes it still has committed its answer then. The request
    that runs in this transaction is not forgotten, so that who asked for an erasure may ask again.
    """
    await connection.execute(
        "DELETE FROM idempotency WHERE named_numbers && $1::bigint[]", [number_of(each) for each in set(named)]
    )


def _signed(number: int) -> int:
    return number - (1 << NUMBER_BITS) if number >> (NUMBER_BITS - 1) else number
