"""What campaign folds from the events of others: who is linked with whom, what is known of them, how touches go."""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeAlias

from campaign.domain.audience import DEGREES
from campaign.store import erasure, projections, tables
from chassis import customer_states, record_links
from chassis.consumer import ReceivedEvent, Subscription
from chassis.customer_states import CustomerState
from chassis.unit_of_work import UnitOfWork
from concord.common.v1.channel_pb2 import Channel
from concord.common.v1.event_pb2 import StateVersion
from concord.contact.v1.contact_events_pb2 import ContactRecorded, PermissionChanged
from concord.contact.v1.contact_service_pb2 import ContactPurpose, ContactState
from concord.contact.v1.permission_service_pb2 import PERMISSION_STATE_GRANTED
from concord.customer.v1.attribute_pb2 import Sex
from concord.customer.v1.customer_events_pb2 import CustomerChanged, CustomerErased, RecordsMoved
from concord.loyalty.v1.loyalty_events_pb2 import AccountChanged, PointsPosted
from concord.rating.v1.rating_events_pb2 import RatingChanged
from concord.rating.v1.rating_service_pb2 import CustomerLevel, DegreeKind, LifecycleStage

DURABLE = "campaign"
_Row: TypeAlias = Mapping[str, Any]


class _Codes(Protocol):
    def Name(self, number: Any) -> str: ...  # noqa: N802 - protobuf's


