"""The projection that says which customer a source record belongs to, and who is linked with whom.

A record that was erased stays as a row without customer and institution, under an epoch that no link has: whatever is told of it
later is older, so it cannot come back.
"""

import uuid
from collections.abc import Collection, Iterable

import asyncpg
from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text, Uuid

from chassis import answers
from chassis.database import Connection
from chassis.errors import NotFound
from concord.common.v1.event_pb2 import RecordLink

ERASED_EPOCH = 1 << 62
"""The epoch of what was erased: newer than any state that can be told."""
NOBODY = uuid.UUID(int=0)
"""Whose an erased record is."""


def table(metadata: MetaData) -> Table:
    """Adds the table to a service's metadata."""
    links = Table(
        "record_links",
        metadata,
        Column("record_id", Uuid, primary_key=True),
        Column("institution_id", Text, nullable=False),
        Column("customer_id", Uuid, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("version", BigInteger, nullable=False),
    )
    Index("record_links_customer", links.c.customer_id, links.c.institution_id)
    return links


async def fold(connection: Connection, links: Iterable[RecordLink]) -> list[asyncpg.Record]:
    """Applies links where they are newer, in one statement.

    Returns:
        The rows that changed: record_id, institution_id, customer_id, and former_customer_id (None for a new record).
    """
    newest: dict[str, RecordLink] = {}
    for link in links:
        known = newest.get(link.record_id)
        if known is None or _order(known) < _order(link):
            newest[link.record_id] = link
    if not newest:
        return []
    rows = sorted(newest.values(), key=lambda link: link.record_id)
    columns = [
        [uuid.UUID(link.record_id) for link in rows],
        [link.institution_id for link in rows],
        [uuid.UUID(link.customer_id) for link in rows],
    ]
    await connection.execute(_ADD_MISSING, *columns)
    return await connection.fetch(
        _MOVE, *columns, [link.state_version.epoch for link in rows], [link.state_version.version for link in rows]
    )


async def erase(connection: Connection, record_ids: Iterable[uuid.UUID]) -> None:
    """Ends records for good, also those that nothing was told of yet, and forgets the answers that name them.

    They stay locked: delete what hangs on them after.
    """
    gone = sorted(set(record_ids))
    await connection.execute(_ERASE, gone, NOBODY, ERASED_EPOCH)
    await answers.forget(connection, gone)


async def erased(connection: Connection, record_ids: Iterable[uuid.UUID]) -> frozenset[uuid.UUID]:
    """Those of the records that were erased. Known ones cannot be erased until the transaction ends."""
    rows = await connection.fetch(
        "SELECT record_id, epoch FROM record_links WHERE record_id = ANY($1::uuid[]) ORDER BY record_id FOR SHARE",
        list(set(record_ids)),
    )
    return frozenset(row["record_id"] for row in rows if row["epoch"] == ERASED_EPOCH)


async def anchors(
    connection: Connection, institution_id: str, customer_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, list[uuid.UUID]]:
    """The records that an institution has of customers, oldest first; a customer without any is left out.

    What an institution does with a customer hangs on the first of them, and follows it. They are locked against moving away until
    the transaction ends.
    """
    rows = await connection.fetch(
        "SELECT customer_id, record_id FROM record_links WHERE institution_id = $1 AND customer_id = ANY($2::uuid[])"
        " ORDER BY record_id FOR SHARE",
        institution_id, list(set(customer_ids)),
    )  # fmt: skip
    found: dict[uuid.UUID, list[uuid.UUID]] = {}
    for row in rows:
        found.setdefault(row["customer_id"], []).append(row["record_id"])
    return found


def not_found(customer_id: uuid.UUID) -> NotFound:
    """The refusal of a customer that does not exist, or not for this caller: the same words, or they would tell which."""
    return NotFound("CUSTOMER_NOT_FOUND", f"customers/{customer_id} does not exist, or your institution has no link with it")


def _order(link: RecordLink) -> tuple[int, int]:
    return link.state_version.epoch, link.state_version.version


# A row is first made with a version older than any: then both a new and a known row can be locked, in id order, and what it was
# before is certain, although another replica may be folding the same record.
_ADD_MISSING = """
INSERT INTO record_links (record_id, institution_id, customer_id, epoch, version)
SELECT record_id, institution_id, customer_id, -1, -1
FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS link (record_id, institution_id, customer_id)
ORDER BY record_id
ON CONFLICT DO NOTHING
"""
_MOVE = """
WITH before AS MATERIALIZED (
    SELECT record_id, customer_id, epoch FROM record_links WHERE record_id = ANY($1) ORDER BY record_id FOR UPDATE
)
UPDATE record_links AS t SET
    institution_id = link.institution_id, customer_id = link.customer_id, epoch = link.epoch, version = link.version
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::bigint[])
        AS link (record_id, institution_id, customer_id, epoch, version)
    JOIN before USING (record_id)
WHERE t.record_id = link.record_id AND (t.epoch, t.version) < (link.epoch, link.version)
RETURNING t.record_id, t.institution_id, t.customer_id,
    CASE WHEN before.epoch >= 0 THEN before.customer_id END AS former_customer_id
"""
_ERASE = """
INSERT INTO record_links AS t (record_id, institution_id, customer_id, epoch, version)
SELECT record_id, '', $2, $3, 0 FROM unnest($1::uuid[]) AS gone (record_id) ORDER BY record_id
ON CONFLICT (record_id) DO UPDATE SET
    institution_id = excluded.institution_id, customer_id = excluded.customer_id,
    epoch = excluded.epoch, version = excluded.version
"""
