"""Programmes, the versions of their earn rules, and the projection of institutions."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import asyncpg

from chassis.database import Connection
from loyalty.domain.earning import Direction, ErasureRule, RuleVersion


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
    connection: Connection, program_id: str, institution_id: str, display_name: str, erasure_rule: ErasureRule, now: datetime
) -> bool:
    """Opens a programme. False when the id is taken."""
    created = await connection.fetchval(
        "INSERT INTO programs (program_id, institution_id, display_name, erasure_rule, version, create_time)"
        " VALUES ($1, $2, $3, $4, 1, $5) ON CONFLICT DO NOTHING RETURNING true",
        program_id, institution_id, display_name, erasure_rule, now,
    )  # fmt: skip
    return bool(created)


async def get(connection: Connection, program_id: str, *, lock: bool = False) -> asyncpg.Record | None:
    """A programme; locked until the end of the transaction where asked."""
    # NO KEY: ledger accounts refer to the programme, and their inserts must not wait for a new rule.
    return await connection.fetchrow(
        f"SELECT * FROM programs WHERE program_id = $1{' FOR NO KEY UPDATE' if lock else ''}", program_id
    )


async def list_after(connection: Connection, program_id: str, limit: int) -> list[asyncpg.Record]:
    """Programmes by id, after one."""
    return await connection.fetch("SELECT * FROM programs WHERE program_id > $1 ORDER BY program_id LIMIT $2", program_id, limit)


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
        "SELECT * FROM earn_rule_versions WHERE program_id = $1 AND ($2::text IS NULL OR rule_id = $2)"
        " AND (rule_id, version) > ($3, $4) ORDER BY rule_id, version LIMIT $5",
        program_id, rule_id, *after, limit,
    )  # fmt: skip


async def rules_of_institutions(connection: Connection, institution_ids: Iterable[str]) -> dict[str, list[RuleVersion]]:
    """All rule versions of the programmes that these institutions issue, by institution."""
    rows = await connection.fetch(
        "SELECT p.institution_id, v.* FROM programs p JOIN earn_rule_versions v USING (program_id)"
        " WHERE p.institution_id = ANY($1::text[])",
        sorted(set(institution_ids)),
    )
    rules: dict[str, list[RuleVersion]] = {}
    for row in rows:
        rules.setdefault(row["institution_id"], []).append(to_rule(row))
    return rules


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
