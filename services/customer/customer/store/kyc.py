"""KYC cases, their evidence, hits and remembered dispositions."""

from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import asyncpg

from chassis.database import Connection

_LATEST = UUID("ffffffff-ffff-ffff-ffff-ffffffffffff")


async def keep_standard(connection: Connection, version: str, content: str) -> None:
    """Keeps a version of the standard, so that cases opened under it can be finished under it."""
    await connection.execute("INSERT INTO kyc_standards VALUES ($1, $2) ON CONFLICT DO NOTHING", version, content)


async def standard(connection: Connection, version: str) -> str:
    """The YAML of a version that a case was opened under."""
    content: str = await connection.fetchval("SELECT content FROM kyc_standards WHERE version = $1", version)
    return content


async def insert_case(connection: Connection, values: dict[str, Any]) -> asyncpg.Record | None:
    """A new case; None when the record has one that is not decided."""
    columns = list(values)
    places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
    return await connection.fetchrow(
        f"INSERT INTO kyc_cases ({', '.join(columns)}) VALUES ({places}) ON CONFLICT DO NOTHING RETURNING *", *values.values()
    )


async def lock_case(connection: Connection, case_id: UUID) -> asyncpg.Record | None:
    """A case, locked until the transaction ends, with the customer it belongs to now."""
    return await connection.fetchrow(_CASE + " WHERE c.case_id = $1 FOR UPDATE OF c", case_id)


async def get_case(connection: Connection, case_id: UUID) -> asyncpg.Record | None:
    """A case, with the customer it belongs to now."""
    return await connection.fetchrow(_CASE + " WHERE c.case_id = $1", case_id)


async def list_cases(
    connection: Connection,
    institution_id: str,
    before: UUID | None,
    limit: int,
    customer_id: UUID | None,
    state: int,
    overdue: bool,
) -> list[asyncpg.Record]:
    """Cases of an institution, the newest first; a state of 0 means all."""
    return await connection.fetch(
        _CASE + " WHERE c.institution_id = $1 AND c.case_id < $2 AND ($4::uuid IS NULL OR r.customer_id = $4)"
        " AND ($5 = 0 OR c.state = $5) AND (NOT $6 OR c.state IN (1, 2) AND c.due_time < now())"
        " ORDER BY c.case_id DESC LIMIT $3",
        institution_id, before or _LATEST, limit, customer_id, state, overdue,
    )  # fmt: skip


async def update_case(connection: Connection, case_id: UUID, changes: dict[str, Any]) -> None:
    """Changes columns of a locked case; its version rises."""
    columns = list(changes)
    assignments = ", ".join(f"{column} = ${place}" for place, column in enumerate(columns, 2))
    await connection.execute(
        f"UPDATE kyc_cases SET {assignments}{', ' if columns else ''}version = version + 1 WHERE case_id = $1",
        case_id, *changes.values(),
    )  # fmt: skip


async def add_evidence(connection: Connection, values: Sequence[Any]) -> None:
    """Evidence: its id, case, step, result, sealed content, expiry, by whom, when."""
    await connection.execute("INSERT INTO kyc_evidence VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", *values)


async def evidence(connection: Connection, case_id: UUID) -> list[asyncpg.Record]:
    """The evidence of a case, the oldest first."""
    return await connection.fetch("SELECT * FROM kyc_evidence WHERE case_id = $1 ORDER BY evidence_id", case_id)


async def hits(connection: Connection, case_id: UUID) -> list[asyncpg.Record]:
    """The hits of a case, the most alike first."""
    return await connection.fetch("SELECT * FROM kyc_hits WHERE case_id = $1 ORDER BY score_percent DESC, hit_id", case_id)


async def replace_hits(connection: Connection, case_id: UUID, rows: Sequence[Sequence[Any]]) -> None:
    """The hits of a new screening in place of the former; what was disposed of in this case with the same content stays so.

    Args:
        connection: in the transaction that holds the case.
        case_id: the case.
        rows: (hit id, list, version, entry, topic, content hash, listed name, score, form, birth year check, country check,
            disposition, remembered).
    """
    former = {(row["list_id"], row["entry_id"], row["content_hash"]): row for row in await hits(connection, case_id)}
    await connection.execute("DELETE FROM kyc_hits WHERE case_id = $1", case_id)
    written = []
    for row in rows:
        known = former.get((row[1], row[3], row[5]))
        if known is None:
            written.append((row[0], case_id, *row[1:], None, None))
        else:
            kept = (known["disposition"], known["remembered"], known["reason"], known["disposed_by"])
            written.append((known["hit_id"], case_id, *row[1:11], *kept))
    await connection.executemany(
        "INSERT INTO kyc_hits VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)", written
    )


