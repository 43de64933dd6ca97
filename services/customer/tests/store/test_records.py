"""What the store promises whatever the tables hold: plans, races, sight."""

import itertools
from uuid import UUID

import pytest

from chassis.clock import now
from chassis.ids import new_id
from customer.domain.golden import Ranks
from customer.store import customers, holdings, institutions, records
from customer.store.customers import CustomerRow, Viewer
from customer.store.records import Member, RacedError, SearchKeys, State

_numbers = itertools.count()


@pytest.fixture
async def connection(database):
    async with database.transaction() as made:
        for institution in ("bank", "insurer"):
            await institutions.insert_institution(made, institution, institution, 1, "Europe/Prague", "CZ", now())
            await institutions.insert_source_system(made, institution, "core", "core", 10, {}, now())
        yield made


async def add(connection, customer_id=None, institution="bank", key=None, tokens=(), record_id=None):
    source = (await institutions.find_source_systems(connection, [(institution, "core")]))[
        f"institutions/{institution}/sourceSystems/core"
    ]
    member = Member(
        record_id or new_id(), source.number, source.name, institution, key or f"key-{next(_numbers)}".encode(),
        customer_id or new_id(), 1, 1, 1, b"hash", now(), b"party", now(), now(), Ranks(10, {}), 1,
    )  # fmt: skip
    await customers.write(connection, [CustomerRow(member.customer_id, 1, now())], now())
    state = State(member.record_id, 1, b"hash", now(), b"payload")
    search = SearchKeys(member.record_id, frozenset({member.source_key}), frozenset(tokens))
    await records.write(connection, [member], [state], [search])
    return member


async def test_a_source_key_taken_meanwhile_is_a_race_that_runs_again(connection):
    await add(connection, key=b"same")
    with pytest.raises(RacedError):
        await add(connection, key=b"same")


async def test_what_an_institution_sees_is_in_the_order_asked_for(connection):
    both, own = new_id(), new_id()
    mine = await add(connection, both)
    theirs = await add(connection, both, "insurer")
    only = await add(connection, own)
    wanted = [(own, "insurer"), (both, "bank"), (both, None), (own, "bank"), (UUID(int=1), None)]
    seen = [{member.record_id for member in members} for members in await records.visible(connection, wanted)]
    assert seen == [set(), {mine.record_id}, {mine.record_id, theirs.record_id}, {only.record_id}, set()]


@pytest.mark.parametrize(
    ("prefixes", "found"),
    [(["nov"], 2), (["novak", "jan"], 1), (["novak", "eva"], 0), (["\U0010fffe"], 0), (["%"], 0), (["王"], 1), (["小"], 0)],
)
async def test_names_are_ranges_of_the_index(connection, prefixes, found):
    await add(connection, tokens={"jan", "novak"})
    await add(connection, tokens={"novy"})
    await add(connection, tokens={"王小"})
    await add(connection, institution="insurer", tokens={"novotny", "王"})
    assert len(await customers.find_by_name(connection, prefixes, Viewer("bank"), 10)) == found


SOURCE_KEY = "((source_system_number = wanted.number) AND (source_key = wanted.key))"


@pytest.mark.parametrize(
    ("statement", "condition"),
    [
        (records._VISIBLE, "(customer_id = wanted.customer_id)"),
        (records._LOCK_BY_SOURCE_KEY, SOURCE_KEY),
        (records._FIND_BY_SOURCE_KEY, SOURCE_KEY),
        (records._CUSTOMERS_BY_DOCUMENT, "(key = wanted.key)"),
        (holdings._FIND_BY_SOURCE_KEY, SOURCE_KEY),
    ],
)
async def test_a_plan_made_on_empty_tables_looks_up_by_the_whole_key(connection, statement, condition):
    await connection.execute(f"SET LOCAL plan_cache_mode = force_generic_plan; PREPARE looked_up AS {statement}")
    arguments = ", ".join("NULL" for _ in range(1 + ("$2" in statement)))
    plan = [row[0].strip() for row in await connection.fetch(f"EXPLAIN EXECUTE looked_up ({arguments})")]
    assert f"Index Cond: {condition}" in plan
    assert not [line for line in plan if "Seq Scan on records" in line]
