"""LedgerService and its hot path: what callers ask one by one is gathered into batches, each one transaction."""

import uuid
from typing import Any, NamedTuple

import asyncpg
import grpc

from chassis import customer_states, pages
from chassis.database import RETRYABLE_ERRORS, Connection, Database, is_unavailable
from chassis.errors import DomainError, NotFound, PermissionDenied
from chassis.gatherer import Gatherer
from chassis.identity import Principal, PrincipalKind, current_principal
from chassis.ids import resource_id
from chassis.unit_of_work import Commands, UnitOfWork
from concord.loyalty.v1 import account_service_pb2 as accounts_pb
from concord.loyalty.v1 import ledger_service_pb2 as pb
from concord.loyalty.v1.ledger_service_pb2_grpc import LedgerServiceServicer
from loyalty.domain.ledger.books import Books
from loyalty.domain.ledger.commands import AnyCommand
from loyalty.domain.ledger.types import KeyReused, Operation, Outcome, Unknown
from loyalty.rpc.errors import account_not_found, hold_not_found, operation_not_found
from loyalty.rpc.ledger_access import objections, reused
from loyalty.rpc.ledger_commands import command_of, item_of
from loyalty.rpc.ledger_messages import refusal, to_error, to_hold, to_message, unknown
from loyalty.store import accounts
from loyalty.store import ledger as ledger_store
from loyalty.store.ledger_rows import to_operation
from loyalty.store.posting import post

ATTEMPTS_MAX = 3
BATCH_MAX = 500
BATCHES_IN_FLIGHT_MAX = 1  # a second one would only wait for the head of the chain
PAGE_DEFAULT = 50
PAGE_MAX = 200
ISSUING = {
    accounts_pb.OPERATION_KIND_EARN,
    accounts_pb.OPERATION_KIND_CONFIRM,
    accounts_pb.OPERATION_KIND_CANCEL,
    accounts_pb.OPERATION_KIND_CLAWBACK,
}
"""What a batch does of these needs the scope that their RPCs need; of the others the batch's own."""
ISSUE_SCOPE = "points.issue"
Context = grpc.aio.ServicerContext[object, object]


class Asked(NamedTuple):
    """What somebody asks for."""

    item: pb.OperationItem
    principal: Principal
    former_hash: bytes = b""


