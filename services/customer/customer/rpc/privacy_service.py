"""PrivacyService: disclosure with a reason, export, restriction, erasure. Every call is in the audit trail."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from chassis import pages
from chassis.errors import FailedPrecondition, NotFound
from chassis.identity import current_principal
from chassis.ids import new_id, parse_id, resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1 import customer_service_pb2 as customer_pb
from concord.customer.v1 import privacy_service_pb2 as pb
from concord.customer.v1.privacy_service_pb2_grpc import PrivacyServiceServicer
from customer import erasing, exporting
from customer.changes import Changes
from customer.core import Core
from customer.domain.audit import Action
from customer.messages import timestamp
from customer.rpc.callers import (
    customer_not_found,
    require_linked,
    require_not_merged,
    require_unbound,
    viewing_institution,
)
from customer.rpc.search_customers import golden_customers
from customer.rpc.sharing_consent_service import messages_of
from customer.store import customers as customer_store
from customer.store import erasure as erasure_store
from customer.store import restrictions as restriction_store
from customer.store import sharing
from customer.store.erasure import Erasure
from customer.store.records import Member
from customer.store.restrictions import FOR_ALL, Restriction
from customer.store.search import Viewer


class PrivacyServicer(PrivacyServiceServicer):
    """Translates; what is hard is in `erasing` and `exporting`."""

    def __init__(self, core: Core, commands: Commands) -> None:
        self._core = core
        self._commands = commands

    async def RevealCustomer(self, request: pb.RevealCustomerRequest, context: Any) -> customer_pb.Customer:
        principal = current_principal()
        asked_id = resource_id(request.name, "customers")
        customer_id = await require_linked(self._core, principal, asked_id)
        found = await golden_customers(self._core, Viewer(viewing_institution(principal)), [customer_id])
        if not found:
            raise customer_not_found(asked_id)
        first = UUID(found[0].linked_records[0].record.rpartition("/")[2])
        keys = await self._core.vault.keys([first])
        async with self._commands.unit() as unit:
            await self._core.audit.append(
                unit,
                Action.REVEAL,
                customers=[customer_id],
                records=[first],
                reason_code=request.reason_code,
                text=request.reason_text,
                key=keys.get(first),
                principal=principal,
            )
        return found[0]

    async def ExportCustomer(self, request: pb.ExportCustomerRequest, context: Any) -> pb.CustomerExport:
        principal = current_principal()
        require_unbound(principal)
        customer_id = await require_linked(self._core, principal, resource_id(request.name, "customers"))
        limit = pages.page_size(request.page_size, default=20, maximum=100)
        keys = pages.decode(request.page_token, request)
        place = _place(keys) if keys else None
        viewer = viewing_institution(principal)
        records, following = await exporting.records(self._core, customer_id, viewer, place, limit)
        export = pb.CustomerExport(customer=f"customers/{customer_id}", records=records)
        if place is None:
            export.held_elsewhere.extend(exporting.held_elsewhere(customer_id))
            async with self._core.database.connection() as connection:
                consents = await sharing.page(connection, customer_id, viewer, True, None, exporting.CONSENTS_MAX)
                found = await restriction_store.of_customer(connection, customer_id, viewer, lifted=True)
            export.sharing_consents.extend(await messages_of(self._core, principal, consents))
            export.restrictions.extend(_restriction(one) for one in found)
        if following is not None:
            told = [following.after[0].isoformat(), str(following.after[1])] if following.after else []
            export.next_page_token = pages.encode([str(following.record_id), *told], request)
        async with self._commands.unit() as unit:
            export.export_time.CopyFrom(timestamp(unit.now))
            await self._core.audit.append(
                unit,
                Action.EXPORT,
                customers=[customer_id],
                records=[UUID(record.record.rpartition("/")[2]) for record in records],
                reason_code=request.reason_code,
                principal=principal,
            )
        return export

    async def EraseCustomer(self, request: pb.EraseCustomerRequest, context: Any) -> pb.Erasure:
        async def handler(unit: UnitOfWork) -> pb.Erasure:
            changes, mine = await self._locked(unit, resource_id(request.name, "customers"))
            [customer_id] = {member.customer_id for member in mine}
            viewer = viewing_institution(unit.principal)
            erasure = await erasing.request(unit, self._core, changes, customer_id, viewer, request.legal_basis_code)
            name = f"erasures/{erasure.erasure_id}"
            await self._core.audit.append(
                unit,
                Action.ERASE,
                customers=[customer_id],
                records=erasure.record_ids,
                reason_code=request.legal_basis_code,
                resource=name,
            )
            return _erasure(erasure)

        asked = await self._commands.run(request, handler)
        # After the commit, and again for a repeated request: a kill in between leaves it to the sweep.
        return _erasure(await erasing.finish(self._commands, self._core, UUID(asked.name.rpartition("/")[2])))

    async def GetErasure(self, request: pb.GetErasureRequest, context: Any) -> pb.Erasure:
        erasure_id = resource_id(request.name, "erasures")
        async with self._core.database.connection() as connection:
            found = await erasure_store.get(connection, erasure_id, viewing_institution(current_principal()))
        if found is None:
            raise NotFound("ERASURE_NOT_FOUND", f"{request.name} does not exist, or is not yours")
        return _erasure(found)

    async def ListErasures(self, request: pb.ListErasuresRequest, context: Any) -> pb.ListErasuresResponse:
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        keys = pages.decode(request.page_token, request)
        before = parse_id(keys[0], "page_token") if keys else None
        viewer = viewing_institution(current_principal())
        async with self._core.database.connection() as connection:
            rows = await erasure_store.page(connection, viewer, request.state, before, limit + 1)
        token = pages.encode([str(rows[limit - 1].erasure_id)], request) if len(rows) > limit else ""
        return pb.ListErasuresResponse(erasures=[_erasure(row) for row in rows[:limit]], next_page_token=token)

    async def CancelErasure(self, request: pb.CancelErasureRequest, context: Any) -> pb.Erasure:
        async def handler(unit: UnitOfWork) -> pb.Erasure:
            viewer = viewing_institution(unit.principal)
            erasure = await erasing.cancel(unit, self._core, resource_id(request.name, "erasures"), viewer)
            await self._core.audit.append(
                unit,
                Action.ERASE_CANCEL,
                customers=[erasure.customer_id],
                records=erasure.record_ids,
                reason_code=request.reason_code,
                resource=request.name,
            )
            return _erasure(erasure)

        return await self._commands.run(request, handler)

    async def RestrictCustomer(self, request: pb.RestrictCustomerRequest, context: Any) -> pb.Restriction:
        async def handler(unit: UnitOfWork) -> pb.Restriction:
            changes, mine = await self._locked(unit, resource_id(request.name, "customers"))
            anchor = mine[0]
            restriction = Restriction(
                new_id(), anchor.record_id, anchor.customer_id, viewing_institution(unit.principal) or FOR_ALL,
                request.reason_code, None, None, changes.now,
            )  # fmt: skip
            await restriction_store.write(unit.connection, restriction)
            return await self._restricted(unit, changes, restriction, Action.RESTRICT, request.reason_code)

        return await self._commands.run(request, handler)

    async def LiftRestriction(self, request: pb.LiftRestrictionRequest, context: Any) -> pb.Restriction:
        async def handler(unit: UnitOfWork) -> pb.Restriction:
            customer, text = resource_segments(request.name, "customers", "restrictions")
            changes, mine = await self._locked(unit, parse_id(customer, "name"))
            viewer = viewing_institution(unit.principal)
            found = await restriction_store.of_customer(unit.connection, mine[0].customer_id, None, lifted=True)
            theirs = [one for one in found if str(one.restriction_id) == text and viewer in (None, one.institution_id)]
            if not theirs:
                raise NotFound("RESTRICTION_NOT_FOUND", f"{request.name} does not exist, or is not yours")
            restriction = theirs[0]
            if restriction.lifted_at is not None:
                raise FailedPrecondition("RESTRICTION_LIFTED", f"{request.name} was lifted before")
            if restriction.erasure_id is not None:
                name = f"erasures/{restriction.erasure_id}"
                raise FailedPrecondition("ERASURE_WAITS", f"{name} waits behind it: cancel that", metadata={"erasure": name})
            await restriction_store.lift(unit.connection, [restriction.restriction_id], changes.now)
            return await self._restricted(unit, changes, restriction, Action.LIFT, request.reason_code)

        return await self._commands.run(request, handler)

    async def ListRestrictions(self, request: pb.ListRestrictionsRequest, context: Any) -> pb.ListRestrictionsResponse:
        principal = current_principal()
        customer_id = await require_linked(self._core, principal, resource_id(request.parent, "customers", "parent"))
        async with self._core.database.connection() as connection:
            found = await restriction_store.of_customer(connection, customer_id, viewing_institution(principal))
        return pb.ListRestrictionsResponse(restrictions=[_restriction(one) for one in found])

    async def _locked(self, unit: UnitOfWork, customer_id: UUID) -> tuple[Changes, list[Member]]:
        """A customer with its lock, and the caller's records of it, the oldest first."""
        require_unbound(unit.principal)
        viewer = viewing_institution(unit.principal)
        changes = Changes(unit, self._core)
        await changes.load([customer_id])
        row = changes.rows.get(customer_id)
        if row is not None and row.merged_into is not None:
            winner = await customer_store.winner(unit.connection, customer_id)
            require_not_merged(row, await require_linked(self._core, unit.principal, winner))
        mine = [one for one in changes.members.get(customer_id, {}).values() if viewer in (None, one.institution_id)]
        if not mine:
            raise customer_not_found(customer_id)
        return changes, sorted(mine, key=lambda member: member.record_id)

    async def _restricted(
        self, unit: UnitOfWork, changes: Changes, restriction: Restriction, action: Action, reason_code: str
    ) -> pb.Restriction:
        await erasing.refresh(unit, changes, [restriction.customer_id])
        await changes.write()
        found = await restriction_store.of_customer(unit.connection, restriction.customer_id, None, lifted=True)
        [message] = [_restriction(one) for one in found if one.restriction_id == restriction.restriction_id]
        await self._core.audit.append(
            unit,
            action,
            customers=[restriction.customer_id],
            records=[restriction.record_id],
            reason_code=reason_code,
            resource=message.name,
        )
        return message


