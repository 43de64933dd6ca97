"""Source records, their links to customers, and the keys they are found by: one statement for a batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from uuid import UUID

import asyncpg

from chassis.database import Connection
from customer.domain.golden import Ranks
from customer.store import institutions

RANKS_CACHED_MAX = 10_000
_ranks = lru_cache(RANKS_CACHED_MAX)(institutions.ranks)


class RacedError(asyncpg.SerializationError):
    """Another transaction took the same source key first. The unit of work runs again and finds its record."""


@dataclass(slots=True)
class Member:
    """A record in its present state, with the customer it is linked with."""

    record_id: UUID
    source_system_number: int
    source_system: str
    institution_id: str
    source_key: bytes
    customer_id: UUID
    link_version: int
    resolution_reason: int
    state_number: int
    content_hash: bytes
    observe_time: datetime
    party: bytes
    create_time: datetime
    update_time: datetime
    ranks: Ranks
    ranks_version: int

    @property
    def name(self) -> str:
        """`institutions/{institution}/sourceSystems/{source_system}/records/{record}`."""
        return f"{self.source_system}/records/{self.record_id}"


@dataclass(frozen=True, slots=True)
class State:
    """A content that a source stated, kept for ever."""

    record_id: UUID
    state_number: int
    content_hash: bytes
    observe_time: datetime
    payload: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A record found by its source key."""

    record_id: UUID
    customer_id: UUID
    institution_id: str
    link_version: int


@dataclass(frozen=True, slots=True)
class SearchKeys:
    """What a record is found by."""

    record_id: UUID
    keys: frozenset[bytes]
    tokens: frozenset[str]


def _member(row: asyncpg.Record) -> Member:
    (record_id, number, institution_id, source_system_id, key, customer_id, link_version, reason, state_number, content_hash,
     observe_time, party, create_time, update_time, default_rank, attribute_ranks, ranks_version, *_) = row  # fmt: skip
    return Member(
        record_id, number, f"institutions/{institution_id}/sourceSystems/{source_system_id}", institution_id, key, customer_id,
        link_version, reason, state_number, content_hash, observe_time, party, create_time, update_time,
        _ranks(default_rank, attribute_ranks), ranks_version,
    )  # fmt: skip


async def visible(connection: Connection, wanted: Sequence[tuple[UUID, str | None]]) -> list[list[Member]]:
    """For each (customer, institution): the customer's records that the institution contributed; all of them for None."""
    found: list[list[Member]] = [[] for _ in wanted]
    for row in await connection.fetch(_VISIBLE, [customer for customer, _ in wanted], [viewer for _, viewer in wanted]):
        found[row[-1] - 1].append(_member(row))
    return found


async def lock_by_source_key(connection: Connection, wanted: Iterable[tuple[int, bytes]]) -> list[Member]:
    """The records with these (source system, key hash), locked in that order."""
    columns = [list(column) for column in zip(*sorted(wanted), strict=True)]
    return [_member(row) for row in await connection.fetch(_LOCK_BY_SOURCE_KEY, *columns)]


async def find_by_source_key(connection: Connection, wanted: Iterable[tuple[int, bytes]]) -> dict[tuple[int, bytes], Found]:
    """Records by (source system, key hash); those that are not known are left out."""
    columns = [list(column) for column in zip(*wanted, strict=True)]
    rows = await connection.fetch(_FIND_BY_SOURCE_KEY, *columns)
    return {(row[0], row[1]): Found(row[2], row[3], row[4], row[5]) for row in rows}


async def lock_documents(connection: Connection, keys: Iterable[bytes]) -> None:
    """Locks a row for each document, in order; a row that is missing is made."""
    await connection.execute(_LOCK_DOCUMENTS, sorted(keys))


async def customers_by_document(connection: Connection, keys: Sequence[bytes]) -> list[UUID]:
    """The customers that have a record with one of these documents."""
    return [row[0] for row in await connection.fetch(_CUSTOMERS_BY_DOCUMENT, keys)]


async def write(connection: Connection, members: Sequence[Member], states: Sequence[State], search: Sequence[SearchKeys]) -> None:
    """Writes records in their new state, keeps what was stated, and replaces what they are found by.

    Raises:
        RacedError: a new record's source key is taken by now.
    """
    # In the order of their source keys: two batches that bring the same new records wait for each other instead of dying.
    rows = sorted(members, key=lambda member: (member.source_system_number, member.source_key))
    written = await connection.fetch(
        _WRITE_RECORDS,
        [row.record_id for row in rows],
        [row.source_system_number for row in rows],
        [row.source_key for row in rows],
        [row.institution_id for row in rows],
        [row.customer_id for row in rows],
        [row.link_version for row in rows],
        [row.resolution_reason for row in rows],
        [row.state_number for row in rows],
        [row.content_hash for row in rows],
        [row.observe_time for row in rows],
        [row.party for row in rows],
        [row.create_time for row in rows],
        [row.update_time for row in rows],
    )
    if len(written) < len(rows):
        raise RacedError("a source key was taken by another transaction")
    if not states:
        return
    changed = [keys.record_id for keys in search]
    if any(state.state_number > 1 for state in states):
        await connection.execute(_FORGET_SEARCH_KEYS, changed)
    await connection.execute(
        _WRITE_STATES,
        [state.record_id for state in states],
        [state.state_number for state in states],
        [state.content_hash for state in states],
        [state.observe_time for state in states],
        [state.payload for state in states],
        max(row.update_time for row in rows),
        [keys.record_id for keys in search for _ in keys.keys],
        [key for keys in search for key in keys.keys],
        [keys.record_id for keys in search for _ in keys.tokens],
        [token for keys in search for token in keys.tokens],
    )


