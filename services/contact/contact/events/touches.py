"""Carries out planned touches: the message lies in the inbox exactly once, or the slot is given back."""

import uuid

from chassis.consumer import ReceivedEvent
from chassis.unit_of_work import UnitOfWork
from concord.campaign.v1.campaign_events_pb2 import TouchPlanned
from contact.domain.kinds import CAPPED_PURPOSES, Direction, Purpose, State
from contact.domain.reservations import dispatch
from contact.published import contact_recorded
from contact.store import contacts, inbox, subjects
from contact.store.contacts import NewContact

TYPES = {"concord.campaign.v1.touch.planned": TouchPlanned}


async def carry_out_touches(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    """Sends what holds a slot. The reservation is the truth: customer, channel and text are those that were reserved.

    A contact leaves the state RESERVED once, in this transaction; so a touch told twice, or told again after the inbox was
    forgotten, changes nothing.
    """
    planned: dict[uuid.UUID, TouchPlanned] = {uuid.UUID(event.message.touch_id): event.message for event in events}
    connection = unit.connection
    reserved = await contacts.known_touches(connection, planned)
    now = await subjects.lock(connection, [row["customer_id"] for row in reserved.values()])
    rows = await contacts.lock_for_dispatch(connection, reserved)
    decided = [
        (row["contact_id"], dispatch(contacts.known(row), row["purpose"] in CAPPED_PURPOSES, row["permitted"], now))
        for row in rows
        if row["state"] == State.RESERVED
    ]
    changed = await contacts.dispatch(connection, decided, now)
    await inbox.deliver(connection, [row["contact_id"] for row in changed if row["state"] == State.DELIVERED])
    changed += await contacts.add(
        connection,
        [_without_reservation(touch_id, touch, unit) for touch_id, touch in planned.items() if touch_id not in reserved],
    )
    for row in changed:
        unit.publish(contact_recorded(row, unit.epoch))


def _without_reservation(touch_id: uuid.UUID, touch: TouchPlanned, unit: UnitOfWork) -> NewContact:
    return NewContact(
        contact_id=touch_id,
        customer_id=uuid.UUID(touch.customer_id),
        institution_id=touch.institution_id,
        direction=Direction.OUTBOUND,
        channel=touch.channel,
        purpose=Purpose.UNSPECIFIED,
        state=State.FAILED,
        state_reason="NO_RESERVATION",
        contact_time=unit.now,
        touch=f"institutions/{touch.institution_id}/campaigns/{touch.campaign_id}/waves/{touch.wave}/touches/{touch_id}",
    )
