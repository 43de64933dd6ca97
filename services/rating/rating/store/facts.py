"""Reads the facts of customers in all their scopes: a few statements for a batch, whatever its size."""

import json
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, time

import asyncpg

from chassis.database import Connection
from rating.domain.facts import (
    ALLIANCE,
    WINDOW_MONTHS,
    Facts,
    Holding,
    MonthMargin,
    MonthTurnover,
    RiskScore,
    first_day,
    month_of,
)
from rating.store import qualities
from rating.store.fold import ActivityKind


@dataclass(slots=True)
class _RecordFacts:
    """What hangs on one record."""

    latest: datetime | None = None
    holdings: dict[uuid.UUID, Holding] = field(default_factory=dict)
    turnover: list[MonthTurnover] = field(default_factory=list)
    margins: list[MonthMargin] = field(default_factory=list)
    risk_score: RiskScore | None = None
    counts: dict[tuple[ActivityKind, int], int] = field(default_factory=dict)


async def load(connection: Connection, customer_ids: Collection[uuid.UUID]) -> dict[tuple[uuid.UUID, str], Facts]:
    """Facts by (customer, scope): `alliance` and each institution with a linked record.

    A customer that has no record, as one that is merged away, or whose own state has not arrived has no scope.
    """
    customers = {row["customer_id"]: row for row in await connection.fetch(_CUSTOMERS, list(customer_ids))}
    scopes: dict[tuple[uuid.UUID, str], list[uuid.UUID]] = defaultdict(list)
    for row in await connection.fetch(_LINKS, list(customers)):
        scopes[row["customer_id"], ALLIANCE].append(row["record_id"])
        scopes[row["customer_id"], row["institution_id"]].append(row["record_id"])
    records = {record_id: _RecordFacts() for ids in scopes.values() for record_id in ids}
    await _load_holdings(connection, records)
    for row in await connection.fetch(_LATEST, list(records)):
        records[row["record_id"]].latest = row["occurred_at"]
    instants = {key: _as_of(key[1], customers[key[0]], [records[record_id] for record_id in ids]) for key, ids in scopes.items()}
    await _load_months(connection, records, _windows(scopes, instants))
    for row in await connection.fetch(_RISK_SCORES, list(records)):
        records[row["record_id"]].risk_score = RiskScore(row["occurred_at"], row["activity_id"], row["amount"])
    return {
        key: _facts(key[1], instants[key], customers[key[0]], [records[record_id] for record_id in sorted(ids)])
        for key, ids in scopes.items()
    }


def _windows(
    scopes: dict[tuple[uuid.UUID, str], list[uuid.UUID]], instants: dict[tuple[uuid.UUID, str], datetime]
) -> dict[uuid.UUID, int]:
    """The first month to read of each record: the earliest of its scopes, whose window holds a month more than is used."""
    first: dict[uuid.UUID, int] = {}
    for key, record_ids in scopes.items():
        month = month_of(instants[key].date()) - WINDOW_MONTHS
        for record_id in record_ids:
            first[record_id] = min(month, first.get(record_id, month))
    return first


def _as_of(scope: str, customer: asyncpg.Record, records: Iterable[_RecordFacts]) -> datetime:
    """The latest instant that any fact of the scope speaks of; of a customer without dated facts, when it was first seen."""
    instants = [record.latest for record in records if record.latest]
    for record in records:
        for holding in record.holdings.values():
            instants += [datetime.combine(day, time(), UTC) for day in (holding.open_date, holding.close_date) if day]
    if scope == ALLIANCE:
        instants += [_instant(attribute["observed_seconds"]) for attribute in json.loads(customer["attributes"])]
    return max(instants, default=customer["created_at"])


async def _load_holdings(connection: Connection, records: dict[uuid.UUID, _RecordFacts]) -> None:
    for row in await connection.fetch(_HOLDINGS, list(records)):
        holding = Holding(row["kind"], row["open_date"], row["close_date"])
        records[row["record_id"]].holdings[row["holding_id"]] = holding


async def _load_months(connection: Connection, records: dict[uuid.UUID, _RecordFacts], windows: dict[uuid.UUID, int]) -> None:
    record_ids = list(windows)
    months = [windows[record_id] for record_id in record_ids]
    starts = [datetime.combine(first_day(month), time(), UTC) for month in months]
    for row in await connection.fetch(_TURNOVER, record_ids, starts):
        record, month, kind = records[row["record_id"]], row["month"], row["kind"]
        if kind != ActivityKind.TRANSACTION:
            key = ActivityKind(kind), month
            record.counts[key] = record.counts.get(key, 0) + row["count"]
            continue
        fees = int(row["fees"] or 0)
        if fees and row["fee_currency_code"] != row["currency_code"]:
            record.turnover.append(MonthTurnover(month, row["fee_currency_code"], 0, 0, fees, 0))
            fees = 0
        turnover = MonthTurnover(month, row["currency_code"], int(row["money_in"]), int(row["money_out"]), fees, row["count"])
        record.turnover.append(turnover)
    for row in await connection.fetch(_MARGINS, record_ids, months):
        margin = MonthMargin(row["month"], row["currency_code"], int(row["result"]), row["partial"])
        records[row["record_id"]].margins.append(margin)


