"""What the store promises whatever the tables hold: plans, races, sight."""

import itertools
import os
from uuid import UUID

import pytest
from asyncpg import UniqueViolationError

from chassis.clock import now
from chassis.ids import new_id
from concord.customer.v1.party_pb2 import Party
from customer.domain.golden import Ranks
from customer.store import customers, holdings, institutions, links, matches, record_writes, records
from customer.store.customers import CustomerRow
from customer.store.links import Link
from customer.store.record_writes import COPIED_FROM_RECORDS, Content, RacedError, State, Writes
from customer.store.records import PRESENT_PARTY, STATED_PARTY, STATED_PAYLOAD, Member
from customer.store.vault import Vault, bound_to

HOT_KEY = 7
_numbers = itertools.count(HOT_KEY + 1)


@pytest.fixture
async def vault(keys_url):
    made = await Vault.connect(keys_url, bytes.fromhex(os.environ["CONCORD_CUSTOMER_ROOT_KEY"]))
    yield made
    await made.close()


@pytest.fixture
async def connection(database):
    async with database.transaction() as made:
        for institution in ("bank", "insurer"):
            await institutions.insert_institution(made, institution, institution, 1, "Europe/Prague", "CZ", now())
            await institutions.insert_source_system(made, institution, "core", "core", 10, {}, now())
        yield made


async def add(connection, vault, customer_id=None, institution="bank", key=None, count=1, keys=()):
    source = (await institutions.find_source_systems(connection, [(institution, "core")]))[
        f"institutions/{institution}/sourceSystems/core"
    ]
    writes, made, party = Writes(), [], Party(birth_date="1970-12-13")
    for record_id, data_key in await vault.new(institution, count):
        member = Member(
            record_id, source.number, source.name, institution, key or f"key-{next(_numbers)}".encode(), customer_id or new_id(),
            1, 1, 1, 1, 1, b"hash", now(), party, now(), now(), Ranks(10, {}), 1,
        )  # fmt: skip
        sealed = [
            data_key.seal(party.SerializeToString(), bound_to(place, record_id, 1))
            for place in (PRESENT_PARTY, STATED_PARTY, STATED_PAYLOAD)
        ]
        writes.new[record_id] = member, Content(sealed[0], keys or [HOT_KEY, next(_numbers)], [3, 4])
        writes.states.append(State(record_id, 1, institution, b"hash", now(), sealed[2], sealed[1]))
        writes.links.append(Link(record_id, 1, member.customer_id, 1, 1, "", None, b"", now()))
        made.append(member)
    await customers.write(connection, [CustomerRow(member.customer_id, 1, now(), now()) for member in made[:1]], now())
    await record_writes.write(connection, writes, now())
    return made


@pytest.mark.parametrize("count", [1, COPIED_FROM_RECORDS])
async def test_a_source_key_taken_meanwhile_is_a_race_that_runs_again(connection, vault, count):
    await add(connection, vault, key=b"same")
    with pytest.raises(RacedError):
        await add(connection, vault, key=b"same", count=count)


@pytest.mark.parametrize("count", [1, COPIED_FROM_RECORDS])
async def test_what_would_fail_again_is_no_race(connection, vault, count):
    with pytest.raises(UniqueViolationError):
        await add(connection, vault, count=count, keys=[HOT_KEY, HOT_KEY])


async def test_few_and_many_are_written_alike(connection, vault):
    few = await add(connection, vault)
    many = await add(connection, vault, count=COPIED_FROM_RECORDS)
    for table in ("records", "source_records", "links"):
        rows = await connection.fetch(f"SELECT * FROM {table}")
        assert len(rows) == 1 + COPIED_FROM_RECORDS
        assert len({len([value for value in row if value is not None]) for row in rows}) == 1
    held = await matches.holders(connection, [HOT_KEY])
    assert len(held) == matches.RECORDS_OF_A_KEY_MAX + 1
    [[seen]] = await records.visible(connection, vault, [(many[9].customer_id, None)])
    assert (seen.record_id, seen.party.birth_date) == (many[9].record_id, "1970-12-13")
    assert await records.by_ids(connection, vault, [few[0].record_id], "insurer") == []


async def test_what_an_institution_sees_is_in_the_order_asked_for(connection, vault):
    both, own = new_id(), new_id()
    [mine] = await add(connection, vault, both)
    [theirs] = await add(connection, vault, both, "insurer")
    [only] = await add(connection, vault, own)
    wanted = [(own, "insurer"), (both, "bank"), (both, None), (own, "bank"), (UUID(int=1), None)]
    seen = [{member.record_id for member in members} for members in await records.visible(connection, vault, wanted)]
    assert seen == [set(), {mine.record_id}, {mine.record_id, theirs.record_id}, {only.record_id}, set()]
    await vault.shred([mine.record_id])
    assert [{member.record_id for member in members} for members in await records.visible(connection, vault, wanted[1:3])] == [
        set(), {theirs.record_id},
    ]  # fmt: skip


async def test_a_record_has_one_live_link(connection, vault):
    [member] = await add(connection, vault)
    live = await links.live(connection, [member.record_id])
    assert live[member.record_id].customer_id == member.customer_id
    with pytest.raises(Exception, match="links_live"):
        await connection.execute(
            "INSERT INTO links SELECT record_id, 2, $2, origin, reason, model_version, weight_bits, explanation, recorded_at,"
            " NULL, '' FROM links WHERE record_id = $1",
            member.record_id, new_id(),
        )  # fmt: skip


SOURCE_KEY = "((source_system_number = wanted.number) AND (source_key = wanted.key))"


@pytest.mark.parametrize(
    ("statement", "condition"),
    [
        (records._VISIBLE, "(customer_id = wanted.customer_id)"),
        (records._HISTORY, "(customer_id = wanted.customer_id)"),
        (records._BY_IDS, "(record_id = wanted.record_id)"),
        (records._FIND_BY_SOURCE_KEY, SOURCE_KEY),
        (matches._HOLDERS, "(key = wanted.key)"),
        (holdings._FIND_BY_SOURCE_KEY, SOURCE_KEY),
    ],
)
async def test_a_plan_made_on_empty_tables_looks_up_by_the_whole_key(connection, statement, condition):
    await connection.execute(f"SET LOCAL plan_cache_mode = force_generic_plan; PREPARE looked_up AS {statement}")
    count = max(place for place in range(1, 9) if f"${place}" in statement)
    arguments = ", ".join("NULL" for _ in range(count))
    plan = [row[0].strip() for row in await connection.fetch(f"EXPLAIN EXECUTE looked_up ({arguments})")]
    assert f"Index Cond: {condition}" in plan
    assert not [line for line in plan if "Seq Scan on records" in line]
