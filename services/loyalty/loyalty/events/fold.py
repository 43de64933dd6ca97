"""Folds the customer service's events: who belongs to whom, which institutions exist, and what activities earn."""

import uuid
from collections.abc import Iterable
from typing import Any

from chassis import customer_states, record_links
from chassis.consumer import ReceivedEvent
from chassis.customer_states import CustomerState
from chassis.unit_of_work import UnitOfWork
from concord.common.v1.event_pb2 import RecordLink
from concord.customer.v1.customer_events_pb2 import (
    ActivityRecorded,
    CustomerChanged,
    CustomerErased,
    InstitutionChanged,
    RecordsMoved,
)
from loyalty.events.earnings import activity_of, fold_activities
from loyalty.events.erasure import erase
from loyalty.store import families
from loyalty.store import ledger as ledger_store
from loyalty.store import programs as program_store
from loyalty.store.messages import publish_accounts

TYPES = {
    "concord.customer.v1.institution.changed": InstitutionChanged,
    "concord.customer.v1.customer.updated": CustomerChanged,
    "concord.customer.v1.customer.records_moved": RecordsMoved,
    "concord.customer.v1.customer.erased": CustomerErased,
    "concord.customer.v1.activity.recorded": ActivityRecorded,
}


async def fold_customer_events(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    """Applies a batch: projections first, because what an activity earns stands on them; erasures last."""
    messages = [event.message for event in events]
    await _fold_institutions(unit, [message for message in messages if isinstance(message, InstitutionChanged)])
    moved = await record_links.fold(unit.connection, _links(messages))
    await _fold_customers(unit, [message for message in messages if isinstance(message, CustomerChanged)])
    await families.pin(unit.connection, moved)
    activities = [activity_of(message) for message in messages if isinstance(message, ActivityRecorded)]
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
