"""What rating publishes: the state of a rating, when it changes and when somebody needs all of them again."""

import uuid
from collections.abc import Sequence

from chassis.database import Connection
from chassis.outbox import Event
from concord.common.v1.event_pb2 import StateVersion
from concord.rating.v1.rating_events_pb2 import DegreeValue, RatingChanged
from concord.rating.v1.rating_service_pb2 import CustomerLevel, DegreeKind, LifecycleStage
from rating.domain.lifecycle import Stage
from rating.domain.scorecard import Level
from rating.store import ratings
from rating.store.ratings import RatingVersion

RATING_CHANGED = "concord.rating.v1.rating.changed"


def rating_changed(current: RatingVersion, former_level: Level | None, former_stage: Stage | None, epoch: int) -> Event:
    """The event of a rating's state."""
    message = RatingChanged(
        customer_id=str(current.customer_id),
        scope=current.scope,
        state_version=StateVersion(epoch=epoch, version=current.version),
        degrees=[
            DegreeValue(kind=DegreeKind.ValueType(degree.kind.value), value=degree.value) for degree in current.rating.degrees
        ],
        customer_level=CustomerLevel.ValueType(current.rating.level.value),
        previous_customer_level=CustomerLevel.ValueType(former_level or 0),
        lifecycle_stage=LifecycleStage.ValueType(current.rating.stage.value),
        previous_lifecycle_stage=LifecycleStage.ValueType(former_stage or 0),
    )
    return Event(RATING_CHANGED, aggregate_id=f"{current.customer_id}/{current.scope}", message=message)


async def rating_pages(connection: Connection, cursor: str, limit: int) -> tuple[Sequence[Event], str | None]:
    """The current ratings after the cursor, `customer/scope`."""
    after = None
    if cursor:
        customer_id, _, scope = cursor.partition("/")
        after = uuid.UUID(customer_id), scope
    epoch = await connection.fetchval("SELECT epoch FROM database_epoch") or 1
    rows = await ratings.page_with_former(connection, after, limit)
    events = [rating_changed(current, level, stage, epoch) for current, level, stage in rows]
    return events, events[-1].aggregate_id if len(rows) == limit else None