async def fold_customer(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    """Who is linked with whom, what the master knows, who was merged, restricted or erased."""
    messages = [event.message for event in events]
    told = [message for message in messages if not isinstance(message, CustomerErased)]
    await record_links.fold(unit.connection, [link for message in told for link in message.record_links])
    changed = [message for message in messages if isinstance(message, CustomerChanged)]
    await customer_states.fold(unit.connection, map(_state, changed))
    await projections.fold(unit.connection, tables.profiles, await _of_the_living(unit, map(_profile, changed)))
    for message in messages:
        if isinstance(message, CustomerErased):
            record_ids = [uuid.UUID(record_id) for record_id in message.record_ids]
            await record_links.erase(unit.connection, record_ids)
            gone = await customer_states.erase(unit.connection, uuid.UUID(message.customer_id)) if message.whole else set()
            await erasure.erase(unit.connection, record_ids, gone)


async def _of_the_living(unit: UnitOfWork, rows: Iterable[_Row]) -> list[_Row]:
    """The rows of customers who are not erased: what is told of those comes too late."""
    all_rows = list(rows)
    erased = await customer_states.erased(unit.connection, {row["customer_id"] for row in all_rows})
    return [row for row in all_rows if row["customer_id"] not in erased]


def _state(message: CustomerChanged) -> CustomerState:
    merged_into = message.merged_into_customer_id
    return CustomerState(
        customer_id=uuid.UUID(message.customer_id),
        merged_into_customer_id=uuid.UUID(merged_into) if merged_into else None,
        restricted=message.restricted,
        version=message.state_version,
    )


def _profile(message: CustomerChanged) -> dict[str, Any]:
    return {
        "customer_id": uuid.UUID(message.customer_id),
        "birth_year": message.birth_year or None,
        "sex": _code(Sex, message.sex),
        "country": message.country_code or None,
        "administrative_area": message.administrative_area or None,
        "language": message.language_code or None,
        **_order(message.state_version),
    }


async def fold_rating(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    """Levels, stages and degrees."""
    rows = await _of_the_living(unit, (_rating(event.message) for event in events))
    await projections.fold(unit.connection, tables.profile_ratings, rows)


def _rating(message: RatingChanged) -> dict[str, Any]:
    degrees: dict[str, float | None] = dict.fromkeys(_DEGREE_COLUMNS.values())
    for degree in message.degrees:
        if degree.kind in _DEGREE_COLUMNS and degree.HasField("value"):
            degrees[_DEGREE_COLUMNS[degree.kind]] = degree.value
    return {
        "customer_id": uuid.UUID(message.customer_id),
        "scope": message.scope,
        "customer_level": _code(CustomerLevel, message.customer_level),
        "lifecycle_stage": _code(LifecycleStage, message.lifecycle_stage),
        **degrees,
        **_order(message.state_version),
    }


async def fold_loyalty(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    """Whose the accounts are, and their balances."""
    accounts = [event.message for event in events if isinstance(event.message, AccountChanged)]
    await projections.fold(unit.connection, tables.loyalty_accounts, await _of_the_living(unit, map(_account, accounts)))
    posted = [event.message for event in events if isinstance(event.message, PointsPosted)]
    await projections.fold(unit.connection, tables.profile_points, map(_balance, posted))


def _account(message: AccountChanged) -> dict[str, Any]:
    return {
        "account_id": uuid.UUID(message.account_id),
        "customer_id": uuid.UUID(message.customer_id) if message.customer_id else record_links.NOBODY,
        **_order(message.state_version),
    }


def _balance(message: PointsPosted) -> dict[str, Any]:
    return {
        "account_id": uuid.UUID(message.account_id),
        "program_id": message.program_id,
        "balance_points": message.balance_points,
        **_order(message.state_version),
    }


async def fold_contact(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    """Permissions, and how touches go. A contact may be known before its touch is committed, so it has a table of its own."""
    permissions = [event.message for event in events if isinstance(event.message, PermissionChanged)]
    erased = await record_links.erased(unit.connection, {uuid.UUID(message.record_id) for message in permissions})
    rows = [row for row in map(_permission, permissions) if row["record_id"] not in erased]
    await projections.fold(unit.connection, tables.permissions, rows)
    contacts = [event.message for event in events if isinstance(event.message, ContactRecorded) and event.message.touch_id]
    await projections.fold(unit.connection, tables.contact_states, filter(None, map(_contact_state, contacts)))


def _permission(message: PermissionChanged) -> dict[str, Any]:
    return {
        "record_id": uuid.UUID(message.record_id),
        "channel": _code(Channel, message.channel, "CHANNEL_") or "",
        "purpose": _code(ContactPurpose, message.purpose, "CONTACT_PURPOSE_") or "",
        "granted": message.state == PERMISSION_STATE_GRANTED,
        "covered_record_ids": ",".join(message.covered_record_ids),
        "state_time_microseconds": message.state_time_microseconds,
        "statement_id": message.statement_id,
        **_order(message.state_version),
    }


def _contact_state(message: ContactRecorded) -> dict[str, Any] | None:
    state = _code(ContactState, message.state, "CONTACT_STATE_")
    if state is None:
        return None
    return {"touch_id": uuid.UUID(message.touch_id), "state": state, **_order(message.state_version)}


def _code(codes: _Codes, number: int, prefix: str = "") -> str | None:
    """The code of an enum's value; None when it is not stated, or newer than this program."""
    try:
        return codes.Name(number).removeprefix(prefix) if number else None
    except ValueError:
        return None


def _order(version: StateVersion) -> Mapping[str, int]:
    return {"epoch": version.epoch, "version": version.version}


_DEGREE_COLUMNS: dict[int, str] = {DegreeKind.Value(f"DEGREE_KIND_{field.name}"): field.name.lower() for field in DEGREES}

SUBSCRIPTIONS = (
    Subscription(
        stream="customer",
        durable=DURABLE,
        handler=fold_customer,
        types={
            "concord.customer.v1.customer.updated": CustomerChanged,
            "concord.customer.v1.customer.records_moved": RecordsMoved,
            "concord.customer.v1.customer.erased": CustomerErased,
        },
    ),
    Subscription(
        stream="rating", durable=DURABLE, handler=fold_rating, types={"concord.rating.v1.rating.changed": RatingChanged}
    ),
    Subscription(
        stream="loyalty",
        durable=DURABLE,
        handler=fold_loyalty,
        types={
            "concord.loyalty.v1.account.changed": AccountChanged,
            "concord.loyalty.v1.points.posted": PointsPosted,
        },
    ),
    Subscription(
        stream="contact",
        durable=DURABLE,
        handler=fold_contact,
        types={
            "concord.contact.v1.contact.recorded": ContactRecorded,
            "concord.contact.v1.permission.changed": PermissionChanged,
        },
    ),
)
