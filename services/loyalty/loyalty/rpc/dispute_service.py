"""DisputeService: an institution disputes an item, two persons of the other decide."""

from collections.abc import Callable
from uuid import UUID

import grpc

from chassis import pages
from chassis.database import Connection, Database
from chassis.errors import AlreadyExists, FailedPrecondition, NotFound
from chassis.identity import Principal, current_principal
from chassis.ids import new_id, parse_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import settlement_service_pb2 as pb
from concord.loyalty.v1.settlement_service_pb2_grpc import DisputeServiceServicer
from loyalty import settling
from loyalty.domain import disputes as domain
from loyalty.domain.disputes import DISPUTABLE_FOR, Dispute, DisputeState
from loyalty.domain.four_eyes import Refused
from loyalty.rpc import settlement_messages as messages
from loyalty.store import settlement as settlement_store
from loyalty.store import settlement_disputes as store
from loyalty.store import settlement_items as items_store
from loyalty.store.settlement_posting import mark

PAGE_DEFAULT, PAGE_MAX = 50, 200
Context = grpc.aio.ServicerContext[object, object]


class DisputeServicer(DisputeServiceServicer):
    """Translates; the rules are in `domain.disputes`."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def OpenDispute(self, request: pb.OpenDisputeRequest, context: Context) -> pb.Dispute:
        asked = request.dispute

        async def handler(unit: UnitOfWork) -> pb.Dispute:
            batch, institution, _ = await messages.require(unit.connection, unit.principal, request.parent, field="parent")
            settling.require_closed(batch)
            assert institution is not None  # the contract admits no `-`
            assert batch.close_time is not None
            item = await items_store.find(unit.connection, asked.sequence, asked.position)
            found = item and await items_store.batch_of(
                unit.connection, item.terms.agreement_id, batch.currency_code, item.sequence
            )
            if item is None or found != batch.batch_id or institution not in item.terms[:2]:
                raise NotFound("ITEM_NOT_FOUND", "this settlement has no item of yours with this sequence and position")
            if unit.now > batch.close_time + DISPUTABLE_FOR:
                raise FailedPrecondition(
                    "DISPUTE_TOO_LATE", f"items can be disputed for {DISPUTABLE_FOR.days} days after their settlement was closed"
                )
            _ruled(lambda: domain.check_claim(item.points, asked.claimed_points))
            decider = next(side for side in item.terms[:2] if side != institution)
            dispute = Dispute(
                new_id(), batch.batch_id, item.sequence, item.position, institution, decider, item.points, asked.claimed_points,
                asked.reason_code, DisputeState.OPEN, unit.principal.subject, unit.now,
            )  # fmt: skip
            if not await store.create(unit.connection, dispute):
                raise AlreadyExists(
                    "DISPUTE_EXISTS", "the item has a dispute that was not rejected or withdrawn",
                    field_violations=[("dispute.sequence", "and position have a dispute already")],
                )  # fmt: skip
            return await _message(unit.connection, dispute, institution)

        return await self._commands.run(request, handler)

    async def GetDispute(self, request: pb.GetDisputeRequest, context: Context) -> pb.Dispute:
        async with self._database.connection() as connection:
            dispute, institution = await _require(connection, current_principal(), request.name)
            return await _message(connection, dispute, institution)

    async def ListDisputes(self, request: pb.ListDisputesRequest, context: Context) -> pb.ListDisputesResponse:
        (institution_id,) = resource_segments(request.parent, "institutions", field="parent")
        institution = messages.viewer(current_principal(), institution_id)
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        state = messages.DISPUTE_STATE_OF.get(request.state, "")
        async with self._database.connection() as connection:
            found = await store.page(connection, institution, state, UUID(keys[0]) if keys else None, limit + 1)
            disputes = [await _message(connection, dispute, institution) for dispute in found[:limit]]
        token = pages.encode([str(found[limit - 1].dispute_id)], request) if len(found) > limit else ""
        return pb.ListDisputesResponse(disputes=disputes, next_page_token=token)

    async def ProposeDisputeResolution(self, request: pb.ProposeDisputeResolutionRequest, context: Context) -> pb.Dispute:
        async def handler(unit: UnitOfWork) -> pb.Dispute:
            dispute, institution = await _decided_by(unit, request.name)
            person = unit.principal.subject
            changed = _ruled(lambda: domain.proposed(dispute, request.accept, request.resolution_code, person))
            await store.update(unit.connection, changed)
            return await _message(unit.connection, changed, institution)

        return await self._commands.run(request, handler)

    async def ResolveDispute(self, request: pb.ResolveDisputeRequest, context: Context) -> pb.Dispute:
        async def handler(unit: UnitOfWork) -> pb.Dispute:
            dispute, institution = await _decided_by(unit, request.name)
            changed = _ruled(lambda: domain.resolved(dispute, request.approve, unit.principal.subject, unit.now))
            await store.update(unit.connection, changed)
            if changed.state is DisputeState.ACCEPTED:
                await _correct(unit, changed)
            return await _message(unit.connection, changed, institution)

        return await self._commands.run(request, handler)

    async def WithdrawDispute(self, request: pb.WithdrawDisputeRequest, context: Context) -> pb.Dispute:
        async def handler(unit: UnitOfWork) -> pb.Dispute:
            dispute, institution = await _require(unit.connection, unit.principal, request.name, lock=True)
            if institution != dispute.opener_institution_id:
                raise _not_yours(f"institutions/{dispute.opener_institution_id}, which opened it, withdraws it")
            changed = _ruled(lambda: domain.withdrawn(dispute, unit.now))
            await store.update(unit.connection, changed)
            return await _message(unit.connection, changed, institution)

        return await self._commands.run(request, handler)


async def _correct(unit: UnitOfWork, dispute: Dispute) -> None:
    """The correcting item; an operation without legs gives it its place in the ledger's order, which decides its batch."""
    item = await items_store.find(unit.connection, dispute.sequence, dispute.position)
    batch = await settlement_store.get(unit.connection, dispute.batch_id)
    assert item is not None
    assert batch is not None
    sequence = await mark(unit, f"dispute/{dispute.dispute_id}", dispute.decider_institution_id)
    await store.correct(unit.connection, dispute, item, batch.currency_code, sequence, unit.now)


