"""Folds the customer service's events: who belongs to whom, which institutions exist, and what activities earn."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chassis import customer_states, record_links
from chassis.consumer import ReceivedEvent
from chassis.customer_states import CustomerState
from chassis.ids import new_id
from chassis.unit_of_work import UnitOfWork
from concord.common.v1.event_pb2 import RecordLink
from concord.customer.v1.customer_events_pb2 import (
    ActivityRecorded,
    CustomerChanged,
    CustomerErased,
    InstitutionChanged,
    RecordsMoved,
)
from loyalty.domain.earning import RuleVersion, Transaction, earn
from loyalty.domain.ledger.commands import AnyCommand, Clawback, Earn
from loyalty.domain.ledger.types import ActivityKey, Operation, OperationKind, OrderKey, Outcome
from loyalty.events.erasure import erase
from loyalty.store import activities as activity_store
from loyalty.store import families
from loyalty.store import ledger as ledger_store
from loyalty.store import programs as program_store
from loyalty.store.ledger_loading import known_operations
from loyalty.store.messages import publish_accounts
from loyalty.store.posting import post

TYPES = {
    "concord.customer.v1.institution.changed": InstitutionChanged,
    "concord.customer.v1.customer.updated": CustomerChanged,
    "concord.customer.v1.customer.records_moved": RecordsMoved,
    "concord.customer.v1.customer.erased": CustomerErased,
    "concord.customer.v1.activity.recorded": ActivityRecorded,
}


@dataclass(frozen=True, slots=True)
class Activity:
    """What the ledger needs of an activity: either a transaction, or the reversal of another activity."""

    activity_id: uuid.UUID
    record_id: uuid.UUID
    institution_id: str
    occurred_at: datetime
    transaction: Transaction | None
    reversed_activity_id: uuid.UUID | None


async def fold_customer_events(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    """Applies a batch: projections first, because what an activity earns stands on them; erasures last."""
    messages = [event.message for event in events]
    await _fold_institutions(unit, [message for message in messages if isinstance(message, InstitutionChanged)])
    moved = await record_links.fold(unit.connection, _links(messages))
    await _fold_customers(unit, [message for message in messages if isinstance(message, CustomerChanged)])
    await families.pin(unit.connection, moved)
    activities = [_activity(message) for message in messages if isinstance(message, ActivityRecorded)]
    await fold_activities(unit, [activity for activity in activities if activity is not None])
    for message in messages:
        if isinstance(message, CustomerErased):
            await erase(unit, message)


async def _fold_customers(unit: UnitOfWork, messages: Iterable[CustomerChanged]) -> None:
    """Accounts follow their customers. The head is locked, so that no redemption sees a family half changed."""
    changed = await customer_states.fold(unit.connection, map(_state, messages))
    merges = [row for row in changed if row["merged_into_customer_id"] != row["former_merged_into_customer_id"]]
    if not merges:
        return
    await ledger_store.lock_head(unit.connection)
    await publish_accounts(unit, await families.follow(unit.connection, [row["customer_id"] for row in merges], unit.now))


def _state(message: CustomerChanged) -> CustomerState:
    merged_into = message.merged_into_customer_id
    return CustomerState(
        customer_id=uuid.UUID(message.customer_id),
        merged_into_customer_id=uuid.UUID(merged_into) if merged_into else None,
        restricted=message.restricted,
        version=message.state_version,
    )


async def _fold_institutions(unit: UnitOfWork, messages: Iterable[InstitutionChanged]) -> None:
    states: dict[str, tuple[int, int]] = {}
    for message in messages:
        order = message.state_version.epoch, message.state_version.version
        states[message.institution_id] = max(order, states.get(message.institution_id, order))
    if states:
        await program_store.fold_institutions(unit.connection, states)


def _links(messages: Iterable[Any]) -> list[RecordLink]:
    links: list[RecordLink] = []
    for message in messages:
        if isinstance(message, CustomerChanged | RecordsMoved):
            links.extend(message.record_links)
        elif isinstance(message, ActivityRecorded):
            links.append(message.record_link)
    return links


def _activity(message: ActivityRecorded) -> Activity | None:
    """What concerns the ledger; None for all other kinds of activities."""
    detail = message.detail
    occurred_at = detail.occurred_at.ToDatetime(UTC)
    transaction = None
    if detail.HasField("transaction"):
        money = detail.transaction.amount
        transaction = Transaction(money.currency_code, money.minor_units, detail.transaction.category, occurred_at)
    elif not message.reversed_activity_id:
        return None
    return Activity(
        activity_id=uuid.UUID(message.activity_id),
        record_id=uuid.UUID(message.record_link.record_id),
        institution_id=message.record_link.institution_id,
        occurred_at=occurred_at,
        transaction=transaction,
        reversed_activity_id=uuid.UUID(message.reversed_activity_id) if transaction is None else None,
    )


async def fold_activities(unit: UnitOfWork, activities: Sequence[Activity]) -> None:
    """Posts what activities earn and what their reversals take back, in the order of the stream.

    An activity is decided once, for ever. A reversal that comes first decides its activity: that one earns nothing.
    """
    erased = await record_links.erased(unit.connection, {activity.record_id for activity in activities})
    activities = [activity for activity in activities if activity.record_id not in erased]
    if not activities:
        return
    decided_ids = {activity.reversed_activity_id or activity.activity_id for activity in activities}
    fresh = await activity_store.decide(unit.connection, decided_ids)
    concerned = []
    for activity in activities:
        decides = activity.reversed_activity_id or activity.activity_id
        if (decides in fresh) is (activity.transaction is not None):
            concerned.append(activity)
        fresh.discard(decides)
    earnings = await _earnings(unit, [activity for activity in concerned if activity.transaction])
    reversed_ids = {activity.reversed_activity_id for activity in concerned if activity.reversed_activity_id}
    if not earnings and not reversed_ids:
        return
    head = await ledger_store.lock_head(unit.connection)
    known = await known_operations(unit.connection, _keys(earnings.keys() | reversed_ids))
    earned = _earned(known, earnings)
    commands: list[AnyCommand] = []
    for activity in concerned:
        if activity.reversed_activity_id is None:
            commands += earnings.get(activity.activity_id, [])
        else:
            commands += [_clawback(earning, activity) for earning in earned.get(activity.reversed_activity_id, [])]
    await post(unit, commands, head, known=known)


def _keys(activity_ids: Iterable[uuid.UUID]) -> list[OrderKey]:
    """Keys by which all operations of activities are found, whatever their programme and kind."""
    return [ActivityKey(activity_id, "", OperationKind.EARN) for activity_id in activity_ids]


async def _earnings(unit: UnitOfWork, activities: Sequence[Activity]) -> dict[uuid.UUID, list[Earn]]:
    """What each activity earns."""
    members = await activity_store.members(unit.connection, {activity.record_id for activity in activities}) if activities else {}
    activities = [activity for activity in activities if activity.record_id in members]
    if not activities:
        return {}
    rules = await program_store.rules_of_institutions(unit.connection, {activity.institution_id for activity in activities})
    earnings: dict[uuid.UUID, list[Earn]] = {}
    for activity in activities:
        assert activity.transaction is not None
        earned = earn(rules.get(activity.institution_id, ()), activity.transaction)
        if earned:
            account_id = members[activity.record_id].account_id
            earnings[activity.activity_id] = [_earn(activity, account_id, points, rule) for points, rule in earned]
    return earnings


def _earned(
    known: Mapping[OrderKey, Operation], earnings: Mapping[uuid.UUID, list[Earn]]
) -> dict[uuid.UUID, list[Operation | Earn]]:
    """All that activities earned, in this batch or before it."""
    earned: dict[uuid.UUID, list[Operation | Earn]] = {activity_id: list(made) for activity_id, made in earnings.items()}
    for operation in known.values():
        posted = operation.kind is OperationKind.EARN and operation.outcome is Outcome.POSTED
        if posted and isinstance(operation.key, ActivityKey):
            earned.setdefault(operation.key.activity_id, []).append(operation)
    return earned


def _earn(activity: Activity, account_id: uuid.UUID, points: int, rule: RuleVersion) -> Earn:
    return Earn(
        operation_id=new_id(),
        key=ActivityKey(activity.activity_id, rule.program_id, OperationKind.EARN),
        account_id=account_id,
        institution_id=activity.institution_id,
        effective_time=activity.occurred_at,
        program_id=rule.program_id,
        amount_points=points,
        rule=rule.name,
    )


def _clawback(earned: Operation | Earn, reversal: Activity) -> Clawback:
    assert isinstance(earned.key, ActivityKey)
    assert earned.program_id is not None
    return Clawback(
        operation_id=new_id(),
        key=ActivityKey(earned.key.activity_id, earned.program_id, OperationKind.CLAWBACK),
        account_id=earned.account_id,
        institution_id=earned.institution_id,
        effective_time=reversal.occurred_at,
        earning_id=earned.operation_id,
        rule=earned.rule,
    )
