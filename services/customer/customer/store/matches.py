"""What matching reads: stripes to lock, and the records that share a blocking key."""

from collections.abc import Collection
from uuid import UUID

from chassis.database import Connection

STRIPES = 4096
"""Rows of match_stripes, made by a migration. A batch of any size locks no more."""
RECORDS_OF_A_KEY_MAX = 200
"""A key that more records share tells too little to read them all."""


async def lock_stripes(connection: Connection, keys: Collection[int]) -> int:
    """Locks what the keys fall on, in order: of two transactions that bring the same new person, one waits here.

    Answers the `population`, to save a round trip.
    """
    counted: int = await connection.fetchval(_LOCK_STRIPES, sorted({key % STRIPES for key in keys}))
    return max(0, counted)


async def holders(
    connection: Connection, keys: Collection[int], institution_id: str | None = None
) -> list[tuple[int, UUID, UUID]]:
    """(key, record, customer) for the records that have one of these keys; of a hot key one more than the limit.

    Args:
        institution_id: only this institution's records; None for all.
    """
    if institution_id is None:
        rows = await connection.fetch(_HOLDERS, list(keys))
    else:
        rows = await connection.fetch(f"{_HOLDERS} WHERE r.institution_id = $2", list(keys), institution_id)
    return [(row[0], row[1], row[2]) for row in rows]


async def population(connection: Connection) -> int:
    """About how many customers there are, as PostgreSQL last counted."""
    counted: int = await connection.fetchval(f"SELECT {_POPULATION}")
    return max(0, counted)


_POPULATION = "(SELECT reltuples::bigint FROM pg_class WHERE oid = 'customers'::regclass)"
_LOCK_STRIPES = f"""
WITH locked AS (SELECT FROM match_stripes WHERE stripe = ANY($1::int[]) ORDER BY stripe FOR UPDATE)
SELECT {_POPULATION} FROM (SELECT count(*) FROM locked) waited
"""
# The limit is a number, not a parameter: with an unknown one a plan made on an empty table reads all of it.
_HOLDERS = f"""
SELECT wanted.key, b.record_id, r.customer_id
FROM unnest($1::bigint[]) AS wanted (key)
    CROSS JOIN LATERAL (SELECT record_id FROM blocking_keys WHERE key = wanted.key LIMIT {RECORDS_OF_A_KEY_MAX + 1}) b
    CROSS JOIN LATERAL (SELECT customer_id, institution_id FROM records WHERE record_id = b.record_id OFFSET 0) r
"""
