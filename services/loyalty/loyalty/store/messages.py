"""What loyalty publishes, made from its rows: in the transaction that changes them, or when an owner says it again."""

import uuid
from collections.abc import Iterable
from datetime import datetime

from chassis.outbox import Event
from concord.common.v1.event_pb2 import StateVersion
from concord.loyalty.v1.account_service_pb2 import OperationKind as KindMessage
from concord.loyalty.v1.loyalty_events_pb2 import AccountChanged, PointsPosted
from loyalty.domain.ledger import OperationKind

ACCOUNT_CHANGED = "concord.loyalty.v1.account.changed"
POINTS_POSTED = "concord.loyalty.v1.points.posted"
KINDS = {kind: KindMessage.Value(f"OPERATION_KIND_{kind}") for kind in OperationKind}


def account_changed(
    account_id: uuid.UUID, customer_id: uuid.UUID, institution_ids: Iterable[str], *, epoch: int, version: int
) -> Event:
    """The state of an account."""
    message = AccountChanged(
        account_id=str(account_id),
        state_version=StateVersion(epoch=epoch, version=version),
        customer_id=str(customer_id),
        institution_ids=sorted(institution_ids),
    )
    return Event(ACCOUNT_CHANGED, str(account_id), message)


def points_posted(
    *,
    operation_id: uuid.UUID,
    account_id: uuid.UUID,
    customer_id: uuid.UUID,
    program_id: str,
    institution_id: str,
    kind: OperationKind,
    amount_points: int,
    balance_points: int,
    epoch: int,
    version: int,
    effective_time: datetime,
    activity_id: uuid.UUID | None,
) -> Event:
    """The fact that points moved; its id is the operation's."""
    message = PointsPosted(
        operation_id=str(operation_id),
        account_id=str(account_id),
        customer_id=str(customer_id),
        program_id=program_id,
        institution_id=institution_id,
        kind=KINDS[kind],
        amount_points=amount_points,
        balance_points=balance_points,
        state_version=StateVersion(epoch=epoch, version=version),
        effective_time_seconds=int(effective_time.timestamp()),
        activity_id=str(activity_id) if activity_id else "",
    )
    return Event(POINTS_POSTED, str(account_id), message, event_id=operation_id)
