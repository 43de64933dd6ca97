"""Folds the customer master's events into facts, and marks whom they touch for rating, in the same transaction."""

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from chassis import customer_states, record_links
from chassis.consumer import ReceivedEvent
from chassis.customer_states import CustomerState
from chassis.unit_of_work import UnitOfWork
from concord.common.v1.event_pb2 import RecordLink, Republished
from concord.customer.v1.activity_pb2 import ActivityDetail, Margin
from concord.customer.v1.attribute_pb2 import Attribute
from concord.customer.v1.customer_events_pb2 import (
    ActivityRecorded,
    CustomerChanged,
    CustomerErased,
    HoldingChanged,
    QualityChanged,
    RecordsMoved,
)
from concord.customer.v1.holding_pb2 import HolderRole, HoldingKind
from rating.domain.facts import month_of
from rating.store import erasure, fold, pauses, queue
from rating.store.fold import ActivityKind, ActivityRow, CustomerRow, HoldingRow

TYPES = {
    "concord.customer.v1.customer.updated": CustomerChanged,
    "concord.customer.v1.customer.records_moved": RecordsMoved,
    "concord.customer.v1.customer.erased": CustomerErased,
    "concord.customer.v1.quality.changed": QualityChanged,
    "concord.customer.v1.holding.changed": HoldingChanged,
    "concord.customer.v1.activity.recorded": ActivityRecorded,
    "concord.customer.v1.republished": Republished,
}

EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
"""The driver takes the calendar's very first instant for minus infinity, which has no zone."""


