"""RelationshipService: how parties are related."""

from typing import Any, cast
from uuid import UUID

from chassis import etags, pages
from chassis.errors import FailedPrecondition, NotFound
from chassis.identity import Principal, current_principal
from chassis.ids import parse_id, resource_id
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1 import relationship_service_pb2 as pb
from concord.customer.v1.relationship_service_pb2_grpc import RelationshipServiceServicer
from customer.core import Core
from customer.domain.relationships import Status
from customer.households import propose
from customer.merging import shown_steward, steward
from customer.messages import timestamp
from customer.rpc.callers import (
    customer_not_found,
    require_own,
    require_source_systems,
    require_unbound,
    viewing_institution,
)
from customer.rpc.upsert_relationships import upsert
from customer.store import customers as customer_store
from customer.store import relationships as relationship_store
from customer.store import search
from customer.store.relationships import Seen
from customer.store.search import Viewer


class RelationshipServicer(RelationshipServiceServicer):
    """Translates; the work is in `upsert_relationships` and `households`."""

    def __init__(self, core: Core, commands: Commands) -> None:
        self._core = core
        self._commands = commands

    async def BatchUpsertRelationships(
        self, request: pb.BatchUpsertRelationshipsRequest, context: Any
    ) -> pb.BatchUpsertRelationshipsResponse:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.BatchUpsertRelationshipsResponse:
            sources = await require_source_systems(unit.connection, unit.principal, [request.parent])
            results = await upsert(unit, self._core.index, sources[request.parent], request.source_relationships)
            return pb.BatchUpsertRelationshipsResponse(results=results)

        return await self._commands.run(request, handler)

    async def ListRelationships(self, request: pb.ListRelationshipsRequest, context: Any) -> pb.ListRelationshipsResponse:
        principal = current_principal()
        customer_id = resource_id(request.parent, "customers", "parent")
        await require_own(self._core.database, principal, customer_id)
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        token = pages.decode(request.page_token, request)
        after = parse_id(token[0], "page_token") if token else None
        async with self._core.database.connection() as connection:
            live_id = await customer_store.winner(connection, customer_id)
            if not await search.is_linked(connection, Viewer(viewing_institution(principal)), live_id):
                raise customer_not_found(customer_id)
            found = await relationship_store.of_customer(
                connection, live_id, viewing_institution(principal), request.kind, request.with_rejected, after, limit + 1
            )
        next_token = pages.encode([str(found[limit - 1].row.relationship_id)], request) if len(found) > limit else ""
        return pb.ListRelationshipsResponse(
            relationships=[_message(principal, seen) for seen in found[:limit]], next_page_token=next_token
        )

    async def ConfirmRelationship(self, request: pb.ConfirmRelationshipRequest, context: Any) -> pb.Relationship:
        return await self._decide(request, Status.CONFIRMED)

    async def RejectRelationship(self, request: pb.RejectRelationshipRequest, context: Any) -> pb.Relationship:
        return await self._decide(request, Status.REJECTED)

    async def _decide(
        self, request: pb.ConfirmRelationshipRequest | pb.RejectRelationshipRequest, status: Status
    ) -> pb.Relationship:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.Relationship:
            relationship_id = resource_id(request.name, "relationships")
            row = await relationship_store.lock(unit.connection, relationship_id)
            if row is None or viewing_institution(unit.principal) not in (None, row.institution_id):
                raise _not_found(relationship_id)
            etags.require(request.etag, etags.etag(row.version))
            row.status, row.version, row.update_time = status, row.version + 1, unit.now
            row.decided_by, row.decide_time = steward(unit.principal), unit.now
            await relationship_store.write(unit.connection, [row])
            [seen] = await relationship_store.by_ids(unit.connection, [relationship_id])
            return _message(unit.principal, seen)

        return await self._commands.run(request, handler)

    async def InferHousehold(self, request: pb.InferHouseholdRequest, context: Any) -> pb.InferHouseholdResponse:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.InferHouseholdResponse:
            customer_id = resource_id(request.customer, "customers", "customer")
            institution_id = request.institution.removeprefix("institutions/")
            if viewing_institution(unit.principal) not in (None, institution_id):
                raise NotFound("INSTITUTION_NOT_FOUND", f"{request.institution} does not exist")
            row = await customer_store.get(unit.connection, await customer_store.winner(unit.connection, customer_id))
            if row is None:
                raise customer_not_found(customer_id)
            if row.restricted:
                raise FailedPrecondition(
                    "CUSTOMER_RESTRICTED", f"customers/{customer_id} is restricted; nothing new may be concluded"
                )
            ids = await propose(unit, self._core, row.customer_id, institution_id)
            if ids is None:
                raise customer_not_found(customer_id)
            found = await relationship_store.by_ids(unit.connection, ids)
            return pb.InferHouseholdResponse(relationships=[_message(unit.principal, seen) for seen in found])

        return await self._commands.run(request, handler)


def _not_found(relationship_id: UUID) -> NotFound:
    return NotFound("RELATIONSHIP_NOT_FOUND", f"relationships/{relationship_id} does not exist")


def _message(principal: Principal, seen: Seen) -> pb.Relationship:
    row = seen.row
    institution = f"institutions/{row.institution_id}"
    return pb.Relationship(
        name=f"relationships/{row.relationship_id}",
        kind=cast(Any, row.kind),
        from_customer=f"customers/{seen.from_customer_id}",
        to_customer=f"customers/{seen.to_customer_id}",
        status=cast(Any, row.status),
        legal_basis_code=row.legal_basis_code,
        share_basis_points=row.share_basis_points,
        begin_date=row.begin_date.isoformat() if row.begin_date else "",
        end_date=row.end_date.isoformat() if row.end_date else "",
        position_code=row.position_code,
        source_system=f"{institution}/sourceSystems/{seen.source_system_id}" if seen.source_system_id else "",
        institution=institution,
        observe_time=timestamp(row.observe_time),
        decided_by=shown_steward(principal, row.decided_by),
        decide_time=timestamp(row.decide_time) if row.decide_time else None,
        etag=etags.etag(row.version),
    )
