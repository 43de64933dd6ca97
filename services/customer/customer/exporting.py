"""Exports what is kept of a person: each record with all that its source stated, its links, holdings and activities."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from concord.customer.v1 import privacy_service_pb2 as pb
from concord.customer.v1.activity_pb2 import ActivityDetail
from concord.customer.v1.intake_service_pb2 import SourceRecord
from concord.customer.v1.party_pb2 import Party
from customer.core import Core
from customer.domain.vocabulary import LinkOrigin, ResolutionReason
from customer.messages import timestamp
from customer.store import exports
from customer.store.records import STATED_PARTY, STATED_PAYLOAD
from customer.store.vault import DataKey, bound_to

CONSENTS_MAX = 1000
ACTIVITIES_MAX = 2000
"""Of a page, over all its records."""
_ELSEWHERE = (
    ("Relationships to other customers", "/v1/{customer}/relationships"),
    ("KYC cases of the caller's institution, with evidence", "/v1/kycCases?customer={customer}"),
    ("Staff in charge", "/v1/{customer}/assignments"),
    ("Who looked at, exported or decided about the customer", "/v1/auditEntries?customer={customer}"),
    ("Ratings, their reasons and their history", "/v1/{customer}/ratings"),
    ("Contacts with the customer", "/v1/{customer}/contacts"),
    ("Messages in the inbox", "/v1/{customer}/inboxMessages"),
    ("Permissions to contact", "/v1/{customer}/permissions"),
    ("The points account; its statement by /v1/accounts/{account}/statement", "/v1/{customer}/account"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next page begins: with this record, whose activities up to an instant and id are told already."""

    record_id: UUID
    after: tuple[datetime, UUID] | None = None


async def records(
    core: Core, customer_id: UUID, institution_id: str | None, place: Place | None, limit: int
) -> tuple[list[pb.ExportedRecord], Place | None]:
    """A page of the customer's records that the institution contributed (None: all), and where the next one begins."""
    first = place.record_id if place else None
    async with core.viewers.connection(institution_id) as connection:
        rows = await exports.records(connection, customer_id, institution_id, first, limit + 1)
        ids = [row["record_id"] for row in rows[:limit]]
        states = await exports.states(connection, ids)
        links = await exports.links(connection, ids)
    async with core.database.connection() as connection:
        holdings = await exports.holdings(connection, ids)
        counts = await exports.activities_counts(connection, ids)
    keys = await core.vault.keys(ids)
    exported: list[pb.ExportedRecord] = []
    left = ACTIVITIES_MAX
    for row in rows[:limit]:
        record_id = row["record_id"]
        key = keys.get(record_id)
        if key is None:
            continue
        after = place.after if place and place.record_id == record_id else None
        if left == 0:
            return exported, Place(record_id, after)
        record = pb.ExportedRecord(
            record=f"institutions/{row['institution_id']}/sourceSystems/{row['source_system_id']}/records/{record_id}",
            institution_display_name=row["institution_display_name"],
            source_system_display_name=row["source_system_display_name"],
            activities_count=counts.get(record_id, 0),
            continued=after is not None,
        )
        if after is None:
            record.links.extend(_link(link) for link in links if link["record_id"] == record_id)
            record.holdings.extend(_holding(holding) for holding in holdings if holding["record_id"] == record_id)
            for state in states:
                if state["record_id"] == record_id:
                    _add_state(record, state, key)
        exported.append(record)
        if record.activities_count:
            async with core.database.connection() as connection:
                found = await exports.activities(connection, record_id, after, left + 1)
            record.activities.extend(_activity(one) for one in found[:left])
            if len(found) > left:
                return exported, Place(record_id, (found[left - 1]["occurred_at"], found[left - 1]["activity_id"]))
            left -= len(found)
    return exported, Place(rows[limit]["record_id"]) if len(rows) > limit else None


def _add_state(record: pb.ExportedRecord, row: Any, key: DataKey) -> None:
    record_id, number = row["record_id"], row["state_number"]
    payload = SourceRecord.FromString(key.open(row["payload"], bound_to(STATED_PAYLOAD, record_id, number)))
    record.source_record_key = payload.source_record_key
    record.states.add(
        state_number=number,
        observe_time=timestamp(row["observe_time"]),
        record_time=timestamp(row["recorded_at"]),
        stated=payload.party,
        standardised=Party.FromString(key.open(row["party"], bound_to(STATED_PARTY, record_id, number))),
    )


def _activity(row: Any) -> pb.ExportedActivity:
    return pb.ExportedActivity(
        activity_id=str(row["activity_id"]),
        detail=ActivityDetail.FromString(row["payload"]),
        holding_id=str(row["holding_id"] or ""),
        record_time=timestamp(row["recorded_at"]),
    )


def held_elsewhere(customer_id: UUID) -> list[pb.HeldElsewhere]:
    """What else the platform holds of a person, by the paths that give it to who may read it."""
    return [pb.HeldElsewhere(what=what, path=path.format(customer=f"customers/{customer_id}")) for what, path in _ELSEWHERE]


def _link(row: Any) -> pb.ExportedLink:
    return pb.ExportedLink(
        customer=f"customers/{row['customer_id']}",
        reason=ResolutionReason(row["reason"]).name,
        manual=row["origin"] == LinkOrigin.MANUAL,
        record_time=timestamp(row["recorded_at"]),
        supersede_time=timestamp(row["superseded_at"]) if row["superseded_at"] else None,
    )


def _holding(row: Any) -> pb.ExportedHolding:
    return pb.ExportedHolding(
        holding_id=str(row["holding_id"]),
        kind=cast(Any, row["kind"]),
        product_code=row["product_code"],
        open_date=row["open_date"].isoformat(),
        close_date=row["close_date"].isoformat() if row["close_date"] else "",
        role=cast(Any, row["role"]),
    )
