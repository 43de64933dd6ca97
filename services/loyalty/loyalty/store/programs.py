"""Programmes, the versions of their earn rules, and the projection of institutions."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

import asyncpg

from chassis.database import Connection
from loyalty.domain.earning import Direction, ErasureRule, RuleVersion
from loyalty.domain.expiry import ExpiryKind, ExpiryPolicy
from loyalty.store import configuration

TERMS = (
    "display_name", "erasure_rule", "decimals", "unit_display_name", "time_zone", "pending_days", "liability_numerator",
    "liability_denominator", "liability_currency_code", "transfers_allowed", "refund_grace_days", "sandbox",
)  # fmt: skip
"""Columns of a programme that its institution chooses."""


async def institution_exists(connection: Connection, institution_id: str) -> bool:
    """Whether the alliance has this institution."""
    return bool(await connection.fetchval("SELECT true FROM institutions WHERE institution_id = $1", institution_id))


async def fold_institutions(connection: Connection, states: Mapping[str, tuple[int, int]]) -> None:
    """Applies (epoch, version) of institutions where they are newer."""
    ordered = sorted(states.items())
    await connection.execute(
        "INSERT INTO institutions AS t (institution_id, epoch, version)"
        " SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])"
        " ON CONFLICT (institution_id) DO UPDATE SET epoch = excluded.epoch, version = excluded.version"
        " WHERE (t.epoch, t.version) < (excluded.epoch, excluded.version)",
        [key for key, _ in ordered], [epoch for _, (epoch, _) in ordered], [version for _, (_, version) in ordered],
    )  # fmt: skip


async def create(
    connection: Connection, program_id: str, institution_id: str, display_name: str, erasure_rule: ErasureRule, now: datetime,
    **terms: object,
) -> bool:  # fmt: skip
    """Opens a programme, with what TERMS name beside. False when the id is taken."""
    assert terms.keys() <= set(TERMS)
    await configuration.raise_version(connection)
    columns = "".join(f", {column}" for column in terms)
    values = "".join(f", ${i}" for i in range(6, 6 + len(terms)))
    created = await connection.fetchval(
        f"INSERT INTO programs (program_id, institution_id, display_name, erasure_rule, version, create_time{columns})"
        f" VALUES ($1, $2, $3, $4, 1, $5{values}) ON CONFLICT DO NOTHING RETURNING true",
        program_id, institution_id, display_name, erasure_rule, now, *terms.values(),
    )  # fmt: skip
    return bool(created)


async def update(connection: Connection, program_id: str, **terms: object) -> None:
    """Changes what TERMS name; the caller has raised the configuration's version and locked the programme."""
    assert terms
    assert terms.keys() <= set(TERMS)
    changes = ", ".join(f"{column} = ${i}" for i, column in enumerate(terms, 2))
    await connection.execute(
        f"UPDATE programs SET version = version + 1, {changes} WHERE program_id = $1", program_id, *terms.values()
    )


async def get(connection: Connection, program_id: str, *, lock: bool = False) -> asyncpg.Record | None:
    """A programme; locked until the end of the transaction where asked."""
    # NO KEY: ledger accounts refer to the programme, and their inserts must not wait for a new rule.
    return await connection.fetchrow(
        f"SELECT * FROM programs WHERE program_id = $1{' FOR NO KEY UPDATE' if lock else ''}", program_id
    )


async def list_after(connection: Connection, program_id: str, limit: int) -> list[asyncpg.Record]:
    """Programmes by id, after one."""
    return await connection.fetch("SELECT * FROM programs WHERE program_id > $1 ORDER BY program_id LIMIT $2", program_id, limit)


async def add_expiry_policy(connection: Connection, program_id: str, policy: ExpiryPolicy, now: datetime) -> ExpiryPolicy:
    """Adds the next version of a programme's expiry policy; the caller has raised the configuration's version."""
    version = await connection.fetchval(
        "INSERT INTO expiry_policies (program_id, version, effective_time, kind, months, days, fixed_date, create_time)"
        " SELECT $1, coalesce(max(version), 0) + 1, $2, $3, $4, $5, $6, $7 FROM expiry_policies WHERE program_id = $1"
        " RETURNING version",
        program_id, policy.effective_time, policy.kind, policy.months, policy.days, policy.fixed_date, now,
    )  # fmt: skip
    return replace(policy, version=version)


