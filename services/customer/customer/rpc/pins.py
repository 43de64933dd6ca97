"""Pins of SurvivorshipService: within the customers that the caller may see, on records of its own institution."""

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from asyncpg import Record

from chassis.errors import FailedPrecondition, NotFound
from chassis.identity import Principal
from chassis.ids import resource_id, resource_segments
from chassis.unit_of_work import UnitOfWork
from concord.customer.v1 import survivorship_service_pb2 as pb
from customer import pinning
from customer.changes import Changes
from customer.core import Core
from customer.domain.audit import Action
from customer.domain.golden import EMPTY
from customer.domain.vocabulary import Attribute
from customer.messages import timestamp
from customer.rpc.callers import customer_not_found, no_such_customer, require_linked, viewing_institution
from customer.statements import statements
from customer.store import pins as store
from customer.store import records as record_store
from customer.store.records import Member
from customer.store.vault import Vault, bound_to

PINS_SHOWN_MAX = 200


async def pin(unit: UnitOfWork, core: Core, request: pb.PinValueRequest) -> pb.Pin:
    """Pins an attribute of a customer to one of its records.

    Raises:
        NotFound: CUSTOMER_NOT_FOUND; RECORD_NOT_FOUND, no such record of this customer at the caller's institution.
        FailedPrecondition: CUSTOMER_MERGED, CUSTOMER_RESTRICTED; ATTRIBUTE_NOT_STATED, the record says nothing to believe.
    """
    changes, mine = await _locked(unit, core, request.name)
    resource_segments(request.record, "institutions", "sourceSystems", "records", field="record")
    member = next((one for one in mine if one.name == request.record), None)
    if member is None:
        raise NotFound("RECORD_NOT_FOUND", f"{request.record} is no record of {request.name}, or not your institution's")
    attribute = Attribute(request.attribute)
    if all(stated.key in EMPTY for stated in statements(member.party).get(attribute, ())):
        raise FailedPrecondition(
            "ATTRIBUTE_NOT_STATED", f"{request.record} states no {attribute.name}; pin to a record that states one"
        )
    await pinning.pin(changes, member, attribute, request.reason, unit.principal.subject)
    return await _finish(unit, core, changes, [member], attribute)


async def unpin(unit: UnitOfWork, core: Core, request: pb.UnpinValueRequest) -> pb.UnpinValueResponse:
    """Takes back the pins of an attribute on a customer's records of the caller's institution.

    Raises:
        NotFound: CUSTOMER_NOT_FOUND.
        FailedPrecondition: NOT_PINNED, CUSTOMER_MERGED, CUSTOMER_RESTRICTED.
    """
    changes, mine = await _locked(unit, core, request.name)
    attribute = Attribute(request.attribute)
    pinned = [member for member in mine if attribute in member.pins]
    if not pinned:
        raise FailedPrecondition("NOT_PINNED", f"{attribute.name} of {request.name} is pinned to no record of your institution")
    live = [row for row in await _rows(unit, pinned) if row["unpinned_at"] is None and row["attribute"] == attribute]
    for member in pinned:
        await pinning.unpin(changes, member, attribute, request.reason, unit.principal.subject)
    await _finish(unit, core, changes, pinned, attribute)
    ended = {row["pin_id"] for row in live}
    rows = [row for row in await _rows(unit, pinned) if row["pin_id"] in ended]
    customer_id = resource_id(request.name, "customers")
    return pb.UnpinValueResponse(pins=await _messages(core.vault, customer_id, pinned, rows))


async def list_pins(core: Core, principal: Principal, request: pb.ListPinsRequest) -> pb.ListPinsResponse:
    """The pins on a customer's records of the caller's institution, newest first.

    Raises:
        NotFound: CUSTOMER_NOT_FOUND.
    """
    customer_id = await require_linked(core, principal, resource_id(request.parent, "customers", "parent"))
    async with core.database.connection() as connection:
        [members] = await record_store.visible(connection, core.vault, [(customer_id, viewing_institution(principal))])
        rows = await store.list_of_records(connection, [member.record_id for member in members], PINS_SHOWN_MAX)
    return pb.ListPinsResponse(pins=await _messages(core.vault, customer_id, members, rows))


async def _locked(unit: UnitOfWork, core: Core, name: str) -> tuple[Changes, list[Member]]:
    """The customer, locked, and its records that the caller may decide about."""
    customer_id = resource_id(name, "customers")
    changes = Changes(unit, core)
    await changes.load([customer_id])
    if customer_id not in changes.rows:
        raise customer_not_found(customer_id)
    institution_id = viewing_institution(unit.principal)
    mine = [one for one in changes.members[customer_id].values() if institution_id in (None, one.institution_id)]
    if not mine:
        raise await no_such_customer(unit.connection, unit.principal, customer_id)
    if changes.rows[customer_id].restricted:
        raise FailedPrecondition("CUSTOMER_RESTRICTED", f"{name} is kept for retention only; lift its restriction first")
    return changes, mine


async def _finish(unit: UnitOfWork, core: Core, changes: Changes, members: Sequence[Member], attribute: Attribute) -> pb.Pin:
    await changes.write()
    customer_id = members[0].customer_id
    rows = [row for row in await _rows(unit, members) if row["attribute"] == attribute]
    messages = await _messages(core.vault, customer_id, members, rows[:1])
    records = [member.record_id for member in members]
    await core.audit.append(unit, Action.PIN, customers=[customer_id], records=records, resource=messages[0].name)
    return messages[0]


async def _rows(unit: UnitOfWork, members: Sequence[Member]) -> list[Record]:
    return await store.list_of_records(unit.connection, [member.record_id for member in members], PINS_SHOWN_MAX)


async def _messages(vault: Vault, customer_id: UUID, members: Sequence[Member], rows: Sequence[Record]) -> list[pb.Pin]:
    names = {member.record_id: member.name for member in members}
    keys = await vault.keys(list({row["record_id"] for row in rows})) if rows else {}
    pins = []
    for row in rows:
        record_id, attribute = row["record_id"], row["attribute"]
        if record_id not in keys:
            continue  # erased meanwhile
        message = pb.Pin(
            name=f"customers/{customer_id}/pins/{row['pin_id']}",
            attribute=cast(Any, attribute),
            record=names[record_id],
            reason=keys[record_id].open(row["reason"], bound_to(pinning.REASON, record_id, attribute)).decode(),
            pinned_by=row["pinned_by"],
            pin_time=timestamp(row["pinned_at"]),
        )
        if row["unpinned_at"] is not None:
            message.unpinned_by = row["unpinned_by"]
            message.unpin_time.CopyFrom(timestamp(row["unpinned_at"]))
            words = keys[record_id].open(row["unpin_reason"], bound_to(pinning.UNPIN_REASON, record_id, attribute))
            message.unpin_reason = words.decode()
        pins.append(message)
    return pins