async def dispose(connection: Connection, hit_id: UUID, disposition: int, reason: bytes, by: str) -> asyncpg.Record | None:
    """Says what a hit is; the hit, or None when there is none."""
    return await connection.fetchrow(
        "UPDATE kyc_hits SET disposition = $2, reason = $3, disposed_by = $4, remembered = false WHERE hit_id = $1 RETURNING *",
        hit_id, disposition, reason, by,
    )  # fmt: skip


async def remember(connection: Connection, record_id: UUID, hit: asyncpg.Record) -> None:
    """Remembers what a hit turned out to be, for the same content."""
    await connection.execute(
        "INSERT INTO kyc_dispositions VALUES ($1, $2, $3, $4, $5) ON CONFLICT (record_id, list_id, entry_id, content_hash)"
        " DO UPDATE SET disposition = excluded.disposition",
        record_id, hit["list_id"], hit["entry_id"], hit["content_hash"], hit["disposition"],
    )  # fmt: skip


async def remembered(connection: Connection, record_ids: Collection[UUID]) -> dict[tuple[str, str, bytes], int]:
    """What hits on these records turned out to be, by (list, entry, content hash)."""
    rows = await connection.fetch(
        "SELECT list_id, entry_id, content_hash, disposition FROM kyc_dispositions WHERE record_id = ANY($1::uuid[])",
        list(record_ids),
    )
    return {(row[0], row[1], row[2]): row[3] for row in rows}


async def due_for_review(connection: Connection, today: date, limit: int) -> list[asyncpg.Record]:
    """Approvals that ended: (case, whether by the review date), the last decided case of its record, with none open."""
    return await connection.fetch(_DUE, today, limit)


async def approved_after(connection: Connection, record_id: UUID | None, limit: int) -> list[asyncpg.Record]:
    """Last decided cases that approve, by record, for screening everyone again."""
    return await connection.fetch(_APPROVED, record_id or UUID(int=0), limit)


async def forget(connection: Connection, record_ids: Collection[UUID]) -> None:
    """Deletes the cases of erased records with all that hangs on them."""
    wanted = list(record_ids)
    await connection.execute("DELETE FROM kyc_dispositions WHERE record_id = ANY($1::uuid[])", wanted)
    await connection.execute("DELETE FROM kyc_cases WHERE record_id = ANY($1::uuid[])", wanted)


async def anchors(connection: Connection, customer_id: UUID, institution_id: str) -> list[UUID]:
    """The institution's records of a customer, the oldest first."""
    rows = await connection.fetch(
        "SELECT record_id FROM records WHERE customer_id = $1 AND institution_id = $2 ORDER BY record_id",
        customer_id,
        institution_id,
    )
    return [row[0] for row in rows]


async def link_version(connection: Connection, record_id: UUID) -> int:
    """Orders the links of a record."""
    version: int = await connection.fetchval("SELECT link_version FROM records WHERE record_id = $1", record_id)
    return version


def case_values(case_id: UUID, institution_id: str, record_id: UUID, open_time: datetime, due_time: datetime) -> dict[str, Any]:
    """The columns of a new case that do not depend on what the customer is."""
    return {
        "case_id": case_id, "institution_id": institution_id, "record_id": record_id, "state": 1, "open_time": open_time,
        "due_time": due_time, "version": 1,
    }  # fmt: skip


_CASE = "SELECT c.*, r.customer_id FROM kyc_cases c JOIN records r USING (record_id)"
_LAST = """
    SELECT DISTINCT ON (c.record_id) c.* FROM kyc_cases c
    WHERE c.state = 3 AND c.record_id > $1 ORDER BY c.record_id, c.case_id DESC LIMIT $2"""
_APPROVED = f"SELECT last.*, r.customer_id FROM ({_LAST}) last JOIN records r USING (record_id) ORDER BY last.record_id"
# An approval ends with its review date, or when what a passed step rests on expires.
_DUE = """
SELECT c.*, r.customer_id, (c.next_review_date <= $1) AS review_due
FROM kyc_cases c JOIN records r USING (record_id)
WHERE c.state = 3
    AND (c.next_review_date <= $1 OR EXISTS (
        SELECT FROM kyc_evidence e WHERE e.case_id = c.case_id AND e.expire_date <= $1 AND e.result = 1
            AND NOT EXISTS (SELECT FROM kyc_evidence n WHERE n.case_id = e.case_id AND n.step_id = e.step_id
                AND n.evidence_id > e.evidence_id)))
    AND NOT EXISTS (SELECT FROM kyc_cases n WHERE n.record_id = c.record_id AND n.case_id > c.case_id AND n.state <> 5)
ORDER BY c.next_review_date LIMIT $2
"""
