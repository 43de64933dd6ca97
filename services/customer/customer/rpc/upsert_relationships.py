"""Takes relationships between the records of one source system: one transaction and a handful of statements for a batch."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from chassis.ids import new_id
from chassis.unit_of_work import UnitOfWork
from concord.customer.v1 import intake_service_pb2 as intake_pb
from concord.customer.v1 import relationship_service_pb2 as pb
from customer.domain.blind_index import BlindIndex
from customer.domain.intake import Rejected, day, instant, outcome_of_state
from customer.domain.relationships import Status, check, status_after
from customer.domain.vocabulary import Outcome
from customer.store import records as record_store
from customer.store import relationships as relationship_store
from customer.store.institutions import SourceSystem
from customer.store.records import Found
from customer.store.relationships import RelationshipRow


async def upsert(
    unit: UnitOfWork, index: BlindIndex, source: SourceSystem, relationships: Sequence[pb.SourceRelationship]
) -> list[pb.UpsertRelationshipResult]:
    """Takes relationships of one source system, in order; each has an outcome of its own."""
    keys = [index.source_key(f"{source.name}/relationships", stated.source_relationship_key) for stated in relationships]
    ends = {key for stated in relationships for key in (stated.from_source_record_key, stated.to_source_record_key)}
    hashed = {key: index.source_key(source.name, key) for key in ends}
    known = await relationship_store.lock_by_source_key(unit.connection, source.institution_id, source.number, set(keys))
    found = await record_store.find_by_source_key(unit.connection, [(source.number, key) for key in hashed.values()])
    records = {key: found[source.number, one] for key, one in hashed.items() if (source.number, one) in found}

    changed: dict[bytes, RelationshipRow] = {}
    results = []
    for key, stated in zip(keys, relationships, strict=True):
        result = pb.UpsertRelationshipResult(source_relationship_key=stated.source_relationship_key)
        results.append(result)
        try:
            row = _row(unit.now, index, source, key, stated, records)
        except Rejected as rejected:
            result.outcome = intake_pb.INGEST_OUTCOME_REJECTED
            result.error.CopyFrom(
                intake_pb.ItemError(field=rejected.field, reason=rejected.reason, description=rejected.description)
            )
            continue
        before = known.get(key)
        outcome = Outcome.CREATED
        if before is not None:
            outcome = outcome_of_state(before.content_hash, before.observe_time, row.content_hash, row.observe_time)
            _follow(row, before)
        if outcome in (Outcome.CREATED, Outcome.UPDATED) or (before and _seen_again(before, row, outcome)):
            known[key] = changed[key] = row
        result.outcome = intake_pb.IngestOutcome.ValueType(outcome)
        result.relationship = f"relationships/{row.relationship_id}"
    if changed:
        await relationship_store.write(unit.connection, list(changed.values()))
    return results


def _follow(row: RelationshipRow, before: RelationshipRow) -> None:
    """A state follows another of the same relationship; a steward's decision holds while the content is the same."""
    same = row.content_hash == before.content_hash
    row.relationship_id, row.create_time, row.version = before.relationship_id, before.create_time, before.version + 1
    row.status = status_after(Status(row.status), Status(before.status), same)
    if same:
        row.decided_by, row.decide_time = before.decided_by, before.decide_time


def _seen_again(before: RelationshipRow, row: RelationshipRow, outcome: Outcome) -> bool:
    """The same content at a later time: an older one must not override it any more."""
    return outcome is Outcome.UNCHANGED and row.observe_time > before.observe_time


def _row(
    now: datetime,
    index: BlindIndex,
    source: SourceSystem,
    key: bytes,
    stated: pb.SourceRelationship,
    records: Mapping[str, Found],
) -> RelationshipRow:
    """The relationship as a new row.

    Raises:
        Rejected: naming the field and the rule.
    """
    for field in ("from_source_record_key", "to_source_record_key"):
        if getattr(stated, field) not in records:
            raise Rejected(field, "RECORD_UNKNOWN", "must be the key of a record of this source system; ingest the record first")
    if stated.from_source_record_key == stated.to_source_record_key:
        raise Rejected("to_source_record_key", "RELATED_TO_ITSELF", "must be the key of another record")
    begin, end = day(stated.begin_date, "begin_date"), day(stated.end_date, "end_date")
    check(stated.kind, stated.legal_basis_code, stated.share_basis_points, begin, end)
    content = pb.SourceRelationship()
    content.CopyFrom(stated)
    content.ClearField("observe_time")
    content.DiscardUnknownFields()  # type: ignore[no-untyped-call,unused-ignore]
    return RelationshipRow(
        relationship_id=new_id(),
        institution_id=source.institution_id,
        source_system_number=source.number,
        source_key=key,
        content_hash=index.content(content.SerializeToString(deterministic=True)),
        observe_time=instant(stated.observe_time.seconds, stated.observe_time.nanos, "observe_time", now),
        version=1,
        kind=stated.kind,
        from_record_id=records[stated.from_source_record_key].record_id,
        to_record_id=records[stated.to_source_record_key].record_id,
        status=stated.status or Status.DISCLOSED,
        legal_basis_code=stated.legal_basis_code,
        share_basis_points=stated.share_basis_points,
        position_code=stated.position_code,
        begin_date=begin,
        end_date=end,
        decided_by="",
        decide_time=None,
        create_time=now,
        update_time=now,
    )
