"""Settlements as the contract has them, and what their RPCs refuse alike."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from chassis import etags
from chassis.database import Connection
from chassis.errors import NotFound
from chassis.identity import Principal, require_institution
from chassis.ids import parse_id, resource_segments
from concord.common.v1.money_pb2 import Money
from concord.loyalty.v1 import settlement_service_pb2 as pb
from loyalty.domain.disputes import Dispute, DisputeState
from loyalty.domain.reconciliation import Result, Row
from loyalty.domain.settlement import BatchState, Group, Line, LineKind, lines_of, pairs_of, positions_of
from loyalty.domain.settlement_file import LEADING, Item
from loyalty.store import settlement as store
from loyalty.store.reconciliations import Reconciliation
from loyalty.store.settlement import Batch, PairState, Payment

ALL = "-"
STATES = {state: pb.SettlementState.Value(f"SETTLEMENT_STATE_{state}") for state in BatchState}
STATE_OF = {number: state for state, number in STATES.items()}
LINE_KINDS = {kind: pb.SettlementLineKind.Value(f"SETTLEMENT_LINE_KIND_{kind}") for kind in LineKind}
DISPUTE_STATES = {state: pb.DisputeState.Value(f"DISPUTE_STATE_{state}") for state in DisputeState}
DISPUTE_STATE_OF = {number: state for state, number in DISPUTE_STATES.items()}


def viewer(principal: Principal, institution_id: str) -> str | None:
    """For whom is read: an institution, or None for the operator who asks for the whole with `institutions/-`.

    Raises:
        NotFound: INSTITUTION_NOT_FOUND.
    """
    require_institution(principal, institution_id)
    return None if institution_id == ALL else institution_id


def not_found(batch_id: UUID) -> NotFound:
    """No such settlement, or none in which the institution has a part."""
    return NotFound("SETTLEMENT_NOT_FOUND", f"settlements/{batch_id} does not exist, or your institution has no part in it")


async def require(
    connection: Connection, principal: Principal, name: str, *suffix: str, field: str = "name", lock: bool = False
) -> tuple[Batch, str | None, list[str]]:
    """The settlement that a name begins with, for whom it is read, and the ids that follow in the name.

    Raises:
        NotFound: there is none, or the institution has no part in it.
    """
    institution_id, batch_text, *rest = resource_segments(name, "institutions", "settlements", *suffix, field=field)
    institution = viewer(principal, institution_id)
    batch_id = parse_id(batch_text, field)
    batch = await store.get(connection, batch_id, lock=lock)
    if batch is None:
        raise not_found(batch_id)
    if institution is not None and batch.state is not BatchState.OPEN:
        pairs = await store.pairs(connection, batch_id)
        if not any(institution in (state.pair.first, state.pair.second) for state in pairs):
            raise not_found(batch_id)
    return batch, institution, rest


async def to_settlement(connection: Connection, batch: Batch, institution: str | None) -> pb.Settlement:
    """A settlement as an institution (None: the operator) sees it; an open one is what it would come to now."""
    if batch.state is BatchState.OPEN:
        spans = await store.open_spans(connection, batch.currency_code, await store.last_sequence(connection))
        groups: Sequence[Group] = await store.groups(connection, batch.currency_code, spans)
        lines = lines_of(groups)
        pairs = [PairState(pair, None, None) for pair in pairs_of(lines)]
        payments: Sequence[Payment] = ()
    else:
        lines = await store.lines(connection, batch.batch_id)
        pairs = await store.pairs(connection, batch.batch_id)
        payments = await store.payments(connection, batch.batch_id)
    lines = [line for line in lines if institution in (None, line.payer, line.payee)]
    seen = [state for state in pairs if institution in (None, state.pair.first, state.pair.second)]
    leading = [line for line in lines if line.kind in LEADING]
    positions = positions_of(state.pair for state in pairs)
    currency = batch.currency_code
    message = head(batch, institution)
    message.items_count = sum(line.items_count for line in leading)
    message.points = sum(line.points for line in leading)
    message.lines.extend(map(_line, lines))
    message.pairs.extend(_pair(state, currency) for state in seen)
    message.positions.extend(
        pb.NetPosition(institution=f"institutions/{side}", amount=Money(currency_code=currency, minor_units=amount))
        for side, amount in positions.items()
        if institution in (None, side)
    )
    message.instructions.extend(
        _payment(payment, currency) for payment in payments if institution in (None, *payment.instruction[:2])
    )
    return message


def head(batch: Batch, institution: str | None) -> pb.Settlement:
    """What a list shows of a settlement."""
    return pb.Settlement(
        name=settlement_name(batch.batch_id, institution),
        currency_code=batch.currency_code,
        state=STATES[batch.state],
        cut_off_sequence=batch.cut_off_sequence or 0,
        cut_off_hash=batch.cut_off_hash or b"",
        business_date=batch.business_date.isoformat() if batch.business_date else "",
        open_time=instant(batch.open_time),
        close_time=instant(batch.close_time),
        confirm_time=instant(batch.confirm_time),
        settle_time=instant(batch.settle_time),
        etag=etags.etag(batch.version),
    )


def settlement_name(batch_id: UUID, institution: str | None) -> str:
    """The name of a settlement as an institution sees it."""
    return f"institutions/{institution or ALL}/settlements/{batch_id}"


def to_item(item: Item) -> pb.SettlementItem:
    """An item."""
    return pb.SettlementItem(
        operation=f"operations/{item.operation_id}",
        sequence=item.sequence,
        position=item.position,
        dispute=f"disputes/{item.dispute_id}" if item.dispute_id else "",
        payer=f"institutions/{item.terms.payer}",
        payee=f"institutions/{item.terms.payee}",
        agreement=f"agreements/{item.terms.agreement_id}",
        agreement_version=item.terms.agreement_version,
        program=f"programs/{item.terms.program_id}",
        points=item.points,
        amount=exact(item.amount),
        fee=exact(item.fee),
        post_time=instant(item.post_time),
    )


def to_dispute(dispute: Dispute, institution: str | None, operation_id: UUID, correcting: Mapping[UUID, UUID]) -> pb.Dispute:
    """A dispute as one of its sides sees it."""
    batch_id = correcting.get(dispute.dispute_id)
    return pb.Dispute(
        name=f"institutions/{institution or ALL}/disputes/{dispute.dispute_id}",
        settlement=settlement_name(dispute.batch_id, institution),
        sequence=dispute.sequence,
        position=dispute.position,
        claimed_points=dispute.claimed_points,
        reason_code=dispute.reason_code,
        item_points=dispute.item_points,
        operation=f"operations/{operation_id}",
        opener=f"institutions/{dispute.opener_institution_id}",
        decider=f"institutions/{dispute.decider_institution_id}",
        state=DISPUTE_STATES[dispute.state],
        resolution_code=dispute.resolution_code,
        open_time=instant(dispute.open_time),
        resolve_time=instant(dispute.resolve_time),
        correcting_settlement=settlement_name(batch_id, institution) if batch_id else "",
        etag=etags.etag(dispute.version),
    )


def to_reconciliation(found: Reconciliation) -> pb.Reconciliation:
    """A reconciliation."""
    compared = found.compare_time is not None
    return pb.Reconciliation(
        name=f"{settlement_name(found.batch_id, found.institution_id)}/reconciliations/{found.reconciliation_id}",
        state=pb.RECONCILIATION_STATE_COMPARED if compared else pb.RECONCILIATION_STATE_CREATED,
        parts_count=found.parts_count,
        matched_count=found.counts.get(Result.MATCHED, 0),
        missing_here_count=found.counts.get(Result.MISSING_HERE, 0),
        missing_there_count=found.counts.get(Result.MISSING_THERE, 0),
        different_count=found.counts.get(Result.DIFFERENT, 0),
        their_points=found.their_points,
        our_points=found.our_points,
        their_amount=exact(found.their_amount) if compared else None,
        our_amount=exact(found.our_amount) if compared else None,
        create_time=instant(found.create_time),
        compare_time=instant(found.compare_time),
    )


def to_row(row: Row) -> pb.ReconciliationRow:
    """A row of a comparison."""
    return pb.ReconciliationRow(
        result=pb.ReconciliationResult.ValueType(int(row.result)),
        line_number=row.line_number,
        operation=f"operations/{row.operation_id}" if row.operation_id else "",
        reference=row.reference,
        program=f"programs/{row.program_id}" if row.program_id else "",
        their_points=row.their_points,
        our_points=row.our_points,
        their_amount=exact(row.their_amount),
        our_amount=exact(row.our_amount),
    )


def exact(amount: Fraction) -> pb.ExactAmount:
    """A fraction as text."""
    return pb.ExactAmount(numerator=str(amount.numerator), denominator=str(amount.denominator))


def instant(at: datetime | None) -> Timestamp | None:
    """An instant, or None."""
    if at is None:
        return None
    message = Timestamp()
    message.FromDatetime(at)
    return message


def institutions_of(pairs: Iterable[PairState]) -> set[str]:
    """All institutions of pairs."""
    return {side for state in pairs for side in (state.pair.first, state.pair.second)}


def _line(line: Line) -> pb.SettlementLine:
    return pb.SettlementLine(
        kind=LINE_KINDS[line.kind],
        payer=f"institutions/{line.payer}",
        payee=f"institutions/{line.payee}",
        agreement=f"agreements/{line.agreement_id}",
        agreement_version=line.agreement_version,
        program=f"programs/{line.program_id}",
        items_count=line.items_count,
        points=line.points,
        amount=exact(line.amount),
    )


def _pair(state: PairState, currency_code: str) -> pb.SettlementPair:
    pair = state.pair
    return pb.SettlementPair(
        first_institution=f"institutions/{pair.first}",
        second_institution=f"institutions/{pair.second}",
        exact_amount=exact(pair.exact),
        amount=Money(currency_code=currency_code, minor_units=pair.amount_minor_units),
        residue=exact(pair.residue),
        first_confirm_time=instant(state.first_confirm_time),
        second_confirm_time=instant(state.second_confirm_time),
    )


def _payment(payment: Payment, currency_code: str) -> pb.PaymentInstruction:
    payer, payee, minor_units = payment.instruction
    return pb.PaymentInstruction(
        payer=f"institutions/{payer}",
        payee=f"institutions/{payee}",
        amount=Money(currency_code=currency_code, minor_units=minor_units),
        acknowledge_time=instant(payment.acknowledge_time),
    )
