"""Agreements, the versions of their terms, packs, and what is owed under them."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction

import asyncpg

from chassis.database import Connection
from loyalty.domain.agreements import AgreementState, Approval, Terms, Version, VersionState
from loyalty.domain.four_eyes import Person
from loyalty.domain.ledger.configuration import Basis, Funding


async def insert(
    connection: Connection, agreement_id: uuid.UUID, issuer: str, partner: str, basis: Basis, currency_code: str,
    funding: Funding, now: datetime,
) -> bool:  # fmt: skip
    """Adds an agreement without terms. False when the two have one of this basis that did not end."""
    added = await connection.fetchval(
        "INSERT INTO agreements (agreement_id, issuer_institution_id, partner_institution_id, basis, currency_code, funding,"
        " state, version, create_time) VALUES ($1, $2, $3, $4, $5, $6, 'DRAFT', 1, $7)"
        " ON CONFLICT (issuer_institution_id, partner_institution_id, basis) WHERE state <> 'ENDED' DO NOTHING RETURNING true",
        agreement_id, issuer, partner, basis, currency_code, funding, now,
    )  # fmt: skip
    return bool(added)


async def get(connection: Connection, agreement_id: uuid.UUID, *, lock: bool = False) -> asyncpg.Record | None:
    """An agreement; locked until the end of the transaction where asked."""
    return await connection.fetchrow(
        f"SELECT * FROM agreements WHERE agreement_id = $1{' FOR NO KEY UPDATE' if lock else ''}", agreement_id
    )


async def list_after(
    connection: Connection, institution_id: str | None, after: uuid.UUID | None, limit: int
) -> list[asyncpg.Record]:
    """Agreements of an institution (None: of all), by id, after one."""
    return await connection.fetch(
        "SELECT * FROM agreements WHERE ($1::text IS NULL OR issuer_institution_id = $1 OR partner_institution_id = $1)"
        " AND ($2::uuid IS NULL OR agreement_id > $2) ORDER BY agreement_id LIMIT $3",
        institution_id, after, limit,
    )  # fmt: skip


async def set_state(
    connection: Connection, agreement_id: uuid.UUID, state: AgreementState, by: Person | None = None, now: datetime | None = None
) -> None:
    """Changes the state and raises the version. `by` who suspends or ends it, `now` when it ends."""
    suspends, ends = state is AgreementState.SUSPENDED, state is AgreementState.ENDED
    await connection.execute(
        "UPDATE agreements SET state = $2, suspended_by = $3, suspended_side = $4, ended_by = $5, end_time = $6,"
        " version = version + 1 WHERE agreement_id = $1",
        agreement_id, state, by.subject if by and suspends else None, by.side if by and suspends else None,
        by.subject if by and ends else None, now if ends else None,
    )  # fmt: skip


async def touch(connection: Connection, agreement_id: uuid.UUID) -> None:
    """Raises the version: something of it changed."""
    await connection.execute("UPDATE agreements SET version = version + 1 WHERE agreement_id = $1", agreement_id)


async def save_version(connection: Connection, agreement: asyncpg.Record, version: Version, now: datetime) -> None:
    """Writes a version, over its draft where there is one."""
    given = {approval.institution_id: approval for approval in version.approvals}
    approvals: list[object] = []
    for side in ("issuer_institution_id", "partner_institution_id"):
        approval = given.get(agreement[side])
        approvals += [approval.by.subject, approval.by.side, approval.approve_time] if approval else [None] * 3
    terms = version.terms
    await connection.execute(
        _SAVE_VERSION,
        agreement["agreement_id"], version.number, version.state, terms.price_numerator, terms.price_denominator,
        terms.fee_basis_points, terms.net_debit_cap_minor_units, terms.low_water_minor_units, terms.cut_off_time,
        terms.time_zone, [person.subject for person in version.drafters], [person.side for person in version.drafters],
        version.wanted_time, *approvals, version.effective_time, now,
    )  # fmt: skip


async def versions(connection: Connection, agreement: asyncpg.Record, before: int | None, limit: int) -> list[Version]:
    """Versions, newest first, before one."""
    rows = await connection.fetch(
        "SELECT * FROM agreement_versions WHERE agreement_id = $1 AND ($2::bigint IS NULL OR version < $2)"
        " ORDER BY version DESC LIMIT $3",
        agreement["agreement_id"], before, limit,
    )  # fmt: skip
    return [_to_version(agreement, row) for row in rows]


async def newest(connection: Connection, agreements: Sequence[asyncpg.Record]) -> list[Version]:
    """Of each agreement the newest version, in the agreements' order."""
    rows = await connection.fetch(
        "SELECT DISTINCT ON (agreement_id) * FROM agreement_versions WHERE agreement_id = ANY($1::uuid[])"
        " ORDER BY agreement_id, version DESC",
        [agreement["agreement_id"] for agreement in agreements],
    )
    of_agreement = {row["agreement_id"]: row for row in rows}
    return [_to_version(agreement, of_agreement[agreement["agreement_id"]]) for agreement in agreements]


