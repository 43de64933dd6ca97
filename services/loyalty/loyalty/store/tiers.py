"""Tiers of programmes, what qualifies, and where members stand.

What qualifies hangs on the account that earned it; the tier on the account under which that one stands, for all of them together.
"""

import json
import uuid
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import asyncpg

from chassis.database import Connection
from chassis.unit_of_work import UnitOfWork
from loyalty.domain import earn_rules, tiers
from loyalty.domain.tiers import Basis, Scheme, Standing, Tier, Window
from loyalty.store.messages import tier_changed


class Progress(NamedTuple):
    """What qualified, or (below zero) does no more."""

    account_id: uuid.UUID
    program_id: str
    month: date
    currency_code: str
    points: int
    amount_minor_units: int


# ---- schemes


async def draft(connection: Connection, scheme: Scheme, by: str, now: datetime) -> int:
    """Adds the next version of a programme's tiers as a draft. The caller has locked the programme."""
    version: int = await connection.fetchval(
        "INSERT INTO tier_schemes (program_id, version, state, definition, drafted_by, create_time)"
        " SELECT $1, coalesce(max(version), 0) + 1, 'DRAFT', $2, $3, $4 FROM tier_schemes WHERE program_id = $1"
        " RETURNING version",
        scheme.program_id, json.dumps(to_json(scheme)), by, now,
    )  # fmt: skip
    return version


async def get(connection: Connection, program_id: str, version: int, *, lock: bool = False) -> asyncpg.Record | None:
    """A version."""
    return await connection.fetchrow(
        f"SELECT * FROM tier_schemes WHERE (program_id, version) = ($1, $2){' FOR NO KEY UPDATE' if lock else ''}",
        program_id, version,
    )  # fmt: skip


async def list_before(connection: Connection, program_id: str, before: int | None, limit: int) -> list[asyncpg.Record]:
    """Versions, newest first, before one."""
    return await connection.fetch(
        "SELECT * FROM tier_schemes WHERE program_id = $1 AND ($2::bigint IS NULL OR version < $2) ORDER BY version DESC"
        " LIMIT $3",
        program_id, before, limit,
    )  # fmt: skip


async def approve(connection: Connection, row: asyncpg.Record, by: str) -> None:
    """Lets a draft hold."""
    await connection.execute(
        "UPDATE tier_schemes SET state = 'ACTIVE', approved_by = $3 WHERE (program_id, version) = ($1, $2)",
        row["program_id"], row["version"], by,
    )  # fmt: skip


async def in_force(connection: Connection, program_ids: Collection[str] | None = None) -> dict[str, Scheme]:
    """The newest active version of each programme; of all programmes where none are named."""
    rows = await connection.fetch(
        "SELECT DISTINCT ON (program_id) * FROM tier_schemes WHERE state = 'ACTIVE'"
        " AND ($1::text[] IS NULL OR program_id = ANY($1)) ORDER BY program_id, version DESC",
        None if program_ids is None else list(program_ids),
    )
    return {row["program_id"]: to_scheme(row) for row in rows}


def to_json(scheme: Scheme) -> dict[str, Any]:
    """A scheme as it is stored."""
    return {
        "basis": scheme.basis,
        "window": scheme.window,
        "window_months": scheme.window_months,
        "review_months": scheme.review_months,
        "currency_code": scheme.currency_code,
        "tiers": [[tier.tier_id, tier.display_name, tier.threshold, tier.keep_threshold, tier.percent] for tier in scheme.tiers],
    }


def to_scheme(row: asyncpg.Record) -> Scheme:
    """The scheme in a row."""
    stored = json.loads(row["definition"])
    return Scheme(
        program_id=row["program_id"],
        version=row["version"],
        basis=Basis(stored["basis"]),
        window=Window(stored["window"]),
        tiers=tuple(Tier(*tier) for tier in stored["tiers"]),
        window_months=stored["window_months"],
        review_months=stored["review_months"],
        currency_code=stored["currency_code"],
    )


# ---- members