def _place(keys: Sequence[str]) -> exporting.Place:
    record_id = parse_id(keys[0], "page_token")
    told = (datetime.fromisoformat(keys[1]), parse_id(keys[2], "page_token")) if len(keys) > 1 else None
    return exporting.Place(record_id, told)


def _restriction(one: Restriction) -> pb.Restriction:
    return pb.Restriction(
        name=f"customers/{one.customer_id}/restrictions/{one.restriction_id}",
        institution=f"institutions/{one.institution_id}" if one.institution_id else "",
        reason_code=one.reason_code,
        until_date=one.until_date.isoformat() if one.until_date else "",
        create_time=timestamp(one.create_time),
        lift_time=timestamp(one.lifted_at) if one.lifted_at else None,
        erasure=f"erasures/{one.erasure_id}" if one.erasure_id else "",
    )


def _erasure(one: Erasure) -> pb.Erasure:
    return pb.Erasure(
        name=f"erasures/{one.erasure_id}",
        customer=f"customers/{one.customer_id}",
        institution=f"institutions/{one.institution_id}" if one.institution_id else "",
        state=pb.ErasureState.ValueType(one.state),
        legal_basis_code=one.legal_basis_code,
        due_date=one.due_date.isoformat(),
        retention_rules=one.retention_rules,
        records_count=len(one.record_ids),
        create_time=timestamp(one.create_time),
        erase_time=timestamp(one.erased_at) if one.erased_at else None,
    )
