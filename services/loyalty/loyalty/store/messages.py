"""What loyalty publishes, made from its rows: in the transaction that changes them, or when an owner says it again."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime

from chassis.outbox import Event
from chassis.unit_of_work import UnitOfWork
from concord.common.v1.event_pb2 import StateVersion
from concord.loyalty.v1.account_service_pb2 import OperationKind as KindMessage
from concord.loyalty.v1.loyalty_events_pb2 import AccountChanged, PointsPosted
from loyalty.domain.ledger import OperationKind
from loyalty.store import accounts

ACCOUNT_CHANGED = "concord.loyalty.v1.account.changed"
POINTS_POSTED = "concord.loyalty.v1.points.posted"
KINDS = {kind: KindMessage.Value(f"OPERATION_KIND_{kind}") for kind in OperationKind}


def account_changed(
    account_id: uuid.UUID,
    customer_id: uuid.UUID | None,
    parent_account_id: uuid.UUID | None,
    institution_ids: Iterable[str],
    *,
    epoch: int,
    version: int,
) -> Event:
    """The state of an account; `customer_id` is its holder, None of an erased one."""
    message = AccountChanged(
        account_id=str(account_id),
        state_version=StateVersion(epoch=epoch, version=version),
        customer_id=str(customer_id or ""),
        institution_ids=sorted(institution_ids),
        parent_account_id=str(parent_account_id or ""),
    )
    return Event(ACCOUNT_CHANGED, str(account_id), message)


def points_posted(
    *,
    operation_id: uuid.UUID,
    account_id: uuid.UUID,
    customer_id: uuid.UUID | None,
    program_id: str,
    institution_id: str,
    kind: OperationKind,
    amount_points: int,
    balance_points: int,
    epoch: int,
    version: int,
    effective_time: datetime,
    activity_id: uuid.UUID | None,
    leading: bool = True,
) -> Event:
    """The fact that points of an account moved. The id of an operation's leading one is the operation's."""
    message = PointsPosted(
        operation_id=str(operation_id),
        account_id=str(account_id),
        customer_id=str(customer_id or ""),
        program_id=program_id,
        institution_id=institution_id,
        kind=KINDS[kind],
        amount_points=amount_points,
        balance_points=balance_points,
        state_version=StateVersion(epoch=epoch, version=version),
        effective_time_seconds=int(effective_time.timestamp()),
        activity_id=str(activity_id) if activity_id and kind is not OperationKind.EXPIRE else "",
    )
    event_id = operation_id if leading else uuid.uuid5(operation_id, str(account_id))
    return Event(POINTS_POSTED, str(account_id), message, event_id=event_id)


async def publish_accounts(unit: UnitOfWork, account_ids: Sequence[uuid.UUID]) -> None:
    """Publishes the states of accounts that have changed; their versions have risen."""
    if not account_ids:
        return
    for row in await accounts.states(unit.connection, account_ids):
        unit.publish(
            account_changed(
                row["account_id"],
                row["holder_customer_id"],
                row["parent_account_id"],
                row["institution_ids"],
                epoch=unit.epoch,
                version=row["version"],
            )
        )
