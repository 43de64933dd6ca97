"""LinkService: which records are one customer, decided by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from chassis import pages
from chassis.database import Connection
from chassis.identity import Principal, current_principal, require_institution
from chassis.ids import parse_id, resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1 import link_service_pb2 as pb
from concord.customer.v1.link_service_pb2_grpc import LinkServiceServicer
from customer import merging
from customer.core import Core
from customer.domain.audit import Action
from customer.merging import Merging, Side, Unmerged, shown_steward, unknown_customer, unknown_record
from customer.messages import timestamp
from customer.rpc.callers import require_unbound, viewing_institution
from customer.store import merges as merge_store
from customer.store import rejections as rejection_store
from customer.store import search
from customer.store.merges import Merge
from customer.store.rejections import LEFT, RIGHT, Rejection
from customer.store.search import Viewer


class LinkServicer(LinkServiceServicer):
    """Translates; the work is in `merging`."""

    def __init__(self, core: Core, commands: Commands) -> None:
        self._core = core
        self._commands = commands

    async def MergeCustomers(self, request: pb.MergeCustomersRequest, context: Any) -> pb.MergeCustomersResponse:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.MergeCustomersResponse:
            ids = [resource_id(name, "customers", f"customers[{place}]") for place, name in enumerate(request.customers)]
            work = Merging(unit, self._core, request.reason_code, request.override_reason)
            winner_id, merges = await work.merge(ids)
            response = pb.MergeCustomersResponse(
                customer=f"customers/{winner_id}", merges=[_merge(unit.principal, merge) for merge in merges]
            )
            await self._core.audit.append(unit, Action.MERGE, customers=[winner_id, *ids], reason_code=request.reason_code)
            return response

        return await self._commands.run(request, handler)

    async def UnmergeCustomer(self, request: pb.UnmergeCustomerRequest, context: Any) -> pb.UnmergeCustomerResponse:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.UnmergeCustomerResponse:
            work = Merging(unit, self._core, request.reason_code)
            loser_id = resource_id(request.name, "customers")
            response = await _unmerged(unit, await work.unmerge(loser_id, request.reject_match))
            await self._core.audit.append(
                unit, Action.UNMERGE, customers=[loser_id], reason_code=request.reason_code, resource=response.merge.name
            )
            return response

        return await self._commands.run(request, handler)

    async def RelinkRecord(self, request: pb.RelinkRecordRequest, context: Any) -> pb.RelinkRecordResponse:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.RelinkRecordResponse:
            record_id = await require_record(unit.connection, unit.principal, request.name, "name")
            target = resource_id(request.customer, "customers", "customer") if request.customer else None
            work = Merging(unit, self._core, request.reason_code, request.override_reason)
            former, present = await work.relink(record_id, target)
            await self._core.audit.append(
                unit, Action.RELINK, customers=[former, present], records=[record_id], reason_code=request.reason_code
            )
            return pb.RelinkRecordResponse(customer=f"customers/{present}", former_customer=f"customers/{former}")

        return await self._commands.run(request, handler)

    async def RejectMatch(self, request: pb.RejectMatchRequest, context: Any) -> pb.MatchRejection:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.MatchRejection:
            sides = [
                await _side(unit.connection, unit.principal, name, field)
                for name, field in ((request.left, "left"), (request.right, "right"))
            ]
            rejection = await Merging(unit, self._core, request.reason_code).reject(sides[0], sides[1])
            [message] = await _rejections(unit.connection, unit.principal, [rejection])
            await self._audit_rejection(unit, message, request.reason_code)
            return message

        return await self._commands.run(request, handler)

    async def WithdrawMatchRejection(self, request: pb.WithdrawMatchRejectionRequest, context: Any) -> pb.MatchRejection:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.MatchRejection:
            rejection_id = resource_id(request.name, "matchRejections")
            await merging.withdraw(unit, rejection_id)
            rejection = await rejection_store.get(unit.connection, rejection_id, viewing_institution(unit.principal))
            assert rejection is not None
            [message] = await _rejections(unit.connection, unit.principal, [rejection])
            await self._audit_rejection(unit, message, "WITHDRAWN")
            return message

        return await self._commands.run(request, handler)

    async def _audit_rejection(self, unit: UnitOfWork, message: pb.MatchRejection, reason_code: str) -> None:
        customers = [resource_id(name, "customers") for name in (*message.left_customers, *message.right_customers)]
        await self._core.audit.append(unit, Action.REJECT, customers=customers, reason_code=reason_code, resource=message.name)

    async def ListMatchRejections(self, request: pb.ListMatchRejectionsRequest, context: Any) -> pb.ListMatchRejectionsResponse:
        principal = current_principal()
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        before = _before(pages.decode(request.page_token, request))
        institution = viewing_institution(principal)
        async with self._core.database.connection() as connection:
            customer_id = await require_live(connection, principal, request.parent, "parent")
            rows = await rejection_store.of_customer(connection, customer_id, institution, before, limit + 1)
            shown = await _rejections(connection, principal, rows[:limit])
        token = pages.encode([str(rows[limit - 1].rejection_id)], request) if len(rows) > limit else ""
        return pb.ListMatchRejectionsResponse(match_rejections=shown, next_page_token=token)

    async def ListMerges(self, request: pb.ListMergesRequest, context: Any) -> pb.ListMergesResponse:
        principal = current_principal()
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        before = _before(pages.decode(request.page_token, request))
        async with self._core.database.connection() as connection:
            await require_live(connection, principal, request.parent, "parent")
            customer_id = resource_id(request.parent, "customers", "parent")
            rows = await merge_store.of_customer(connection, customer_id, viewing_institution(principal), before, limit + 1)
        token = pages.encode([str(rows[limit - 1].merge_id)], request) if len(rows) > limit else ""
        return pb.ListMergesResponse(merges=[_merge(principal, row) for row in rows[:limit]], next_page_token=token)


async def require_live(connection: Connection, principal: Principal, name: str, field: str) -> UUID:
    """The customer that a name stands for now, at the end of its merges.

    Raises:
        NotFound: it does not exist, or the caller has no link with it.
    """
    customer_id = resource_id(name, "customers", field)
    path = (await merge_store.chains(connection, [customer_id])).get(customer_id)
    institution = viewing_institution(principal)
    if path is None or (institution is not None and not await search.is_linked(connection, Viewer(institution), path[-1])):
        raise unknown_customer(customer_id)
    return path[-1]


async def require_record(connection: Connection, principal: Principal, name: str, field: str) -> UUID:
    """The record of a resource name, of the caller's institution.

    Raises:
        NotFound: it does not exist, or is another institution's.
    """
    institution_id, _, text = resource_segments(name, "institutions", "sourceSystems", "records", field=field)
    require_institution(principal, institution_id)
    record_id = parse_id(text, field)
    if (await merge_store.named(connection, [record_id], institution_id)).get(record_id) != name:
        raise unknown_record()
    return record_id


async def _side(connection: Connection, principal: Principal, name: str, field: str) -> Side:
    if name.startswith("customers/"):
        return Side(customer_id=resource_id(name, "customers", field))
    return Side(record_id=await require_record(connection, principal, name, field))


def _before(keys: Sequence[str]) -> UUID | None:
    return parse_id(keys[0], "page_token") if keys else None


def _merge(principal: Principal, merge: Merge) -> pb.Merge:
    return pb.Merge(
        name=f"customers/{merge.loser_id}/merges/{merge.merge_id}",
        winner=f"customers/{merge.winner_id}",
        reason_code=merge.reason_code,
        override_reason=merge.override_reason,
        decided_by=shown_steward(principal, merge.decided_by),
        decide_time=timestamp(merge.decided_at),
        undo_time=timestamp(merge.undone_at) if merge.undone_at else None,
        records_count=merge.records_count,
    )


async def _unmerged(unit: UnitOfWork, undone: Unmerged) -> pb.UnmergeCustomerResponse:
    principal, outcome = unit.principal, undone.outcome
    names = await merge_store.named(unit.connection, outcome.elsewhere, viewing_institution(principal))
    [merge] = await merge_store.of_ids(unit.connection, [undone.merge.merge_id])
    restored = [member for member in undone.restored if merging.sees(principal, member.institution_id)]
    missing_count = len(names) + (len(outcome.erased) if principal.sees_all else 0)
    return pb.UnmergeCustomerResponse(
        customer=f"customers/{merge.loser_id}",
        merge=_merge(principal, replace(merge, records_count=len(restored) + missing_count)),
        records_restored_count=len(restored),
        records_not_restored_count=missing_count,
        records_not_restored=[
            pb.RecordNotRestored(record=name, reason="RELINKED", customer=f"customers/{outcome.elsewhere[record_id]}")
            for record_id, name in sorted(names.items())
        ],
        match_rejection=f"matchRejections/{undone.rejection.rejection_id}" if undone.rejection else "",
    )


async def _rejections(connection: Connection, principal: Principal, rejections: Sequence[Rejection]) -> list[pb.MatchRejection]:
    sides = await rejection_store.sides(connection, [one.rejection_id for one in rejections])
    return [
        pb.MatchRejection(
            name=f"matchRejections/{one.rejection_id}",
            left_customers=[f"customers/{customer_id}" for customer_id in sides[one.rejection_id][LEFT]],
            right_customers=[f"customers/{customer_id}" for customer_id in sides[one.rejection_id][RIGHT]],
            pairs_count=one.pairs_count,
            reason_code=one.reason_code,
            decided_by=shown_steward(principal, one.decided_by),
            decide_time=timestamp(one.decided_at),
            withdraw_time=timestamp(one.withdrawn_at) if one.withdrawn_at else None,
        )
        for one in rejections
    ]