async def in_force(connection: Connection, agreement: asyncpg.Record, at: datetime) -> Version | None:
    """The version in force at an instant, whatever the agreement's state; None before the first one."""
    row = await connection.fetchrow(
        "SELECT * FROM agreement_versions WHERE agreement_id = $1 AND state = 'APPROVED' AND effective_time <= $2"
        " ORDER BY version DESC LIMIT 1",
        agreement["agreement_id"], at,
    )  # fmt: skip
    return _to_version(agreement, row) if row else None


async def add_pack(
    connection: Connection, agreement_id: uuid.UUID, minor_units: int, reference: str, added_by: str, now: datetime
) -> asyncpg.Record:
    """Adds a pack, or takes back what a settlement used up; the caller has raised the configuration's version, so packs of an
    agreement come one by one, and sees to it that their sum is not below zero."""
    row = await connection.fetchrow(
        "INSERT INTO agreement_packs (agreement_id, pack_number, minor_units, reference, added_by, create_time)"
        " SELECT $1, coalesce(max(pack_number), 0) + 1, $2, $3, $4, $5 FROM agreement_packs WHERE agreement_id = $1 RETURNING *",
        agreement_id, minor_units, reference, added_by, now,
    )  # fmt: skip
    assert row is not None
    return row


async def packs(connection: Connection, agreement_id: uuid.UUID, before: int | None, limit: int) -> list[asyncpg.Record]:
    """Packs, newest first, before one."""
    return await connection.fetch(
        "SELECT * FROM agreement_packs WHERE agreement_id = $1 AND ($2::bigint IS NULL OR pack_number < $2)"
        " ORDER BY pack_number DESC LIMIT $3",
        agreement_id, before, limit,
    )  # fmt: skip


async def packs_minor_units(connection: Connection, agreement_id: uuid.UUID) -> int:
    """The sum of the packs."""
    total: int = await connection.fetchval(
        "SELECT coalesce(sum(minor_units), 0)::bigint FROM agreement_packs WHERE agreement_id = $1", agreement_id
    )
    return total


async def exposure(connection: Connection, agreement_id: uuid.UUID) -> Fraction:
    """What is held or owed and not settled, in minor units."""
    row = await connection.fetchrow(
        "SELECT exposure_numerator, exposure_denominator FROM exposures WHERE agreement_id = $1", agreement_id
    )
    return Fraction(int(row["exposure_numerator"]), int(row["exposure_denominator"])) if row else Fraction(0)


def _to_version(agreement: asyncpg.Record, row: asyncpg.Record) -> Version:
    approvals = (
        Approval(agreement[f"{side}_institution_id"], Person(row[f"{side}_approver"], row[f"{side}_approver_side"]), time)
        for side in ("issuer", "partner")
        if (time := row[f"{side}_approve_time"]) is not None
    )
    return Version(
        number=row["version"],
        state=VersionState(row["state"]),
        terms=Terms(
            price_numerator=row["price_numerator"],
            price_denominator=row["price_denominator"],
            fee_basis_points=row["fee_basis_points"],
            net_debit_cap_minor_units=row["net_debit_cap_minor_units"],
            low_water_minor_units=row["low_water_minor_units"],
            cut_off_time=row["cut_off_time"],
            time_zone=row["time_zone"],
        ),
        drafters=tuple(map(Person, row["drafters"], row["drafting_sides"])),
        approvals=tuple(sorted(approvals, key=lambda approval: approval.approve_time)),
        wanted_time=row["wanted_time"],
        effective_time=row["effective_time"],
    )


_VERSION_COLUMNS = (
    "state", "price_numerator", "price_denominator", "fee_basis_points", "net_debit_cap_minor_units", "low_water_minor_units",
    "cut_off_time", "time_zone", "drafters", "drafting_sides", "wanted_time", "issuer_approver", "issuer_approver_side",
    "issuer_approve_time", "partner_approver", "partner_approver_side", "partner_approve_time", "effective_time",
)  # fmt: skip
_SAVE_VERSION = (
    f"INSERT INTO agreement_versions (agreement_id, version, {', '.join(_VERSION_COLUMNS)}, create_time)"
    f" VALUES ($1, $2, {', '.join(f'${i}' for i in range(3, 4 + len(_VERSION_COLUMNS)))})"
    " ON CONFLICT (agreement_id, version) DO UPDATE SET"
    f" {', '.join(f'{column} = excluded.{column}' for column in _VERSION_COLUMNS)}"
)
