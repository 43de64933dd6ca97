"""Versions of earn rules, and what caps count."""

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import asyncpg

from chassis.database import Connection
from loyalty.domain.earn_rules import (
    AnyRule,
    Cap,
    Caps,
    Definition,
    Doing,
    ExpressionRule,
    RuleKind,
    Stacking,
)
from loyalty.domain.earning import Transaction
from loyalty.store.programs import to_rule


class Earning(NamedTuple):
    """What rules of a programme stand on."""

    program_id: str
    institution_id: str
    zone: ZoneInfo
    partners: frozenset[str]
    """Institutions that pay for points earned there."""
    rules: list[AnyRule]


class Decision(NamedTuple):
    """What an activity earned in a programme."""

    activity_id: uuid.UUID
    program_id: str
    account_id: uuid.UUID
    month: date
    points: int
    amount_minor_units: int
    currency_code: str
    counted: Sequence[tuple[Cap, int]]
    facts: Mapping[str, Any]


# ---- versions


async def draft(
    connection: Connection, program_id: str, rule_id: str, definition: Definition, effective_time: datetime,
    end_time: datetime | None, by: str, now: datetime,
) -> int:  # fmt: skip
    """Adds the next version of a rule as a draft, and gives its number. The caller has locked the programme."""
    version: int = await connection.fetchval(
        "INSERT INTO earn_rule_versions (program_id, rule_id, version, definition, institution_ids, effective_time, end_time,"
        " state, drafted_by, create_time)"
        " SELECT $1, $2, coalesce(max(version), 0) + 1, $3, $4, $5, $6, 'DRAFT', $7, $8"
        " FROM earn_rule_versions WHERE program_id = $1 AND rule_id = $2 RETURNING version",
        program_id, rule_id, json.dumps(to_json(definition)), sorted(definition.institution_ids), effective_time, end_time, by,
        now,
    )  # fmt: skip
    return version


async def get(
    connection: Connection, program_id: str, rule_id: str, version: int, *, lock: bool = False
) -> asyncpg.Record | None:
    """A version of an expression rule."""
    return await connection.fetchrow(
        "SELECT * FROM earn_rule_versions WHERE (program_id, rule_id, version) = ($1, $2, $3) AND definition IS NOT NULL"
        f"{' FOR NO KEY UPDATE' if lock else ''}",
        program_id, rule_id, version,
    )  # fmt: skip


async def list_after(connection: Connection, program_id: str, after: tuple[str, int], limit: int) -> list[asyncpg.Record]:
    """Versions of a programme's expression rules, by rule and number, after one."""
    return await connection.fetch(
        "SELECT * FROM earn_rule_versions WHERE program_id = $1 AND definition IS NOT NULL AND (rule_id, version) > ($2, $3)"
        " ORDER BY rule_id, version LIMIT $4",
        program_id, *after, limit,
    )  # fmt: skip


async def approve(connection: Connection, row: asyncpg.Record, by: str, effective_time: datetime) -> None:
    """Lets a draft hold."""
    await connection.execute(
        "UPDATE earn_rule_versions SET state = 'ACTIVE', approved_by = $4, effective_time = $5"
        " WHERE (program_id, rule_id, version) = ($1, $2, $3)",
        row["program_id"], row["rule_id"], row["version"], by, effective_time,
    )  # fmt: skip


async def withdraw(connection: Connection, row: asyncpg.Record) -> None:
    """Takes a draft back; its number stays used."""
    await connection.execute(
        "UPDATE earn_rule_versions SET state = 'WITHDRAWN' WHERE (program_id, rule_id, version) = ($1, $2, $3)",
        row["program_id"], row["rule_id"], row["version"],
    )  # fmt: skip


async def end(connection: Connection, row: asyncpg.Record, end_time: datetime) -> None:
    """Ends a version."""
    await connection.execute(
        "UPDATE earn_rule_versions SET end_time = $4 WHERE (program_id, rule_id, version) = ($1, $2, $3)",
        row["program_id"], row["rule_id"], row["version"], end_time,
    )  # fmt: skip


async def of_institutions(connection: Connection, institution_ids: Iterable[str]) -> list[Earning]:
    """The rules by which something done at these institutions may earn: of programmes that they issue, and of those whose rules
    name them and whose issuer has an active agreement that they pay. With all their versions, so that newer ones replace."""
    rows = await connection.fetch(_RULES, sorted(set(institution_ids)))
    return _earnings(rows)


