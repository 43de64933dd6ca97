"""What callers ask of the ledger, as commands: of each RPC's request, and of the items of a batch."""

import functools
import hashlib
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from chassis.errors import InvalidArgument
from chassis.ids import new_id
from concord.loyalty.v1 import account_service_pb2 as accounts_pb
from concord.loyalty.v1 import ledger_service_pb2 as pb
from loyalty.domain.ledger import commands as c
from loyalty.domain.ledger.types import RequestKey

HOLD_SECONDS_DEFAULT = 900
HOLD_SECONDS_MAX = 30 * 86_400
AMOUNT_MAX = 10**12
REFERENCE_CHARACTERS_MAX = 200
REQUEST_ID_CHARACTERS_MAX = 255
HASH_BYTES = 16
NAME = re.compile(r"(accounts|operations|holds|quotes)/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")
SLUG = re.compile(r"(programs|institutions)/([a-z][a-z0-9-]{1,38}[a-z0-9])")


def invalid(field: str, rule: str) -> InvalidArgument:
    """The refusal of a field."""
    return InvalidArgument("FIELD_INVALID", f"{field}: {rule}", field_violations=[(field, rule)])


def id_of(name: str, collection: str, field: str) -> uuid.UUID:
    """The id in `{collection}/{uuid}`.

    Raises:
        InvalidArgument: FIELD_INVALID.
    """
    match = NAME.fullmatch(name)
    if match is None or match[1] != collection:
        raise invalid(field, f"must be {collection}/ and a UUID in lower case")
    return uuid.UUID(match[2])


@functools.lru_cache(4096)
def slug_of(name: str, collection: str, field: str) -> str:
    """The id in `{collection}/{id}`.

    Raises:
        InvalidArgument: FIELD_INVALID.
    """
    match = SLUG.fullmatch(name)
    if match is None or match[1] != collection:
        raise invalid(field, f"must be {collection}/ and its id")
    return match[2]


def instant(message: Any, field: str) -> datetime | None:
    """The instant in a field; None where it is absent."""
    value: Timestamp = getattr(message, field)
    return value.ToDatetime(UTC) if message.HasField(field) else None


def amount(value: int, field: str, least: int = 1) -> int:
    """An amount within its bounds.

    Raises:
        InvalidArgument: FIELD_INVALID.
    """
    if not least <= value <= AMOUNT_MAX:
        raise invalid(field, f"must be {least} to {AMOUNT_MAX}")
    return value


def command_of(item: pb.OperationItem, caller: str, now: datetime) -> c.AnyCommand:
    """The command that an item asks for. The item is the caller's no longer: its request_id is taken out.

    Raises:
        InvalidArgument: naming the field, the rule, and what would be right.
    """
    request_id, reference = item.request_id, item.reference
    if not 0 < len(request_id) <= REQUEST_ID_CHARACTERS_MAX:
        raise invalid("request_id", f"must be 1 to {REQUEST_ID_CHARACTERS_MAX} characters, new for each new request")
    if len(reference) > REFERENCE_CHARACTERS_MAX:
        raise invalid("reference", f"must be at most {REFERENCE_CHARACTERS_MAX} characters")
    if "\0" in request_id or "\0" in reference:
        field, rule = "request_id" if "\0" in request_id else "reference", "must not contain the character U+0000"
        raise InvalidArgument("TEXT_INVALID", f"{field} {rule}", field_violations=[(field, rule)])
    made = MAKING.get(item.kind)
    if made is None:
        names = ", ".join(accounts_pb.OperationKind.Name(kind).removeprefix("OPERATION_KIND_") for kind in MAKING)
        raise invalid("kind", f"must be one of {names}")
    command = made(item, RequestKey(caller, request_id), now)
    item.ClearField("request_id")
    command.content_hash = hashlib.blake2b(item.SerializeToString(), digest_size=HASH_BYTES).digest()
    command.reference = reference
    return command


