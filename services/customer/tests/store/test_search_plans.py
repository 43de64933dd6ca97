"""No search reads a whole table: plans, and blocks read, over 20,000 records."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest_asyncio

from customer.store import search
from customer.store.search import NO_CUSTOMER, Filters, KeyCondition, Viewer

RECORDS_COUNT = 20_000
CHANGED_COUNT = 60
BLOCKS_MAX = 1000
"""Read by one page of a search; the records alone fill 1,400, their indexes more."""
NOW = datetime(2026, 11, 24, tzinfo=UTC)
FILL = f"""
INSERT INTO institutions (institution_id, display_name, kind, time_zone, country_code, version, create_time, update_time)
    SELECT name, name, 1, 'UTC', 'CZ', 1, now(), now() FROM unnest(ARRAY['bank', 'insurer']) AS name;
INSERT INTO source_systems (institution_id, source_system_id, display_name, default_rank, attribute_ranks, version, create_time,
        update_time)
    SELECT institution_id, 'core', 'core', 1, '{{}}', 1, now(), now() FROM institutions ORDER BY institution_id;
INSERT INTO customers (customer_id, version, restricted, create_time, update_time)
    SELECT md5('c' || n)::uuid, 1, false, now(), now() FROM generate_series(1, {RECORDS_COUNT}) AS n;
INSERT INTO records (record_id, source_system_number, source_key, institution_id, customer_id, link_version, link_origin,
        resolution_reason, state_number, statements_count, content_hash, observe_time, party, blocking_keys, lookup_keys,
        create_time, update_time)
    SELECT md5('r' || n)::uuid, (SELECT min(source_system_number) FROM source_systems) + n % 2, decode(md5('k' || n), 'hex'),
        (ARRAY['bank', 'insurer'])[1 + n % 2], md5('c' || n)::uuid, 1, 1, 1, 1, 1, '\\x00', now(),
        decode(repeat(md5(n::text), 25), 'hex'), ARRAY[n],
        ARRAY[n, 1000000 + n % 5000, 2000000 + n % 40, 3000000 + n % 2, 4000000 + n % 700, 5000000 + n % 9000, 6000000 + n],
        now(), TIMESTAMPTZ '2026-11-24' - ({RECORDS_COUNT} - n) * INTERVAL '1 minute'
    FROM generate_series(1, {RECORDS_COUNT}) AS n;
INSERT INTO relationships (relationship_id, institution_id, source_system_number, source_key, content_hash, observe_time, version,
        kind, from_record_id, to_record_id, status, legal_basis_code, share_basis_points, position_code, decided_by, create_time,
        update_time)
    SELECT md5('e' || n)::uuid, 'bank', 1, decode(md5('s' || n), 'hex'), '\\x00', now(), 1, 1 + (n % 500 = 0)::int,
        md5('r' || 2 * n)::uuid, md5('r' || 2 * n + 2)::uuid, 1, '', 0, '', '', now(), now()
    FROM generate_series(1, 9000) AS n;
VACUUM ANALYZE
"""


class Explained:
    """A connection that keeps the plans of what it reads."""

    def __init__(self, connection):
        self._connection = connection
        self.plans = []

    def __getattr__(self, name):
        return getattr(self._connection, name)

    async def fetch(self, text, *arguments):
        plan = await self._connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", *arguments)
        self.plans.append(json.loads(plan)[0]["Plan"])
        return await self._connection.fetch(text, *arguments)


@pytest_asyncio.fixture
async def connection(database):
    async with database.connection() as connection:
        for statement in FILL.split(";\n"):
            await connection.execute(statement)
        yield Explained(connection)


def scans(plan):
    """Tables that are read from end to end."""
    inner = [found for part in plan.get("Plans", ()) for found in scans(part)]
    return [plan["Relation Name"], *inner] if plan["Node Type"] == "Seq Scan" else inner


BANK, ALL = Viewer("bank"), Viewer(None)
RELATED = UUID(bytes=hashlib.md5(b"c4").digest())
SEARCHES = {
    "document": lambda c, viewer: search.by_keys(c, viewer, [KeyCondition((), [44, 6_000_044])], NO_CUSTOMER, 21),
    "common beginning of a name": lambda c, viewer: search.by_keys(c, viewer, [KeyCondition([3_000_000])], NO_CUSTOMER, 51),
    "name of two words": lambda c, viewer: search.by_keys(
        c, viewer, [KeyCondition([2_000_004, 4_000_004]), KeyCondition([2_000_004], [5_000_004, 5_000_006])], NO_CUSTOMER, 51
    ),
    "all": lambda c, viewer: search.by_filters(c, viewer, Filters(), RELATED, 51),
    "institution": lambda c, viewer: search.by_filters(c, viewer, Filters(institution_id="bank"), RELATED, 51),
    "role": lambda c, viewer: search.by_filters(c, viewer, Filters(any_key=[1_000_004]), NO_CUSTOMER, 51),
    "changed lately": lambda c, viewer: search.by_filters(
        c, viewer, Filters(changed_since=NOW - timedelta(minutes=CHANGED_COUNT - 1)), NO_CUSTOMER, 51
    ),
    "changed ever": lambda c, viewer: search.by_filters(
        c, viewer, Filters(changed_since=NOW - timedelta(days=365)), NO_CUSTOMER, 51
    ),
    "common relationship": lambda c, viewer: search.by_filters(c, viewer, Filters(relationship_kind=1), NO_CUSTOMER, 51),
    "rare relationship": lambda c, viewer: search.by_filters(c, viewer, Filters(relationship_kind=2), NO_CUSTOMER, 51),
    "relationship with somebody": lambda c, viewer: search.by_filters(c, viewer, Filters(related_to=RELATED), NO_CUSTOMER, 51),
}


async def test_no_search_reads_a_whole_table(connection):
    for name, searched in SEARCHES.items():
        for viewer in (BANK, ALL):
            found = await searched(connection, viewer)
            plan = connection.plans[-1]
            said = f"{name} by {viewer.institution_id or 'all'}"
            assert found, said
            assert set(scans(plan)) <= {"restrictions"}, said  # which is empty
            assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= BLOCKS_MAX, said
    assert len(await SEARCHES["changed lately"](connection, BANK)) == CHANGED_COUNT // 2, "every second is the bank's"
