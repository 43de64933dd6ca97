"""PermissionService: what customers said about being contacted."""

from typing import Any

import asyncpg

from chassis.database import Database
from chassis.identity import current_principal, require_institution
from chassis.ids import new_id
from chassis.record_links import require_link
from chassis.unit_of_work import Commands, UnitOfWork
from concord.contact.v1 import permission_service_pb2 as pb
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
            statements = _statements(request, institution_id, unit)
            customer_ids = {statement.key.customer_id for statement in statements}
            linked = await subjects.linked(unit.connection, institution_id, customer_ids)
            if unit.principal.customer is not None:
                linked = frozenset(customer_id for customer_id in linked if str(customer_id) == unit.principal.customer)
            held = await _keep(unit, [statement for statement in statements if statement.key.customer_id in linked])
            response = pb.BatchSetPermissionsResponse()
            for permission, statement in zip(request.permissions, statements, strict=True):
                outcome = pb.SET_PERMISSION_OUTCOME_CUSTOMER_UNKNOWN
                if statement.key.customer_id in linked:
                    outcome = pb.SET_PERMISSION_OUTCOME_SET if next(held) else pb.SET_PERMISSION_OUTCOME_STALE
                response.results.add(customer=permission.customer, outcome=outcome)
            return response

        return await self._commands.run(request, handler)

    async def ListPermissions(self, request: pb.ListPermissionsRequest, context: Any) -> pb.ListPermissionsResponse:
        principal, customer_id, limit = current_principal(), id_in(request.parent, 1), page_size(request)
        after = page_keys(request, str, int, int)
        async with self._database.connection() as connection:
            await require_link(connection, principal, customer_id)
            rows = await permissions.page(connection, customer_id, institution_seen_by(principal), after, limit + 1)
        return pb.ListPermissionsResponse(
            permissions=[_permission(row) for row in rows[:limit]],
            next_page_token=next_page_token(request, rows, limit, "institution_id", "purpose", "channel"),
        )


def _statements(request: pb.BatchSetPermissionsRequest, institution_id: str, unit: UnitOfWork) -> list[Statement]:
    return [
        Statement(
            statement_id=new_id(),
            key=Key(id_in(permission.customer, 1), institution_id, permission.purpose, permission.channel),
            state=Permission(permission.state),
            state_time=past_instant(permission.state_time, f"permissions[{index}].state_time", unit.now),
            evidence_reference=permission.evidence_reference,
        )
        for index, permission in enumerate(request.permissions)
    ]


async def _keep(unit: UnitOfWork, statements: list[Statement]) -> Any:
    # Whoever reserves or sends locks the same customers, so that a refusal binds from its commit on.
    await subjects.lock(unit.connection, {statement.key.customer_id for statement in statements})
    current = await permissions.current(unit.connection, {statement.key for statement in statements})
    decision = decide(current, statements)
    await permissions.add_statements(unit.connection, decision.kept, unit.now, unit.principal.caller)
    for row in await permissions.let_hold(unit.connection, decision.current):
        unit.publish(permission_changed(row, unit.epoch))
    return iter(decision.held)


def _permission(row: asyncpg.Record) -> pb.Permission:
    return pb.Permission(
        customer=f"customers/{row['customer_id']}",
        institution=f"institutions/{row['institution_id']}",
        channel=row["channel"],
        purpose=row["purpose"],
        state=row["state"],
        state_time=row["state_time"],
        evidence_reference=row["evidence_reference"],
    )