class LedgerServicer(LedgerServiceServicer):
    """Moves points, and reads what moved."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands
        self._gatherer: Gatherer[Asked, Operation | Unknown | KeyReused] = Gatherer(
            self._post_many, items_max=BATCH_MAX, batches_in_flight_max=BATCHES_IN_FLIGHT_MAX
        )

    # ---- one by one

    async def EarnPoints(self, request: pb.EarnPointsRequest, context: Context) -> pb.Operation:
        return await self._do(request)

    async def ConfirmEarning(self, request: pb.ConfirmEarningRequest, context: Context) -> pb.Operation:
        return await self._do(request)

    async def CancelEarning(self, request: pb.CancelEarningRequest, context: Context) -> pb.Operation:
        return await self._do(request)

    async def ClawBackEarning(self, request: pb.ClawBackEarningRequest, context: Context) -> pb.Operation:
        return await self._do(request)

    async def RedeemPoints(self, request: pb.RedeemPointsRequest, context: Context) -> pb.Operation:
        return await self._do(request, self._commands.call(request).input_hash)

    async def CaptureHold(self, request: pb.CaptureHoldRequest, context: Context) -> pb.Operation:
        return await self._do(request)

    async def VoidHold(self, request: pb.VoidHoldRequest, context: Context) -> pb.Operation:
        return await self._do(request)

    async def RefundOperation(self, request: pb.RefundOperationRequest, context: Context) -> pb.Operation:
        return await self._do(request)

    async def TransferPoints(self, request: pb.TransferPointsRequest, context: Context) -> pb.Operation:
        return await self._do(request)

    async def ExchangePoints(self, request: pb.ExchangePointsRequest, context: Context) -> pb.Operation:
        return await self._do(request)

    async def ReverseOperation(self, request: pb.ReverseOperationRequest, context: Context) -> pb.Operation:
        return await self._do(request)

    async def HoldPoints(self, request: pb.HoldPointsRequest, context: Context) -> pb.Hold:
        operation = await self._do(request)
        async with self._database.connection() as connection:
            row = await ledger_store.get_hold(connection, resource_id(operation.hold, "holds"))
        assert row is not None
        return to_hold(row)

    async def _do(self, request: Any, former_hash: bytes = b"") -> pb.Operation:
        result = await self._gatherer.submit(Asked(item_of(request), current_principal(), former_hash))
        if isinstance(result, Unknown):
            raise unknown(result.reason)
        if isinstance(result, KeyReused):
            raise reused()
        if result.outcome is not Outcome.POSTED:
            raise refusal(result)
        return to_message(result)

    # ---- many at once

    async def BatchSubmitOperations(
        self, request: pb.BatchSubmitOperationsRequest, context: Context
    ) -> pb.BatchSubmitOperationsResponse:
        principal = current_principal()
        asked = []
        issuing = any(item.kind in ISSUING for item in request.items)
        if issuing and ISSUE_SCOPE not in principal.scopes and principal.kind is not PrincipalKind.SERVICE:
            raise PermissionDenied("SCOPE_MISSING", f"scope {ISSUE_SCOPE} is needed", metadata={"scope": ISSUE_SCOPE})
        for position, item in enumerate(request.items):
            if not item.request_id:
                item.request_id = f"{request.request_id}/{position}"
            asked.append(Asked(item, principal))
        results = await self._post_many(asked)
        return pb.BatchSubmitOperationsResponse(results=map(_to_result, results))

    async def _post_many(self, asked: list[Asked]) -> list[Operation | Unknown | KeyReused | Exception]:
        """Answers a batch. After an unknown failure each is run alone, so that a bad one cannot take the others down."""
        failure: Exception = AssertionError("unreachable")
        for _ in range(ATTEMPTS_MAX):
            try:
                async with self._commands.unit() as unit:
                    return await _post_batch(unit, asked)
            except RETRYABLE_ERRORS as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                failure = error
                break
        if len(asked) == 1 or is_unavailable(failure) or isinstance(failure, asyncpg.QueryCanceledError):
            return [failure] * len(asked)
        return [answer for each in asked for answer in await self._post_many([each])]

    # ---- reading

    async def GetOperation(self, request: pb.GetOperationRequest, context: Context) -> pb.Operation:
        operation_id = resource_id(request.name, "operations")
        async with self._database.connection() as connection:
            row = await ledger_store.get_operation(connection, operation_id)
            if row is None or not await _may_see(connection, row["holder_customer_id"]):
                raise operation_not_found(operation_id)
        return to_message(to_operation(row))

    async def GetHold(self, request: pb.GetHoldRequest, context: Context) -> pb.Hold:
        hold_id = resource_id(request.name, "holds")
        async with self._database.connection() as connection:
            row = await ledger_store.get_hold(connection, hold_id)
            own = row is not None and row["institution_id"] == current_principal().institution
            if row is None or not (own or await _may_see(connection, row["holder_customer_id"])):
                raise hold_not_found(hold_id)
        return to_hold(row)

    async def ListOperations(self, request: pb.ListOperationsRequest, context: Context) -> pb.ListOperationsResponse:
        account_id = resource_id(request.parent, "accounts", field="parent")
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        async with self._database.connection() as connection:
            account = await accounts.get(connection, account_id)
            if account is None or not await _may_see(connection, account["holder_customer_id"]):
                raise account_not_found(account_id)
            family = [account_id, *await accounts.children(connection, account_id)]
            rows = await ledger_store.operations_before(connection, family, int(keys[0]) if keys else None, limit + 1)
        more = len(rows) > limit
        return pb.ListOperationsResponse(
            operations=[to_message(to_operation(row)) for row in rows[:limit]],
            next_page_token=pages.encode([str(rows[limit - 1]["sequence"])], request) if more else "",
        )


async def _may_see(connection: Connection, holder_customer_id: uuid.UUID | None) -> bool:
    """Whether the caller may know of what is this customer's; of nobody's only who may see everything."""
    if holder_customer_id is None:
        return current_principal().sees_all
    try:
        await customer_states.readable(connection, current_principal(), holder_customer_id)
    except NotFound:
        return False
    return True


async def _post_batch(unit: UnitOfWork, asked: list[Asked]) -> list[Operation | Unknown | KeyReused | Exception]:
    """Does what is asked in order, each by itself. The operations are the idempotency record: refusals are stored as well."""
    answers: list[Operation | Unknown | KeyReused | Exception | None] = [None] * len(asked)
    commands: list[AnyCommand] = []
    principals, places = [], []
    for place, (item, principal, former_hash) in enumerate(asked):
        try:
            command = command_of(item, principal.caller, unit.now)
        except DomainError as error:
            answers[place] = error
            continue
        command.former_hash = former_hash
        commands.append(command)
        principals.append(principal)
        places.append(place)

    async def objected(books: Books) -> list[DomainError | None]:
        return await objections(unit.connection, books, commands, principals)

    for place, result in zip(places, await post(unit, commands, objections=objected), strict=True):
        answers[place] = result
    return [answer for answer in answers if answer is not None]


def _to_result(result: Operation | Unknown | KeyReused | Exception) -> pb.OperationResult:
    if isinstance(result, Operation):
        return pb.OperationResult(operation=to_message(result))
    if isinstance(result, KeyReused):
        result = reused()
    elif isinstance(result, Unknown):
        result = unknown(result.reason)
    if isinstance(result, DomainError):
        return pb.OperationResult(error=to_error(result))
    raise result
