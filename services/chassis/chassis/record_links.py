"""The projection that says which customer a source record belongs to, and who is linked with whom."""

import uuid
from collections.abc import Iterable

import asyncpg
from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text, Uuid

from chassis.database import Connection
from chassis.errors import NotFound
from chassis.identity import Principal
from concord.common.v1.event_pb2 import RecordLink


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


async def require_link(connection: Connection, principal: Principal, customer_id: uuid.UUID) -> None:
    """A customer exists for a caller only when the caller's institution has a link with it.

    Raises:
        NotFound: CUSTOMER_NOT_FOUND; also for a caller bound to another customer.
    """
    if principal.customer is not None and principal.customer != str(customer_id):
        raise _not_found(customer_id)
    if principal.sees_all:
        return
    linked = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM record_links WHERE customer_id = $1 AND institution_id = $2)",
        customer_id, principal.institution,
    )  # fmt: skip
    if not linked:
        raise _not_found(customer_id)


def _not_found(customer_id: uuid.UUID) -> NotFound:
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
