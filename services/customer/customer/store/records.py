"""Source records as they are and as they were, decrypted: one statement for a batch."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import chain
from uuid import UUID

import asyncpg

from chassis.database import Connection
from concord.customer.v1.party_pb2 import Party
from customer.domain.golden import Ranks
from customer.domain.vocabulary import Attribute
from customer.store import institutions, pins, verifications
from customer.store.restrictions import RESTRICTED
from customer.store.sharing import SHOWN, shared_attributes
from customer.store.vault import Vault, bound_to
from customer.store.verifications import Verifications

RANKS_CACHED_MAX = 10_000
PRESENT_PARTY = "records.party"
STATED_PARTY = "source_records.party"
STATED_PAYLOAD = "source_records.payload"
"""Places that a sealed value is bound to."""
_ranks = lru_cache(RANKS_CACHED_MAX)(institutions.ranks)


@dataclass(slots=True)
class Member:
    """A record in one state, present or past, with the customer it is, or was, linked with.

    `pins`: since when a steward has pinned this record's value, by attribute. `shared_attributes`: those that the viewer may
    see of another institution's record; None for all. `restricted`: for the record's institution, its customer is only kept.
    `verified`: what KYC cases verified of it.
    """

    record_id: UUID
    source_system_number: int
    source_system: str
    institution_id: str
    source_key: bytes
    customer_id: UUID
    link_version: int
    origin: int
    resolution_reason: int
    state_number: int
    statements_count: int
    content_hash: bytes
    observe_time: datetime
    party: Party
    create_time: datetime
    update_time: datetime
    ranks: Ranks
    ranks_version: int
    pins: Mapping[Attribute, datetime] = field(default_factory=dict)
    shared_attributes: frozenset[Attribute] | None = None
    restricted: bool = False
    verified: Verifications = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`institutions/{institution}/sourceSystems/{source_system}/records/{record}`."""
        return f"{self.source_system}/records/{self.record_id}"


@dataclass(frozen=True, slots=True)
class Found:
    """A record found by its source key."""

    record_id: UUID
    customer_id: UUID
    institution_id: str
    link_version: int
    resolution_reason: int
    content_hash: bytes
    observe_time: datetime


async def visible(
    connection: Connection, vault: Vault, wanted: Sequence[tuple[UUID, str | None]], *, shared: bool = False
) -> list[list[Member]]:
    """For each (customer, institution): the customer's records that the institution contributed; all of them for None.

    Args:
        shared: also those of others of which a consent shares attributes; only the institution's own connection shows them.
    """
    rows = await connection.fetch(
        _SHOWN if shared else _VISIBLE, [customer for customer, _ in wanted], [viewer for _, viewer in wanted]
    )
    return await _members(vault, rows, PRESENT_PARTY, len(wanted))


async def history(
    connection: Connection,
    vault: Vault,
    wanted: Sequence[tuple[UUID, str | None]],
    as_of: datetime,
    known_at: datetime,
) -> list[list[Member]]:
    """The same, shared ones too, as it was known at an instant: each record in the last state observed until `as_of`."""
    customers, viewers = [customer for customer, _ in wanted], [viewer for _, viewer in wanted]
    rows = await connection.fetch(_HISTORY, customers, viewers, as_of, known_at)
    found = await _members(vault, rows, STATED_PARTY, len(wanted))
    lived = min(as_of, known_at)
    pinned = await pins.at(connection, [row[0] for row in rows], lived) if rows else {}
    verified = await verifications.at(connection, vault, [row[0] for row in rows], lived) if rows else {}
    for member in chain.from_iterable(found):
        member.pins = pinned.get(member.record_id, pins.NO_PINS)
        member.verified = verified.get(member.record_id, verifications.NOTHING)
    return found


async def by_ids(connection: Connection, vault: Vault, record_ids: Collection[UUID], institution_id: str | None) -> list[Member]:
    """Records by their ids, as far as the institution contributed them; all of them for None."""
    rows = await connection.fetch(_BY_IDS, list(record_ids), institution_id)
    return (await _members(vault, rows, PRESENT_PARTY, 1))[0]


