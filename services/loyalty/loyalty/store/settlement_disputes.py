"""SQL of disputes and of the corrections that accepted ones make."""

import uuid
from dataclasses import fields
from datetime import datetime

import asyncpg

from chassis.database import Connection
from loyalty.domain.disputes import Dispute, DisputeState
from loyalty.domain.settlement_file import Item

_COLUMNS = ", ".join(field.name for field in fields(Dispute))


async def create(connection: Connection, dispute: Dispute) -> bool:
    """Writes a new dispute. False when the item has one that was not rejected or withdrawn."""
    names = [field.name for field in fields(Dispute)]
    created = await connection.fetchval(
        f"INSERT INTO settlement_disputes ({_COLUMNS}) VALUES ({', '.join(f'${n}' for n in range(1, len(names) + 1))})"
        " ON CONFLICT DO NOTHING RETURNING true",
        *(getattr(dispute, name) for name in names),
    )
    return bool(created)


async def get(connection: Connection, dispute_id: uuid.UUID, *, lock: bool = False) -> Dispute | None:
    """A dispute; locked until the end of the transaction where asked."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM settlement_disputes WHERE dispute_id = $1{' FOR UPDATE' if lock else ''}", dispute_id
    )
    return _to_dispute(row) if row else None


async def page(
    connection: Connection, institution_id: str | None, state: str, before: uuid.UUID | None, limit: int
) -> list[Dispute]:
    """Disputes, the newest first, before one: all, or those in which an institution is a side."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM settlement_disputes"
        " WHERE ($1::text IS NULL OR opener_institution_id = $1 OR decider_institution_id = $1) AND ($2 = '' OR state = $2)"
        " AND ($3::uuid IS NULL OR dispute_id < $3) ORDER BY dispute_id DESC LIMIT $4",
        institution_id, state, before, limit,
    )  # fmt: skip
    return [_to_dispute(row) for row in rows]


async def update(connection: Connection, dispute: Dispute) -> None:
    """Writes what may change of a dispute."""
    await connection.execute(
        "UPDATE settlement_disputes SET state = $2, resolution_code = $3, proposed_by = $4, resolved_by = $5,"
        " resolve_time = $6, version = $7 WHERE dispute_id = $1",
        dispute.dispute_id, dispute.state, dispute.resolution_code, dispute.proposed_by, dispute.resolved_by,
        dispute.resolve_time, dispute.version,
    )  # fmt: skip


async def correct(connection: Connection, dispute: Dispute, item: Item, currency_code: str, sequence: int, now: datetime) -> None:
    """Writes the correcting item of an accepted dispute; `sequence` decides its batch."""
    terms = item.terms
    await connection.execute(
        "INSERT INTO settlement_corrections (dispute_id, sequence, payer_institution_id, payee_institution_id, agreement_id,"
        " agreement_version, program_id, points, price_numerator, price_denominator, fee_basis_points, currency_code,"
        " create_time)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        dispute.dispute_id, sequence, *terms[:5], dispute.correction_points, *terms[5:8], currency_code, now,
    )  # fmt: skip


async def correcting_batches(connection: Connection, dispute_ids: list[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID]:
    """The closed batches in which the corrections of disputes are."""
    rows = await connection.fetch(
        "SELECT i.dispute_id, c.batch_id FROM settlement_corrections i JOIN settlement_cut_offs c"
        " ON c.agreement_id = i.agreement_id AND c.currency_code = i.currency_code AND i.sequence > c.after_sequence"
        " AND i.sequence <= c.through_sequence WHERE i.dispute_id = ANY($1::uuid[])",
        dispute_ids,
    )
    return {row["dispute_id"]: row["batch_id"] for row in rows}


def _to_dispute(row: asyncpg.Record) -> Dispute:
    return Dispute(**{**dict(row), "state": DisputeState(row["state"])})
