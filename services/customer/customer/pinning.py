"""Pins an attribute of a customer to one of its records, and takes the pin back; within a change of the customer."""

from datetime import datetime
from uuid import UUID

from chassis.ids import new_id
from customer.changes import Changes
from customer.domain.vocabulary import Attribute
from customer.store import pins as pin_store
from customer.store.records import Member
from customer.store.vault import bound_to

REASON, UNPIN_REASON = "pins.reason", "pins.unpin_reason"
"""Places that the sealed words of a steward are bound to, with the record and the attribute's number."""


async def pin(changes: Changes, member: Member, attribute: int, reason: str, by: str, at: datetime | None = None) -> None:
    """Pins an attribute to a record whose customer is loaded; pinned again, it counts as pinned now (or `at`)."""
    if attribute in member.pins:
        await unpin(changes, member, attribute, reason, by)
    pinned_at = at or changes.now
    sealed = await _sealed(changes, member.record_id, REASON, attribute, reason)
    await pin_store.add(changes.unit.connection, new_id(), member.record_id, attribute, pinned_at, by, sealed)
    member.pins = {**member.pins, Attribute(attribute): pinned_at}
    changes.touch(member.customer_id)


async def unpin(changes: Changes, member: Member, attribute: int, reason: str, by: str) -> None:
    """Takes the pin of an attribute back, if the record has one."""
    sealed = await _sealed(changes, member.record_id, UNPIN_REASON, attribute, reason)
    await pin_store.take_back(changes.unit.connection, {member.record_id: sealed}, attribute, changes.now, by)
    member.pins = {one: at for one, at in member.pins.items() if one != attribute}
    changes.touch(member.customer_id)


async def _sealed(changes: Changes, record_id: UUID, place: str, attribute: int, reason: str) -> bytes:
    key = (await changes.core.vault.keys([record_id]))[record_id]
    return key.seal(reason.encode(), bound_to(place, record_id, attribute))