async def _members(vault: Vault, rows: Sequence[asyncpg.Record], place: str, lists_count: int) -> list[list[Member]]:
    """Members in as many lists as were asked for. A record whose key is shredded is gone."""
    found: list[list[Member]] = [[] for _ in range(lists_count)]
    keys = await vault.keys([row[0] for row in rows]) if rows else {}
    for row in rows:
        (record_id, number, institution_id, source_system_id, source_key, customer_id, link_version, origin, reason, state_number,
         statements_count, content_hash, observe_time, sealed, create_time, update_time, pinned, verified, default_rank,
         attribute_ranks, ranks_version, shared, restricted, list_number) = row  # fmt: skip
        key = keys.get(record_id)
        if key is None:
            continue
        party = Party.FromString(key.open(sealed, bound_to(place, record_id, state_number)))
        found[list_number - 1].append(
            Member(
                record_id,
                number,
                f"institutions/{institution_id}/sourceSystems/{source_system_id}",
                institution_id,
                source_key,
                customer_id,
                link_version,
                origin,
                reason,
                state_number,
                statements_count,
                content_hash,
                observe_time,
                party,
                create_time,
                update_time,
                _ranks(default_rank, attribute_ranks),
                ranks_version,
                pins.decoded(pinned),
                None if shared is None else frozenset(map(Attribute, shared)),
                restricted,
                verifications.decoded(verified, record_id, key) if verified else verifications.NOTHING,
            )
        )
    # Of a customer that was not the viewer's own at that instant it sees nothing.
    return [members if any(one.shared_attributes is None for one in members) else [] for members in found]


async def find_by_source_key(connection: Connection, wanted: Iterable[tuple[int, bytes]]) -> dict[tuple[int, bytes], Found]:
    """Records by (source system, key hash); those that are not known are left out."""
    columns = [list(column) for column in zip(*wanted, strict=True)]
    if not columns:
        return {}
    return {(row[0], row[1]): Found(*row[2:]) for row in await connection.fetch(_FIND_BY_SOURCE_KEY, *columns)}


async def find_or_erased(
    connection: Connection, wanted: Iterable[tuple[int, bytes]]
) -> tuple[dict[tuple[int, bytes], Found], dict[tuple[int, bytes], datetime]]:
    """Records by (source system, key hash), and when records of these keys were erased last."""
    columns = [list(column) for column in zip(*wanted, strict=True)]
    found: dict[tuple[int, bytes], Found] = {}
    erased: dict[tuple[int, bytes], datetime] = {}
    for row in await connection.fetch(_FIND_OR_ERASED, *columns) if columns else ():
        if row[2] is None:
            erased[row[0], row[1]] = max(row[8], erased.get((row[0], row[1]), row[8]))
        else:
            found[row[0], row[1]] = Found(*row[2:])
    return found, erased


