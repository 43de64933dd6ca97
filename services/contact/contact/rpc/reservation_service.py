"""ReservationService: hands out slots, safely against all who reserve at the same time."""

import uuid
from typing import Any

from chassis import customer_states, record_links
from chassis.database import Connection
from chassis.errors import Aborted, FailedPrecondition, InvalidArgument, PermissionDenied
from chassis.identity import Principal, PrincipalKind, require_institution
from chassis.unit_of_work import Commands, UnitOfWork
from concord.contact.v1 import reservation_service_pb2 as pb
from concord.contact.v1.reservation_service_pb2_grpc import ReservationServiceServicer
from contact.domain.caps import Slot, binds
from contact.domain.kinds import CAPPED_PURPOSES, CONNECTED_CHANNELS, Direction, State
from contact.domain.reservations import Answer, Desk
from contact.rpc.translate import id_in, timestamp
from contact.store import contacts, inbox, permissions, policies, subjects
from contact.store.contacts import NewContact, wave_of

RESERVING_SERVICES = frozenset({"campaign"})


class ReservationServicer(ReservationServiceServicer):
    """Serves reservations."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def ReserveContacts(self, request: pb.ReserveContactsRequest, context: Any) -> pb.ReserveContactsResponse:
        async def handler(unit: UnitOfWork) -> pb.ReserveContactsResponse:
            institution_id = request.parent.split("/")[1]
            _require_caller(unit.principal, institution_id)
            items = _items(request, institution_id)
            records = await record_links.anchors(unit.connection, institution_id, items.values())
            desk = await _desk(unit, request, institution_id, items, frozenset(records))
            answers = desk.hand_out(list(items.items()))
            anchors = {touch_id: records[customer_id][0] for touch_id, customer_id in items.items() if answers[touch_id].is_new}
            await _write(unit, request, desk.wanted, anchors, answers)
            anchors |= await contacts.records_of(unit.connection, [touch_id for touch_id in items if touch_id not in anchors])
            return pb.ReserveContactsResponse(
                results=[
                    _result(item.touch, answers[id_in(item.touch, -1)], anchors.get(id_in(item.touch, -1)))
                    for item in request.items
                ]
            )

        return await self._commands.run(request, handler)


def _require_caller(principal: Principal, institution_id: str) -> None:
    require_institution(principal, institution_id)
    if principal.kind is PrincipalKind.SERVICE and principal.client not in RESERVING_SERVICES:
        raise PermissionDenied("CALLER_NOT_ADMITTED", "of the platform's services only campaign reserves contacts")


def _items(request: pb.ReserveContactsRequest, institution_id: str) -> dict[uuid.UUID, uuid.UUID]:
    """The customer of each touch, in the order of the request."""
    if request.channel not in CONNECTED_CHANNELS:
        rule = "must be CHANNEL_INBOX: no other channel is connected yet"
        raise InvalidArgument("CHANNEL_NOT_CONNECTED", f"channel {rule}", field_violations=[("channel", rule)])
    items: dict[uuid.UUID, uuid.UUID] = {}
    for index, item in enumerate(request.items):
        touch_id, customer_id = id_in(item.touch, -1), id_in(item.customer, 1)
        if item.touch.split("/")[1] != institution_id:
            raise _item_invalid(f"items[{index}].touch", "must be a touch of the institution in parent")
        if items.setdefault(touch_id, customer_id) != customer_id:
            raise _item_invalid(f"items[{index}].customer", "must be the same wherever the touch is the same")
    return items


def _item_invalid(field: str, rule: str) -> InvalidArgument:
    return InvalidArgument("TOUCH_INVALID", f"{field} {rule}", field_violations=[(field, rule)])


async def _desk(
    unit: UnitOfWork,
    request: pb.ReserveContactsRequest,
    institution_id: str,
    items: dict[uuid.UUID, uuid.UUID],
    linked: frozenset[uuid.UUID],
) -> Desk:
    """Locks the customers the institution has a link with, then reads what decides about them."""
    connection, purpose, channel = unit.connection, int(request.purpose), int(request.channel)
    now = await subjects.lock(connection, linked)
    wanted = Slot(institution_id, channel, purpose, now)
    known = await contacts.known_touches(connection, items)
    for index, item in enumerate(request.items):
        row = known.get(id_in(item.touch, -1))
        if row is not None and row["touch"] != item.touch:
            field, rule = f"items[{index}].touch", "ends with the id of another touch; give each touch an id of its own"
            raise FailedPrecondition("TOUCH_ID_REUSED", f"{field} {rule}", field_violations=[(field, rule)])
    waves = {id_in(item.touch, -1): wave_of(item.touch) for item in request.items}
    desk = Desk(
        wanted=wanted,
        caps=[cap for cap in await policies.caps_in_force(connection, institution_id) if binds(cap, wanted)],
        known={touch_id: contacts.known(row) for touch_id, row in known.items()},
        linked=linked,
        permitted=frozenset(),
        merged=await _merged(connection, institution_id, set(items.values())),
        restricted=await customer_states.restricted(connection, linked),
        waves=waves,
        reached=await contacts.reached(connection, linked, set(waves.values()), now, reserved=True),
    )
    if purpose in CAPPED_PURPOSES:
        desk.permitted = await permissions.permitted(connection, institution_id, purpose, channel, linked)
        desk.history = await contacts.counted(connection, desk.permitted, desk.caps, now)
    return desk


async def _merged(connection: Connection, institution_id: str, customer_ids: set[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID]:
    """Who took over those of the customers that were merged, where the institution has a link with that one."""
    survivors = await customer_states.survivors(connection, customer_ids)
    merged = {customer_id: survivor for customer_id, survivor in survivors.items() if customer_id != survivor}
    linked = await record_links.anchors(connection, institution_id, set(merged.values())) if merged else {}
    return {customer_id: survivor for customer_id, survivor in merged.items() if survivor in linked}


async def _write(
    unit: UnitOfWork,
    request: pb.ReserveContactsRequest,
    wanted: Slot,
    anchors: dict[uuid.UUID, uuid.UUID],
    answers: dict[uuid.UUID, Answer],
) -> None:
    if not anchors:
        return
    names = {id_in(item.touch, -1): item.touch for item in request.items}
    message = request.contact_message
    content_hash = await inbox.keep_content(unit.connection, message.title, message.body)
    rows = [
        NewContact(
            contact_id=touch_id,
            record_id=record_id,
            institution_id=wanted.institution,
            direction=Direction.OUTBOUND,
            channel=wanted.channel,
            purpose=wanted.purpose,
            state=State.RESERVED,
            contact_time=wanted.time,
            expires_at=answers[touch_id].expires_at,
            touch=names[touch_id],
            content_hash=content_hash,
        )
        for touch_id, record_id in anchors.items()
    ]
    if len(await contacts.add(unit.connection, rows)) != len(rows):
        # Only when the same touch is reserved for two customers at once: their locks do not meet.
        raise Aborted("TOUCH_RESERVED_MEANWHILE", "one of these touches was reserved at the same moment; send the request again")


def _result(touch: str, answer: Answer, record_id: uuid.UUID | None) -> pb.ReserveResult:
    return pb.ReserveResult(
        touch=touch,
        outcome=pb.ReserveOutcome.ValueType(answer.outcome),
        expire_time=timestamp(answer.expires_at),
        next_free_time=timestamp(answer.next_free_at),
        record_id=str(record_id or ""),
        winner=f"customers/{answer.winner}" if answer.winner else "",
    )
