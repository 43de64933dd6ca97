"""SQL of settlements: batches, the spans of items in them, and what was fixed when they were closed."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from fractions import Fraction
from typing import NamedTuple

import asyncpg

from chassis.database import Connection
from chassis.ids import new_id
from loyalty.domain.netting import Instruction
from loyalty.domain.settlement import BatchState, Group, Line, LineKind, Pair, Terms


class Batch(NamedTuple):
    """A settlement, in one currency."""

    batch_id: uuid.UUID
    currency_code: str
    state: BatchState
    cut_off_sequence: int | None
    cut_off_hash: bytes | None
    business_date: date | None
    open_time: datetime
    close_time: datetime | None
    confirm_time: datetime | None
    settle_time: datetime | None
    version: int


class Span(NamedTuple):
    """Items of an agreement in a batch: those after one sequence, up to another."""

    agreement_id: uuid.UUID
    after_sequence: int
    through_sequence: int


class PairState(NamedTuple):
    """A pair, and when each side confirmed it."""

    pair: Pair
    first_confirm_time: datetime | None
    second_confirm_time: datetime | None

    @property
    def confirmed(self) -> bool:
        """Whether both sides have."""
        return self.first_confirm_time is not None and self.second_confirm_time is not None


class Payment(NamedTuple):
    """An instruction, and when its payee said that the money had come."""

    instruction: Instruction
    acknowledge_time: datetime | None


class Schedule(NamedTuple):
    """When an agreement with items in no batch is cut off, and how old the oldest of them is."""

    agreement_id: uuid.UUID
    currency_code: str
    cut_off_time: str
    time_zone: str
    oldest_time: datetime


async def open_batches(connection: Connection, now: datetime) -> None:
    """Opens a batch for each currency of an agreement that has none."""
    rows = await connection.fetch(
        "SELECT DISTINCT currency_code FROM agreements WHERE state <> 'DRAFT'"
        " EXCEPT SELECT currency_code FROM settlement_batches WHERE state = 'OPEN' ORDER BY 1"
    )
    for row in rows:
        await connection.execute(
            "INSERT INTO settlement_batches (batch_id, currency_code, state, open_time, version) VALUES ($1, $2, 'OPEN', $3, 1)"
            " ON CONFLICT DO NOTHING",
            new_id(), row["currency_code"], now,
        )  # fmt: skip


async def get(connection: Connection, batch_id: uuid.UUID, *, lock: bool = False) -> Batch | None:
    """A batch; locked until the end of the transaction where asked."""
    row = await connection.fetchrow(
        f"SELECT {_BATCH} FROM settlement_batches WHERE batch_id = $1{' FOR UPDATE' if lock else ''}", batch_id
    )
    return _to_batch(row) if row else None


async def lock_open(connection: Connection, currency_code: str) -> Batch | None:
    """The open batch of a currency, locked: nobody else closes it, or confirms it meanwhile."""
    row = await connection.fetchrow(
        f"SELECT {_BATCH} FROM settlement_batches WHERE currency_code = $1 AND state = 'OPEN' FOR UPDATE", currency_code
    )
    return _to_batch(row) if row else None


async def page(
    connection: Connection, institution_id: str | None, state: str, currency_code: str, before: uuid.UUID | None, limit: int
) -> list[Batch]:
    """Batches, the newest first, before one: all, or those in which an institution has a part and the open ones."""
    rows = await connection.fetch(
        f"SELECT {_BATCH} FROM settlement_batches b WHERE ($1::text IS NULL OR state = 'OPEN' OR EXISTS ("
        "  SELECT FROM settlement_pairs p"
        "  WHERE p.batch_id = b.batch_id AND $1 IN (first_institution_id, second_institution_id)))"
        " AND ($2 = '' OR state = $2) AND ($3 = '' OR currency_code = $3) AND ($4::uuid IS NULL OR batch_id < $4)"
        " ORDER BY batch_id DESC LIMIT $5",
        institution_id, state, currency_code, before, limit,
    )  # fmt: skip
    return [_to_batch(row) for row in rows]


async def last_sequence(connection: Connection) -> int:
    """Of the ledger's last operation: all before it are committed, because the head is locked in the order of the ledger."""
    sequence: int = await connection.fetchval("SELECT sequence FROM ledger_heads WHERE shard = 0")
    return sequence