async def fold_customer_events(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    """Applies a batch: links first, which also locks its records against two batches of one record at once."""
    messages: defaultdict[type, list[Any]] = defaultdict(list)
    for event in events:
        messages[type(event.message)].append(event.message)
    connection = unit.connection
    moved = await record_links.fold(connection, _links(messages))
    customer_ids = {row["customer_id"] for row in moved} | {
        row["former_customer_id"] for row in moved if row["former_customer_id"]
    }
    await customer_states.fold(connection, map(_state, messages[CustomerChanged]))
    customers = await _of_the_living(unit, map(_customer, messages[CustomerChanged]))
    customer_ids.update(await fold.customers(connection, customers))
    customer_ids.update(await _worse_or_better(unit, messages[QualityChanged]))
    record_ids = await _fold_facts(unit, messages)
    holders = {uuid.UUID(holder.record_link.record_id) for holding in messages[HoldingChanged] for holder in holding.holders}
    await queue.mark(connection, unit.now, customer_ids, record_ids, holders)
    for message in messages[CustomerErased]:
        await _erase(unit, message)
    for event in events:  # after the facts: a rebuild locks those first, too
        if isinstance(event.message, Republished):
            await pauses.said_all(unit.connection, "customer", uuid.UUID(event.message.run_id), event.sequence)


async def _worse_or_better(unit: UnitOfWork, messages: Iterable[QualityChanged]) -> set[uuid.UUID]:
    """The living customers whose quality has entered another band; their figures, which move within bands too, are asked for."""
    told = {uuid.UUID(message.customer_id) for message in messages}
    return told - await customer_states.erased(unit.connection, told)


async def _fold_facts(unit: UnitOfWork, messages: dict[type, list[Any]]) -> set[uuid.UUID]:
    """Folds what hangs on records that are not erased; returns the records whose facts changed."""
    activities = messages[ActivityRecorded]
    rows = [row for row in map(_activity, activities) if row is not None]
    holdings = list(map(_holding, messages[HoldingChanged]))
    told = {row.record_id for row in rows} | {record_id for row in holdings for record_id in row.owner_record_ids}
    told |= {uuid.UUID(activity.record_link.record_id) for activity in activities}
    erased = await record_links.erased(unit.connection, told)
    reversed_ids = [
        uuid.UUID(activity.reversed_activity_id)
        for activity in activities
        if activity.reversed_activity_id and uuid.UUID(activity.record_link.record_id) not in erased
    ]
    living = [
        replace(row, owner_record_ids=tuple(each for each in row.owner_record_ids if each not in erased)) for row in holdings
    ]
    record_ids = set(await fold.holdings(unit.connection, living))
    orphans = [row.holding_id for row in holdings if erased & set(row.owner_record_ids)]
    await erasure.holdings_without_owner(unit.connection, orphans)
    record_ids.update(await fold.activities(unit.connection, [row for row in rows if row.record_id not in erased], reversed_ids))
    return record_ids


async def _of_the_living(unit: UnitOfWork, rows: Iterable[CustomerRow]) -> list[CustomerRow]:
    """The states of customers who are not erased: what is told of those comes too late."""
    told = list(rows)
    erased = await customer_states.erased(unit.connection, {row.customer_id for row in told})
    return [row for row in told if row.customer_id not in erased]


async def _erase(unit: UnitOfWork, message: CustomerErased) -> None:
    connection = unit.connection
    record_ids = [uuid.UUID(record_id) for record_id in message.record_ids]
    customer_id = uuid.UUID(message.customer_id)
    concerned = {customer_id, *await erasure.customers_of(connection, record_ids)} - {record_links.NOBODY}
    await record_links.erase(connection, record_ids)
    await erasure.facts(connection, record_ids)
    if message.whole:
        gone = await customer_states.erase(connection, customer_id)
        await erasure.customers(connection, gone)
        concerned -= gone
    await erasure.history(connection, concerned)
    await queue.mark(connection, unit.now, concerned)


def _links(messages: dict[type, list[Any]]) -> Iterable[RecordLink]:
    for message in [*messages[CustomerChanged], *messages[RecordsMoved]]:
        yield from message.record_links
    for holding in messages[HoldingChanged]:
        yield from (holder.record_link for holder in holding.holders)
    yield from (activity.record_link for activity in messages[ActivityRecorded])


def _state(message: CustomerChanged) -> CustomerState:
    merged_into = message.merged_into_customer_id
    return CustomerState(
        customer_id=uuid.UUID(message.customer_id),
        merged_into_customer_id=uuid.UUID(merged_into) if merged_into else None,
        restricted=message.restricted,
        version=message.state_version,
    )


def _customer(message: CustomerChanged) -> CustomerRow:
    return CustomerRow(
        customer_id=uuid.UUID(message.customer_id),
        epoch=message.state_version.epoch,
        version=message.state_version.version,
        created_at=datetime.fromtimestamp(message.create_time_seconds, UTC),
        attributes=[
            {
                "attribute": Attribute.Name(quality.attribute),
                "observed_seconds": quality.observe_time_seconds,
            }
            for quality in message.attribute_qualities
        ],
    )


def _holding(message: HoldingChanged) -> HoldingRow:
    owners = {
        uuid.UUID(holder.record_link.record_id) for holder in message.holders if holder.role != HolderRole.HOLDER_ROLE_AUTHORISED
    }
    return HoldingRow(
        holding_id=uuid.UUID(message.holding_id),
        epoch=message.state_version.epoch,
        version=message.state_version.version,
        kind=HoldingKind.Name(message.kind),
        open_date=date.fromisoformat(message.open_date) if message.open_date else None,
        close_date=date.fromisoformat(message.close_date) if message.close_date else None,
        owner_record_ids=tuple(sorted(owners)),
    )


def _activity(message: ActivityRecorded) -> ActivityRow | None:
    """The facts of an activity; None for a kind that no degree or stage looks at, and for a reversal."""
    detail = message.detail
    kind = detail.WhichOneof("kind")
    if kind is None or kind not in _FACTS:
        return None
    occurred_at = max(EARLIEST, detail.occurred_at.ToDatetime(tzinfo=UTC))
    facts = _FACTS[kind](detail)
    return ActivityRow(
        activity_id=uuid.UUID(message.activity_id),
        record_id=uuid.UUID(message.record_link.record_id),
        occurred_at=occurred_at,
        **({"month": month_of(occurred_at.date())} | facts),
    )


def _transaction(detail: ActivityDetail) -> dict[str, Any]:
    transaction = detail.transaction
    facts: dict[str, Any] = {
        "kind": ActivityKind.TRANSACTION,
        "amount": transaction.amount.minor_units,
        "currency_code": transaction.amount.currency_code,
    }
    if transaction.fee.minor_units:
        facts |= {"fee_minor_units": transaction.fee.minor_units, "fee_currency_code": transaction.fee.currency_code}
    return facts


def _margin(detail: ActivityDetail) -> dict[str, Any]:
    """Interest margin and fees, less cost, expected loss and capital charge, as far as they are in the margin's own currency."""
    margin: Margin = detail.margin
    year, month = margin.month.split("-")
    currency = margin.interest_margin.currency_code
    parts = [(1, margin.fees), (-1, margin.cost), (-1, margin.expected_loss), (-1, margin.capital_charge)]
    counted = [sign * money.minor_units for sign, money in parts if money.currency_code == currency]
    return {
        "kind": ActivityKind.MARGIN,
        "month": int(year) * 12 + int(month) - 1,
        "amount": margin.interest_margin.minor_units + sum(counted),
        "currency_code": currency,
        "partial": any(money.minor_units and money.currency_code != currency for _, money in parts),
    }


_FACTS: dict[str, Callable[[ActivityDetail], dict[str, Any]]] = {
    "transaction": _transaction,
    "margin": _margin,
    "risk_score": lambda detail: {"kind": ActivityKind.RISK_SCORE, "amount": detail.risk_score.default_probability_ppm},
    "journey_step": lambda detail: {"kind": ActivityKind.JOURNEY_STEP, "amount": detail.journey_step.event},
    "complaint": lambda detail: {"kind": ActivityKind.COMPLAINT},
}
