"""Ratings follow the customer master: in any order the same, what is undone is as before, who is erased is gone."""

import json
import random
import uuid

import pytest

from chassis.testing import received
from concord.customer.v1.customer_events_pb2 import CustomerErased
from rating.domain.facts import ALLIANCE
from rating.store import facts, ratings
from rating.wiring import SERVICE

CUSTOMERS = ("anna", "ben", "cid")
RECORDS = ("r1", "r2", "r3", "r4", "r5")
TABLES = [*SERVICE.projections, "ratings", "rating_versions", "rerate_queue"]


@pytest.fixture
async def running(start):
    return await start(rerate_paused=True)


async def rows(running, tables=SERVICE.projections):
    async with running.application.database.connection() as connection:
        return {
            table: sorted(
                json.dumps(json.loads(row["row"]), sort_keys=True)
                for row in await connection.fetch(f"SELECT row_to_json(t) AS row FROM {table} t")
            )
            for table in tables
        }


async def rated(running, master, rate_all):
    """What readers see of everybody's ratings."""
    await rate_all(running)
    async with running.application.database.connection() as connection:
        return {
            (name, version.scope): version.rating
            for name in CUSTOMERS
            for version in await ratings.scopes(connection, master.id(name))
        }


async def deliver_shuffled(running, events, chance):
    """In any order, any batches, some twice."""
    left = chance.sample(events, len(events)) + chance.sample(events, min(6, len(events)))
    while left:
        size = chance.randint(1, 7)
        batch, left = left[:size], left[size:]
        await running.deliver(*batch)


def institution(record):
    return "north" if record in ("r1", "r3") else "south"


class History:
    """A master that moves records about, and says so as the real one does: states of both, then the move."""

    def __init__(self, master, chance) -> None:
        self.master, self.chance = master, chance
        self.owners = {record: chance.choice(CUSTOMERS) for record in RECORDS}
        self.links = {record: master.link(record, self.owners[record], institution(record)) for record in RECORDS}
        self.events = [self.state(name) for name in CUSTOMERS]

    def state(self, name):
        held = [self.links[record] for record in RECORDS if self.owners[record] == name]
        into = next((other for other in CUSTOMERS if other != name), None) if not held else None
        return self.master.customer(name, held, merged_into=into, attributes=("NAME", "PHONE")[: len(held)])

    def move(self, record, target):
        source = self.owners[record]
        self.owners[record] = target
        self.links[record] = self.master.link(record, target, institution(record))
        self.events += [self.state(source), self.state(target), self.master.moved(source, target, [self.links[record]])]

    def fact(self, number):
        record = self.chance.choice(RECORDS)
        link, day = self.links[record], f"2016-{self.chance.randint(1, 12):02}-{self.chance.randint(1, 28):02}"
        make = self.chance.choice(("transaction", "score", "holding"))
        if make == "holding":
            self.events.append(self.master.holding(f"h{number}", link, opened="2012-01-01"))
        else:
            self.events.append(getattr(self.master, make)(f"a{number}", link, day, self.chance.randint(1, 9_000)))


@pytest.mark.parametrize("seed", range(6))
async def test_any_order_of_any_merges_and_facts_gives_the_same(running, master, seed):
    chance = random.Random(seed)
    history = History(master, chance)
    for number in range(25):
        if chance.random() < 0.4:
            record = chance.choice(RECORDS)
            history.move(record, chance.choice([name for name in CUSTOMERS if name != history.owners[record]]))
        else:
            history.fact(number)
    await running.deliver(*history.events)
    expected = await rows(running)
    async with running.application.database.connection() as connection:
        loaded = await facts.load(connection, [master.id(name) for name in CUSTOMERS])
        await connection.execute(f"TRUNCATE inbox, {', '.join(TABLES)}")
    await deliver_shuffled(running, history.events, chance)
    assert await rows(running) == expected
    async with running.application.database.connection() as connection:
        assert await facts.load(connection, [master.id(name) for name in CUSTOMERS]) == loaded


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_moved_and_moved_back_is_rated_as_before(running, master, seed, rate_all):
    chance = random.Random(seed)
    history = History(master, chance)
    for number in range(15):
        history.fact(number)
    await running.deliver(*history.events)
    before, told, homes = await rated(running, master, rate_all), len(history.events), dict(history.owners)
    for record in chance.sample(RECORDS, 4):
        history.move(record, "anna")
    await running.deliver(*history.events[told:])
    assert await rated(running, master, rate_all) != before
    told = len(history.events)
    for record in RECORDS:
        if history.owners[record] != homes[record]:
            history.move(record, homes[record])
    await deliver_shuffled(running, history.events[told:], chance)
    assert await rated(running, master, rate_all) == before


