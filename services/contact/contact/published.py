"""What this service publishes: rows as state events. Ids only, nothing personal."""

from datetime import UTC, datetime, timedelta

import asyncpg

from chassis.outbox import Event
from concord.common.v1.event_pb2 import StateVersion
from concord.contact.v1.contact_events_pb2 import ContactRecorded, PermissionChanged

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def contact_recorded(row: asyncpg.Record, epoch: int) -> Event:
    """The state of a contact."""
    message = ContactRecorded(
        contact_id=str(row["contact_id"]),
        state_version=StateVersion(epoch=epoch, version=row["version"]),
        customer_id=str(row["customer_id"] or ""),
        record_id=str(row["record_id"]),
        institution_id=row["institution_id"],
        direction=row["direction"],
        channel=row["channel"],
        purpose=row["purpose"],
        state=row["state"],
        touch_id=str(row["contact_id"]) if row["touch"] else "",
        contact_time_seconds=int(row["contact_time"].timestamp()),
    )
    return Event("concord.contact.v1.contact.recorded", aggregate_id=message.contact_id, message=message)


def permission_changed(row: asyncpg.Record, epoch: int) -> Event:
    """The state of a permission."""
    message = PermissionChanged(
        customer_id=str(row["customer_id"] or ""),
        record_id=str(row["record_id"]),
        covered_record_ids=sorted(map(str, row["covered_record_ids"])),
        state_time_microseconds=(row["state_time"] - EPOCH) // timedelta(microseconds=1),
        statement_id=str(row["statement_id"]),
        institution_id=row["institution_id"],
        channel=row["channel"],
        purpose=row["purpose"],
        state_version=StateVersion(epoch=epoch, version=row["version"]),
        state=row["state"],
    )
    aggregate_id = f"{message.record_id}/{row['purpose']}/{row['channel']}"
    return Event("concord.contact.v1.permission.changed", aggregate_id=aggregate_id, message=message)