async def open_spans(connection: Connection, currency_code: str, through_sequence: int) -> list[Span]:
    """What of each agreement is in no batch yet, up to a sequence."""
    rows = await connection.fetch(
        "SELECT a.agreement_id, coalesce((SELECT max(c.through_sequence) FROM settlement_cut_offs c"
        " WHERE c.agreement_id = a.agreement_id AND c.currency_code = a.currency_code), 0) AS after_sequence"
        " FROM agreements a WHERE a.currency_code = $1 AND a.state <> 'DRAFT' ORDER BY a.agreement_id",
        currency_code,
    )
    spans = [Span(row["agreement_id"], row["after_sequence"], through_sequence) for row in rows]
    return [span for span in spans if span.after_sequence < through_sequence]


async def spans_of(connection: Connection, batch_id: uuid.UUID) -> list[Span]:
    """What of each agreement is in a closed batch, by agreement."""
    rows = await connection.fetch(
        "SELECT agreement_id, after_sequence, through_sequence FROM settlement_cut_offs WHERE batch_id = $1 ORDER BY 1", batch_id
    )
    return [Span(*row) for row in rows]


async def parties(connection: Connection, agreement_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, tuple[str, str]]:
    """Issuer and partner of agreements."""
    rows = await connection.fetch(
        "SELECT agreement_id, issuer_institution_id, partner_institution_id FROM agreements WHERE agreement_id = ANY($1::uuid[])",
        list(agreement_ids),
    )
    return {row["agreement_id"]: (row["issuer_institution_id"], row["partner_institution_id"]) for row in rows}


async def groups(connection: Connection, currency_code: str, spans: Sequence[Span]) -> list[Group]:
    """The items of spans, and their corrections, summed up by their terms."""
    rows = await connection.fetch(_GROUPS, *map(list, zip(*spans, strict=True)), currency_code) if spans else []
    return [
        Group(
            Terms(
                row["payer_institution_id"], row["payee_institution_id"], row["agreement_id"], row["agreement_version"],
                row["program_id"], row["price_numerator"], row["price_denominator"], row["fee_basis_points"],
                row["funding"] == "PREPAID",
            ),
            row["items_count"], int(row["points"]), row["correction"],
        )
        for row in rows
    ]  # fmt: skip


async def schedules(connection: Connection, now: datetime) -> list[Schedule]:
    """Agreements with items in no batch, with the cut-off of their version in force."""
    rows = await connection.fetch(_SCHEDULES, now)
    return [Schedule(*row) for row in rows]


async def issuers(connection: Connection, program_ids: Iterable[str]) -> dict[str, str]:
    """The issuing institution of each programme."""
    rows = await connection.fetch(
        "SELECT program_id, institution_id FROM programs WHERE program_id = ANY($1::text[])", list(program_ids)
    )
    return {row["program_id"]: row["institution_id"] for row in rows}


