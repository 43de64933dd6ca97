"""What campaign folds from the events of others: who is linked with whom, what is known of them, how touches go."""

import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from campaign.domain.audience import DEGREES
from campaign.store import projections, tables
from chassis import record_links
from chassis.consumer import ReceivedEvent, Subscription
from chassis.unit_of_work import UnitOfWork
from concord.common.v1.channel_pb2 import Channel
from concord.common.v1.event_pb2 import StateVersion
from concord.contact.v1.contact_events_pb2 import ContactRecorded, PermissionChanged
from concord.contact.v1.contact_service_pb2 import ContactPurpose, ContactState
from concord.contact.v1.permission_service_pb2 import PERMISSION_STATE_GRANTED
from concord.customer.v1.attribute_pb2 import Sex
from concord.customer.v1.customer_events_pb2 import CustomerChanged, RecordsMoved
from concord.loyalty.v1.loyalty_events_pb2 import AccountChanged, PointsPosted
from concord.rating.v1.rating_events_pb2 import RatingChanged
from concord.rating.v1.rating_service_pb2 import CustomerLevel, DegreeKind, LifecycleStage

DURABLE = "campaign"


class _Codes(Protocol):
    def Name(self, number: Any) -> str: ...  # noqa: N802 - protobuf's


async def fold_customer(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    """Who is linked with whom, and what the master knows."""
    messages: list[CustomerChanged | RecordsMoved] = [event.message for event in events]
    await record_links.fold(unit.connection, [link for message in messages for link in message.record_links])
    changed = [message for message in messages if isinstance(message, CustomerChanged)]
    await projections.fold(unit.connection, tables.profiles, map(_profile, changed))


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
    await projections.fold(unit.connection, tables.profile_ratings, [_rating(event.message) for event in events])


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
    await projections.fold(unit.connection, tables.loyalty_accounts, map(_account, accounts))
    posted = [event.message for event in events if isinstance(event.message, PointsPosted)]
    await projections.fold(unit.connection, tables.profile_points, map(_balance, posted))


def _account(message: AccountChanged) -> dict[str, Any]:
    return {
        "account_id": uuid.UUID(message.account_id),
        "customer_id": uuid.UUID(message.customer_id),
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
    await projections.fold(unit.connection, tables.permissions, map(_permission, permissions))
    contacts = [event.message for event in events if isinstance(event.message, ContactRecorded) and event.message.touch_id]
    await projections.fold(unit.connection, tables.contact_states, filter(None, map(_contact_state, contacts)))


def _permission(message: PermissionChanged) -> dict[str, Any]:
    return {
        "customer_id": uuid.UUID(message.customer_id),
        "institution_id": message.institution_id,
        "channel": _code(Channel, message.channel, "CHANNEL_") or "",
        "purpose": _code(ContactPurpose, message.purpose, "CONTACT_PURPOSE_") or "",
        "granted": message.state == PERMISSION_STATE_GRANTED,
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
