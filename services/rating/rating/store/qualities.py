"""How complete and credible each customer is, as the customer master last said."""

import json
import uuid
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import asyncpg

from chassis.database import Connection
from rating.domain.facts import AttributeQuality, MasterQuality


async def keep(
    connection: Connection, asked_at: datetime, asked: Collection[uuid.UUID], told: Mapping[uuid.UUID, MasterQuality]
) -> None:
    """Keeps what was told of the customers asked for, and forgets those of whom nothing was. The caller holds their marks."""
    await connection.execute(
        _KEEP,
        asked_at,
        list(told),
        [quality.completeness_percent for quality in told.values()],
        [quality.credibility_percent for quality in told.values()],
        [
            json.dumps(
                [[part.attribute, part.required_weight, part.credibility_percent, part.findings] for part in one.attributes]
            )
            for one in told.values()
        ],
    )
    await connection.execute("DELETE FROM customer_qualities WHERE customer_id = ANY($1::uuid[])", list(set(asked) - set(told)))


def from_row(row: asyncpg.Record) -> MasterQuality | None:
    """What a row, or the null one of an outer join, says."""
    if row["completeness_percent"] is None:
        return None
    parts: list[tuple[str, int, int, list[Any]]] = json.loads(row["quality_attributes"])
    return MasterQuality(
        row["completeness_percent"],
        row["credibility_percent"],
        tuple(AttributeQuality(name, weight, percent, tuple(findings)) for name, weight, percent, findings in parts),
    )


async def asked_before(connection: Connection, instant: datetime, limit: int) -> list[uuid.UUID]:
    """Customers whose figures are older, the oldest first; those that are marked already are left out."""
    rows = await connection.fetch(_ASKED_BEFORE, instant, limit)
    return [row["customer_id"] for row in rows]


_KEEP = """
INSERT INTO customer_qualities (asked_at, customer_id, completeness_percent, credibility_percent, attributes)
SELECT $1, * FROM unnest($2::uuid[], $3::smallint[], $4::smallint[], $5::jsonb[])
ON CONFLICT (customer_id) DO UPDATE SET asked_at = excluded.asked_at, attributes = excluded.attributes,
    completeness_percent = excluded.completeness_percent, credibility_percent = excluded.credibility_percent
"""

_ASKED_BEFORE = """
SELECT customer_id FROM customer_qualities q
WHERE asked_at < $1 AND NOT EXISTS (SELECT FROM rerate_queue m WHERE m.customer_id = q.customer_id)
ORDER BY asked_at LIMIT $2
"""