async def write_closed(
    connection: Connection,
    batch: Batch,
    spans: Sequence[Span],
    lines: Sequence[Line],
    pairs: Sequence[Pair],
    instructions: Sequence[Instruction],
) -> None:
    """Writes what a batch comes to. `batch` is as it is once closed."""
    await connection.execute(
        "UPDATE settlement_batches SET state = 'CLOSED', cut_off_sequence = $2, cut_off_hash = $3, business_date = $4,"
        " close_time = $5, version = $6 WHERE batch_id = $1",
        batch.batch_id, batch.cut_off_sequence, batch.cut_off_hash, batch.business_date, batch.close_time, batch.version,
    )  # fmt: skip
    await connection.executemany(
        "INSERT INTO settlement_cut_offs (batch_id, currency_code, agreement_id, after_sequence, through_sequence)"
        " VALUES ($1, $2, $3, $4, $5)",
        [(batch.batch_id, batch.currency_code, *span) for span in spans],
    )
    await connection.executemany(
        "INSERT INTO settlement_lines (batch_id, line_number, kind, payer_institution_id, payee_institution_id, agreement_id,"
        " agreement_version, program_id, items_count, points, amount_numerator, amount_denominator)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        [
            (batch.batch_id, number, *line[:-1], line.amount.numerator, line.amount.denominator)
            for number, line in enumerate(lines, 1)
        ],
    )
    await connection.executemany(
        "INSERT INTO settlement_pairs (batch_id, first_institution_id, second_institution_id, exact_numerator,"
        " exact_denominator, amount_minor_units) VALUES ($1, $2, $3, $4, $5, $6)",
        [
            (batch.batch_id, p.first, p.second, p.exact.numerator, p.exact.denominator, p.amount_minor_units)
            for p in pairs
        ],
    )  # fmt: skip
    await connection.executemany(
        "INSERT INTO settlement_instructions (batch_id, payer_institution_id, payee_institution_id, amount_minor_units)"
        " VALUES ($1, $2, $3, $4)",
        [(batch.batch_id, *instruction) for instruction in instructions],
    )


async def lines(connection: Connection, batch_id: uuid.UUID) -> list[Line]:
    """The lines of a closed batch."""
    rows = await connection.fetch(
        "SELECT kind, payer_institution_id, payee_institution_id, agreement_id, agreement_version, program_id, items_count,"
        " points, amount_numerator, amount_denominator FROM settlement_lines WHERE batch_id = $1 ORDER BY line_number",
        batch_id,
    )
    return [Line._make((LineKind(row[0]), *tuple(row)[1:8], fraction(row[8], row[9]))) for row in rows]


async def pairs(connection: Connection, batch_id: uuid.UUID) -> list[PairState]:
    """The pairs of a closed batch, by institution."""
    rows = await connection.fetch(
        "SELECT first_institution_id, second_institution_id, exact_numerator, exact_denominator, amount_minor_units,"
        " first_confirm_time, second_confirm_time FROM settlement_pairs"
        ' WHERE batch_id = $1 ORDER BY first_institution_id COLLATE "C", second_institution_id COLLATE "C"',
        batch_id,
    )
    return [PairState(Pair(row[0], row[1], fraction(row[2], row[3]), row[4]), row[5], row[6]) for row in rows]


async def payments(connection: Connection, batch_id: uuid.UUID) -> list[Payment]:
    """The instructions of a closed batch, by payer and payee."""
    rows = await connection.fetch(
        "SELECT payer_institution_id, payee_institution_id, amount_minor_units, acknowledge_time FROM settlement_instructions"
        ' WHERE batch_id = $1 ORDER BY payer_institution_id COLLATE "C", payee_institution_id COLLATE "C"',
        batch_id,
    )
    return [Payment(Instruction(*row[:3]), row[3]) for row in map(tuple, rows)]


async def without_files(connection: Connection) -> list[tuple[Batch, str]]:
    """Closed batches with institutions whose files were not made yet."""
    rows = await connection.fetch(
        f"SELECT {_BATCH}, side.institution_id FROM settlement_batches b CROSS JOIN LATERAL ("
        "  SELECT first_institution_id FROM settlement_pairs WHERE batch_id = b.batch_id"
        "  UNION SELECT second_institution_id FROM settlement_pairs WHERE batch_id = b.batch_id"
        ") side (institution_id) WHERE b.state = 'CLOSED' AND NOT EXISTS ("
        "  SELECT FROM settlement_files f WHERE f.batch_id = b.batch_id AND f.institution_id = side.institution_id)"
        " ORDER BY b.batch_id, side.institution_id"
    )
    return [(_to_batch(row), row["institution_id"]) for row in rows]


