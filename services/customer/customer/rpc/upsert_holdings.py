"""Takes holdings with their holders: one transaction and a handful of statements for a batch."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from uuid import UUID

from chassis.ids import new_id
from chassis.unit_of_work import UnitOfWork
from concord.customer.v1 import intake_service_pb2 as pb
from customer import published, publishing
from customer.core import Core
from customer.domain.blind_index import BlindIndex
from customer.domain.code_tables import is_currency
from customer.domain.intake import Rejected, day, instant, outcome_of_state
from customer.domain.vocabulary import Outcome
from customer.store import customers as customer_store
from customer.store import holdings as holding_store
from customer.store import records as record_store
from customer.store.holdings import HolderRow, HoldingRow
from customer.store.institutions import SourceSystem
from customer.store.records import Found


async def upsert(
    unit: UnitOfWork, core: Core, source: SourceSystem, holdings: Sequence[pb.SourceHolding]
) -> list[pb.UpsertHoldingResult]:
    """Takes holdings of one source system, in order; each has an outcome of its own."""
    index = core.index
    keys = [index.source_key(f"{source.name}/holdings", holding.source_holding_key) for holding in holdings]
    record_keys = {
        holder.source_record_key: index.source_key(source.name, holder.source_record_key)
        for holding in holdings
        for holder in holding.holders
    }
    known = await holding_store.lock_by_source_key(unit.connection, source.number, set(keys))
    wanted = [(source.number, key) for key in record_keys.values()]
    found = await record_store.find_by_source_key(unit.connection, wanted)
    records = {key: found[(source.number, hashed)] for key, hashed in record_keys.items() if (source.number, hashed) in found}

    changed: dict[bytes, tuple[HoldingRow, list[HolderRow]]] = {}
    results = []
    for key, holding in zip(keys, holdings, strict=True):
        result = pb.UpsertHoldingResult(source_holding_key=holding.source_holding_key)
        results.append(result)
        try:
            stated = _stated(unit.now, index, source, key, holding, records)
        except Rejected as rejected:
            result.outcome = pb.INGEST_OUTCOME_REJECTED
            result.error.CopyFrom(pb.ItemError(field=rejected.field, reason=rejected.reason, description=rejected.description))
            continue
        before = known.get(key)
        outcome = (
            outcome_of_state(before.content_hash, before.observe_time, stated.content_hash, stated.observe_time)
            if before
            else Outcome.CREATED
        )
        if before is not None:
            stated.holding_id, stated.create_time = before.holding_id, before.create_time
            stated.version = before.version + 1
        if outcome in (Outcome.CREATED, Outcome.UPDATED) or (before and _seen_again(before, stated, outcome)):
            known[key] = stated
            changed[key] = stated, _holders(stated.holding_id, holding.holders, records)
        result.outcome = pb.IngestOutcome.ValueType(outcome)
        result.holding_id = str(stated.holding_id)
    await _write(unit, changed.values())
    await _ask_for_more(unit, core, [holder for _, holders in changed.values() for holder in holders])
    return results


async def _ask_for_more(unit: UnitOfWork, core: Core, holders: Sequence[HolderRow]) -> None:
    """What somebody holds decides what must be known of them: their quality may be another now."""
    if not holders:
        return
    rows = await customer_store.lock(unit.connection, {holder.customer_id for holder in holders})
    members = await record_store.visible(unit.connection, core.vault, [(customer_id, None) for customer_id in rows])
    policy = await core.policies.at(unit.connection, unit.now)
    await publishing.qualities_changed(unit, policy, list(zip(rows.values(), members, strict=True)))


def _seen_again(before: HoldingRow, stated: HoldingRow, outcome: Outcome) -> bool:
    """The same content at a later time: an older one must not override it any more."""
    return outcome is Outcome.UNCHANGED and stated.observe_time > before.observe_time


async def _write(unit: UnitOfWork, changed: Iterable[tuple[HoldingRow, list[HolderRow]]]) -> None:
    written = list(changed)
    if not written:
        return
    holders = [holder for _, mine in written for holder in mine]
    await holding_store.write(unit.connection, [row for row, _ in written], holders)
    for row, mine in written:
        unit.publish(published.holding_changed(row, mine, unit.epoch))


def _holders(holding_id: UUID, holders: Iterable[pb.SourceHolder], records: Mapping[str, Found]) -> list[HolderRow]:
    rows = []
    for holder in holders:
        record = records[holder.source_record_key]
        rows.append(
            HolderRow(holding_id, record.record_id, holder.role, record.institution_id, record.customer_id, record.link_version)
        )
    return rows


def _stated(
    now: datetime,
    index: BlindIndex,
    source: SourceSystem,
    key: bytes,
    holding: pb.SourceHolding,
    records: Mapping[str, Found],
) -> HoldingRow:
    """The holding as a new row.

    Raises:
        Rejected: naming the field and the rule.
    """
    seen: set[str] = set()
    for place, holder in enumerate(holding.holders):
        field = f"holders[{place}].source_record_key"
        if holder.source_record_key not in records:
            raise Rejected(field, "RECORD_UNKNOWN", "must be the key of a record of this source system; ingest the record first")
        if holder.source_record_key in seen:
            raise Rejected(field, "HOLDER_DUPLICATE", "must not name a record twice")
        seen.add(holder.source_record_key)
    opened, closed = day(holding.open_date, "open_date"), day(holding.close_date, "close_date")
    if closed is not None and opened is not None and closed < opened:
        raise Rejected("close_date", "CLOSE_BEFORE_OPEN", "must not lie before open_date")
    if holding.HasField("amount") and not is_currency(holding.amount.currency_code):
        raise Rejected("amount.currency_code", "CURRENCY_UNKNOWN", "must be a currency of ISO 4217")
    content = pb.SourceHolding()
    content.CopyFrom(holding)
    content.ClearField("observe_time")
    content.DiscardUnknownFields()  # type: ignore[no-untyped-call,unused-ignore]
    has_amount = holding.HasField("amount")
    return HoldingRow(
        holding_id=new_id(),
        source_system_number=source.number,
        source_key=key,
        content_hash=index.content(content.SerializeToString(deterministic=True)),
        observe_time=instant(holding.observe_time.seconds, holding.observe_time.nanos, "observe_time", now),
        version=1,
        kind=holding.kind,
        product_code=holding.product_code,
        open_date=opened or date.min,
        close_date=closed,
        currency_code=holding.amount.currency_code if has_amount else None,
        amount_minor_units=holding.amount.minor_units if has_amount else None,
        standing=holding.standing,
        create_time=now,
        update_time=now,
        institution_id=source.institution_id,
    )
