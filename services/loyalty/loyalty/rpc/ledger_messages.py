"""Operations and holds as the contract has them, and refusals in words."""

import json
from typing import Any

import asyncpg

from chassis.errors import DomainError, FailedPrecondition, NotFound
from concord.loyalty.v1 import ledger_service_pb2 as pb
from loyalty.domain.ledger.types import HoldState, Operation, OperationKind, Outcome
from loyalty.store.messages import KINDS

OUTCOMES = {outcome: pb.OperationOutcome.Value(f"OPERATION_OUTCOME_{outcome}") for outcome in Outcome}
HOLD_STATES = {state: pb.HoldState.Value(f"HOLD_STATE_{state}") for state in HoldState}
HOLDING = {OperationKind.CAPTURE, OperationKind.VOID, OperationKind.HOLD_EXPIRE}
WORDS = {
    Outcome.INSUFFICIENT_POINTS: "the account has fewer points than asked for; ask for fewer",
    Outcome.POINTS_EXPIRED: "the points that the account has are past their end; ask for fewer",
    Outcome.ACCOUNT_FROZEN: "the account is frozen: it earns, but does not spend, until it is thawed",
    Outcome.ACCOUNT_CLOSED: "the account is closed; use another",
    Outcome.QUOTE_EXPIRED: "the quote is past its time; ask for a new one",
    Outcome.QUOTE_USED: "the quote was used before; ask for a new one",
    Outcome.HOLD_NOT_OPEN: "the hold was captured, voided or released before; make a new one",
    Outcome.HOLD_EXPIRED: "the hold is past its time; make a new one",
    Outcome.OVER_CAPTURE: "the hold reserves less than that; capture at most what is left",
    Outcome.OVER_REFUND: "less than that was spent and not refunded; refund at most what is left",
    Outcome.NOT_REFUNDABLE: "only captures and redemptions that were posted can be refunded",
    Outcome.OVER_CLAWBACK: "less than that was earned and not taken back; take back at most what is left",
    Outcome.NOT_REVERSIBLE: "its points are not there any more, it was undone before, or it is of a kind that cannot be undone",
    Outcome.LOT_NOT_PENDING: "the points are not promised any more: they were confirmed or cancelled",
    Outcome.CAP_EXCEEDED: "the issuer would owe the partner more than their agreement allows; ask for fewer points",
    Outcome.LIMIT_EXCEEDED: "it is more, or more often, than a limit allows; ask for less, or later",
    Outcome.NO_AGREEMENT: "no active agreement between the institutions covers it",
    Outcome.NO_RATE: "there is no rate between the programmes now",
    Outcome.TRANSFER_NOT_ALLOWED: "the programme does not allow transfers, or both accounts are one customer's",
    Outcome.AMOUNT_TOO_SMALL: "it would give nothing; ask for more points",
    Outcome.TOO_MANY_LOTS: "it would make more lots than one operation may; ask for fewer points at a time",
}


def to_message(operation: Operation) -> pb.Operation:
    """The operation as the contract has it."""
    message = pb.Operation(
        name=f"operations/{operation.operation_id}",
        kind=KINDS[operation.kind],
        outcome=OUTCOMES[operation.outcome],
        account=f"accounts/{operation.account_id}" if operation.account_id is not None else "",
        program=f"programs/{operation.program_id}" if operation.program_id is not None else "",
        amount_points=operation.amount_points,
        balance_points=operation.balance_points,
        institution=f"institutions/{operation.institution_id}" if operation.institution_id else "",
        reference=operation.reference,
        sequence=operation.sequence,
        shortfall_points=operation.shortfall_points,
    )
    message.effective_time.FromDatetime(operation.effective_time)
    message.post_time.FromDatetime(operation.post_time)
    kind = operation.kind
    if kind is OperationKind.HOLD and operation.outcome is Outcome.POSTED:
        message.hold = f"holds/{operation.operation_id}"
    if operation.target_id is not None:
        if kind is OperationKind.HOLD:
            message.quote = f"quotes/{operation.target_id}"
        elif kind in HOLDING:
            message.hold = f"holds/{operation.target_id}"
        else:
            message.target = f"operations/{operation.target_id}"
    if operation.result:
        _add_result(message, operation.result)
    return message


def _add_result(message: pb.Operation, result: dict[str, Any]) -> None:
    """What was decided, as far as callers are told: not which lots."""
    if result.get("expire_time"):
        expire_time = result["expire_time"]
        if isinstance(expire_time, str):  # read back from the database
            message.expire_time.FromJsonString(expire_time)
        else:
            message.expire_time.FromDatetime(expire_time)
    message.debt_points = result.get("debt_points", 0)
    message.received_points = result.get("received_points", 0)
    message.expired_points = sum(lot[2] for lot in result.get("released", ())) + sum(lot[1] for lot in result.get("expired", ()))
    if "target" in result:
        message.currency_code = result["target"].get("currency_code") or ""
        message.lines.extend(_line(line) for line in result["lines"])


def _line(line: dict[str, Any]) -> pb.SpendLine:
    return pb.SpendLine(
        program=f"programs/{line['program_id']}",
        points=line["points"],
        value_units=line["value_units"],
        numerator=line["numerator"],
        denominator=line["denominator"],
        captured_points=line.get("captured_points", 0),
        captured_value_units=line.get("captured_value_units", 0),
    )


def to_hold(row: asyncpg.Record) -> pb.Hold:
    """The hold as the contract has it."""
    message = pb.Hold(
        name=f"holds/{row['hold_id']}",
        account=f"accounts/{row['account_id']}",
        institution=f"institutions/{row['institution_id']}",
        state=HOLD_STATES[HoldState(row["state"])],
        amount_units=row["amount_units"],
        captured_units=row["captured_units"],
        program=f"programs/{row['target_program_id']}" if row["target_program_id"] is not None else "",
        currency_code=row["currency_code"] or "",
        lines=[_line(line) for line in json.loads(row["lines"])],
        quote=f"quotes/{row['quote_id']}" if row["quote_id"] is not None else "",
    )
    message.create_time.FromDatetime(row["create_time"])
    message.expire_time.FromDatetime(row["expire_time"])
    if row["close_time"] is not None:
        message.close_time.FromDatetime(row["close_time"])
    return message


def refusal(operation: Operation) -> FailedPrecondition:
    """The stored refusal of an operation; the same request_id is always answered with it."""
    metadata = {"operation": f"operations/{operation.operation_id}", "balance_points": str(operation.balance_points)}
    words = WORDS[operation.outcome]
    fields: list[tuple[str, str]] = []
    if operation.outcome is Outcome.INSUFFICIENT_POINTS and operation.program_id is not None:
        words = (
            f"the account has {operation.balance_points} points of programs/{operation.program_id}, fewer than"
            f" {operation.amount_points}; ask for fewer"
        )
        fields = [("amount_points", "is more than the account has")]
    if operation.outcome is Outcome.LIMIT_EXCEEDED and operation.result:
        metadata["limit"] = f"limits/{operation.result['limit']}"
        if operation.result["free_time"]:
            metadata["free_time"] = operation.result["free_time"]
            words = f"it is more, or more often, than a limit allows; ask for less, or after {operation.result['free_time']}"
    return FailedPrecondition(operation.outcome, f"{words} under a new request_id", metadata, fields)


def unknown(reason: str) -> NotFound:
    """What the command was about is not there."""
    return NotFound(reason, "what the request names does not exist, or is not the account's")


def to_error(error: DomainError) -> pb.OperationError:
    """An error as a batch tells it."""
    return pb.OperationError(reason=error.reason, message=error.message, metadata=error.metadata)
