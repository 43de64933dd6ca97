"""LimitService: limits that two persons decide on."""

import uuid
from zoneinfo import ZoneInfo

import asyncpg
import grpc

from chassis import pages
from chassis.database import Connection, Database
from chassis.errors import FailedPrecondition, NotFound
from chassis.identity import Principal, current_principal
from chassis.ids import new_id, resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import limit_service_pb2 as pb
from concord.loyalty.v1.limit_service_pb2_grpc import LimitServiceServicer
from loyalty.domain import expiry
from loyalty.domain.limits import KINDS, Limit, Scope, Window, violations
from loyalty.rpc.decisions import PAGE_DEFAULT, PAGE_MAX, invalid, require_another, require_draft, require_own_program
from loyalty.rpc.errors import institution_not_found
from loyalty.store import configuration, limits, programs

SCOPES = {scope: pb.LimitScope.Value(f"LIMIT_SCOPE_{scope}") for scope in Scope}
SCOPE_OF = {number: scope for scope, number in SCOPES.items()}
WINDOWS = {window: pb.LimitWindow.Value(f"LIMIT_WINDOW_{window}") for window in Window}
WINDOW_OF = {number: window for window, number in WINDOWS.items()}
OPERATIONS = {kind: pb.LimitedOperation.Value(f"LIMITED_OPERATION_{kind}") for kind in KINDS}
OPERATION_OF = {number: kind for kind, number in OPERATIONS.items()}
STATES = {state: pb.LimitState.Value(f"LIMIT_STATE_{state}") for state in ("DRAFT", "ACTIVE", "ENDING", "ENDED")}
FIRST = uuid.UUID(int=0)
Context = grpc.aio.ServicerContext[object, object]


class LimitServicer(LimitServiceServicer):
    """Drafts, approves and ends limits."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def CreateLimit(self, request: pb.CreateLimitRequest, context: Context) -> pb.Limit:
        limit = _limit(request.limit)
        wrong = violations(limit)
        if wrong:
            raise invalid(wrong, "LIMIT_INVALID", "limit")

        async def handler(unit: UnitOfWork) -> pb.Limit:
            owner = await _owner(unit.connection, unit.principal, limit)
            await limits.insert(unit.connection, limit, owner, unit.principal.subject, unit.now)
            return _message(await _require(unit.connection, unit.principal, limit.limit_id))

        return await self._commands.run(request, handler)

    async def ApproveLimit(self, request: pb.ApproveLimitRequest, context: Context) -> pb.Limit:
        limit_id = resource_id(request.name, "limits")

        async def handler(unit: UnitOfWork) -> pb.Limit:
            await configuration.raise_version(unit.connection)
            row = await _require(unit.connection, unit.principal, limit_id, lock=True)
            require_draft(row, "limit")
            require_another(row["drafted_by"], unit.principal)
            await limits.set_state(unit.connection, limit_id, "ACTIVE", approved_by=unit.principal.subject)
            return _message(await _require(unit.connection, unit.principal, limit_id))

        return await self._commands.run(request, handler)

    async def EndLimit(self, request: pb.EndLimitRequest, context: Context) -> pb.Limit:
        limit_id = resource_id(request.name, "limits")

        async def handler(unit: UnitOfWork) -> pb.Limit:
            await configuration.raise_version(unit.connection)
            row = await _require(unit.connection, unit.principal, limit_id, lock=True)
            if row["state"] == "ENDED":
                raise FailedPrecondition("LIMIT_NOT_ACTIVE", f"{request.name} has ended before")
            if row["state"] == "ACTIVE":
                await limits.set_state(unit.connection, limit_id, "ENDING", ending_by=unit.principal.subject)
            else:
                if row["state"] == "ENDING":
                    require_another(row["ending_by"], unit.principal)
                await limits.set_state(unit.connection, limit_id, "ENDED")
            return _message(await _require(unit.connection, unit.principal, limit_id))

        return await self._commands.run(request, handler)

    async def GetLimit(self, request: pb.GetLimitRequest, context: Context) -> pb.Limit:
        async with self._database.connection() as connection:
            return _message(await _require(connection, current_principal(), resource_id(request.name, "limits")))

    async def ListLimits(self, request: pb.ListLimitsRequest, context: Context) -> pb.ListLimitsResponse:
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        principal = current_principal()
        mine = None if principal.sees_all else principal.institution or ""
        async with self._database.connection() as connection:
            rows = await limits.list_after(connection, mine, uuid.UUID(keys[0]) if keys else FIRST, limit + 1)
        token = pages.encode([str(rows[limit - 1]["limit_id"])], request) if len(rows) > limit else ""
        return pb.ListLimitsResponse(limits=[_message(row) for row in rows[:limit]], next_page_token=token)


async def _owner(connection: Connection, principal: Principal, limit: Limit) -> str:
    """Whose limit it is: the issuer's of the programme, or else the institution's where it holds."""
    if limit.institution_id and not await programs.institution_exists(connection, limit.institution_id):
        raise institution_not_found(limit.institution_id)
    if limit.program_id:
        program = await require_own_program(connection, principal, limit.program_id)
        return str(program["institution_id"])
    if not principal.sees_all and principal.institution != limit.institution_id:
        raise institution_not_found(limit.institution_id)
    return limit.institution_id


async def _require(connection: Connection, principal: Principal, limit_id: uuid.UUID, *, lock: bool = False) -> asyncpg.Record:
    row = await limits.get(connection, limit_id, lock=lock)
    if row is None or not (principal.sees_all or principal.institution == row["owner_institution_id"]):
        raise NotFound("LIMIT_NOT_FOUND", f"limits/{limit_id} does not exist, or is not your institution's")
    return row


def _limit(wanted: pb.Limit) -> Limit:
    zone = wanted.time_zone or "UTC"
    if zone not in expiry.time_zones():
        raise invalid([("time_zone", "must be an IANA time zone such as Asia/Shanghai")], "LIMIT_INVALID", "limit")
    return Limit(
        limit_id=new_id(),
        scope=SCOPE_OF[wanted.scope],
        window=WINDOW_OF[wanted.window],
        zone=ZoneInfo(zone),
        kinds=frozenset(OPERATION_OF[operation] for operation in wanted.operations),
        institution_id=resource_segments(wanted.institution, "institutions", field="limit.institution")[0]
        if wanted.institution
        else "",
        program_id=resource_segments(wanted.program, "programs", field="limit.program")[0] if wanted.program else "",
        count_max=wanted.operations_max if wanted.HasField("operations_max") else None,
        points_max=wanted.points_max if wanted.HasField("points_max") else None,
        first_days=wanted.first_days if wanted.HasField("first_days") else None,
    )


def _message(row: asyncpg.Record) -> pb.Limit:
    message = pb.Limit(
        name=f"limits/{row['limit_id']}",
        scope=SCOPES[Scope(row["scope"])],
        window=WINDOWS[Window(row["window_kind"])],
        time_zone=row["time_zone"],
        program=f"programs/{row['program_id']}" if row["program_id"] else "",
        institution=f"institutions/{row['institution_id']}" if row["institution_id"] else "",
        operations=[OPERATIONS[kind] for kind in row["kinds"]],
        operations_max=row["count_max"],
        points_max=row["points_max"],
        first_days=row["first_days"],
        state=STATES[row["state"]],
        drafted_by=row["drafted_by"],
        approved_by=row["approved_by"] or "",
    )
    message.create_time.FromDatetime(row["create_time"])
    return message
