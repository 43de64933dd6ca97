"""Writes of records and their customers: one statement for each kind and batch, or COPY where there are many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from chassis.database import Connection
from customer.store import customers as customer_store
from customer.store import links as link_store
from customer.store import quality as quality_store
from customer.store.customers import CustomerRow
from customer.store.links import Link
from customer.store.quality import Remembered
from customer.store.records import Member

COPIED_FROM_RECORDS = 200
"""From so many new records on, COPY is faster than arrays of parameters."""
SIGHTINGS_EXACT_MAX = 12
"""Up to so many statements of a record every sighting is kept; of more, the first of each period and the last of all."""
SIGHTINGS_PERIOD_DAYS = 30


class RacedError(asyncpg.SerializationError):
    """Another transaction came first. The unit of work runs again and sees what it did."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a new state changes in the row of its record; the party is sealed."""

    party: bytes
    blocking_keys: Sequence[int]
    lookup_keys: Sequence[int]


@dataclass(frozen=True, slots=True)
class State:
    """A content that a source stated, kept for ever; payload and party are sealed."""

    record_id: UUID
    number: int
    institution_id: str
    content_hash: bytes
    observe_time: datetime
    payload: bytes
    party: bytes


@dataclass(frozen=True, slots=True)
class Sighting:
    """A state that its source stated again, of another instant."""

    record_id: UUID
    number: int
    state_number: int
    observe_time: datetime


@dataclass(slots=True)
class Writes:
    """What a transaction writes of records and customers."""

    customers: list[CustomerRow] = field(default_factory=list)
    new: dict[UUID, tuple[Member, Content]] = field(default_factory=dict)
    changed: dict[UUID, tuple[Member, Content | None]] = field(default_factory=dict)
    states: list[State] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    ended_links: list[tuple[UUID, int]] = field(default_factory=list)
    qualities: Mapping[UUID, Remembered] = field(default_factory=dict)


async def write(connection: Connection, writes: Writes, now: datetime) -> None:
    """Writes it all.

    Raises:
        RacedError: a new record's source key is taken by now.
    """
    if writes.ended_links:
        await link_store.supersede(connection, writes.ended_links, now)
    if writes.changed:
        await _change(connection, writes)
    if len(writes.new) >= COPIED_FROM_RECORDS:
        await _copy(connection, writes, now)
    elif writes.customers or writes.new or writes.states or writes.links:
        await _insert(connection, writes, now)
    if writes.sightings:
        await connection.execute(
            _INSERT_SIGHTINGS,
            [sighting.record_id for sighting in writes.sightings],
            [sighting.number for sighting in writes.sightings],
            [sighting.state_number for sighting in writes.sightings],
            [sighting.observe_time for sighting in writes.sightings],
            now,
        )
        many = {sighting.record_id for sighting in writes.sightings if sighting.number > SIGHTINGS_EXACT_MAX}
        if many:
            await connection.execute(_THIN_SIGHTINGS, list(many), timedelta(days=SIGHTINGS_PERIOD_DAYS))


async def _change(connection: Connection, writes: Writes) -> None:
    restated = [member.record_id for member, content in writes.changed.values() if content]
    if restated:
        await connection.execute(_FORGET_BLOCKING_KEYS, restated)
    rows = list(writes.changed.values())
    await connection.execute(
        _UPDATE_RECORDS,
        [member.record_id for member, _ in rows],
        [member.customer_id for member, _ in rows],
        [member.link_version for member, _ in rows],
        [member.origin for member, _ in rows],
        [member.resolution_reason for member, _ in rows],
        [member.state_number for member, _ in rows],
        [member.statements_count for member, _ in rows],
        [member.content_hash for member, _ in rows],
        [member.observe_time for member, _ in rows],
        [member.update_time for member, _ in rows],
        [content.party if content else None for _, content in rows],
        [_array(content.blocking_keys) if content else None for _, content in rows],
        [_array(content.lookup_keys) if content else None for _, content in rows],
    )