# Sub-queries that cannot be flattened (OFFSET 0, LIMIT) make the plan one index look-up for each wanted row. Left free, a plan
# prepared while the table was small joins in ways that become slow by the square while a first load fills it. Arrays hidden in
# a SELECT have the same estimate for every call, so that the plan is not made again for each.
_PRESENT = """
    r.record_id, r.source_system_number, r.institution_id, s.source_system_id, r.source_key, r.customer_id, r.link_version,
    r.link_origin, r.resolution_reason, r.state_number, r.statements_count, r.content_hash, r.observe_time, r.party,
    r.create_time, r.update_time, r.pins, r.verified, s.default_rank, s.attribute_ranks, s.version
"""
_SHARED = shared_attributes("r", "wanted.institution_id")
_WANTED = f"""
SELECT {_PRESENT}, {{shared}}, {RESTRICTED}, wanted.place
FROM unnest((SELECT $1::uuid[]), (SELECT $2::text[])) WITH ORDINALITY AS wanted (customer_id, institution_id, place)
    CROSS JOIN LATERAL (SELECT * FROM records WHERE customer_id = wanted.customer_id AND {{condition}} OFFSET 0) r
    JOIN source_systems s ON s.source_system_number = r.source_system_number
"""
_OWN = "(wanted.institution_id IS NULL OR institution_id = wanted.institution_id)"
_VISIBLE = _WANTED.format(shared="NULL::smallint[]", condition=_OWN)
_SHOWN = _WANTED.format(shared=_SHARED, condition=SHOWN)
_BY_IDS = f"""
SELECT {_PRESENT}, NULL::smallint[], {RESTRICTED}, 1
FROM unnest($1::uuid[]) AS wanted (record_id)
    CROSS JOIN LATERAL (
        SELECT * FROM records WHERE record_id = wanted.record_id AND ($2::text IS NULL OR institution_id = $2) OFFSET 0) r
    JOIN source_systems s ON s.source_system_number = r.source_system_number
"""
# The state believed at an instant is the one observed last; of several observed at one instant, the one that came last.
_HISTORY = f"""
SELECT r.record_id, r.source_system_number, r.institution_id, s.source_system_id, r.source_key, l.customer_id, l.link_version,
    l.origin, l.reason, said.state_number, r.statements_count, state.content_hash, said.observe_time, state.party,
    r.create_time, greatest(said.recorded_at, l.recorded_at), NULL, NULL, s.default_rank, s.attribute_ranks, s.version,
    {shared_attributes("r", "wanted.institution_id", "$3", "$4")}, {RESTRICTED},
    wanted.place
FROM unnest((SELECT $1::uuid[]), (SELECT $2::text[])) WITH ORDINALITY AS wanted (customer_id, institution_id, place)
    CROSS JOIN LATERAL (
        SELECT * FROM links WHERE customer_id = wanted.customer_id AND recorded_at <= $4
            AND (superseded_at IS NULL OR superseded_at > $4) OFFSET 0) l
    CROSS JOIN LATERAL (
        SELECT * FROM records WHERE record_id = l.record_id AND {SHOWN} OFFSET 0) r
    CROSS JOIN LATERAL (
        SELECT state_number AS number, state_number, observe_time, recorded_at FROM source_records
        WHERE record_id = r.record_id AND observe_time <= $3 AND recorded_at <= $4
        UNION ALL
        SELECT sighting_number, state_number, observe_time, recorded_at FROM record_sightings
        WHERE record_id = r.record_id AND observe_time <= $3 AND recorded_at <= $4
        ORDER BY observe_time DESC, number DESC LIMIT 1) said
    CROSS JOIN LATERAL (
        SELECT * FROM source_records WHERE record_id = r.record_id AND state_number = said.state_number OFFSET 0) state
    JOIN source_systems s ON s.source_system_number = r.source_system_number
"""
_FIND_BY_SOURCE_KEY = """
SELECT r.source_system_number, r.source_key, r.record_id, r.customer_id, r.institution_id, r.link_version, r.resolution_reason,
    r.content_hash, r.observe_time
FROM unnest((SELECT $1::int[]), (SELECT $2::bytea[])) AS wanted (number, key)
    CROSS JOIN LATERAL (
        SELECT * FROM records WHERE source_system_number = wanted.number AND source_key = wanted.key OFFSET 0) r
"""
_FIND_OR_ERASED = f"""
{_FIND_BY_SOURCE_KEY}
UNION ALL
SELECT wanted.number, wanted.key, NULL, NULL, NULL, NULL, NULL, NULL, e.erased_at
FROM unnest((SELECT $1::int[]), (SELECT $2::bytea[])) AS wanted (number, key)
    CROSS JOIN LATERAL (
        SELECT * FROM erased_records WHERE source_system_number = wanted.number AND source_key = wanted.key OFFSET 0) e
"""