async def of_program(connection: Connection, program_id: str, *, drafts: bool) -> Earning | None:
    """The rules of a programme; with drafts as if they held."""
    rows = await connection.fetch(_RULES_OF_PROGRAM, program_id, drafts)
    return next(iter(_earnings(rows)), None)


def _earnings(rows: Iterable[asyncpg.Record]) -> list[Earning]:
    found: dict[str, Earning] = {}
    for row in rows:
        program_id = row["program_id"]
        if program_id not in found:
            zone, partners = ZoneInfo(row["time_zone"]), frozenset(row["partners"])
            found[program_id] = Earning(program_id, row["institution_id"], zone, partners, [])
        if row["rule_id"] is not None:
            found[program_id].rules.append(to_expression_rule(row) if row["definition"] else to_rule(row))
    return list(found.values())


def to_expression_rule(row: asyncpg.Record) -> ExpressionRule:
    """The rule in a row."""
    definition = from_json(json.loads(row["definition"]), row["institution_ids"])
    return ExpressionRule(row["program_id"], row["rule_id"], row["version"], definition, row["effective_time"], row["end_time"])


CAPS = ("activity_points_max", "member_day_points_max", "member_month_points_max", "member_points_max", "total_points_max")


def to_json(definition: Definition) -> dict[str, Any]:
    """A definition as it is stored; where it applies is a column of its own."""
    return {
        "kind": definition.kind,
        "condition": definition.condition,
        "points": definition.points,
        "numerator": definition.numerator,
        "denominator": definition.denominator,
        "stacking": definition.stacking,
        "activity_kinds": sorted(definition.activity_kinds),
        "caps": {name: getattr(definition.caps, name) for name in CAPS},
    }


def from_json(stored: Mapping[str, Any], institution_ids: Iterable[str]) -> Definition:
    """What `to_json` wrote."""
    return Definition(
        kind=RuleKind(stored["kind"]),
        caps=Caps(**stored["caps"]),
        condition=stored["condition"],
        points=stored["points"],
        numerator=stored["numerator"],
        denominator=stored["denominator"],
        stacking=Stacking(stored["stacking"]),
        activity_kinds=frozenset(stored["activity_kinds"]),
        institution_ids=frozenset(institution_ids),
    )


# ---- what was earned


async def counters(connection: Connection, caps: Collection[Cap]) -> dict[Cap, int]:
    """Points that count for caps. To be read under the head's lock."""
    if not caps:
        return {}
    rows = await connection.fetch(
        "SELECT program_id, rule_id, subject, period, start_date, points"
        " FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::date[])"
        " AS cap (program_id, rule_id, subject, period, start_date)"
        " JOIN earn_counters USING (program_id, rule_id, subject, period, start_date)",
        *map(list, zip(*caps, strict=True)),
    )
    return {
        Cap(row["program_id"], row["rule_id"], row["subject"], row["period"], row["start_date"]): row["points"] for row in rows
    }


async def record(connection: Connection, decisions: Sequence[Decision]) -> None:
    """Writes what activities earned, and counts it for caps."""
    if not decisions:
        return
    await connection.executemany(
        "INSERT INTO earn_decisions (activity_id, program_id, account_id, month, points, amount_minor_units, currency_code,"
        " counted, facts) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        [
            (*decision[:7], json.dumps([_cap_json(*each) for each in decision.counted]), json.dumps(decision.facts))
            for decision in decisions
        ],
    )
    await _count(connection, [each for decision in decisions for each in decision.counted], _GIVE)


async def reverse(connection: Connection, activity_ids: Collection[uuid.UUID]) -> list[asyncpg.Record]:
    """What activities gave counts no more. Returns what they had earned."""
    if not activity_ids:
        return []
    rows = await connection.fetch(
        "UPDATE earn_decisions SET reversed = true WHERE activity_id = ANY($1::uuid[]) AND NOT reversed RETURNING *",
        list(activity_ids),
    )
    counted = [
        (Cap(row["program_id"], rule_id, subject, period, date.fromisoformat(start)), points)
        for row in rows
        for rule_id, subject, period, start, points in json.loads(row["counted"])
    ]
    await _count(connection, counted, _GIVE_BACK)
    return rows


async def decision(connection: Connection, activity_id: uuid.UUID, program_id: str) -> asyncpg.Record | None:
    """What an activity earned."""
    return await connection.fetchrow(
        "SELECT * FROM earn_decisions WHERE activity_id = $1 AND program_id = $2", activity_id, program_id
    )


