"""Holdings and their holders."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection
from customer.store.record_writes import RacedError

_NO_HOLDING = UUID(int=0)


@dataclass(slots=True)
class HoldingRow:
    """A holding in its present state."""

    holding_id: UUID
    source_system_number: int
    source_key: bytes
    content_hash: bytes
    observe_time: datetime
    version: int
    kind: int
    product_code: str
    open_date: date
    close_date: date | None
    currency_code: str | None
    amount_minor_units: int | None
    standing: int
    create_time: datetime
    update_time: datetime
    institution_id: str
    """Of the source system; not a column of its own."""


@dataclass(frozen=True, slots=True)
class HolderRow:
    """A holder, with the live link of the record it is held through."""

    holding_id: UUID
    record_id: UUID
    role: int
    institution_id: str
    customer_id: UUID
    link_version: int


async def lock_by_source_key(connection: Connection, number: int, keys: Iterable[bytes]) -> dict[bytes, HoldingRow]:
    """The holdings with these key hashes, locked in the order of their ids."""
    rows = await connection.fetch(_LOCK_BY_SOURCE_KEY, number, list(keys))
    return {row["source_key"]: HoldingRow(*row) for row in rows}


async def find_by_source_key(connection: Connection, wanted: Iterable[tuple[int, bytes]]) -> dict[tuple[int, bytes], UUID]:
    """Ids of holdings by (source system, key hash); those that are not known are left out."""
    columns = [list(column) for column in zip(*wanted, strict=True)]
    return {(row[0], row[1]): row[2] for row in await connection.fetch(_FIND_BY_SOURCE_KEY, *columns)}


async def write(connection: Connection, holdings: Sequence[HoldingRow], holders: Sequence[HolderRow]) -> None:
    """Writes holdings in their new state, with all of their holders.

    Raises:
        RacedError: a new holding's source key is taken by now.
    """
    rows = sorted(holdings, key=lambda row: (row.source_system_number, row.source_key))
    columns = [[getattr(row, column) for row in rows] for column in _COLUMNS]
    written = await connection.fetch(_WRITE, *columns)
    if len(written) < len(rows):
        raise RacedError("a source key was taken by another transaction")
    await connection.execute("DELETE FROM holders WHERE holding_id = ANY($1::uuid[])", [row.holding_id for row in rows])
    await connection.execute(
        "INSERT INTO holders (holding_id, record_id, role) SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::smallint[])",
        [holder.holding_id for holder in holders],
        [holder.record_id for holder in holders],
        [holder.role for holder in holders],
    )


async def list_of_customer(
    connection: Connection, customer_id: UUID, institution_id: str | None, after: UUID | None, limit: int
) -> list[asyncpg.Record]:
    """A customer's holdings through records of the institution (None: of all), by id, with the stronger role."""
    return await connection.fetch(_LIST_OF_CUSTOMER, customer_id, institution_id, after or _NO_HOLDING, limit)


async def page(connection: Connection, after: str, limit: int) -> tuple[list[HoldingRow], list[HolderRow]]:
    """Holdings by id with their holders, for re-publication."""
    return await _with_holders(connection, await connection.fetch(_PAGE, UUID(after) if after else _NO_HOLDING, limit))


async def of_ids(connection: Connection, holding_ids: Sequence[UUID]) -> tuple[list[HoldingRow], list[HolderRow]]:
    """Holdings with their holders."""
    rows = await connection.fetch(f"{_SELECT} WHERE h.holding_id = ANY($1::uuid[]) ORDER BY h.holding_id", holding_ids)
    return await _with_holders(connection, rows)


async def _with_holders(connection: Connection, found_rows: Sequence[asyncpg.Record]) -> tuple[list[HoldingRow], list[HolderRow]]:
    rows = [HoldingRow(*row) for row in found_rows]
    found = await connection.fetch(_HOLDERS, [row.holding_id for row in rows])
    return rows, [HolderRow(*row) for row in found]


_COLUMNS = [
    "holding_id", "source_system_number", "source_key", "content_hash", "observe_time", "version", "kind", "product_code",
    "open_date", "close_date", "currency_code", "amount_minor_units", "standing", "create_time", "update_time",
]  # fmt: skip
_SELECT = f"""
SELECT {", ".join(f"h.{column}" for column in _COLUMNS)}, s.institution_id
FROM holdings h JOIN source_systems s USING (source_system_number)
"""
_LOCK_BY_SOURCE_KEY = f"""{_SELECT}
WHERE source_system_number = $1 AND h.source_key = ANY($2::bytea[]) ORDER BY h.holding_id FOR UPDATE OF h
"""
_PAGE = f"{_SELECT} WHERE h.holding_id > $1 ORDER BY h.holding_id LIMIT $2"
_HOLDERS = """
SELECT h.holding_id, h.record_id, h.role, r.institution_id, r.customer_id, r.link_version
FROM holders h JOIN records r USING (record_id) WHERE h.holding_id = ANY($1::uuid[]) ORDER BY h.holding_id, h.record_id
"""
_FIND_BY_SOURCE_KEY = """
SELECT h.source_system_number, h.source_key, h.holding_id
FROM unnest($1::int[], $2::bytea[]) AS wanted (number, key)
    CROSS JOIN LATERAL (
        SELECT * FROM holdings WHERE source_system_number = wanted.number AND source_key = wanted.key OFFSET 0) h
"""
_WRITE = f"""
INSERT INTO holdings ({", ".join(_COLUMNS)})
SELECT * FROM unnest(
    $1::uuid[], $2::int[], $3::bytea[], $4::bytea[], $5::timestamptz[], $6::bigint[], $7::smallint[], $8::text[],
    $9::date[], $10::date[], $11::text[], $12::bigint[], $13::smallint[], $14::timestamptz[], $15::timestamptz[])
ON CONFLICT (source_system_number, source_key) DO UPDATE SET
    content_hash = excluded.content_hash, observe_time = excluded.observe_time, version = excluded.version,
    kind = excluded.kind, product_code = excluded.product_code, open_date = excluded.open_date,
    close_date = excluded.close_date, currency_code = excluded.currency_code,
    amount_minor_units = excluded.amount_minor_units, standing = excluded.standing, update_time = excluded.update_time
WHERE holdings.holding_id = excluded.holding_id
RETURNING 1
"""
_LIST_OF_CUSTOMER = f"""
SELECT {", ".join(f"h.{column}" for column in _COLUMNS)}, s.institution_id, s.source_system_id, mine.role
FROM (
    SELECT holders.holding_id, min(holders.role) AS role
    FROM records r JOIN holders USING (record_id)
    WHERE r.customer_id = $1 AND ($2::text IS NULL OR r.institution_id = $2) AND holders.holding_id > $3
    GROUP BY holders.holding_id ORDER BY holders.holding_id LIMIT $4
) mine JOIN holdings h USING (holding_id) JOIN source_systems s USING (source_system_number)
ORDER BY h.holding_id
"""
