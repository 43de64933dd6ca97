"""Quotes: made of the points that an account has, kept until they are used or forgotten."""

import asyncio
import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from chassis import clock
from chassis.database import Connection, Database
from loyalty.domain import quoting
from loyalty.domain.ledger.configuration import PlainConfiguration
from loyalty.domain.quoting import Available, Choice, Excluded, Line, OwnValue, Plan, Precedence, Price

TTL_SECONDS = 300
TTL_SECONDS_MAX = 1800
KEPT = timedelta(days=7)
"""For so long after its end a quote that was not used can be read."""
CLEANED_MAX = 1000
CLEAN_EVERY_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a quote is asked for."""

    account_id: uuid.UUID
    family: tuple[uuid.UUID, ...]
    """The account and its children."""
    price: Price
    precedence: Precedence
    choices: tuple[Choice, ...]
    money_allowed: bool
    reference: str
    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no quote: a reason, what of the price the points would pay, and which programmes could not take part."""

    reason: str
    points_value: int
    excluded: Mapping[str, Excluded]


async def make(
    connection: Connection, configuration: PlainConfiguration, wanted: Wanted, quote_id: uuid.UUID, now: datetime
) -> asyncpg.Record | Refusal:
    """Plans a quote and keeps it. It moves nothing and locks nothing: what is there at the hold, the hold finds out."""
    available = await _available(connection, wanted.family, now)
    own = await own_values(connection, wanted.price.institution_id)
    program_ids = {part.program_id for part in available} | {choice.program_id for choice in wanted.choices}
    answers = {
        program_id: quoting.terms_of(program_id, wanted.price, own, configuration, now) for program_id in sorted(program_ids)
    }
    excluded = {program_id: answer for program_id, answer in answers.items() if isinstance(answer, Excluded)}
    terms = {program_id: answer for program_id, answer in answers.items() if not isinstance(answer, Excluded)}
    for choice in wanted.choices:
        if choice.program_id in excluded:
            return Refusal(excluded[choice.program_id], 0, excluded)
    made = quoting.plan(wanted.price.amount, available, terms, wanted.precedence, wanted.choices)
    currency, money = _money(wanted, made, own)
    if not made.lines or money is None:
        reason = "INSUFFICIENT_POINTS" if terms or not excluded else next(iter(excluded.values()))
        if made.lines and wanted.money_allowed:
            reason = "MONEY_NOT_PRICED"
        return Refusal(reason, wanted.price.amount - made.rest, excluded)
    row = await connection.fetchrow(
        "INSERT INTO quotes (quote_id, account_id, institution_id, target_program_id, currency_code, amount_units,"
        " money_minor_units, lines, reference, create_time, expire_time)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING *",
        quote_id, wanted.account_id, wanted.price.institution_id, wanted.price.program_id, currency, wanted.price.amount, money,
        json.dumps([_line(line) for line in made.lines]), wanted.reference, now, now + timedelta(seconds=wanted.ttl_seconds),
    )  # fmt: skip
    assert row is not None
    return row


async def get(connection: Connection, quote_id: uuid.UUID) -> asyncpg.Record | None:
    """A quote."""
    return await connection.fetchrow("SELECT * FROM quotes WHERE quote_id = $1", quote_id)


async def own_values(connection: Connection, institution_id: str) -> dict[str, OwnValue]:
    """What an institution stands for with each point of its programmes, where it has said so."""
    rows = await connection.fetch(
        "SELECT program_id, liability_numerator, liability_denominator, liability_currency_code FROM programs"
        " WHERE institution_id = $1 AND liability_currency_code IS NOT NULL",
        institution_id,
    )
    return {
        row["program_id"]: OwnValue(row["liability_numerator"], row["liability_denominator"], row["liability_currency_code"])
        for row in rows
    }


async def forget_accounts(connection: Connection, account_ids: Collection[uuid.UUID]) -> None:
    """Empties what callers wrote beside the quotes of erased persons' accounts."""
    await connection.execute(
        "UPDATE quotes SET reference = '' WHERE account_id = ANY($1::uuid[]) AND reference <> ''", list(account_ids)
    )


async def clean(connection: Connection, now: datetime) -> int:
    """Removes some of the quotes that ended long ago, unused. Returns how many."""
    removed = await connection.execute(
        "DELETE FROM quotes WHERE quote_id IN (SELECT quote_id FROM quotes WHERE expire_time < $1"
        " AND used_by_operation_id IS NULL ORDER BY expire_time LIMIT $2 FOR UPDATE SKIP LOCKED)",
        now - KEPT, CLEANED_MAX,
    )  # fmt: skip
    return int(removed.split()[-1])


async def keep_clean(database: Database) -> None:
    """Removes what ended long ago, every ten minutes, until cancelled; several replicas may do so at once."""
    while True:
        removed = CLEANED_MAX
        while removed == CLEANED_MAX:
            async with database.transaction() as connection:
                removed = await clean(connection, clock.now())
        await asyncio.sleep(CLEAN_EVERY_SECONDS)


async def _available(connection: Connection, family: Collection[uuid.UUID], now: datetime) -> list[Available]:
    rows = await connection.fetch(
        "SELECT program_id, expire_time, sum(remaining_points - reserved_points)::bigint AS points FROM lots"
        " WHERE account_id = ANY($1::uuid[]) AND open AND state = 'ACTIVE' AND (expire_time IS NULL OR expire_time > $2)"
        " GROUP BY program_id, expire_time HAVING sum(remaining_points - reserved_points) > 0",
        list(family), now,
    )  # fmt: skip
    return [Available(row["program_id"], row["points"], row["expire_time"]) for row in rows]


def _money(wanted: Wanted, made: Plan, own: Mapping[str, OwnValue]) -> tuple[str | None, int | None]:
    """Currency and minor units of what the points do not pay; None for what money may not, or cannot, pay."""
    price = wanted.price
    if not made.rest:
        return price.currency_code, 0
    if not wanted.money_allowed:
        return price.currency_code, None
    if price.program_id is None:
        return price.currency_code, made.rest
    value = own.get(price.program_id)
    if value is None:
        return None, None
    return value.currency_code, quoting.money_for(made.rest, value.numerator, value.denominator)


def _line(line: Line) -> dict[str, object]:
    terms = line.terms
    return {
        "program_id": terms.program_id,
        "points": line.points,
        "value_units": line.value,
        "numerator": terms.numerator,
        "denominator": terms.denominator,
        "agreement_id": str(terms.agreement_id) if terms.agreement_id else None,
        "agreement_version": terms.agreement_version,
        "rate_valid_from": terms.rate_valid_from.isoformat() if terms.rate_valid_from else None,
    }