def _array(numbers: Sequence[int]) -> str:
    """PostgreSQL's text of an array: an array of arrays must be rectangular, one of texts need not."""
    return f"{{{','.join(map(str, numbers))}}}"


def _key_rows(writes: Writes) -> list[tuple[int, UUID]]:
    contents = [*writes.new.values(), *writes.changed.values()]
    return [(key, member.record_id) for member, content in contents if content for key in content.blocking_keys]


async def _insert(connection: Connection, writes: Writes, now: datetime) -> None:
    rows = sorted(writes.new.values(), key=lambda row: (row[0].source_system_number, row[0].source_key))
    keys = _key_rows(writes)
    count = await connection.fetchval(
        _INSERT,
        *([getattr(member, column) for member, _ in rows] for column in _OF_MEMBER),
        [content.party for _, content in rows],
        [_array(content.blocking_keys) for _, content in rows],
        [_array(content.lookup_keys) for _, content in rows],
        *([getattr(state, column) for state in writes.states] for column in _OF_STATE),
        now,
        *([getattr(link, column) for link in writes.links] for column in link_store.COLUMNS),
        [key for key, _ in keys],
        [record_id for _, record_id in keys],
        *customer_store.columns(writes.customers),
        *quality_store.columns(writes.qualities),
    )
    if count < len(rows):
        raise RacedError("a source key was taken by another transaction")


async def _copy(connection: Connection, writes: Writes, now: datetime) -> None:
    await quality_store.remember(connection, writes.qualities)
    old = [customer for customer in writes.customers if customer.version > 1]
    if old:
        await customer_store.write(connection, old, now)
    copied: list[tuple[str, list[tuple[Any, ...]], Sequence[str]]] = [
        (
            "customers",
            [
                (one.customer_id, one.version, one.create_time, now, one.merged_into, one.restricted)
                for one in writes.customers
                if one.version == 1
            ],
            ("customer_id", "version", "create_time", "update_time", "merged_into", "restricted"),
        ),
        (
            "records",
            [
                (*(getattr(member, column) for column in _OF_MEMBER), content.party, content.blocking_keys, content.lookup_keys)
                for member, content in writes.new.values()
            ],
            RECORD_COLUMNS,
        ),
        (
            "source_records",
            [(*(getattr(state, column) for column in _OF_STATE), now) for state in writes.states],
            STATE_COLUMNS,
        ),
        ("links", [tuple(getattr(link, column) for column in link_store.COLUMNS) for link in writes.links], link_store.COLUMNS),
        ("blocking_keys", _key_rows(writes), ("key", "record_id")),
    ]
    for table, rows, columns in copied:
        try:
            await connection.copy_records_to_table(table, records=rows, columns=list(columns))
        except asyncpg.UniqueViolationError:
            if table != "records":
                raise  # no race: running again would end alike
            raise RacedError("a source key was taken by another transaction") from None


