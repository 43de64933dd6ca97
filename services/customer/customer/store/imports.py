"""Bulk imports: their settings and progress, their sealed parts, their rejected rows."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chassis.database import Connection
from customer.domain.imports import Counts, State


@dataclass(frozen=True, slots=True)
class ImportRow:
    """An import as it is stored."""

    import_id: UUID
    source_system_number: int
    institution_id: str
    format: int
    encoding: int
    delimiter: str
    columns: str
    default_country_code: str
    default_observe_time: datetime
    display_name: str
    state: int
    parts_count: int
    size_bytes: int
    offset_bytes: int
    line_number: int
    rows_read_count: int
    created_count: int
    updated_count: int
    unchanged_count: int
    stale_count: int
    rejected_count: int
    rows_count: int | None
    error_field: str | None
    error_reason: str | None
    error_description: str | None
    rejections_key_id: UUID
    parts_kept: bool
    rejections_kept: bool
    create_time: datetime
    start_time: datetime | None
    finish_time: datetime | None
    source_system_id: str
    """Of the source system; not a column of its own."""

    @property
    def source_system(self) -> str:
        """`institutions/{institution}/sourceSystems/{source_system}`."""
        return f"institutions/{self.institution_id}/sourceSystems/{self.source_system_id}"

    @property
    def name(self) -> str:
        """`institutions/{institution}/sourceSystems/{source_system}/imports/{import}`."""
        return f"{self.source_system}/imports/{self.import_id}"

    @property
    def mapping(self) -> list[tuple[str, str]]:
        """Column and field, as the caller maps them."""
        return [(column, field) for column, field in json.loads(self.columns)]


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that was rejected."""

    row_number: int
    line_number: int
    source_key: bytes | None
    sealed_key: bytes | None
    field: str
    reason: str
    description: str


async def insert(connection: Connection, row: ImportRow) -> None:
    """Writes a new import."""
    values = [getattr(row, column) for column in _COLUMNS]
    places = ", ".join(f"${place}" for place in range(1, len(_COLUMNS) + 1))
    await connection.execute(f"INSERT INTO imports ({', '.join(_COLUMNS)}) VALUES ({places})", *values)


async def get(connection: Connection, import_id: UUID, *, lock: bool = False) -> ImportRow | None:
    """An import; None when there is none."""
    row = await connection.fetchrow(f"{_SELECT} WHERE i.import_id = $1{' FOR UPDATE OF i' if lock else ''}", import_id)
    return ImportRow(*row) if row else None


async def list_before(connection: Connection, source_system_number: int, before: UUID | None, limit: int) -> list[ImportRow]:
    """Imports of a source system, the newest first."""
    rows = await connection.fetch(
        f"{_SELECT} WHERE i.source_system_number = $1 AND ($2::uuid IS NULL OR i.import_id < $2)"
        " ORDER BY i.import_id DESC LIMIT $3",
        source_system_number, before, limit,
    )  # fmt: skip
    return [ImportRow(*row) for row in rows]


async def next_waiting(connection: Connection) -> ImportRow | None:
    """The import that has waited longest, or runs; None when there is no work."""
    row = await connection.fetchrow(
        f"{_SELECT} WHERE i.parts_kept AND i.state IN ({State.QUEUED:d}, {State.RUNNING:d}) ORDER BY i.import_id LIMIT 1"
    )
    return ImportRow(*row) if row else None


# ---- parts


async def insert_part(
    connection: Connection, import_id: UUID, part_number: int, size_bytes: int, content_hash: bytes, content: bytes
) -> bool:
    """Keeps a part. False when other bytes are kept under its number."""
    inserted = await connection.fetchval(
        "INSERT INTO import_parts VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING true",
        import_id, part_number, size_bytes, content_hash, content,
    )  # fmt: skip
    if inserted:
        await connection.execute("UPDATE imports SET size_bytes = size_bytes + $2 WHERE import_id = $1", import_id, size_bytes)
        return True
    kept = await connection.fetchval(
        "SELECT content_hash FROM import_parts WHERE import_id = $1 AND part_number = $2", import_id, part_number
    )
    return bool(kept == content_hash)


