"""Follows the customer master: whose the records are, which customers were merged or restricted, and who is erased."""

import uuid
from collections.abc import Sequence

from chassis import customer_states, record_links
from chassis.consumer import ReceivedEvent
from chassis.customer_states import CustomerState
from chassis.unit_of_work import UnitOfWork
from concord.customer.v1.customer_events_pb2 import CustomerChanged, CustomerErased, RecordsMoved
from contact.domain.reservations import Outcome
from contact.published import contact_recorded
from contact.store import contacts, erasure

TYPES = {
    "concord.customer.v1.customer.updated": CustomerChanged,
    "concord.customer.v1.customer.records_moved": RecordsMoved,
    "concord.customer.v1.customer.erased": CustomerErased,
}


async def fold_customers(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    """Contacts, messages and permissions hang on records, so that moving the links moves them all, and back."""
    messages = [event.message for event in events]
    told = [message for message in messages if not isinstance(message, CustomerErased)]
    await record_links.fold(unit.connection, [link for message in told for link in message.record_links])
    states = [_state(message) for message in messages if isinstance(message, CustomerChanged)]
    await _release_restricted(unit, [row["customer_id"] for row in await customer_states.fold(unit.connection, states)])
    for message in messages:
        if isinstance(message, CustomerErased):
            await _erase(unit, message)


def _state(message: CustomerChanged) -> CustomerState:
    merged_into = message.merged_into_customer_id
    return CustomerState(
        customer_id=uuid.UUID(message.customer_id),
        merged_into_customer_id=uuid.UUID(merged_into) if merged_into else None,
        restricted=message.restricted,
        version=message.state_version,
    )


async def _release_restricted(unit: UnitOfWork, changed: Sequence[uuid.UUID]) -> None:
    """Slots of restricted customers are given back at once, so that campaign need not wait for them to run out."""
    if not changed:
        return
    survivors = set((await customer_states.survivors(unit.connection, changed)).values())
    restricted = await customer_states.restricted(unit.connection, survivors)
    if not restricted:
        return
    for row in await contacts.release_of(unit.connection, restricted, Outcome.CUSTOMER_RESTRICTED.name):
        unit.publish(contact_recorded(row, unit.epoch))


async def _erase(unit: UnitOfWork, message: CustomerErased) -> None:
    record_ids = [uuid.UUID(record_id) for record_id in message.record_ids]
    await record_links.erase(unit.connection, record_ids)
    gone = await customer_states.erase(unit.connection, uuid.UUID(message.customer_id)) if message.whole else set()
    await erasure.erase(unit.connection, record_ids, gone)