async def forget(connection: Connection, account_ids: Collection[uuid.UUID], customer_ids: Collection[uuid.UUID]) -> None:
    """Forgets what was known of erased persons' doings and levels; that points were earned stays."""
    await connection.execute("UPDATE earn_decisions SET facts = '{}' WHERE account_id = ANY($1::uuid[])", list(account_ids))
    await connection.execute("DELETE FROM customer_levels WHERE customer_id = ANY($1::uuid[])", list(customer_ids))


async def _count(connection: Connection, counted: Iterable[tuple[Cap, int]], statement: str) -> None:
    sums: dict[Cap, int] = {}
    for cap, points in counted:
        sums[cap] = sums.get(cap, 0) + points
    ordered = sorted((*cap, points) for cap, points in sums.items())
    if ordered:
        await connection.execute(statement, *map(list, zip(*ordered, strict=True)))


def _cap_json(cap: Cap, points: int) -> list[object]:
    return [cap.rule_id, cap.subject, cap.period, cap.start.isoformat(), points]


def facts_of(doing: Doing) -> dict[str, Any]:
    """An activity as it is kept, to be tried again."""
    money = doing.transaction
    return {
        "kind": doing.kind,
        "institution_id": doing.institution_id,
        "occurred_at": doing.occurred_at.isoformat(),
        "money": [money.currency_code, money.amount_minor_units, money.category] if money else None,
        "channel": doing.channel,
        "department": doing.department,
        "counterparty": doing.counterparty,
        "detail": doing.detail,
    }


def doing_of(facts: Mapping[str, Any]) -> Doing:
    """What `facts_of` kept."""
    at = datetime.fromisoformat(facts["occurred_at"])
    money = facts["money"]
    return Doing(
        kind=facts["kind"],
        institution_id=facts["institution_id"],
        occurred_at=at,
        transaction=Transaction(money[0], money[1], money[2], at) if money else None,
        channel=facts["channel"],
        department=facts["department"],
        counterparty=facts["counterparty"],
        detail=facts["detail"],
    )


_COUNTED = (
    "unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::date[], $6::bigint[])"
    " AS told (program_id, rule_id, subject, period, start_date, points)"
)
_GIVE = (
    "INSERT INTO earn_counters AS t (program_id, rule_id, subject, period, start_date, points)"
    f" SELECT * FROM {_COUNTED} ON CONFLICT (program_id, rule_id, subject, period, start_date)"
    " DO UPDATE SET points = t.points + excluded.points"
)
_GIVE_BACK = (
    f"UPDATE earn_counters t SET points = t.points - told.points FROM {_COUNTED}"
    " WHERE (t.program_id, t.rule_id, t.subject, t.period, t.start_date)"
    " = (told.program_id, told.rule_id, told.subject, told.period, told.start_date)"
)
_PARTNERS = (
    "ARRAY(SELECT a.partner_institution_id FROM agreements a WHERE a.issuer_institution_id = p.institution_id"
    " AND a.basis = 'AT_ISSUANCE' AND a.state = 'ACTIVE') AS partners"
)
_RULES = f"""
SELECT p.institution_id, p.time_zone, {_PARTNERS}, v.*
FROM programs p JOIN earn_rule_versions v USING (program_id)
WHERE v.state = 'ACTIVE' AND (p.institution_id = ANY($1::text[]) OR EXISTS (
    SELECT FROM earn_rule_versions o JOIN agreements a ON a.partner_institution_id = ANY(o.institution_ids)
    WHERE o.program_id = p.program_id AND o.state = 'ACTIVE' AND o.institution_ids && $1 AND a.basis = 'AT_ISSUANCE'
        AND a.state = 'ACTIVE' AND a.issuer_institution_id = p.institution_id AND a.partner_institution_id = ANY($1)
))
ORDER BY p.program_id
"""
_RULES_OF_PROGRAM = f"""
SELECT p.institution_id, p.time_zone, {_PARTNERS}, p.program_id, v.rule_id, v.version,
    v.currency_code, v.categories, v.direction, v.amount_minor_units_min, v.points_numerator, v.points_denominator, v.points_max,
    v.definition, v.institution_ids, v.end_time,
    CASE WHEN v.state = 'DRAFT' THEN 'epoch'::timestamptz ELSE v.effective_time END AS effective_time
FROM programs p LEFT JOIN earn_rule_versions v
    ON v.program_id = p.program_id AND (v.state = 'ACTIVE' OR ($2 AND v.state = 'DRAFT'))
WHERE p.program_id = $1
"""
