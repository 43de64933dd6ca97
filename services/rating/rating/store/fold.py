"""Writes facts as events tell them: set-based, newest state wins, a reversal counts whichever came first."""

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import IntEnum

from chassis.database import Connection


class ActivityKind(IntEnum):
    """Kinds of activities whose facts are kept, as the table numbers them."""

    TRANSACTION = 1
    MARGIN = 2
    RISK_SCORE = 3
    JOURNEY_STEP = 4
    COMPLAINT = 5


@dataclass(frozen=True, slots=True)
class CustomerRow:
    """A customer's state."""

    customer_id: uuid.UUID
    epoch: int
    version: int
    created_at: datetime
    attributes: list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class HoldingRow:
    """A holding's state."""

    holding_id: uuid.UUID
    epoch: int
    version: int
    kind: str
    open_date: date | None
    close_date: date | None
    owner_record_ids: tuple[uuid.UUID, ...]


@dataclass(frozen=True, slots=True)
class ActivityRow:
    """The facts of one activity."""

    activity_id: uuid.UUID
    record_id: uuid.UUID
    kind: ActivityKind
    occurred_at: datetime
    month: int
    amount: int | None = None
    currency_code: str | None = None
    fee_minor_units: int | None = None
    fee_currency_code: str | None = None
    partial: bool | None = None


async def customers(connection: Connection, rows: Iterable[CustomerRow]) -> list[uuid.UUID]:
    """Applies newer states; returns the customers that changed."""
    newest: dict[uuid.UUID, CustomerRow] = {}
    for row in rows:
        known = newest.get(row.customer_id)
        if known is None or (known.epoch, known.version) < (row.epoch, row.version):
            newest[row.customer_id] = row
    if not newest:
        return []
    ordered = [newest[customer_id] for customer_id in sorted(newest)]
    changed = await connection.fetch(
        _FOLD_CUSTOMERS,
        [row.customer_id for row in ordered],
        [row.epoch for row in ordered],
        [row.version for row in ordered],
        [row.created_at for row in ordered],
        [json.dumps(row.attributes) for row in ordered],
    )
    return [row["customer_id"] for row in changed]


async def holdings(connection: Connection, rows: Iterable[HoldingRow]) -> list[uuid.UUID]:
    """Applies newer states with their owners; returns the records that own or owned a holding that changed."""
    newest: dict[uuid.UUID, HoldingRow] = {}
    for row in rows:
        known = newest.get(row.holding_id)
        if known is None or (known.epoch, known.version) < (row.epoch, row.version):
            newest[row.holding_id] = row
    if not newest:
        return []
    ordered = [newest[holding_id] for holding_id in sorted(newest)]
    changed = await connection.fetch(
        _FOLD_HOLDINGS,
        [row.holding_id for row in ordered],
        [row.epoch for row in ordered],
        [row.version for row in ordered],
        [row.kind for row in ordered],
        [row.open_date for row in ordered],
        [row.close_date for row in ordered],
    )
    changed_ids = [row["holding_id"] for row in changed]
    pairs = [(record_id, holding_id) for holding_id in changed_ids for record_id in newest[holding_id].owner_record_ids]
    former = await connection.fetch("DELETE FROM holding_owners WHERE holding_id = ANY($1) RETURNING record_id", changed_ids)
    await connection.execute(
        "INSERT INTO holding_owners (record_id, holding_id) SELECT DISTINCT * FROM unnest($1::uuid[], $2::uuid[])",
        [pair[0] for pair in pairs], [pair[1] for pair in pairs],
    )  # fmt: skip
    return [row["record_id"] for row in former] + [pair[0] for pair in pairs]


async def activities(connection: Connection, rows: Sequence[ActivityRow], reversed_ids: Iterable[uuid.UUID]) -> list[uuid.UUID]:
    """Keeps activities and takes others back, in any order; returns the records whose facts changed.

    A reversal whose activity has not arrived leaves an empty row marked reversed, which the activity then fills: both
    lock the same row, so that neither can miss the other.
    """
    taken_back = set(reversed_ids)
    records = [row.record_id for row in rows]
    by_id: dict[uuid.UUID, ActivityRow | None] = dict.fromkeys(taken_back)
    by_id |= {row.activity_id: row for row in rows}
    if not by_id:
        return []
    ids = sorted(by_id)
    ordered = [by_id[activity_id] for activity_id in ids]
    changed = await connection.fetch(
        _FOLD_ACTIVITIES,
        ids,
        [activity_id in taken_back for activity_id in ids],
        [row and row.record_id for row in ordered],
        [row and row.kind.value for row in ordered],
        [row and row.occurred_at for row in ordered],
        [row and row.month for row in ordered],
        [row and row.amount for row in ordered],
        [row and row.currency_code for row in ordered],
        [row and row.fee_minor_units for row in ordered],
        [row and row.fee_currency_code for row in ordered],
        [row and row.partial for row in ordered],
        [activity_id for activity_id in ids if by_id[activity_id] is None],
    )
    return records + [row["record_id"] for row in changed]


_FOLD_CUSTOMERS = """
INSERT INTO customers AS t (customer_id, epoch, version, created_at, attributes)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::jsonb[])
ON CONFLICT (customer_id) DO UPDATE SET
    epoch = excluded.epoch, version = excluded.version, created_at = excluded.created_at, attributes = excluded.attributes
WHERE (t.epoch, t.version) < (excluded.epoch, excluded.version)
RETURNING customer_id
"""

_FOLD_HOLDINGS = """
INSERT INTO holdings AS t (holding_id, epoch, version, kind, open_date, close_date)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::date[], $6::date[])
ON CONFLICT (holding_id) DO UPDATE SET
    epoch = excluded.epoch, version = excluded.version, kind = excluded.kind,
    open_date = excluded.open_date, close_date = excluded.close_date
WHERE (t.epoch, t.version) < (excluded.epoch, excluded.version)
RETURNING holding_id
"""

_FOLD_ACTIVITIES = """
WITH folded AS (
    INSERT INTO activities AS t (activity_id, reversed, record_id, kind, occurred_at, month, amount, currency_code,
                                 fee_minor_units, fee_currency_code, partial)
    SELECT * FROM unnest($1::uuid[], $2::boolean[], $3::uuid[], $4::smallint[], $5::timestamptz[], $6::integer[], $7::bigint[],
                         $8::text[], $9::bigint[], $10::text[], $11::boolean[])
    ON CONFLICT (activity_id) DO UPDATE SET
        reversed = t.reversed OR excluded.reversed,
        record_id = coalesce(t.record_id, excluded.record_id),
        kind = coalesce(t.kind, excluded.kind),
        occurred_at = coalesce(t.occurred_at, excluded.occurred_at),
        month = coalesce(t.month, excluded.month),
        amount = coalesce(t.amount, excluded.amount),
        currency_code = coalesce(t.currency_code, excluded.currency_code),
        fee_minor_units = coalesce(t.fee_minor_units, excluded.fee_minor_units),
        fee_currency_code = coalesce(t.fee_currency_code, excluded.fee_currency_code),
        partial = coalesce(t.partial, excluded.partial)
    RETURNING activity_id, record_id
)
SELECT record_id FROM folded WHERE activity_id = ANY($12) AND record_id IS NOT NULL
"""