async def expiry_policies(connection: Connection, program_id: str, before: int | None, limit: int) -> list[asyncpg.Record]:
    """Versions of a programme's expiry policy, newest first, before one."""
    return await connection.fetch(
        "SELECT * FROM expiry_policies WHERE program_id = $1 AND ($2::bigint IS NULL OR version < $2)"
        " ORDER BY version DESC LIMIT $3",
        program_id, before, limit,
    )  # fmt: skip


async def expiry_policies_in_force(
    connection: Connection, program_ids: Collection[str], at: datetime
) -> dict[str, asyncpg.Record]:
    """Of each programme the version for lots that are issued at an instant."""
    rows = await connection.fetch(
        "SELECT DISTINCT ON (program_id) * FROM expiry_policies WHERE program_id = ANY($1::text[]) AND effective_time <= $2"
        " ORDER BY program_id, version DESC",
        list(program_ids), at,
    )  # fmt: skip
    return {row["program_id"]: row for row in rows}


def to_expiry_policy(row: asyncpg.Record) -> ExpiryPolicy:
    """The policy in a row."""
    return ExpiryPolicy(
        row["version"], row["effective_time"], ExpiryKind(row["kind"]), row["months"], row["days"], row["fixed_date"]
    )


async def next_rule_version(connection: Connection, program_id: str, rule_id: str) -> int:
    """The number of a rule's next version; the caller has locked the programme."""
    number: int = await connection.fetchval(
        "SELECT coalesce(max(version), 0) + 1 FROM earn_rule_versions WHERE program_id = $1 AND rule_id = $2", program_id, rule_id
    )
    return number


async def add_rule_version(connection: Connection, rule: RuleVersion, now: datetime) -> None:
    """Writes a version."""
    await connection.execute(
        "INSERT INTO earn_rule_versions (program_id, rule_id, version, currency_code, categories, direction,"
        " amount_minor_units_min, points_numerator, points_denominator, points_max, effective_time, create_time)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        rule.program_id, rule.rule_id, rule.version, rule.currency_code, sorted(rule.categories), rule.direction,
        rule.amount_minor_units_min, rule.points_numerator, rule.points_denominator, rule.points_max, rule.effective_time, now,
    )  # fmt: skip


async def list_rule_versions(
    connection: Connection, program_id: str, rule_id: str | None, after: tuple[str, int], limit: int
) -> list[asyncpg.Record]:
    """Versions by rule and number, after one; of one rule or of all."""
    return await connection.fetch(
        "SELECT * FROM earn_rule_versions WHERE program_id = $1 AND ($2::text IS NULL OR rule_id = $2) AND definition IS NULL"
        " AND (rule_id, version) > ($3, $4) ORDER BY rule_id, version LIMIT $5",
        program_id, rule_id, *after, limit,
    )  # fmt: skip


async def issuers(connection: Connection, program_ids: Iterable[str]) -> dict[str, str]:
    """The issuing institution of each programme."""
    rows = await connection.fetch(
        "SELECT program_id, institution_id FROM programs WHERE program_id = ANY($1::text[])", list(program_ids)
    )
    return {row["program_id"]: row["institution_id"] for row in rows}


def to_rule(row: asyncpg.Record) -> RuleVersion:
    """The rule in a row."""
    return RuleVersion(
        program_id=row["program_id"],
        rule_id=row["rule_id"],
        version=row["version"],
        currency_code=row["currency_code"],
        categories=frozenset(row["categories"]),
        direction=Direction(row["direction"]),
        amount_minor_units_min=row["amount_minor_units_min"],
        points_numerator=row["points_numerator"],
        points_denominator=row["points_denominator"],
        points_max=row["points_max"],
        effective_time=row["effective_time"],
    )
