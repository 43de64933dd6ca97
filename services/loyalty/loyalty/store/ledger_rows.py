"""Rows of the ledger's tables to what the engine works with, and back."""

import json
import uuid
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import asyncpg

from loyalty.domain.ledger.chain import canonical
from loyalty.domain.ledger.types import (
    ActivityKey,
    ClearingItem,
    Hold,
    HoldLine,
    HoldLot,
    HoldState,
    Lot,
    LotReturn,
    LotState,
    LotUse,
    Operation,
    OperationKind,
    OrderKey,
    Outcome,
    Quote,
    RequestKey,
    SpendLine,
    SpentLine,
    SystemKey,
    Target,
)

OPERATION = {
    "operation_id": "uuid", "sequence": "bigint", "kind": "text", "outcome": "text", "account_id": "uuid", "program_id": "text",
    "institution_id": "text", "amount_points": "bigint", "balance_points": "bigint", "others_points": "bigint",
    "shortfall_points": "bigint", "caller": "text", "request_id": "text", "activity_id": "uuid", "system_key": "text",
    "target_id": "uuid", "content_hash": "bytea", "command": "jsonb", "result": "jsonb", "configuration_version": "bigint",
    "reference": "text", "rule": "text", "effective_time": "timestamptz", "post_time": "timestamptz", "hash": "bytea",
}  # fmt: skip
ENTRY = dict.fromkeys(("ledger_account_id", "version", "sequence", "amount_points", "balance_points"), "bigint")
LOT = {
    "lot_id": "bigint", "account_id": "uuid", "program_id": "text", "institution_id": "text", "state": "text",
    "issued_points": "bigint", "remaining_points": "bigint", "reserved_points": "bigint", "active_time": "timestamptz",
    "expire_time": "timestamptz", "origin_lot_id": "bigint",
}  # fmt: skip
LOT_USE = dict.fromkeys(("sequence", "ordinal", "lot_id", "points", "returned_points"), "bigint")
LOT_RETURN = dict.fromkeys(LotReturn._fields, "bigint")
HOLD = {
    "hold_id": "uuid", "account_id": "uuid", "institution_id": "text", "quote_id": "uuid", "target_program_id": "text",
    "currency_code": "text", "state": "text", "amount_units": "bigint", "captured_units": "bigint",
    "create_time": "timestamptz", "expire_time": "timestamptz", "close_time": "timestamptz",
}  # fmt: skip
HOLD_LINE = {
    "hold_id": "uuid", "position": "bigint", "program_id": "text", "points": "bigint", "value_units": "bigint",
    "numerator": "bigint", "denominator": "bigint", "agreement_id": "uuid", "agreement_version": "bigint",
    "captured_points": "bigint", "captured_value_units": "bigint",
}  # fmt: skip
HOLD_LOT = {
    "hold_id": "uuid", "position": "bigint", "ordinal": "bigint", "lot_id": "bigint", "points": "bigint",
    "captured_points": "bigint",
}  # fmt: skip
SPEND_LINE = {
    "sequence": "bigint", "position": "bigint", "program_id": "text", "points": "bigint", "value_units": "bigint",
    "numerator": "bigint", "denominator": "bigint", "target_program_id": "text", "currency_code": "text",
    "agreement_id": "uuid", "agreement_version": "bigint", "refunded_points": "bigint", "refunded_value_units": "bigint",
}  # fmt: skip
CLEARING_ITEM = {
    "sequence": "bigint", "position": "bigint", "payer_institution_id": "text", "payee_institution_id": "text",
    "agreement_id": "uuid", "agreement_version": "bigint", "program_id": "text", "points": "bigint",
    "price_numerator": "bigint", "price_denominator": "bigint", "fee_basis_points": "bigint", "currency_code": "text",
}  # fmt: skip
LIMIT_COUNTER = {
    "limit_id": "uuid", "subject": "text", "window_start": "timestamptz", "operations_count": "bigint", "points": "bigint",
}  # fmt: skip
EXPOSURE = {"agreement_id": "uuid", "exposure_numerator": "numeric", "exposure_denominator": "numeric"}


def columns(names: Iterable[str], alias: str = "") -> str:
    """Names as a list in SQL."""
    return ", ".join(f"{alias}.{name}" if alias else name for name in names)


def to_operation(row: asyncpg.Record) -> Operation:
    """The operation in a row."""
    return Operation(
        row["operation_id"], _to_key(row), OperationKind(row["kind"]), row["account_id"], row["program_id"],
        row["institution_id"], row["amount_points"], row["effective_time"], row["content_hash"], row["reference"], row["rule"],
        row["sequence"], Outcome(row["outcome"]), row["balance_points"], row["shortfall_points"], row["post_time"],
        row["others_points"], row["target_id"], row["configuration_version"], _canonical_text(row["command"]),
        json.loads(row["result"]) if row["result"] is not None else None, row["hash"],
    )  # fmt: skip


def _canonical_text(stored: str | None) -> str | None:
    return None if stored is None else canonical(json.loads(stored)).decode()


def _to_key(row: asyncpg.Record) -> OrderKey:
    if row["caller"] is not None:
        return RequestKey(row["caller"], row["request_id"])
    if row["system_key"] is not None:
        return SystemKey(row["system_key"])
    return ActivityKey(row["activity_id"], row["program_id"], OperationKind(row["kind"]))