_OF_MEMBER = (
    "record_id", "source_system_number", "source_key", "institution_id", "customer_id", "link_version", "origin",
    "resolution_reason", "state_number", "statements_count", "content_hash", "observe_time", "create_time", "update_time",
)  # fmt: skip
RECORD_COLUMNS = (
    *(column.replace("origin", "link_origin") for column in _OF_MEMBER), "party", "blocking_keys", "lookup_keys",
)  # fmt: skip
_OF_STATE = ("record_id", "number", "institution_id", "content_hash", "observe_time", "payload", "party")
STATE_COLUMNS = ("record_id", "state_number", *_OF_STATE[2:], "recorded_at")
# The records are counted by what the statement returns: one that is missing had its source key taken.
_INSERT = f"""
WITH states AS (
    INSERT INTO source_records ({", ".join(STATE_COLUMNS)})
    SELECT *, $25::timestamptz FROM unnest(
        $18::uuid[], $19::int[], $20::text[], $21::bytea[], $22::timestamptz[], $23::bytea[], $24::bytea[])
), history AS (
    INSERT INTO links ({", ".join(link_store.COLUMNS)})
    SELECT * FROM unnest(
        $26::uuid[], $27::bigint[], $28::uuid[], $29::smallint[], $30::smallint[], $31::text[], $32::float8[], $33::bytea[],
        $34::timestamptz[], $35::timestamptz[], $36::text[])
), keys AS (
    INSERT INTO blocking_keys (key, record_id) SELECT * FROM unnest($37::bigint[], $38::uuid[])
), owners AS (
    {customer_store.upsert(39, 25)}
), qualities AS (
    {quality_store.upsert(44)}
), written AS (
    INSERT INTO records ({", ".join(RECORD_COLUMNS)})
    SELECT {", ".join(RECORD_COLUMNS[:-2])}, blocking_keys::bigint[], lookup_keys::bigint[] FROM unnest(
        $1::uuid[], $2::int[], $3::bytea[], $4::text[], $5::uuid[], $6::bigint[], $7::smallint[], $8::smallint[], $9::int[],
        $10::int[], $11::bytea[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::bytea[], $16::text[],
        $17::text[]) AS row ({", ".join(RECORD_COLUMNS)})
    ON CONFLICT (source_system_number, source_key) DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM written
"""
_UPDATE_RECORDS = """
UPDATE records SET
    customer_id = row.customer_id, link_version = row.link_version, link_origin = row.origin, resolution_reason = row.reason,
    state_number = row.state_number, statements_count = row.statements_count, content_hash = row.content_hash,
    observe_time = row.observe_time, update_time = row.update_time, party = coalesce(row.party, records.party),
    blocking_keys = coalesce(row.blocking_keys::bigint[], records.blocking_keys),
    lookup_keys = coalesce(row.lookup_keys::bigint[], records.lookup_keys)
FROM unnest(
    $1::uuid[], $2::uuid[], $3::bigint[], $4::smallint[], $5::smallint[], $6::int[], $7::int[], $8::bytea[], $9::timestamptz[],
    $10::timestamptz[], $11::bytea[], $12::text[], $13::text[]) AS row (
    record_id, customer_id, link_version, origin, reason, state_number, statements_count, content_hash, observe_time, update_time,
    party, blocking_keys, lookup_keys)
WHERE records.record_id = row.record_id
"""
_FORGET_BLOCKING_KEYS = """
DELETE FROM blocking_keys b USING (
    SELECT record_id, unnest(blocking_keys) AS key FROM records WHERE record_id = ANY($1::uuid[])) old
WHERE b.key = old.key AND b.record_id = old.record_id
"""
_INSERT_SIGHTINGS = """
INSERT INTO record_sightings (record_id, sighting_number, state_number, observe_time, recorded_at)
SELECT *, $5::timestamptz FROM unnest($1::uuid[], $2::int[], $3::int[], $4::timestamptz[])
"""
# A source that feeds the same for years must not fill the history. What goes stands between two statements of one state, and
# the one before was known earlier: whatever instant is asked for, it is still believed, seen a little less lately. Only what
# arrives late, of an instant between the two, is believed as of then up to the next sighting that is kept.
_THIN_SIGHTINGS = """
DELETE FROM record_sightings gone USING (
    SELECT record_id, number, state_number, recorded_at, date_bin($2, observe_time, 'epoch') AS period, repeats,
        lag(state_number) OVER said AS state_before, lag(recorded_at) OVER said AS recorded_before,
        date_bin($2, lag(observe_time) OVER said, 'epoch') AS period_before, lead(state_number) OVER said AS state_after
    FROM (
        SELECT record_id, state_number AS number, state_number, observe_time, recorded_at, false AS repeats
        FROM source_records WHERE record_id = ANY($1::uuid[])
        UNION ALL
        SELECT record_id, sighting_number, state_number, observe_time, recorded_at, true
        FROM record_sightings WHERE record_id = ANY($1::uuid[])) statements
    WINDOW said AS (PARTITION BY record_id ORDER BY observe_time, number)) one
WHERE gone.record_id = one.record_id AND gone.sighting_number = one.number AND one.repeats
    AND one.state_number = one.state_before AND one.state_number = one.state_after AND one.recorded_before <= one.recorded_at
    AND one.period = one.period_before
"""
