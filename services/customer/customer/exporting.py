"""Exports what is kept of a person: each record with all that its source stated, its links and holdings."""

from typing import Any, cast
from uuid import UUID

from concord.customer.v1 import privacy_service_pb2 as pb
from concord.customer.v1.intake_service_pb2 import SourceRecord
from concord.customer.v1.party_pb2 import Party
from customer.core import Core
from customer.domain.vocabulary import LinkOrigin, ResolutionReason
from customer.messages import timestamp
from customer.store import exports
from customer.store.records import STATED_PARTY, STATED_PAYLOAD
from customer.store.vault import DataKey, bound_to

CONSENTS_MAX = 1000


async def records(
    core: Core, customer_id: UUID, institution_id: str | None, after: UUID | None, limit: int
) -> tuple[list[pb.ExportedRecord], bool]:
    """A page of the customer's records that the institution contributed (None: all), and whether there are more."""
    async with core.viewers.connection(institution_id) as connection:
        rows = await exports.records(connection, customer_id, institution_id, after, limit + 1)
        ids = [row["record_id"] for row in rows[:limit]]
        states = await exports.states(connection, ids)
        links = await exports.links(connection, ids)
    async with core.database.connection() as connection:
        holdings = await exports.holdings(connection, ids)
        activities = await exports.activities_counts(connection, ids)
    keys = await core.vault.keys(ids)
    exported = []
    for row in rows[:limit]:
        record_id = row["record_id"]
        key = keys.get(record_id)
        if key is None:
            continue
        record = pb.ExportedRecord(
            record=f"institutions/{row['institution_id']}/sourceSystems/{row['source_system_id']}/records/{record_id}",
            institution_display_name=row["institution_display_name"],
            source_system_display_name=row["source_system_display_name"],
            links=[_link(link) for link in links if link["record_id"] == record_id],
            holdings=[_holding(holding) for holding in holdings if holding["record_id"] == record_id],
            activities_count=activities.get(record_id, 0),
        )
        for state in states:
            if state["record_id"] == record_id:
                _add_state(record, state, key)
        exported.append(record)
    return exported, len(rows) > limit


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
