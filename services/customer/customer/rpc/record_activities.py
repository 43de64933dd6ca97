"""Takes activities: one transaction, a handful of statements. The busiest path of the platform, so little per item."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chassis.unit_of_work import UnitOfWork
from concord.customer.v1 import intake_service_pb2 as pb
from customer import published
from customer.domain.blind_index import BlindIndex
from customer.domain.intake import Rejected, activity_id, instant
from customer.store import activities as activity_store
from customer.store import holdings as holding_store
from customer.store import records as record_store
from customer.store.activities import ActivityRow
from customer.store.institutions import SourceSystem
from customer.store.records import Found

_Key = tuple[str, str]
"""A source system and a source's own key."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Whom and what a batch speaks of."""

    records: Mapping[_Key, Found]
    holdings: Mapping[_Key, UUID]


async def record(
    unit: UnitOfWork,
    index: BlindIndex,
    sources: Mapping[str, SourceSystem],
    activities: Sequence[pb.SourceActivity],
    only_customer: UUID | None,
) -> list[pb.RecordActivityResult]:
    """Takes activities, in order; each has an outcome of its own.

    Args:
        sources: by resource name; all that the activities name.
        only_customer: records of other customers are not known to this caller.
    """
    known = await _find(unit, index, sources, activities, only_customer)
    results: list[pb.RecordActivityResult] = []
    first: dict[UUID, ActivityRow] = {}
    stated: list[tuple[int, ActivityRow]] = []
    for place, activity in enumerate(activities):
        result = pb.RecordActivityResult(source_activity_key=activity.source_activity_key)
        results.append(result)
        try:
            row = _row(unit.now, index, sources[activity.source_system], activity, known)
        except Rejected as rejected:
            _reject(result, rejected)
            continue
        result.activity_id = str(row.activity_id)
        first.setdefault(row.activity_id, row)
        stated.append((place, row))
    inserted = await activity_store.insert(unit.connection, list(first.values()), unit.now) if first else set()
    old = [activity for activity in first if activity not in inserted]
    hashes = await activity_store.content_hashes(unit.connection, old) if old else {}

    for place, row in stated:
        result, activity = results[place], activities[place]
        created = row.activity_id in inserted and first[row.activity_id] is row
        if created:
            result.outcome = pb.INGEST_OUTCOME_CREATED
            found = known.records[(activity.source_system, activity.source_record_key)]
            link = published.record_link(found.record_id, found.institution_id, found.customer_id, found.link_version, unit.epoch)
            unit.publish(
                published.activity_recorded(
                    row.activity_id, link, activity.source_system, row.holding_id, activity.detail, row.occurred_at
                )
            )
        elif row.content_hash == hashes.get(row.activity_id, first[row.activity_id].content_hash):
            result.outcome = pb.INGEST_OUTCOME_UNCHANGED
        else:
            result.activity_id = ""
            _reject(result, _CONFLICT)
    return results


_CONFLICT = Rejected(
    "source_activity_key", "ACTIVITY_CONFLICT", "was used for an activity with other content; an activity never changes"
)


def _reject(result: pb.RecordActivityResult, rejected: Rejected) -> None:
    result.outcome = pb.INGEST_OUTCOME_REJECTED
    result.error.field = rejected.field
    result.error.reason = rejected.reason
    result.error.description = rejected.description


async def _find(
    unit: UnitOfWork,
    index: BlindIndex,
    sources: Mapping[str, SourceSystem],
    activities: Sequence[pb.SourceActivity],
    only_customer: UUID | None,
) -> _Known:
    record_keys = {(activity.source_system, activity.source_record_key) for activity in activities}
    hashed = {key: (sources[key[0]].number, index.source_key(*key)) for key in record_keys}
    found = await record_store.find_by_source_key(unit.connection, hashed.values())
    records = {
        key: found[wanted]
        for key, wanted in hashed.items()
        if wanted in found and only_customer in (None, found[wanted].customer_id)
    }
    holding_keys = {(one.source_system, one.source_holding_key) for one in activities if one.source_holding_key}
    if not holding_keys:
        return _Known(records, {})
    hashed = {key: (sources[key[0]].number, index.source_key(f"{key[0]}/holdings", key[1])) for key in holding_keys}
    holdings = await holding_store.find_by_source_key(unit.connection, hashed.values())
    return _Known(records, {key: holdings[wanted] for key, wanted in hashed.items() if wanted in holdings})


def _row(now: datetime, index: BlindIndex, source: SourceSystem, activity: pb.SourceActivity, known: _Known) -> ActivityRow:
    found = known.records.get((activity.source_system, activity.source_record_key))
    if found is None:
        raise Rejected(
            "source_record_key", "RECORD_UNKNOWN", "must be the key of a record of this source system; ingest the record first"
        )
    holding_id = None
    if activity.source_holding_key:
        holding_id = known.holdings.get((activity.source_system, activity.source_holding_key))
        if holding_id is None:
            raise Rejected(
                "source_holding_key", "HOLDING_UNKNOWN", "must be the key of a holding of this source system, or empty"
            )
    if activity.detail.transaction.fee.minor_units < 0:
        raise Rejected("detail.transaction.fee", "FEE_NEGATIVE", "must be zero or more")
    occurred_at = activity.detail.occurred_at
    payload = activity.detail.SerializeToString(deterministic=True)
    return ActivityRow(
        activity_id(activity.source_system, activity.source_activity_key),
        found.record_id,
        holding_id,
        source.number,
        instant(occurred_at.seconds, occurred_at.nanos, "detail.occurred_at", now),
        index.content(found.record_id.bytes + (holding_id.bytes if holding_id else b"") + payload),
        payload,
    )
