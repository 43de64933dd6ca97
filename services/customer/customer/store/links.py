"""To which customer a record belonged, from when to when, and why. A link is never changed but to say until when it held."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection
from customer.domain.matching import Explanation


@dataclass(slots=True)
class Link:
    """A link of a record with a customer. `superseded_at` is None for the live one, of which a record has one."""

    record_id: UUID
    link_version: int
    customer_id: UUID
    origin: int
    reason: int
    model_version: str
    weight_bits: float | None
    explanation: bytes
    recorded_at: datetime
    superseded_at: datetime | None = None
    decided_by: str = ""


async def supersede(connection: Connection, versions: Sequence[tuple[UUID, int]], now: datetime) -> None:
    """Ends live links, by record and version."""
    await connection.execute(_SUPERSEDE, [record for record, _ in versions], [version for _, version in versions], now)


async def live(connection: Connection, record_ids: Sequence[UUID]) -> dict[UUID, Link]:
    """The live links of records."""
    rows = await connection.fetch(f"{_SELECT} WHERE record_id = ANY($1::uuid[]) AND superseded_at IS NULL", record_ids)
    return {row[0]: Link(*row) for row in rows}


async def as_seen(connection: Connection, links: Sequence[Link], institution_id: str | None) -> list[Link]:
    """The same links, with weight and explanation only where all records that were compared are the institution's (None: always).

    What another's record was compared with tells, guess by guess, what that one says.
    """
    if institution_id is None:
        return list(links)
    compared = [Explanation.from_bytes(link.explanation).compared if link.explanation else () for link in links]
    rows = await connection.fetch(
        "SELECT record_id FROM records WHERE record_id = ANY($1::uuid[]) AND institution_id = $2",
        list({record_id for pair in compared for record_id in pair}), institution_id,
    )  # fmt: skip
    own = {row[0] for row in rows}
    return [
        link if pair and own.issuperset(pair) else replace(link, weight_bits=None, explanation=b"")
        for link, pair in zip(links, compared, strict=True)
    ]


async def weights_bits(
    connection: Connection, record_ids: Collection[UUID], institution_id: str | None = None
) -> dict[UUID, float]:
    """How strong the matches were that link these records, as far as the institution (None: all) may see it."""
    if not record_ids:
        return {}
    if institution_id is not None:
        seen = await as_seen(connection, list((await live(connection, list(record_ids))).values()), institution_id)
        return {link.record_id: link.weight_bits for link in seen if link.weight_bits is not None}
    rows = await connection.fetch(
        "SELECT record_id, weight_bits FROM links"
        " WHERE record_id = ANY($1::uuid[]) AND superseded_at IS NULL AND weight_bits IS NOT NULL",
        list(record_ids),
    )
    return {row[0]: row[1] for row in rows}


async def of_record(connection: Connection, record_id: UUID) -> list[Link]:
    """All links of a record, the latest first."""
    rows = await connection.fetch(f"{_SELECT} WHERE record_id = $1 ORDER BY link_version DESC", record_id)
    return [Link(*row) for row in rows]


async def of_customer(
    connection: Connection, customer_id: UUID, institution_id: str | None, before: tuple[datetime, UUID, int] | None, limit: int
) -> list[asyncpg.Record]:
    """Links a customer's id ever had with the institution's records (None: of all), the latest first.

    Args:
        before: instant, record and version of the last one of the page before.
    """
    at, record_id, version = before or (None, None, None)
    return await connection.fetch(_OF_CUSTOMER, customer_id, institution_id, at, record_id, version, limit)


COLUMNS = (
    "record_id", "link_version", "customer_id", "origin", "reason", "model_version", "weight_bits", "explanation", "recorded_at",
    "superseded_at", "decided_by",
)  # fmt: skip
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM links"
_SUPERSEDE = """
UPDATE links SET superseded_at = $3 FROM unnest($1::uuid[], $2::bigint[]) AS ended (record_id, link_version)
WHERE links.record_id = ended.record_id AND links.link_version = ended.link_version
"""
_OF_CUSTOMER = f"""
SELECT {", ".join(f"l.{column}" for column in COLUMNS)}, s.institution_id, s.source_system_id
FROM links l JOIN records r USING (record_id) JOIN source_systems s USING (source_system_number)
WHERE l.customer_id = $1 AND ($2::text IS NULL OR r.institution_id = $2)
    AND ($3::timestamptz IS NULL OR (l.recorded_at, l.record_id, l.link_version) < ($3, $4::uuid, $5::bigint))
ORDER BY l.recorded_at DESC, l.record_id DESC, l.link_version DESC LIMIT $6
"""
