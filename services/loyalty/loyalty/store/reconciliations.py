"""SQL of reconciliations: parts of an institution's file, and what the comparison found."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

import asyncpg

from chassis.database import Connection
from loyalty.domain.reconciliation import Result, Row
from loyalty.store.settlement import fraction


class Reconciliation(NamedTuple):
    """A comparison; `counts` and totals once it was made."""

    reconciliation_id: uuid.UUID
    batch_id: uuid.UUID
    institution_id: str
    create_time: datetime
    compare_time: datetime | None
    parts_count: int
    size_bytes: int
    counts: dict[Result, int]
    their_points: int
    our_points: int
    their_amount: Fraction
    our_amount: Fraction


async def create(
    connection: Connection, reconciliation_id: uuid.UUID, batch_id: uuid.UUID, institution_id: str, now: datetime
) -> None:
    """Begins one."""
    await connection.execute(
        "INSERT INTO reconciliations (reconciliation_id, batch_id, institution_id, create_time) VALUES ($1, $2, $3, $4)",
        reconciliation_id, batch_id, institution_id, now,
    )  # fmt: skip


async def get(connection: Connection, reconciliation_id: uuid.UUID, *, lock: bool = False) -> Reconciliation | None:
    """One, with the counts of its rows; locked until the end of the transaction where asked."""
    if lock:
        await connection.execute("SELECT FROM reconciliations WHERE reconciliation_id = $1 FOR UPDATE", reconciliation_id)
    row = await connection.fetchrow(
        "SELECT r.*, parts.* FROM reconciliations r CROSS JOIN LATERAL ("
        "  SELECT count(*) AS parts_count, coalesce(sum(length(content)), 0) AS size_bytes"
        "  FROM reconciliation_parts p WHERE p.reconciliation_id = r.reconciliation_id"
        ") parts WHERE reconciliation_id = $1",
        reconciliation_id,
    )
    if row is None:
        return None
    counts = await connection.fetch(
        "SELECT result, count(*) AS rows_count FROM reconciliation_rows WHERE reconciliation_id = $1 GROUP BY 1",
        reconciliation_id,
    )
    return Reconciliation(
        row["reconciliation_id"], row["batch_id"], row["institution_id"], row["create_time"], row["compare_time"],
        row["parts_count"], int(row["size_bytes"]), {Result(count["result"]): count["rows_count"] for count in counts},
        int(row["their_points"] or 0), int(row["our_points"] or 0),
        fraction(row["their_numerator"] or 0, row["their_denominator"] or 1),
        fraction(row["our_numerator"] or 0, row["our_denominator"] or 1),
    )  # fmt: skip


async def add_part(connection: Connection, reconciliation_id: uuid.UUID, part_number: int, content: bytes) -> bool:
    """Keeps a part. False when other bytes have its number."""
    await connection.execute(
        "INSERT INTO reconciliation_parts (reconciliation_id, part_number, content) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        reconciliation_id, part_number, content,
    )  # fmt: skip
    same: bool = await connection.fetchval(
        "SELECT content = $3 FROM reconciliation_parts WHERE reconciliation_id = $1 AND part_number = $2",
        reconciliation_id, part_number, content,
    )  # fmt: skip
    return same


async def parts(connection: Connection, reconciliation_id: uuid.UUID) -> dict[int, bytes]:
    """The parts by number, in order."""
    rows = await connection.fetch(
        "SELECT part_number, content FROM reconciliation_parts WHERE reconciliation_id = $1 ORDER BY 1", reconciliation_id
    )
    return {row["part_number"]: row["content"] for row in rows}


async def references(connection: Connection, sequences: Sequence[int], institution_id: str) -> dict[int, str]:
    """References that an institution gave operations at it, by sequence."""
    rows = await connection.fetch(
        "SELECT sequence, reference FROM operations WHERE sequence = ANY($1::bigint[]) AND institution_id = $2"
        " AND reference <> ''",
        sequences, institution_id,
    )  # fmt: skip
    return {row["sequence"]: row["reference"] for row in rows}


async def write(
    connection: Connection,
    reconciliation_id: uuid.UUID,
    rows: Iterable[Row],
    points: tuple[int, int],
    amounts: tuple[Fraction, Fraction],
    now: datetime,
) -> None:
    """Writes what a comparison found (points and amounts: theirs, ours) and deletes the file."""
    records = [
        (
            reconciliation_id, number, int(row.result), row.line_number, row.operation_id, row.reference, row.program_id,
            row.their_points, row.our_points, row.their_amount.numerator, row.their_amount.denominator,
            row.our_amount.numerator, row.our_amount.denominator,
        )
        for number, row in enumerate(rows, 1)
    ]  # fmt: skip
    await connection.copy_records_to_table("reconciliation_rows", records=records)
    await connection.execute("DELETE FROM reconciliation_parts WHERE reconciliation_id = $1", reconciliation_id)
    await connection.execute(
        "UPDATE reconciliations SET their_points = $2, our_points = $3, their_numerator = $4, their_denominator = $5,"
        " our_numerator = $6, our_denominator = $7, compare_time = $8 WHERE reconciliation_id = $1",
        reconciliation_id, *points, amounts[0].numerator, amounts[0].denominator, amounts[1].numerator, amounts[1].denominator,
        now,
    )  # fmt: skip


async def rows_page(
    connection: Connection, reconciliation_id: uuid.UUID, result: int, after: int, limit: int
) -> list[tuple[int, Row]]:
    """Rows with their numbers, after one; of one result or (0) of all."""
    rows = await connection.fetch(
        "SELECT * FROM reconciliation_rows WHERE reconciliation_id = $1 AND row_number > $2 AND ($3 = 0 OR result = $3)"
        " ORDER BY row_number LIMIT $4",
        reconciliation_id, after, result, limit,
    )  # fmt: skip
    return [(row["row_number"], _to_row(row)) for row in rows]


async def delete_before(connection: Connection, before: datetime) -> None:
    """Deletes reconciliations that were begun before an instant."""
    for table in ("reconciliation_parts", "reconciliation_rows", "reconciliations"):
        await connection.execute(
            f"DELETE FROM {table} WHERE reconciliation_id IN"
            " (SELECT reconciliation_id FROM reconciliations WHERE create_time < $1)",
            before,
        )


def _to_row(row: asyncpg.Record) -> Row:
    return Row(
        Result(row["result"]), row["line_number"], row["operation_id"], row["reference"], row["program_id"],
        row["their_points"], row["our_points"], fraction(row["their_numerator"], row["their_denominator"]),
        fraction(row["our_numerator"], row["our_denominator"]),
    )  # fmt: skip
