"""Carries out planned touches: the message lies in the inbox exactly once, or the slot is given back."""

import uuid
from datetime import datetime

import asyncpg

from chassis import customer_states, record_links
from chassis.consumer import ReceivedEvent
from chassis.unit_of_work import UnitOfWork
from concord.campaign.v1.campaign_events_pb2 import TouchPlanned
from contact.domain.kinds import CAPPED_PURPOSES, Direction, Permission, Purpose, State
from contact.domain.reservations import Dispatch, dispatch
from contact.published import contact_recorded
from contact.store import contacts, inbox, permissions, subjects
from contact.store.contacts import NewContact

TYPES = {"concord.campaign.v1.touch.planned": TouchPlanned}


async def carry_out_touches(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    """Sends what holds a slot. The reservation is the truth: record, channel and text are those that were reserved.

    A contact leaves the state RESERVED once, in this transaction; so a touch told twice, or told again after the inbox was
    forgotten, changes nothing.
    """
    planned: dict[uuid.UUID, TouchPlanned] = {uuid.UUID(event.message.touch_id): event.message for event in events}
    connection = unit.connection
    now = await subjects.lock(connection, await contacts.hold_links(connection, planned))
    rows = await contacts.lock_for_dispatch(connection, planned)
    decided = await _decide(unit, [row for row in rows if row["state"] == State.RESERVED], now)
    changed = await contacts.dispatch(connection, decided, now)
    await inbox.deliver(connection, [row["contact_id"] for row in changed if row["state"] == State.DELIVERED])
    known = {row["contact_id"] for row in rows}
    changed += await _fail(unit, {touch_id: touch for touch_id, touch in planned.items() if touch_id not in known})
    for row in changed:
        unit.publish(contact_recorded(row, unit.epoch))


async def _decide(unit: UnitOfWork, reserved: list[asyncpg.Record], now: datetime) -> list[tuple[uuid.UUID, Dispatch]]:
    """What becomes of each reservation, one after the other: of two touches of a wave to one person the first goes out."""
    connection = unit.connection
    customer_ids = {row["customer_id"] for row in reserved}
    if None in customer_ids:
        raise LookupError("the links of these records are not there: a rebuild is under way")
    bound = await permissions.binding_of(connection, customer_ids, None)
    restricted = await customer_states.restricted(connection, customer_ids)
    reached = await contacts.reached(connection, customer_ids, {row["wave"] for row in reserved}, now, reserved=False)
    decided = []
    for row in reserved:
        customer_id = row["customer_id"]
        said = bound.get(customer_id, {}).get((row["institution_id"], row["purpose"], row["channel"]))
        decision = dispatch(
            contacts.known(row),
            now,
            needs_permission=row["purpose"] in CAPPED_PURPOSES,
            permitted=said is not None and said.state is Permission.GRANTED,
            restricted=customer_id in restricted,
            reached=(customer_id, row["wave"]) in reached,
        )
        if decision.state is State.DELIVERED and row["wave"]:
            reached.add((customer_id, row["wave"]))
        decided.append((row["contact_id"], decision))
    return decided


async def _fail(unit: UnitOfWork, touches: dict[uuid.UUID, TouchPlanned]) -> list[asyncpg.Record]:
    """Keeps touches that never had a reservation as failed, but those of records that are erased: nothing is kept of them."""
    record_ids = {touch_id: uuid.UUID(touch.record_id) for touch_id, touch in touches.items() if touch.record_id}
    erased = await record_links.erased(unit.connection, record_ids.values())
    return await contacts.add(
        unit.connection,
        [
            _without_reservation(touch_id, record_id, touches[touch_id], unit)
            for touch_id, record_id in record_ids.items()
            if record_id not in erased
        ],
    )


def _without_reservation(touch_id: uuid.UUID, record_id: uuid.UUID, touch: TouchPlanned, unit: UnitOfWork) -> NewContact:
    return NewContact(
        contact_id=touch_id,
        record_id=record_id,
        institution_id=touch.institution_id,
        direction=Direction.OUTBOUND,
        channel=touch.channel,
        purpose=Purpose.UNSPECIFIED,
        state=State.FAILED,
        state_reason="NO_RESERVATION",
        contact_time=unit.now,
        touch=f"institutions/{touch.institution_id}/campaigns/{touch.campaign_id}/waves/{touch.wave}/touches/{touch_id}",
    )