def _make_earn(item: pb.OperationItem, key: RequestKey, now: datetime) -> c.AnyCommand:
    expire_time = instant(item, "expire_time")
    if expire_time is not None and expire_time <= now:
        raise invalid("expire_time", "must be in the future")
    pending = item.pending if item.HasField("pending") else None
    activate_time = instant(item, "activate_time")
    if activate_time is not None and (pending is False or (expire_time is not None and activate_time >= expire_time)):
        raise invalid("activate_time", "is for promised points, and lies before expire_time")
    return c.Earn(
        operation_id=new_id(),
        key=key,
        account_id=id_of(item.account, "accounts", "name"),
        institution_id=slug_of(item.institution, "institutions", "institution"),
        effective_time=instant(item, "effective_time") or now,
        program_id=slug_of(item.program, "programs", "program"),
        amount_points=amount(item.amount_units, "amount_points"),
        pending=True if activate_time is not None else pending,
        active_time=activate_time,
        expire_time=expire_time,
    )


def _make_redeem(item: pb.OperationItem, key: RequestKey, now: datetime) -> c.AnyCommand:
    quote_id, program_id, points, place = _spent(item)
    return c.Redeem(
        operation_id=new_id(),
        key=key,
        account_id=id_of(item.account, "accounts", "name"),
        institution_id=place,
        effective_time=now,
        quote_id=quote_id,
        program_id=program_id,
        amount_points=points,
        use_pool=item.use_pool,
    )


def _make_hold(item: pb.OperationItem, key: RequestKey, now: datetime) -> c.AnyCommand:
    quote_id, program_id, points, place = _spent(item)
    if not 0 <= item.ttl_seconds <= HOLD_SECONDS_MAX:
        raise invalid("ttl_seconds", f"must be 0 (for {HOLD_SECONDS_DEFAULT}) to {HOLD_SECONDS_MAX}")
    return c.Hold(
        operation_id=new_id(),
        key=key,
        account_id=id_of(item.account, "accounts", "name"),
        institution_id=place,
        effective_time=now,
        quote_id=quote_id,
        program_id=program_id,
        amount_points=points,
        use_pool=item.use_pool,
        expire_time=now + timedelta(seconds=item.ttl_seconds or HOLD_SECONDS_DEFAULT),
    )


def _spent(item: pb.OperationItem) -> tuple[uuid.UUID | None, str, int, str]:
    """Quote, programme, points and place: a quote says the rest."""
    if not item.quote:
        return (
            None,
            slug_of(item.program, "programs", "program"),
            amount(item.amount_units, "amount_points"),
            slug_of(item.institution, "institutions", "institution"),
        )
    for field, given in (("program", item.program), ("amount_points", item.amount_units), ("institution", item.institution)):
        if given:
            raise invalid(field, "must be left out with a quote, which says it")
    return id_of(item.quote, "quotes", "quote"), "", 0, ""


def _make_transfer(item: pb.OperationItem, key: RequestKey, now: datetime) -> c.AnyCommand:
    return c.Transfer(
        operation_id=new_id(),
        key=key,
        account_id=id_of(item.account, "accounts", "name"),
        institution_id="",
        effective_time=now,
        to_account_id=id_of(item.to_account, "accounts", "to_account"),
        program_id=slug_of(item.program, "programs", "program"),
        amount_points=amount(item.amount_units, "amount_points"),
    )


def _make_exchange(item: pb.OperationItem, key: RequestKey, now: datetime) -> c.AnyCommand:
    return c.Exchange(
        operation_id=new_id(),
        key=key,
        account_id=id_of(item.account, "accounts", "name"),
        institution_id="",
        effective_time=now,
        program_id=slug_of(item.program, "programs", "program"),
        amount_points=amount(item.amount_units, "amount_points"),
        to_program_id=slug_of(item.to_program, "programs", "to_program"),
    )


def _make_about(made: type[Any], field: str, collection: str, amount_field: str = "") -> Callable[..., c.AnyCommand]:
    """Makes commands about a hold or an operation; 0 means all that is left."""

    def make(item: pb.OperationItem, key: RequestKey, now: datetime) -> c.AnyCommand:
        more: dict[str, Any] = {field: id_of(item.target, collection, "name")}
        if amount_field:
            more[amount_field] = amount(item.amount_units, amount_field, 0) or None
        if made is c.Capture:
            more["final"] = item.final
        command: c.AnyCommand = made(
            operation_id=new_id(), key=key, account_id=None, institution_id="", effective_time=now, **more
        )
        return command

    return make