async def parents(connection: Connection, account_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, asyncpg.Record]:
    """By account: the one under which it stands (itself where it stands under none), and whose it is."""
    rows = await connection.fetch(
        "SELECT account_id, coalesce(parent_account_id, account_id) AS parent_id, holder_customer_id"
        " FROM accounts WHERE account_id = ANY($1::uuid[])",
        list(account_ids),
    )
    return {row["account_id"]: row for row in rows}


async def standings(
    connection: Connection, customer_ids: Collection[uuid.UUID], parent_ids: Collection[uuid.UUID], issuers: dict[str, str]
) -> dict[tuple[uuid.UUID, uuid.UUID, str], earn_rules.Standing]:
    """What rules may know, by (customer, account, programme). `issuers` gives the institution of each programme."""
    levels = await connection.fetch(
        "SELECT customer_id, scope, level FROM customer_levels WHERE customer_id = ANY($1::uuid[]) AND scope = ANY($2::text[])",
        list(customer_ids), ["alliance", *issuers.values()],
    )  # fmt: skip
    level_of = {(row["customer_id"], row["scope"]): row["level"] for row in levels}
    tier_rows = await connection.fetch(
        "SELECT account_id, program_id, tier_id FROM member_tiers WHERE account_id = ANY($1::uuid[])"
        " AND program_id = ANY($2::text[]) AND tier_id <> ''",
        list(parent_ids), list(issuers),
    )  # fmt: skip
    tier_of = {(row["account_id"], row["program_id"]): row["tier_id"] for row in tier_rows}
    schemes = await in_force(connection, list(issuers)) if tier_of else {}
    found = {}
    for customer_id in customer_ids:
        for parent_id in parent_ids:
            for program_id, issuer in issuers.items():
                scheme, tier_id = schemes.get(program_id), tier_of.get((parent_id, program_id), "")
                rank = scheme.rank(tier_id) if scheme else 0
                tier = scheme.tier(rank) if scheme else None
                found[customer_id, parent_id, program_id] = earn_rules.Standing(
                    level_of.get((customer_id, issuer), ""), level_of.get((customer_id, "alliance"), ""),
                    tier_id if rank else "", rank, tier.percent if tier else 100,
                )  # fmt: skip
    return found


async def progress(unit: UnitOfWork, rows: Sequence[Progress]) -> None:
    """Adds what qualified, and raises members who reach a tier. Under the head's lock."""
    if not rows:
        return
    sums: dict[tuple[uuid.UUID, str, date, str], tuple[int, int]] = {}
    for row in rows:
        points, amount = sums.get(row[:4], (0, 0))
        sums[row[:4]] = points + row.points, amount + row.amount_minor_units
    ordered = sorted((*key, *value) for key, value in sums.items())
    await unit.connection.execute(
        "INSERT INTO tier_progress AS t (account_id, program_id, month, currency_code, points, amount_minor_units)"
        " SELECT * FROM unnest($1::uuid[], $2::text[], $3::date[], $4::text[], $5::bigint[], $6::bigint[])"
        " ON CONFLICT (account_id, program_id, month, currency_code) DO UPDATE SET points = t.points + excluded.points,"
        " amount_minor_units = t.amount_minor_units + excluded.amount_minor_units",
        *map(list, zip(*ordered, strict=True)),
    )
    schemes = await in_force(unit.connection, {row.program_id for row in rows})
    touched = {(row.account_id, row.program_id) for row in rows if row.program_id in schemes}
    above = await parents(unit.connection, {account_id for account_id, _ in touched})
    for parent_id, program_id in sorted({(above[account_id]["parent_id"], program_id) for account_id, program_id in touched}):
        await _raise(unit, parent_id, schemes[program_id])