async def contiguous_parts_counts(connection: Connection, import_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many parts are there from part 1 on without a gap; for imports whose parts are kept."""
    return {row[0]: row[1] for row in await connection.fetch(_CONTIGUOUS, import_ids)}


async def part_sizes(connection: Connection, import_id: UUID) -> list[int]:
    """The sizes in bytes of all parts, in order."""
    rows = await connection.fetch("SELECT size_bytes FROM import_parts WHERE import_id = $1 ORDER BY part_number", import_id)
    return [row[0] for row in rows]


async def part(connection: Connection, import_id: UUID, part_number: int) -> bytes | None:
    """A sealed part; None when it is gone."""
    content: bytes | None = await connection.fetchval(
        "SELECT content FROM import_parts WHERE import_id = $1 AND part_number = $2", import_id, part_number
    )
    return content


# ---- progress


async def start(connection: Connection, import_id: UUID, parts_count: int) -> None:
    """An import waits for its turn."""
    await connection.execute(
        "UPDATE imports SET state = $2, parts_count = $3 WHERE import_id = $1", import_id, State.QUEUED, parts_count
    )


async def begin(connection: Connection, import_id: UUID, rows_count: int | None, now: datetime) -> None:
    """An import begins to run, or goes on."""
    await connection.execute(_BEGIN, import_id, State.RUNNING, rows_count, now, State.QUEUED)


async def is_running(connection: Connection, import_id: UUID) -> bool:
    """Whether an import is being worked off, and was not cancelled."""
    return bool(await connection.fetchval("SELECT state = $2 FROM imports WHERE import_id = $1", import_id, State.RUNNING))


async def advance(
    connection: Connection, import_id: UUID, rows_read_count: int, counts: Counts, offset_bytes: int, line_number: int
) -> bool:
    """Adds what became of the rows after `rows_read_count`. False when the import runs no more, or another took these rows."""
    advanced = await connection.fetchval(
        _ADVANCE, import_id, rows_read_count, offset_bytes, line_number,
        counts.created, counts.updated, counts.unchanged, counts.stale, counts.rejected, counts.total, State.RUNNING,
    )  # fmt: skip
    return bool(advanced)


async def finish(
    connection: Connection, import_id: UUID, state: State, now: datetime, error: tuple[str, str, str] | None = None
) -> bool:
    """Ends an import that has not ended. False when it has."""
    ended = await connection.fetchval(
        "UPDATE imports SET state = $2, finish_time = $3, error_field = $4, error_reason = $5, error_description = $6"
        " WHERE import_id = $1 AND finish_time IS NULL RETURNING true",
        import_id, state, now, *(error or (None, None, None)),
    )  # fmt: skip
    return bool(ended)


# ---- rejected rows


async def insert_rejections(
    connection: Connection, import_id: UUID, source_system_number: int, rejections: Sequence[Rejection]
) -> None:
    """Keeps rejected rows."""
    await connection.copy_records_to_table(
        "import_rejections",
        records=[
            (import_id, row.row_number, row.line_number, source_system_number, row.source_key, row.sealed_key, row.field,
             row.reason, row.description) for row in rejections
        ],
    )  # fmt: skip


async def rejections(connection: Connection, import_id: UUID, after: int, limit: int) -> list[Rejection]:
    """Rejected rows in the order of the file."""
    rows = await connection.fetch(
        "SELECT row_number, line_number, source_key, sealed_key, field, reason, description FROM import_rejections"
        " WHERE import_id = $1 AND row_number > $2 ORDER BY row_number LIMIT $3",
        import_id, after, limit,
    )  # fmt: skip
    return [Rejection(*row) for row in rows]


async def forget_rejections(connection: Connection, source_keys: Collection[tuple[int, bytes]]) -> None:
    """Deletes the rejected rows of records, by (source system, key hash): what an erasure needs."""
    columns = [list(column) for column in zip(*source_keys, strict=True)]
    if columns:
        await connection.execute(_FORGET_REJECTIONS, *columns)


# ---- what is over


async def abandoned(connection: Connection, created_before: datetime) -> list[UUID]:
    """Imports that were created long ago and never started."""
    rows = await connection.fetch(
        f"SELECT import_id FROM imports WHERE parts_kept AND state = {State.CREATED:d} AND create_time < $1", created_before
    )
    return [row[0] for row in rows]


async def with_needless_parts(connection: Connection) -> list[UUID]:
    """Imports that have ended and whose parts are still there."""
    return [
        row[0] for row in await connection.fetch("SELECT import_id FROM imports WHERE parts_kept AND finish_time IS NOT NULL")
    ]


async def with_old_rejections(connection: Connection, finished_before: datetime) -> list[tuple[UUID, UUID]]:
    """Imports whose rejected rows were kept long enough, or that had none; with the key of those."""
    rows = await connection.fetch(
        "SELECT import_id, rejections_key_id FROM imports"
        " WHERE rejections_kept AND (finish_time < $1 OR finish_time IS NOT NULL AND rejected_count = 0)",
        finished_before,
    )
    return [(row[0], row[1]) for row in rows]


async def forget_parts(connection: Connection, import_id: UUID) -> None:
    """Deletes the parts of an import. Their key must be destroyed before."""
    await connection.execute("DELETE FROM import_parts WHERE import_id = $1", import_id)
    await connection.execute("UPDATE imports SET parts_kept = false WHERE import_id = $1", import_id)


async def forget_old_rejections(connection: Connection, import_id: UUID) -> None:
    """Deletes the rejected rows of an import. Their key must be destroyed before."""
    await connection.execute("DELETE FROM import_rejections WHERE import_id = $1", import_id)
    await connection.execute("UPDATE imports SET rejections_kept = false WHERE import_id = $1", import_id)


_COLUMNS = [name for name in ImportRow.__dataclass_fields__ if name != "source_system_id"]
_SELECT = f"""
SELECT {", ".join(f"i.{column}" for column in _COLUMNS)}, s.source_system_id
FROM imports i JOIN source_systems s USING (source_system_number)
"""
_CONTIGUOUS = """
SELECT import_id, count(*)::int FROM (
    SELECT import_id, part_number, row_number() OVER (PARTITION BY import_id ORDER BY part_number) AS place
    FROM import_parts WHERE import_id = ANY($1::uuid[])) numbered
WHERE part_number = place GROUP BY import_id
"""
_BEGIN = """
UPDATE imports SET state = $2, rows_count = $3, start_time = coalesce(start_time, $4)
WHERE import_id = $1 AND state IN ($2, $5)
"""
_ADVANCE = """
UPDATE imports SET
    offset_bytes = $3, line_number = $4, created_count = created_count + $5, updated_count = updated_count + $6,
    unchanged_count = unchanged_count + $7, stale_count = stale_count + $8, rejected_count = rejected_count + $9,
    rows_read_count = rows_read_count + $10
WHERE import_id = $1 AND rows_read_count = $2 AND state = $11
RETURNING true
"""
_FORGET_REJECTIONS = """
DELETE FROM import_rejections r USING unnest($1::int[], $2::bytea[]) AS wanted (number, key)
WHERE r.source_system_number = wanted.number AND r.source_key = wanted.key
"""