MAKING: dict[accounts_pb.OperationKind.ValueType, Callable[[pb.OperationItem, RequestKey, datetime], c.AnyCommand]] = {
    accounts_pb.OPERATION_KIND_EARN: _make_earn,
    accounts_pb.OPERATION_KIND_CONFIRM: _make_about(c.Confirm, "earning_id", "operations"),
    accounts_pb.OPERATION_KIND_CANCEL: _make_about(c.Cancel, "earning_id", "operations"),
    accounts_pb.OPERATION_KIND_CLAWBACK: _make_about(c.Clawback, "earning_id", "operations", "amount_points"),
    accounts_pb.OPERATION_KIND_HOLD: _make_hold,
    accounts_pb.OPERATION_KIND_CAPTURE: _make_about(c.Capture, "hold_id", "holds", "amount_units"),
    accounts_pb.OPERATION_KIND_VOID: _make_about(c.Void, "hold_id", "holds"),
    accounts_pb.OPERATION_KIND_REDEEM: _make_redeem,
    accounts_pb.OPERATION_KIND_REFUND: _make_about(c.Refund, "spending_id", "operations", "amount_units"),
    accounts_pb.OPERATION_KIND_TRANSFER: _make_transfer,
    accounts_pb.OPERATION_KIND_EXCHANGE: _make_exchange,
    accounts_pb.OPERATION_KIND_REVERSE: _make_about(c.Reverse, "reversed_id", "operations"),
}


def item_of(request: Any) -> pb.OperationItem:
    """An RPC's request as the item that a batch would have for it."""
    made = pb.OperationItem(request_id=request.request_id, reference=getattr(request, "reference", ""))
    FILLING[type(request)](request, made)
    return made


def _earn(request: pb.EarnPointsRequest, item: pb.OperationItem) -> None:
    item.kind, item.account, item.program = accounts_pb.OPERATION_KIND_EARN, request.name, request.program
    item.amount_units, item.institution = request.amount_points, request.institution
    if request.HasField("pending"):
        item.pending = request.pending
    for field in ("activate_time", "expire_time", "effective_time"):
        if request.HasField(field):
            getattr(item, field).CopyFrom(getattr(request, field))


def _about(kind: accounts_pb.OperationKind.ValueType) -> Callable[[Any, pb.OperationItem], None]:
    def fill(request: Any, item: pb.OperationItem) -> None:
        item.kind, item.target = kind, request.name
        item.amount_units = getattr(request, "amount_points", 0) or getattr(request, "amount_units", 0)
        item.final = getattr(request, "final", False)

    return fill


def _spend(kind: accounts_pb.OperationKind.ValueType) -> Callable[[Any, pb.OperationItem], None]:
    def fill(request: Any, item: pb.OperationItem) -> None:
        item.kind, item.account, item.program, item.quote = kind, request.name, request.program, request.quote
        item.amount_units, item.institution = request.amount_points, request.institution
        item.ttl_seconds = getattr(request, "ttl_seconds", 0)
        item.use_pool = request.use_pool

    return fill


def _give(kind: accounts_pb.OperationKind.ValueType) -> Callable[[Any, pb.OperationItem], None]:
    def fill(request: Any, item: pb.OperationItem) -> None:
        item.kind, item.account, item.program, item.amount_units = kind, request.name, request.program, request.amount_points
        item.to_account, item.to_program = getattr(request, "to_account", ""), getattr(request, "to_program", "")

    return fill


FILLING: dict[type[Any], Callable[[Any, pb.OperationItem], None]] = {
    pb.EarnPointsRequest: _earn,
    pb.ConfirmEarningRequest: _about(accounts_pb.OPERATION_KIND_CONFIRM),
    pb.CancelEarningRequest: _about(accounts_pb.OPERATION_KIND_CANCEL),
    pb.ClawBackEarningRequest: _about(accounts_pb.OPERATION_KIND_CLAWBACK),
    pb.HoldPointsRequest: _spend(accounts_pb.OPERATION_KIND_HOLD),
    pb.RedeemPointsRequest: _spend(accounts_pb.OPERATION_KIND_REDEEM),
    pb.CaptureHoldRequest: _about(accounts_pb.OPERATION_KIND_CAPTURE),
    pb.VoidHoldRequest: _about(accounts_pb.OPERATION_KIND_VOID),
    pb.RefundOperationRequest: _about(accounts_pb.OPERATION_KIND_REFUND),
    pb.TransferPointsRequest: _give(accounts_pb.OPERATION_KIND_TRANSFER),
    pb.ExchangePointsRequest: _give(accounts_pb.OPERATION_KIND_EXCHANGE),
    pb.ReverseOperationRequest: _about(accounts_pb.OPERATION_KIND_REVERSE),
}