async def review_due(unit: UnitOfWork, limit: int) -> int:
    """Reviews members whose day has come, in their programme's zone. Returns how many."""
    rows = await unit.connection.fetch(
        "SELECT m.*, p.time_zone FROM member_tiers m JOIN programs p USING (program_id)"
        " WHERE m.review_date <= ($1::timestamptz AT TIME ZONE p.time_zone)::date"
        " AND m.review_date <= ($1::timestamptz AT TIME ZONE 'UTC')::date + 1"
        " ORDER BY m.review_date, m.account_id, m.program_id LIMIT $2 FOR NO KEY UPDATE OF m SKIP LOCKED",
        unit.now, limit,
    )  # fmt: skip
    schemes = await in_force(unit.connection, {row["program_id"] for row in rows})
    for row in rows:
        scheme = schemes[row["program_id"]]
        today = unit.now.astimezone(ZoneInfo(row["time_zone"])).date()
        before = Standing(row["tier_id"], row["review_date"])
        ended = await qualifying(unit.connection, row["account_id"], scheme, tiers.months_after(today, -1))
        present = await qualifying(unit.connection, row["account_id"], scheme, today)
        after = tiers.reviewed(scheme, before, (ended, present), today)
        await _set(unit, row["account_id"], scheme.program_id, before, after, row["version"])
    return len(rows)


async def qualifying(connection: Connection, parent_id: uuid.UUID, scheme: Scheme, day: date) -> int:
    """What qualifies in the window of a day, on the account and those under it."""
    points, amount = await connection.fetchrow(
        "SELECT coalesce(sum(t.points), 0)::bigint,"
        " coalesce(sum(t.amount_minor_units) FILTER (WHERE t.currency_code = $5), 0)::bigint"
        " FROM accounts a JOIN tier_progress t USING (account_id) WHERE coalesce(a.parent_account_id, a.account_id) = $1"
        " AND (a.account_id = $1 OR a.parent_account_id = $1) AND t.program_id = $2 AND t.month BETWEEN $3 AND $4",
        parent_id, scheme.program_id, tiers.first_month(scheme, day), day.replace(day=1), scheme.currency_code,
    ) or (0, 0)  # fmt: skip
    qualified: int = points if scheme.basis is Basis.POINTS else amount
    return max(0, qualified)


async def of_account(connection: Connection, account_id: uuid.UUID) -> dict[str, asyncpg.Record]:
    """Where an account stands, by programme."""
    rows = await connection.fetch("SELECT * FROM member_tiers WHERE account_id = $1", account_id)
    return {row["program_id"]: row for row in rows}


async def zones(connection: Connection, program_ids: Iterable[str]) -> dict[str, ZoneInfo]:
    """The time zones of programmes."""
    rows = await connection.fetch(
        "SELECT program_id, time_zone FROM programs WHERE program_id = ANY($1::text[])", list(program_ids)
    )
    return {row["program_id"]: ZoneInfo(row["time_zone"]) for row in rows}


async def _raise(unit: UnitOfWork, parent_id: uuid.UUID, scheme: Scheme) -> None:
    zone = (await zones(unit.connection, [scheme.program_id]))[scheme.program_id]
    today = unit.now.astimezone(zone).date()
    row = await unit.connection.fetchrow(
        "SELECT * FROM member_tiers WHERE account_id = $1 AND program_id = $2 FOR NO KEY UPDATE", parent_id, scheme.program_id
    )
    before = Standing(row["tier_id"], row["review_date"]) if row else Standing()
    after = tiers.raised(scheme, before, await qualifying(unit.connection, parent_id, scheme, today), today)
    if after != before:
        await _set(unit, parent_id, scheme.program_id, before, after, row["version"] if row else 0)


async def _set(unit: UnitOfWork, parent_id: uuid.UUID, program_id: str, before: Standing, after: Standing, version: int) -> None:
    await unit.connection.execute(
        "INSERT INTO member_tiers (account_id, program_id, tier_id, review_date, version, change_time)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (account_id, program_id) DO UPDATE SET tier_id = excluded.tier_id,"
        " review_date = excluded.review_date, version = excluded.version,"
        " change_time = CASE WHEN member_tiers.tier_id = excluded.tier_id THEN member_tiers.change_time"
        " ELSE excluded.change_time END",
        parent_id, program_id, after.tier_id, after.review_date, version + 1, unit.now,
    )  # fmt: skip
    if after.tier_id != before.tier_id:
        customer_id = await unit.connection.fetchval("SELECT holder_customer_id FROM accounts WHERE account_id = $1", parent_id)
        unit.publish(
            tier_changed(parent_id, customer_id, program_id, after.tier_id, before.tier_id, epoch=unit.epoch, version=version + 1)
        )
