"""AdjustmentService: one person drafts, another approves, and the ledger posts."""

import uuid
from datetime import UTC

import asyncpg
import grpc

from chassis import pages
from chassis.database import Connection, Database
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from chassis.identity import Principal, current_principal, require_institution
from chassis.ids import new_id, resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import adjustment_service_pb2 as pb
from concord.loyalty.v1.adjustment_service_pb2_grpc import AdjustmentServiceServicer
from loyalty.domain.four_eyes import Person
from loyalty.domain.ledger.commands import Adjust
from loyalty.domain.ledger.types import Operation, Outcome, SystemKey
from loyalty.rpc.account_access import require_account
from loyalty.rpc.errors import account_merged, account_not_found, program_not_found
from loyalty.rpc.exchange_messages import person_of
from loyalty.rpc.ledger_messages import OUTCOMES
from loyalty.store import accounts, adjustments, programs
from loyalty.store import ledger as ledger_store
from loyalty.store.posting import post

PAGE_DEFAULT, PAGE_MAX = 50, 200
STATE_OF = {pb.ADJUSTMENT_STATE_UNSPECIFIED: ""} | {
    pb.AdjustmentState.Value(f"ADJUSTMENT_STATE_{state}"): state for state in ("DRAFT", "POSTED", "REFUSED", "REJECTED")
}
Context = grpc.aio.ServicerContext[object, object]


class AdjustmentServicer(AdjustmentServiceServicer):
    """Translates, and sees to it that two persons of the issuer, or of the operator, decide."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands

    async def CreateAdjustment(self, request: pb.CreateAdjustmentRequest, context: Context) -> pb.Adjustment:
        account_id, wanted = resource_id(request.parent, "accounts", field="parent"), request.adjustment
        (program_id,) = resource_segments(wanted.program, "programs", field="adjustment.program")
        expire_time = wanted.expire_time.ToDatetime(UTC) if wanted.HasField("expire_time") else None

        async def handler(unit: UnitOfWork) -> pb.Adjustment:
            account = await require_account(unit.connection, unit.principal, account_id)
            if account["parent_account_id"] is not None:
                raise account_merged(account_id, account)
            program = await programs.get(unit.connection, program_id)
            if program is None or not _decides(unit.principal, program["institution_id"]):
                raise program_not_found(program_id)
            if expire_time is not None and (wanted.change_points < 0 or expire_time <= unit.now):
                rule = "must be in the future, and is for points that are given"
                field = "adjustment.expire_time"
                raise InvalidArgument("FIELD_INVALID", f"{field} {rule}", field_violations=[(field, rule)])
            row = await adjustments.insert(
                unit.connection, new_id(), account_id, program, wanted.change_points, expire_time, wanted.reason_code,
                person_of(unit.principal), unit.now,
            )  # fmt: skip
            return _to_message(row)

        return await self._commands.run(request, handler)

    async def GetAdjustment(self, request: pb.GetAdjustmentRequest, context: Context) -> pb.Adjustment:
        async with self._database.connection() as connection:
            return _to_message(await _require(connection, current_principal(), request.name))

    async def ListAdjustments(self, request: pb.ListAdjustmentsRequest, context: Context) -> pb.ListAdjustmentsResponse:
        (asked,) = resource_segments(request.parent, "institutions", field="parent")
        require_institution(current_principal(), asked)
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        before = uuid.UUID(keys[0]) if keys else None
        async with self._database.connection() as connection:
            institution_id = None if asked == "-" else asked
            rows = await adjustments.list_before(connection, institution_id, STATE_OF[request.state], before, limit + 1)
        token = pages.encode([str(rows[limit - 1]["adjustment_id"])], request) if len(rows) > limit else ""
        return pb.ListAdjustmentsResponse(adjustments=map(_to_message, rows[:limit]), next_page_token=token)

    async def ApproveAdjustment(self, request: pb.ApproveAdjustmentRequest, context: Context) -> pb.Adjustment:
        async def handler(unit: UnitOfWork) -> pb.Adjustment:
            head = await ledger_store.lock_head(unit.connection)
            row, person = await _require_draft(unit, request.name), person_of(unit.principal)
            if person == Person(row["drafted_by"], row["draft_side"]):
                raise FailedPrecondition(
                    "APPROVAL_BY_SAME_PERSON", "who drafted an adjustment does not approve it; ask another person"
                )
            account = await accounts.get(unit.connection, row["account_id"])
            if account is None or account["holder_customer_id"] is None:
                raise account_not_found(row["account_id"])  # its owner was erased meanwhile
            (result,) = await post(unit, [_command(unit, row)], head)
            assert isinstance(result, Operation)
            state = "POSTED" if result.outcome is Outcome.POSTED else "REFUSED"
            decided = row["adjustment_id"], state, person, unit.now, result.operation_id, result.outcome
            return _to_message(await adjustments.decide(unit.connection, *decided))

        return await self._commands.run(request, handler)

    async def RejectAdjustment(self, request: pb.RejectAdjustmentRequest, context: Context) -> pb.Adjustment:
        async def handler(unit: UnitOfWork) -> pb.Adjustment:
            row = await _require_draft(unit, request.name)
            decided = row["adjustment_id"], "REJECTED", person_of(unit.principal), unit.now
            return _to_message(await adjustments.decide(unit.connection, *decided))

        return await self._commands.run(request, handler)


def _decides(principal: Principal, issuer: str) -> bool:
    return principal.sees_all or principal.institution == issuer


async def _require(connection: Connection, principal: Principal, name: str, *, lock: bool = False) -> asyncpg.Record:
    row = await adjustments.get(connection, resource_id(name, "adjustments"), lock=lock)
    if row is None or not _decides(principal, row["institution_id"]):
        raise NotFound("ADJUSTMENT_NOT_FOUND", f"{name} does not exist, or is another issuer's")
    return row


async def _require_draft(unit: UnitOfWork, name: str) -> asyncpg.Record:
    row = await _require(unit.connection, unit.principal, name, lock=True)
    if row["state"] != "DRAFT":
        raise FailedPrecondition("ADJUSTMENT_DECIDED", f"{name} was decided before: it is {row['state']}; draft a new one")
    return row


def _command(unit: UnitOfWork, row: asyncpg.Record) -> Adjust:
    return Adjust(
        operation_id=new_id(),
        key=SystemKey(f"adjust/{row['adjustment_id']}"),
        account_id=row["account_id"],
        institution_id=row["institution_id"],
        effective_time=unit.now,
        program_id=row["program_id"],
        change_points=row["change_points"],
        expire_time=row["expire_time"],
    )


def _to_message(row: asyncpg.Record) -> pb.Adjustment:
    message = pb.Adjustment(
        name=f"adjustments/{row['adjustment_id']}",
        account=f"accounts/{row['account_id']}",
        program=f"programs/{row['program_id']}",
        change_points=row["change_points"],
        reason_code=row["reason_code"],
        state=pb.AdjustmentState.Value(f"ADJUSTMENT_STATE_{row['state']}"),
        drafted_by=row["drafted_by"],
        decided_by=row["decided_by"] or "",
    )
    message.create_time.FromDatetime(row["create_time"])
    for field in ("expire_time", "decide_time"):
        if row[field] is not None:
            getattr(message, field).FromDatetime(row[field])
    if row["operation_id"] is not None:
        message.operation = f"operations/{row['operation_id']}"
        message.outcome = OUTCOMES[Outcome(row["outcome"])]
    return message