def _facts(scope: str, as_of: datetime, customer: asyncpg.Record, records: list[_RecordFacts]) -> Facts:
    """One scope's facts. A holding that is held through two records of the customer is one holding."""
    since = month_of(as_of.date()) - WINDOW_MONTHS
    holdings = {holding_id: holding for record in records for holding_id, holding in record.holdings.items()}
    counts = [(kind, count) for record in records for (kind, month), count in record.counts.items() if month >= since]
    scores = [record.risk_score for record in records if record.risk_score]
    return Facts(
        scope=scope,
        as_of=as_of,
        quality=qualities.from_row(customer) if scope == ALLIANCE else None,
        attributes_stated_count=len(json.loads(customer["attributes"])) if scope == ALLIANCE else 0,
        holdings=tuple(holdings[holding_id] for holding_id in sorted(holdings)),
        turnover=tuple(month for record in records for month in record.turnover if month.month >= since),
        margins=tuple(month for record in records for month in record.margins if month.month >= since),
        risk_score=max(scores, key=lambda score: (score.occurred_at, score.activity_id), default=None),
        records_count=len(records),
        journey_steps_count=sum(count for kind, count in counts if kind is ActivityKind.JOURNEY_STEP),
        complaints_count=sum(count for kind, count in counts if kind is ActivityKind.COMPLAINT),
    )


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


_CUSTOMERS = """
SELECT customer_id, created_at, c.attributes, completeness_percent, credibility_percent, q.attributes AS quality_attributes
FROM customers c LEFT JOIN customer_qualities q USING (customer_id) WHERE customer_id = ANY($1)
"""

_LINKS = "SELECT customer_id, record_id, institution_id FROM record_links WHERE customer_id = ANY($1)"

_HOLDINGS = """
SELECT o.record_id, h.holding_id, h.kind, h.open_date, h.close_date
FROM holding_owners o JOIN holdings h USING (holding_id) WHERE o.record_id = ANY($1)
"""

_LATEST = """
SELECT r.record_id, a.occurred_at FROM unnest($1::uuid[]) AS r (record_id) CROSS JOIN LATERAL (
    SELECT occurred_at FROM activities WHERE record_id = r.record_id AND NOT reversed ORDER BY occurred_at DESC LIMIT 1
) AS a
"""

_TURNOVER = """
SELECT r.record_id, a.month, a.kind, a.currency_code, a.fee_currency_code,
       coalesce(sum(amount) FILTER (WHERE amount > 0), 0) AS money_in,
       coalesce(-sum(amount) FILTER (WHERE amount < 0), 0) AS money_out,
       sum(fee_minor_units) AS fees, count(*) AS count
FROM unnest($1::uuid[], $2::timestamptz[]) AS r (record_id, since)
JOIN activities a ON a.record_id = r.record_id AND a.occurred_at >= r.since
WHERE NOT a.reversed AND a.kind IN (1, 4, 5)
GROUP BY r.record_id, a.month, a.kind, a.currency_code, a.fee_currency_code
ORDER BY r.record_id, a.month, a.kind, a.currency_code, a.fee_currency_code
"""

_MARGINS = """
SELECT r.record_id, a.month, a.currency_code, sum(amount) AS result, bool_or(partial) AS partial
FROM unnest($1::uuid[], $2::integer[]) AS r (record_id, since)
JOIN activities a ON a.record_id = r.record_id AND a.kind = 2 AND a.month >= r.since
WHERE NOT a.reversed AND a.kind IN (2, 3)
GROUP BY r.record_id, a.month, a.currency_code
ORDER BY r.record_id, a.month, a.currency_code
"""

_RISK_SCORES = """
SELECT r.record_id, a.activity_id, a.occurred_at, a.amount FROM unnest($1::uuid[]) AS r (record_id) CROSS JOIN LATERAL (
    SELECT activity_id, occurred_at, amount FROM activities
    WHERE record_id = r.record_id AND kind = 3 AND NOT reversed AND kind IN (2, 3)
    ORDER BY occurred_at DESC, activity_id DESC LIMIT 1
) AS a
"""
