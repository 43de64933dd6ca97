"""SQL of the items of settlements, in the order of the file: by agreement, sequence and position, corrections last."""

import uuid
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from chassis.database import Connection
from loyalty.domain.settlement import Terms
from loyalty.domain.settlement_file import Item, Totals
from loyalty.store.settlement import Span, fraction


class Place(NamedTuple):
    """Where in the order a page ends: at a correction or not, of which agreement, and the last row's keys."""

    correction: bool = False
    agreement_id: uuid.UUID = uuid.UUID(int=0)
    sequence: int = 0
    last: str = "-1"
    """Position of an item, id of a correction's dispute."""


class FileFacts(NamedTuple):
    """What is known of a file since it was first made."""

    sha256: bytes
    size_bytes: int
    rows_count: int
    totals: Totals


async def page(
    connection: Connection, currency_code: str, spans: Sequence[Span], after: Place, limit: int
) -> tuple[list[Item], Place]:
    """Items after a place, at most `limit`, and the place they end at."""
    items: list[Item] = []
    for correction in (False, True):
        for span in sorted(spans):
            if (correction, span.agreement_id) < after[:2] or len(items) == limit:
                continue
            here = (correction, span.agreement_id) == after[:2]
            sequence, last = after[2:] if here else (span.after_sequence, _end_of_sequence(correction))
            rows = await connection.fetch(
                _CORRECTIONS if correction else _ITEMS, span.agreement_id, currency_code, sequence,
                uuid.UUID(last) if correction else int(last), span.through_sequence, limit - len(items),
            )  # fmt: skip
            items += map(_item, rows)
            if rows:
                after = Place(correction, span.agreement_id, rows[-1]["order_sequence"], str(rows[-1]["last"]))
    return items, after


def _end_of_sequence(correction: bool) -> str:
    """A key behind all others of a sequence, so that a page begins with the next one."""
    return str(uuid.UUID(int=2**128 - 1)) if correction else str(2**62)


async def find(connection: Connection, sequence: int, position: int) -> Item | None:
    """The priced item of an operation."""
    row = await connection.fetchrow(_FIND, sequence, position)
    return _item(row) if row else None


async def batch_of(connection: Connection, agreement_id: uuid.UUID, currency_code: str, sequence: int) -> uuid.UUID | None:
    """The closed batch in which an agreement's item with this sequence is."""
    batch_id: uuid.UUID | None = await connection.fetchval(
        "SELECT batch_id FROM settlement_cut_offs WHERE agreement_id = $1 AND currency_code = $2 AND through_sequence >= $3"
        " AND after_sequence < $3",
        agreement_id, currency_code, sequence,
    )  # fmt: skip
    return batch_id


async def file_facts(connection: Connection, batch_id: uuid.UUID, institution_id: str) -> FileFacts | None:
    """What is known of a file; None before it was first made."""
    row = await connection.fetchrow(
        "SELECT sha256, size_bytes, rows_count, items_count, points, amount_numerator, amount_denominator FROM settlement_files"
        " WHERE batch_id = $1 AND institution_id = $2",
        batch_id, institution_id,
    )  # fmt: skip
    if row is None:
        return None
    totals = Totals(row["items_count"], row["points"], fraction(row["amount_numerator"], row["amount_denominator"]))
    return FileFacts(row["sha256"], row["size_bytes"], row["rows_count"], totals)


async def keep_file_facts(connection: Connection, batch_id: uuid.UUID, institution_id: str, facts: FileFacts) -> None:
    """Keeps what is known of a file for ever."""
    await connection.execute(
        "INSERT INTO settlement_files (batch_id, institution_id, sha256, size_bytes, rows_count, items_count, points,"
        " amount_numerator, amount_denominator) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        batch_id, institution_id, *facts[:3], *facts.totals[:2],
        facts.totals.amount.numerator, facts.totals.amount.denominator,
    )  # fmt: skip


def _item(row: asyncpg.Record) -> Item:
    return Item(
        Terms(*row[:8]), row["operation_id"], row["sequence"], row["position"], row["points"], row["post_time"],
        row["dispute_id"], row["order_sequence"],
    )  # fmt: skip


_TERMS = (
    "i.payer_institution_id, i.payee_institution_id, i.agreement_id, i.agreement_version, i.program_id, i.price_numerator,"
    " i.price_denominator, i.fee_basis_points"
)
_ITEM = (
    f"{_TERMS}, o.operation_id, i.sequence, i.position, i.points, o.post_time, NULL::uuid AS dispute_id,"
    " i.sequence AS order_sequence, i.position AS last"
)
# The page first, then the operations of its rows: one by one, whatever the planner knows of the tables.
_ITEMS = f"""
SELECT {_ITEM}
FROM (
    SELECT * FROM clearing_items
    WHERE agreement_id = $1 AND currency_code = $2 AND sequence >= $3 AND (sequence, position) > ($3, $4) AND sequence <= $5
    ORDER BY sequence, position LIMIT $6
) i
CROSS JOIN LATERAL (SELECT operation_id, post_time FROM operations WHERE sequence = i.sequence OFFSET 0) o
ORDER BY i.sequence, i.position
"""
_CORRECTIONS = f"""
SELECT {_TERMS}, o.operation_id, d.sequence, d.position, i.points, i.create_time AS post_time, i.dispute_id,
       i.sequence AS order_sequence, i.dispute_id AS last
FROM settlement_corrections i JOIN settlement_disputes d USING (dispute_id) JOIN operations o ON o.sequence = d.sequence
WHERE i.agreement_id = $1 AND i.currency_code = $2 AND (i.sequence, i.dispute_id) > ($3, $4) AND i.sequence <= $5
ORDER BY i.sequence, i.dispute_id LIMIT $6
"""
_FIND = f"""
SELECT {_ITEM} FROM clearing_items i JOIN operations o USING (sequence)
WHERE i.sequence = $1 AND i.position = $2 AND i.agreement_id IS NOT NULL
"""
