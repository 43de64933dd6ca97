"""PermissionService: what customers said about being contacted."""

import uuid
from collections.abc import Iterator
from typing import Any

from chassis import customer_states, record_links
from chassis.database import Database
from chassis.identity import current_principal, require_institution
from chassis.ids import new_id
from chassis.unit_of_work import Commands, UnitOfWork
from concord.common.v1.channel_pb2 import Channel
from concord.contact.v1 import permission_service_pb2 as pb
from concord.contact.v1.contact_service_pb2 import ContactPurpose
from concord.contact.v1.permission_service_pb2_grpc import PermissionServiceServicer
from contact.domain.kinds import Permission
from contact.domain.permissions import Key, Statement, decide
from contact.published import permission_changed
from contact.rpc.translate import id_in, institution_seen_by, next_page_token, page_keys, page_size, past_instant
from contact.store import permissions, subjects


class PermissionServicer(PermissionServiceServicer):
    """Serves permissions."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def BatchSetPermissions(self, request: pb.BatchSetPermissionsRequest, context: Any) -> pb.BatchSetPermissionsResponse:
        async def handler(unit: UnitOfWork) -> pb.BatchSetPermissionsResponse:
            institution_id = request.parent.split("/")[1]
            require_institution(unit.principal, institution_id)
            asked = _Asked(unit, institution_id)
            await asked.look_up({id_in(permission.customer, 1) for permission in request.permissions})
            statements = [asked.statement(index, permission) for index, permission in enumerate(request.permissions)]
            held = await _keep(unit, asked.records, [statement for statement in statements if statement is not None])
            response = pb.BatchSetPermissionsResponse()
            for permission, statement in zip(request.permissions, statements, strict=True):
                winner = asked.merged.get(id_in(permission.customer, 1))
                result = response.results.add(customer=permission.customer)
                if statement is not None:
                    result.outcome = pb.SET_PERMISSION_OUTCOME_SET if next(held) else pb.SET_PERMISSION_OUTCOME_STALE
                elif winner is not None:
                    result.outcome, result.winner = pb.SET_PERMISSION_OUTCOME_CUSTOMER_MERGED, f"customers/{winner}"
                else:
                    result.outcome = pb.SET_PERMISSION_OUTCOME_CUSTOMER_UNKNOWN
            return response

        return await self._commands.run(request, handler)

    async def ListPermissions(self, request: pb.ListPermissionsRequest, context: Any) -> pb.ListPermissionsResponse:
        principal, customer_id, limit = current_principal(), id_in(request.parent, 1), page_size(request)
        after = page_keys(request, str, int, int)
        async with self._database.connection() as connection:
            customer_id = await customer_states.readable(connection, principal, customer_id)
            bound = await permissions.binding_of(connection, [customer_id], institution_seen_by(principal))
        scopes = bound.get(customer_id, {})
        page = [scope for scope in scopes if after is None or scope > after]
        rows = [dict(zip(("institution_id", "purpose", "channel"), scope, strict=True)) for scope in page]
        return pb.ListPermissionsResponse(
            permissions=[_permission(customer_id, scopes[scope]) for scope in page[:limit]],
            next_page_token=next_page_token(request, rows, limit, "institution_id", "purpose", "channel"),
        )


class _Asked:
    """Whom the statements of a request are about.

    After `look_up`: `records` are those that the institution has of each customer, `merged` who took over those that are gone.
    """

    def __init__(self, unit: UnitOfWork, institution_id: str) -> None:
        self._unit = unit
        self._institution_id = institution_id
        self.records: dict[uuid.UUID, list[uuid.UUID]] = {}
        self.merged: dict[uuid.UUID, uuid.UUID] = {}

    async def look_up(self, customer_ids: set[uuid.UUID]) -> None:
        connection, principal = self._unit.connection, self._unit.principal
        bound = {uuid.UUID(principal.customer)} if principal.customer is not None else set[uuid.UUID]()
        survivors = await customer_states.survivors(connection, customer_ids | bound)
        reachable = {survivors[customer_id] for customer_id in bound or customer_ids}
        self.records = await record_links.anchors(connection, self._institution_id, reachable)
        self.merged = {
            customer_id: survivors[customer_id]
            for customer_id in customer_ids
            if survivors[customer_id] != customer_id and survivors[customer_id] in self.records
        }

    def statement(self, index: int, permission: pb.Permission) -> Statement | None:
        customer_id = id_in(permission.customer, 1)
        state_time = past_instant(permission.state_time, f"permissions[{index}].state_time", self._unit.now)
        records = self.records.get(customer_id)
        if records is None or customer_id in self.merged:
            return None
        return Statement(
            statement_id=new_id(),
            key=Key(records[0], permission.purpose, permission.channel),
            institution_id=self._institution_id,
            state=Permission(permission.state),
            state_time=state_time,
            evidence_reference=permission.evidence_reference,
            covered=frozenset(records),
        )


async def _keep(unit: UnitOfWork, records: dict[uuid.UUID, list[uuid.UUID]], statements: list[Statement]) -> Iterator[bool]:
    # Whoever reserves or sends locks the same customers, so that a refusal binds from its commit on.
    stated = {statement.key.record_id for statement in statements}
    await subjects.lock(unit.connection, [customer_id for customer_id, ids in records.items() if ids[0] in stated])
    current = await permissions.current(unit.connection, {statement.key for statement in statements})
    decision = decide(current, statements)
    await permissions.add_statements(unit.connection, decision.kept, unit.now, unit.principal.caller)
    for row in await permissions.let_hold(unit.connection, decision.current):
        unit.publish(permission_changed(row, unit.epoch))
    return iter(decision.held)


def _permission(customer_id: uuid.UUID, statement: Statement) -> pb.Permission:
    message = pb.Permission(
        customer=f"customers/{customer_id}",
        institution=f"institutions/{statement.institution_id}",
        channel=Channel.ValueType(statement.key.channel),
        purpose=ContactPurpose.ValueType(statement.key.purpose),
        state=pb.PermissionState.ValueType(statement.state),
        evidence_reference=statement.evidence_reference,
    )
    message.state_time.FromDatetime(statement.state_time)
    return message