def of_operation(operation: Operation) -> tuple[object, ...]:
    """The operation as a row."""
    key = operation.key
    keys: tuple[object, ...]
    if isinstance(key, RequestKey):
        keys = key.caller, key.request_id, None, None
    elif isinstance(key, SystemKey):
        keys = None, None, None, key.text
    else:
        keys = None, None, key.activity_id, None
    result = canonical(operation.result).decode() if operation.result is not None else None
    return (
        operation.operation_id, operation.sequence, operation.kind, operation.outcome, operation.account_id, operation.program_id,
        operation.institution_id, operation.amount_points, operation.balance_points, operation.others_points,
        operation.shortfall_points, *keys, operation.target_id, operation.content_hash, operation.command, result,
        operation.configuration_version, operation.reference, operation.rule, operation.effective_time, operation.post_time,
        operation.hash,
    )  # fmt: skip


def to_lot(row: asyncpg.Record) -> Lot:
    """The lot in a row."""
    return Lot(
        row["lot_id"], row["account_id"], row["program_id"], row["institution_id"], LotState(row["state"]), row["issued_points"],
        row["remaining_points"], row["reserved_points"], row["active_time"], row["expire_time"], row["origin_lot_id"],
    )  # fmt: skip


def of_lot(lot: Lot) -> tuple[object, ...]:
    """The lot as a row."""
    return (
        lot.lot_id, lot.account_id, lot.program_id, lot.institution_id, lot.state, lot.issued_points, lot.remaining_points,
        lot.reserved_points, lot.active_time, lot.expire_time, lot.origin_lot_id,
    )  # fmt: skip


def to_use(row: asyncpg.Record) -> LotUse:
    """The use in a row."""
    return LotUse(row["sequence"], row["ordinal"], row["lot_id"], row["points"], row["returned_points"])


def of_use(use: LotUse) -> tuple[object, ...]:
    """The use as a row."""
    return use.sequence, use.ordinal, use.lot_id, use.points, use.returned_points


def to_line(row: Any) -> SpendLine:
    """The line in a row, or in a quote's list."""
    agreement_id = row["agreement_id"]
    return SpendLine(
        row["program_id"], row["points"], row["value_units"], row["numerator"], row["denominator"],
        uuid.UUID(agreement_id) if isinstance(agreement_id, str) else agreement_id, row["agreement_version"],
    )  # fmt: skip


def to_hold(row: asyncpg.Record, lines: Iterable[asyncpg.Record], lots: Iterable[asyncpg.Record]) -> Hold:
    """The hold in its rows."""
    return Hold(
        row["hold_id"], row["account_id"], row["institution_id"], Target(row["target_program_id"], row["currency_code"]),
        HoldState(row["state"]), row["amount_units"], row["captured_units"], row["create_time"], row["expire_time"],
        row["quote_id"], row["close_time"],
        [HoldLine(line["position"], to_line(line), line["captured_points"], line["captured_value_units"]) for line in lines],
        [HoldLot(lot["position"], lot["ordinal"], lot["lot_id"], lot["points"], lot["captured_points"]) for lot in lots],
    )  # fmt: skip


def of_hold(hold: Hold) -> tuple[object, ...]:
    """The hold as a row, without lines and lots."""
    return (
        hold.hold_id, hold.account_id, hold.institution_id, hold.quote_id, *hold.target, hold.state, hold.amount_units,
        hold.captured_units, hold.create_time, hold.expire_time, hold.close_time,
    )  # fmt: skip


def _of_line(line: SpendLine) -> tuple[object, ...]:
    return line.program_id, line.points, line.value_units, line.numerator, line.denominator


def of_hold_line(hold: Hold, held: HoldLine) -> tuple[object, ...]:
    """A hold's line as a row."""
    line = held.line
    return (
        hold.hold_id, held.position, *_of_line(line), line.agreement_id, line.agreement_version, held.captured_points,
        held.captured_value_units,
    )  # fmt: skip


def of_hold_lot(hold: Hold, lot: HoldLot) -> tuple[object, ...]:
    """What a hold reserves of a lot, as a row."""
    return hold.hold_id, lot.position, lot.ordinal, lot.lot_id, lot.points, lot.captured_points


def to_spent(row: asyncpg.Record) -> SpentLine:
    """The line of a spending in a row."""
    target = Target(row["target_program_id"], row["currency_code"])
    return SpentLine(row["sequence"], row["position"], to_line(row), target, row["refunded_points"], row["refunded_value_units"])


def of_spent(spent: SpentLine) -> tuple[object, ...]:
    """The line of a spending as a row."""
    line = spent.line
    return (
        spent.sequence, spent.position, *_of_line(line), *spent.target, line.agreement_id, line.agreement_version,
        spent.refunded_points, spent.refunded_value_units,
    )  # fmt: skip


def to_quote(row: asyncpg.Record) -> Quote:
    """The quote in a row. Where its price is in points, its currency is that of the money part."""
    program_id = row["target_program_id"]
    return Quote(
        row["quote_id"], row["account_id"], row["institution_id"],
        Target(program_id, None if program_id is not None else row["currency_code"]),
        tuple(to_line(line) for line in json.loads(row["lines"])), row["expire_time"], row["used_by_operation_id"],
    )  # fmt: skip


def of_item(item: ClearingItem) -> tuple[object, ...]:
    """A clearing item as a row."""
    return item


def to_exposure(row: asyncpg.Record) -> Fraction:
    """The exposure in a row."""
    return Fraction(int(row["exposure_numerator"]), int(row["exposure_denominator"]))


def of_exposure(agreement_id: uuid.UUID, exposure: Fraction) -> tuple[object, ...]:
    """An exposure as a row."""
    return agreement_id, Decimal(exposure.numerator), Decimal(exposure.denominator)