async def confirm_pairs(
    connection: Connection, batch_id: uuid.UUID, institution_id: str, counterparty: str, person: str, now: datetime
) -> None:
    """Notes that a side agrees, with one counterparty or (empty) with all; what it confirmed before stays as it is."""
    for side, other in (("first", "second"), ("second", "first")):
        await connection.execute(
            f"UPDATE settlement_pairs SET {side}_confirm_time = $4, {side}_confirmed_by = $5 WHERE batch_id = $1"
            f" AND {side}_institution_id = $2 AND ($3 = '' OR {other}_institution_id = $3) AND {side}_confirm_time IS NULL",
            batch_id, institution_id, counterparty, now, person,
        )  # fmt: skip


async def acknowledge(connection: Connection, batch_id: uuid.UUID, payer: str, payee: str, person: str, now: datetime) -> None:
    """Notes that a payment has come."""
    await connection.execute(
        "UPDATE settlement_instructions SET acknowledge_time = $4, acknowledged_by = $5"
        " WHERE batch_id = $1 AND payer_institution_id = $2 AND payee_institution_id = $3 AND acknowledge_time IS NULL",
        batch_id, payer, payee, now, person,
    )  # fmt: skip


async def advance(connection: Connection, batch: Batch) -> None:
    """Writes a batch's state and its times."""
    await connection.execute(
        "UPDATE settlement_batches SET state = $2, confirm_time = $3, settle_time = $4, version = $5 WHERE batch_id = $1",
        batch.batch_id, batch.state, batch.confirm_time, batch.settle_time, batch.version,
    )  # fmt: skip


def fraction(numerator: object, denominator: object) -> Fraction:
    """The fraction in two NUMERIC columns, which asyncpg reads as Decimal."""
    return Fraction(int(numerator), int(denominator))  # type: ignore[call-overload]


def _to_batch(row: asyncpg.Record) -> Batch:
    batch = Batch(*(row[name] for name in Batch._fields))
    return batch._replace(state=BatchState(batch.state))


_BATCH = ", ".join(Batch._fields)
_ITEM = (
    "i.payer_institution_id, i.payee_institution_id, i.agreement_id, i.agreement_version, i.program_id,"
    " i.price_numerator, i.price_denominator, i.fee_basis_points"
)
_IN_SPAN = (
    "i.agreement_id = span.agreement_id AND i.sequence > span.after_sequence AND i.sequence <= span.through_sequence"
    " AND i.currency_code = $4"
)
_GROUPS = f"""
SELECT i.*, a.funding FROM (
    SELECT {_ITEM}, count(*) AS items_count, sum(i.points) AS points, false AS correction
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS span (agreement_id, after_sequence, through_sequence)
    JOIN clearing_items i ON {_IN_SPAN} GROUP BY {_ITEM}
    UNION ALL
    SELECT {_ITEM}, count(*), sum(i.points), true
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS span (agreement_id, after_sequence, through_sequence)
    JOIN settlement_corrections i ON {_IN_SPAN} GROUP BY {_ITEM}
) i JOIN agreements a USING (agreement_id)
"""
_SCHEDULES = """
SELECT a.agreement_id, a.currency_code, terms.cut_off_time, terms.time_zone, oldest.time
FROM agreements a
CROSS JOIN LATERAL (
    SELECT cut_off_time, time_zone FROM agreement_versions v
    WHERE v.agreement_id = a.agreement_id AND v.state = 'APPROVED' AND v.effective_time <= $1
    ORDER BY v.version DESC LIMIT 1
) terms
CROSS JOIN LATERAL (
    SELECT coalesce(max(c.through_sequence), 0) AS sequence FROM settlement_cut_offs c
    WHERE c.agreement_id = a.agreement_id AND c.currency_code = a.currency_code
) done
CROSS JOIN LATERAL (
    SELECT least(
        (SELECT o.post_time FROM clearing_items i JOIN operations o USING (sequence)
         WHERE i.agreement_id = a.agreement_id AND i.sequence > done.sequence ORDER BY i.sequence LIMIT 1),
        (SELECT min(i.create_time) FROM settlement_corrections i
         WHERE i.agreement_id = a.agreement_id AND i.sequence > done.sequence)
    ) AS time
) oldest
WHERE a.state <> 'DRAFT' AND oldest.time IS NOT NULL
ORDER BY a.agreement_id
"""
