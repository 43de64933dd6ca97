"""LedgerService and its hot path: redemptions are gathered into batches, each one transaction."""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import asyncpg
import grpc

from chassis import customer_states
from chassis.database import RETRYABLE_ERRORS, Database, is_unavailable
from chassis.errors import DomainError, FailedPrecondition, InvalidArgument, NotFound
from chassis.gatherer import Gatherer
from chassis.identity import current_principal
from chassis.ids import new_id, resource_id, resource_segments
from chassis.unit_of_work import Call, Commands, UnitOfWork
from concord.loyalty.v1 import ledger_service_pb2 as pb
from concord.loyalty.v1.ledger_service_pb2_grpc import LedgerServiceServicer
from loyalty.domain.ledger import AccountKey, AccountKind, KeyReused, Operation, OperationKind, Order, Outcome, RequestKey, Result
from loyalty.rpc.errors import (
    account_merged,
    account_not_found,
    institution_not_found,
    insufficient_points,
    operation_not_found,
    program_not_found,
)
from loyalty.store import accounts
from loyalty.store import ledger as ledger_store
from loyalty.store.messages import KINDS
from loyalty.store.posting import post

ATTEMPTS_MAX = 3
BATCH_MAX = 500
BATCHES_IN_FLIGHT_MAX = 1  # a second one would only wait for the head of the chain
OUTCOMES = {outcome: pb.OperationOutcome.Value(f"OPERATION_OUTCOME_{outcome}") for outcome in Outcome}
Context = grpc.aio.ServicerContext[object, object]


class LedgerServicer(LedgerServiceServicer):
    """Moves points, and reads what moved."""

    def __init__(self, database: Database, commands: Commands) -> None:
        self._database = database
        self._commands = commands
        self._gatherer: Gatherer[Call, pb.Operation] = Gatherer(
            self._redeem_many, items_max=BATCH_MAX, batches_in_flight_max=BATCHES_IN_FLIGHT_MAX
        )

    async def RedeemPoints(self, request: pb.RedeemPointsRequest, context: Context) -> pb.Operation:
        for field in ("reference", "request_id"):
            if "\0" in getattr(request, field):  # PostgreSQL's text cannot hold it
                rule = "must not contain the character U+0000"
                raise InvalidArgument("TEXT_INVALID", f"{field} {rule}", field_violations=[(field, rule)])
        return await self._gatherer.submit(self._commands.call(request))

    async def GetOperation(self, request: pb.GetOperationRequest, context: Context) -> pb.Operation:
        operation_id = resource_id(request.name, "operations")
        async with self._database.connection() as connection:
            row = await ledger_store.get_operation(connection, operation_id)
            if row is None:
                raise operation_not_found(operation_id)
            try:
                if row["holder_customer_id"] is not None:
                    await customer_states.readable(connection, current_principal(), row["holder_customer_id"])
                elif not current_principal().sees_all:
                    raise operation_not_found(operation_id)
            except NotFound:
                raise operation_not_found(operation_id) from None
        return to_message(ledger_store.to_operation(row))

    async def _redeem_many(self, calls: list[Call]) -> list[pb.Operation | Exception]:
        """Answers a batch. After an unknown failure each call is run alone, so that a bad one cannot take the others down."""
        failure: Exception = AssertionError("unreachable")
        for _ in range(ATTEMPTS_MAX):
            try:
                async with self._commands.unit() as unit:
                    return await _redeem_batch(unit, calls)
            except RETRYABLE_ERRORS as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                failure = error
                break
        if len(calls) == 1 or is_unavailable(failure) or isinstance(failure, asyncpg.QueryCanceledError):
            return [failure] * len(calls)
        return [answer for call in calls for answer in await self._redeem_many([call])]


async def _redeem_batch(unit: UnitOfWork, calls: list[Call]) -> list[pb.Operation | Exception]:
    """Redeems in the order of the calls. The operations are the idempotency record: refusals are stored as well.

    The head is locked before anything is read, so that nobody's accounts are put together or taken apart meanwhile.
    """
    connection = unit.connection
    orders = [_order(call, unit.now) for call in calls]
    head = await ledger_store.lock_head(connection)
    known = await ledger_store.known_requests(connection, [order.key for order in orders if isinstance(order.key, RequestKey)])
    context = await accounts.redeem_context(
        connection,
        [order.account_id for order in orders],
        [order.program_id for order in orders],
        [order.institution_id for order in orders],
        [call.principal.institution for call in calls],
    )
    bound = await customer_states.survivors(
        connection, {uuid.UUID(call.principal.customer) for call in calls if call.principal.customer is not None}
    )
    # What was answered once is answered again, even when the caller has lost its link since.
    objections = [
        None if order.key in known else _objection(call, order, row, bound)
        for call, order, row in zip(calls, orders, context, strict=True)
    ]
    admitted, customers = [], dict[uuid.UUID, uuid.UUID | None]()
    for order, row, objection in zip(orders, context, objections, strict=True):
        if objection is None:
            family = tuple(row["child_account_ids"] or ())
            admitted.append(replace(order, family=family) if family else order)
            customers |= dict.fromkeys((order.account_id, *family), row["holder_customer_id"])
    results = iter(await post(unit, admitted, customers, head, known))
    return [objection or _answer(next(results)) for objection in objections]


def _order(call: Call, now: datetime) -> Order:
    request = call.request
    (program_id,) = resource_segments(request.program, "programs", field="program")
    (institution_id,) = resource_segments(request.institution, "institutions", field="institution")
    return Order(
        operation_id=new_id(),
        key=RequestKey(call.principal.caller, request.request_id),
        kind=OperationKind.REDEEM,
        account_id=resource_id(request.name, "accounts"),
        program_id=program_id,
        institution_id=institution_id,
        counterparty=AccountKey(institution_id, AccountKind.PARTNER, program_id),
        amount_points=request.amount_points,
        effective_time=now,
        content_hash=call.input_hash,
        reference=request.reference,
    )


def _objection(call: Call, order: Order, row: asyncpg.Record, survivors: Mapping[uuid.UUID, uuid.UUID]) -> DomainError | None:
    holder, bound = row["holder_customer_id"], call.principal.customer
    bound_to_another = bound is not None and survivors[uuid.UUID(bound)] != holder
    if holder is None or bound_to_another or not (row["linked"] or call.principal.sees_all):
        return account_not_found(order.account_id)
    if row["parent_account_id"] is not None:
        return account_merged(order.account_id, row)
    if not row["program_exists"]:
        return program_not_found(order.program_id)
    if not row["institution_exists"]:
        return institution_not_found(order.institution_id)
    return None


def _answer(result: Result) -> pb.Operation | DomainError:
    if isinstance(result, KeyReused):
        return FailedPrecondition(
            "REQUEST_ID_REUSED",
            "this request_id was used with other input; use a new one for a new request",
            field_violations=[("request_id", "was used with other input")],
        )
    return to_message(result) if result.outcome is Outcome.POSTED else insufficient_points(result)


def to_message(operation: Operation) -> pb.Operation:
    """The operation as the contract has it."""
    message = pb.Operation(
        name=f"operations/{operation.operation_id}",
        kind=KINDS[operation.kind],
        outcome=OUTCOMES[operation.outcome],
        account=f"accounts/{operation.account_id}",
        program=f"programs/{operation.program_id}",
        amount_points=operation.amount_points,
        balance_points=operation.balance_points,
        institution=f"institutions/{operation.institution_id}",
        reference=operation.reference,
        sequence=operation.sequence,
    )
    message.effective_time.FromDatetime(operation.effective_time)
    message.post_time.FromDatetime(operation.post_time)
    return message
