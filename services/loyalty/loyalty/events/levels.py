"""Folds rating's events: the levels that earn rules may ask for."""

import uuid

from chassis.consumer import ReceivedEvent
from chassis.unit_of_work import UnitOfWork
from concord.rating.v1.rating_events_pb2 import RatingChanged
from concord.rating.v1.rating_service_pb2 import CustomerLevel
from loyalty.store import levels
from loyalty.store.levels import Level

TYPES = {"concord.rating.v1.rating.changed": RatingChanged}
PREFIX = "CUSTOMER_LEVEL_"


async def fold_ratings(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    """Keeps each customer's level in each scope; the one of the newest state holds."""
    await levels.fold(unit.connection, (_level(event.message) for event in events))


def _level(message: RatingChanged) -> Level:
    try:
        name = CustomerLevel.Name(message.customer_level).removeprefix(PREFIX) if message.customer_level else ""
    except ValueError:
        name = ""  # a level newer than this program
    order = message.state_version
    return Level(uuid.UUID(message.customer_id), message.scope, name, order.epoch, order.version)