async def _require(connection: Connection, principal: Principal, name: str, *, lock: bool = False) -> tuple[Dispute, str | None]:
    """A dispute, and which of its sides asks (None: the operator).

    Raises:
        NotFound: there is none, or the institution is no side of it.
    """
    institution_id, text = resource_segments(name, "institutions", "disputes")
    institution = messages.viewer(principal, institution_id)
    dispute = await store.get(connection, parse_id(text, "name"), lock=lock)
    if dispute is None or institution not in (None, dispute.opener_institution_id, dispute.decider_institution_id):
        raise NotFound("DISPUTE_NOT_FOUND", f"{name} does not exist, or your institution is no side of it")
    return dispute, institution


async def _decided_by(unit: UnitOfWork, name: str) -> tuple[Dispute, str]:
    dispute, institution = await _require(unit.connection, unit.principal, name, lock=True)
    if institution is None or institution != dispute.decider_institution_id:
        raise _not_yours(f"institutions/{dispute.decider_institution_id} decides it, because the other side opened it")
    return dispute, institution


def _not_yours(rule: str) -> FailedPrecondition:
    return FailedPrecondition("DISPUTE_OTHER_SIDE", rule, field_violations=[("name", rule)])


async def _message(connection: Connection, dispute: Dispute, institution: str | None) -> pb.Dispute:
    item = await items_store.find(connection, dispute.sequence, dispute.position)
    assert item is not None
    correcting = await store.correcting_batches(connection, [dispute.dispute_id])
    return messages.to_dispute(dispute, institution, item.operation_id, correcting)


def _ruled(act: Callable[[], Dispute | None]) -> Dispute:
    """What a rule gives, its refusal as an answer."""
    try:
        return act()  # type: ignore[return-value]
    except Refused as refused:
        violations = [("dispute.claimed_points", refused.message)] if refused.reason == "CLAIM_INVALID" else []
        raise FailedPrecondition(refused.reason, refused.message, field_violations=violations) from None