def erased(master, customer, *records, whole=True):
    ids = [str(master.id(record)) for record in records]
    message = CustomerErased(customer_id=str(master.id(customer)), record_ids=ids, whole=whole)
    return received("concord.customer.v1.customer.erased", message)


def story(master):
    north, south, mine = master.link("r1", "anna"), master.link("r2", "anna", "south"), master.link("r3", "ben")
    return [
        master.customer("anna", [north, south]),
        master.customer("ben", [mine]),
        master.customer("cid", merged_into="anna"),
        master.holding("own", north),
        master.holding("joint", south, mine),
        master.transaction("t1", north, "2016-03-05", 10_000),
        master.score("s1", south, "2016-06-01", 400),
        master.score("s2", mine, "2016-06-01", 700),
    ]


async def test_an_erased_person_is_gone_in_any_order_of_events(running, master, rate_all):
    events = story(master)
    await running.deliver(*events)
    others = {key: rating for key, rating in (await rated(running, master, rate_all)).items() if key[0] == "ben"}
    erasure = erased(master, "anna", "r1", "r2")
    await running.deliver(erasure)
    gone = await rows(running)
    told = str({table: lines for table, lines in (await rows(running, TABLES)).items() if table != "customer_states"})
    for name in ("anna", "cid", "r1", "r2", "own", "t1", "s1"):
        kept = f'"{master.id(name)}"' in told
        assert kept is (name in ("r1", "r2")), "records stay as tombstones"
    assert {key: rating for key, rating in (await rated(running, master, rate_all)).items() if key[0] == "ben"} == others
    for seed in range(5):
        async with running.application.database.connection() as connection:
            await connection.execute(f"TRUNCATE inbox, {', '.join(SERVICE.projections)}")
        await deliver_shuffled(running, [*events, erasure], random.Random(seed))
        after = await rows(running)
        # A customer that was merged into one already erased keeps an empty state: nothing but its own id.
        after["customers"] = [line for line in after["customers"] if str(master.id("cid")) not in line]
        states = {uuid.UUID(json.loads(line)["customer_id"]) for line in after.pop("customer_states")}
        assert states == {master.id(name) for name in CUSTOMERS}
        assert after == {table: lines for table, lines in gone.items() if table != "customer_states"}


async def test_who_lives_on_without_some_records_is_rated_anew_and_the_past_forgotten(running, master, rate_all):
    await running.deliver(*story(master))
    before = await rated(running, master, rate_all)
    assert ("anna", "south") in before
    await running.deliver(erased(master, "anna", "r2", whole=False))
    async with running.application.database.connection() as connection:
        [degrees] = {
            row["degrees"]
            for row in await connection.fetch("SELECT degrees FROM rating_versions WHERE customer_id = $1", master.id("anna"))
        }
    assert degrees == "[]"
    after = await rated(running, master, rate_all)
    assert {scope for name, scope in after if name == "anna"} == {ALLIANCE, "north"}
    credit = {degree.kind: degree.value for degree in after["anna", ALLIANCE].degrees}
    assert None in credit.values(), "the score was erased"
    assert after["ben", ALLIANCE] == before["ben", ALLIANCE]