_COLUMNS = """
    r.record_id, r.source_system_number, r.institution_id, s.source_system_id, r.source_key, r.customer_id, r.link_version,
    r.resolution_reason, r.state_number, r.content_hash, r.observe_time, r.party, r.create_time, r.update_time,
    s.default_rank, s.attribute_ranks, s.version
"""
# Sub-queries that cannot be flattened (FOR UPDATE, OFFSET 0) make the plan one index look-up for each wanted row. Left free, a
# plan prepared while the table was small joins in ways that become slow by the square while a first load fills it.
_VISIBLE = f"""
SELECT {_COLUMNS}, wanted.place
FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS wanted (customer_id, institution_id, place)
    CROSS JOIN LATERAL (
        SELECT * FROM records WHERE customer_id = wanted.customer_id
            AND (wanted.institution_id IS NULL OR institution_id = wanted.institution_id) OFFSET 0) r
    JOIN source_systems s ON s.source_system_number = r.source_system_number
"""
_LOCK_BY_SOURCE_KEY = f"""
SELECT {_COLUMNS}
FROM unnest($1::int[], $2::bytea[]) AS wanted (number, key)
    CROSS JOIN LATERAL (
        SELECT * FROM records WHERE source_system_number = wanted.number AND source_key = wanted.key FOR UPDATE) r
    JOIN source_systems s ON s.source_system_number = r.source_system_number
"""
_FIND_BY_SOURCE_KEY = """
SELECT r.source_system_number, r.source_key, r.record_id, r.customer_id, r.institution_id, r.link_version
FROM unnest($1::int[], $2::bytea[]) AS wanted (number, key)
    CROSS JOIN LATERAL (
        SELECT * FROM records WHERE source_system_number = wanted.number AND source_key = wanted.key OFFSET 0) r
"""
# DO UPDATE locks the row even where its WHERE says that nothing is to be written.
_LOCK_DOCUMENTS = """
INSERT INTO documents (document_key) SELECT * FROM unnest($1::bytea[])
ON CONFLICT (document_key) DO UPDATE SET document_key = excluded.document_key WHERE false
"""
_CUSTOMERS_BY_DOCUMENT = """
SELECT DISTINCT r.customer_id
FROM unnest($1::bytea[]) AS wanted (key)
    CROSS JOIN LATERAL (SELECT record_id FROM record_keys WHERE key = wanted.key OFFSET 0) k
    CROSS JOIN LATERAL (SELECT customer_id FROM records WHERE record_id = k.record_id OFFSET 0) r
"""
_WRITE_RECORDS = """
INSERT INTO records (
    record_id, source_system_number, source_key, institution_id, customer_id, link_version, resolution_reason, state_number,
    content_hash, observe_time, party, create_time, update_time)
SELECT * FROM unnest(
    $1::uuid[], $2::int[], $3::bytea[], $4::text[], $5::uuid[], $6::bigint[], $7::smallint[], $8::int[],
    $9::bytea[], $10::timestamptz[], $11::bytea[], $12::timestamptz[], $13::timestamptz[])
ON CONFLICT (source_system_number, source_key) DO UPDATE SET
    customer_id = excluded.customer_id, link_version = excluded.link_version, resolution_reason = excluded.resolution_reason,
    state_number = excluded.state_number, content_hash = excluded.content_hash, observe_time = excluded.observe_time,
    party = excluded.party, update_time = excluded.update_time
WHERE records.record_id = excluded.record_id
RETURNING 1
"""
_WRITE_STATES = """
WITH states AS (
    INSERT INTO source_records (record_id, state_number, content_hash, observe_time, payload, recorded_at)
    SELECT *, $6::timestamptz FROM unnest($1::uuid[], $2::int[], $3::bytea[], $4::timestamptz[], $5::bytea[])
), keys AS (
    INSERT INTO record_keys (record_id, key) SELECT * FROM unnest($7::uuid[], $8::bytea[])
)
INSERT INTO name_tokens (record_id, token) SELECT * FROM unnest($9::uuid[], $10::text[])
"""
_FORGET_SEARCH_KEYS = """
WITH keys AS (DELETE FROM record_keys WHERE record_id = ANY($1::uuid[]))
DELETE FROM name_tokens WHERE record_id = ANY($1::uuid[])
"""
