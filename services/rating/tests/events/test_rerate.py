"""Rating again: written only when a reader sees a change, once, and no mark is ever lost."""

import asyncio

import pytest
from nats.js.errors import NoStreamResponseError

from chassis import clock
from chassis.republish import rebuild, republish
from concord.rating.v1.rating_events_pb2 import RatingChanged
from rating.domain.facts import ALLIANCE
from rating.domain.lifecycle import Stage
from rating.events.published import RATING_CHANGED
from rating.store import facts, queue, ratings, scorecards
from rating.wiring import SERVICE


@pytest.fixture
async def running(start):
    return await start(rerate_paused=True)


async def current(running, *customer_ids):
    async with running.application.database.connection() as connection:
        return await ratings.current(connection, customer_ids)


async def versions_count(running):
    return await scalar(running, "SELECT count(*) FROM rating_versions")


async def scalar(running, statement):
    async with running.application.database.connection() as connection:
        return await connection.fetchval(statement)


async def test_all_scopes_are_rated_and_published(running, master, rate_all):
    north, south = master.link("r1", "anna"), master.link("r2", "anna", "south")
    await running.deliver(master.customer("anna", [north, south]), master.holding("h1", north))
    await rate_all(running)
    rated = {scope: version for (_, scope), version in (await current(running, master.id("anna"))).items()}
    assert {scope: version.rating.stage for scope, version in rated.items()} == {
        ALLIANCE: Stage.MATURE, "north": Stage.GROWTH, "south": Stage.PROSPECT,
    }  # fmt: skip
    events = {event.message(RatingChanged).scope: event.message(RatingChanged) for event in await running.events(RATING_CHANGED)}
    assert set(events) == {ALLIANCE, "north", "south"}
    message = events[ALLIANCE]
    assert (message.state_version.epoch, message.state_version.version) == (1, 1)
    assert (message.lifecycle_stage, message.previous_lifecycle_stage) == (Stage.MATURE, 0)
    assert [(degree.kind, degree.HasField("value")) for degree in message.degrees] == [
        (1, True), (2, False), (3, False), (4, False), (5, True), (6, True),
    ]  # fmt: skip


async def test_a_version_is_written_only_when_a_reader_sees_a_change(running, master, rate_all):
    link = master.link("r1", "anna")
    await running.deliver(master.customer("anna", [link]), master.holding("h1", link))
    await rate_all(running)
    before = await versions_count(running)
    await running.deliver(master.activity("c1", link, "2010-01-01", complaint={"topic": "fees"}))  # no degree looks at it yet
    assert await scalar(running, "SELECT count(*) FROM rerate_queue") == 1
    await rate_all(running)
    assert await versions_count(running) == before
    assert await scalar(running, "SELECT count(*) FROM rerate_queue") == 0
    await running.deliver(master.score("s1", link, "2015-07-01", 1_000))
    await rate_all(running)
    [event] = [event for event in await running.events(RATING_CHANGED) if event.message(RatingChanged).scope == ALLIANCE][1:]
    message = event.message(RatingChanged)
    assert message.state_version.version == 2
    assert message.previous_lifecycle_stage == message.lifecycle_stage != 0
    assert message.degrees[3].value == 95


async def test_records_moved_and_back_gives_identical_ratings(running, master, rate_all):
    north, south = master.link("r1", "anna"), master.link("r2", "ben", "south")
    await running.deliver(
        master.customer("anna", [north]),
        master.customer("ben", [south], attributes=("EMAIL",)),
        master.holding("h1", north),
        master.transaction("t1", south, "2016-05-01", 7_000),
        master.score("s1", south, "2016-05-01", 7_000),
    )
    await rate_all(running)
    both = master.id("anna"), master.id("ben")
    before = await seen(running, *both)
    await running.deliver(master.moved("ben", "anna", [master.link("r2", "anna", "south")]))
    await running.deliver(master.customer("ben", merged_into="anna"), master.customer("anna", attributes=("NAME", "EMAIL")))
    await rate_all(running)
    merged = await seen(running, *both)
    assert merged[both[0], ALLIANCE] != before[both[0], ALLIANCE]
    assert (both[0], "south") in merged
    await running.deliver(master.moved("anna", "ben", [master.link("r2", "ben", "south")]))
    await running.deliver(master.customer("ben", attributes=("EMAIL",)), master.customer("anna"))
    await rate_all(running)
    after = await seen(running, *both)
    assert {key: value for key, value in after.items() if key in before} == before
    async with running.application.database.connection() as connection:
        scopes = {version.scope for version in await ratings.scopes(connection, both[0])}
    assert scopes == {ALLIANCE, "north"}  # the scope that went is kept as history, and not shown


async def seen(running, *customer_ids):
    return {key: version.rating for key, version in (await current(running, *customer_ids)).items()}


async def test_rebuild_keeps_the_history_and_rates_the_same(running, master, rate_all):
    link = master.link("r1", "anna")
    events = [master.customer("anna", [link]), master.holding("h1", link), master.score("s1", link, "2016-05-01", 7_000)]
    await running.deliver(*events)
    await rate_all(running)
    before, count = await seen(running, master.id("anna")), await versions_count(running)
    await rebuild(running.application.database, SERVICE.projections, ["customer/rating"])
    await rate_all(running)
    await running.deliver(*events)
    await rate_all(running)
    assert await seen(running, master.id("anna")) == before
    assert await versions_count(running) == count


async def test_a_mark_made_while_rating_stays(running, master, rate_all):
    link = master.link("r1", "anna")
    await running.deliver(master.customer("anna", [link]))
    database = running.application.database
    unit_of_work = running.application.commands.unit
    async with unit_of_work() as unit:
        claim_id, claimed = await queue.claim(unit.connection, unit.now, unit.now, 10)
    await running.deliver(master.score("s1", link, "2016-05-01", 7_000))
    async with unit_of_work() as unit:
        assert await queue.still_claimed(unit.connection, claim_id, claimed) == set(claimed)
        await queue.settle(unit.connection, unit.now, claimed)
    async with database.connection() as connection:
        row = await connection.fetchrow("SELECT * FROM rerate_queue")
    assert (row["customer_id"], row["claim_id"]) == (master.id("anna"), None)
    await rate_all(running)
    assert (await current(running, master.id("anna")))[master.id("anna"), ALLIANCE].rating.degrees[3].value is not None


async def test_a_fold_that_commits_while_its_customer_is_rated_is_not_lost(running, master, monkeypatch, rerater):
    """The facts were read, then a fold marks the customer, and commits only after the worker wants to settle."""
    await running.deliver(master.customer("anna", [master.link("r1", "anna")]))
    database, load, folds = running.application.database, facts.load, []

    async def mark_and_commit_late(marked):
        async with database.transaction() as folding:
            await queue.mark(folding, clock.now(), [master.id("anna")])
            marked.set()
            await asyncio.sleep(0.2)

    async def load_then_fold(connection, customer_ids):
        found = await load(connection, customer_ids)
        marked = asyncio.Event()
        folds.append(asyncio.create_task(mark_and_commit_late(marked)))
        await marked.wait()
        return found

    monkeypatch.setattr(facts, "load", load_then_fold)
    assert await rerater(running).rate_step() == 1
    await folds[0]
    assert await versions_count(running) == 2
    assert await scalar(running, "SELECT count(*) FROM rerate_queue WHERE claim_id IS NULL") == 1


async def test_a_worker_that_died_leaves_its_marks_to_the_next(running, master, monkeypatch, rerater):
    await running.deliver(master.customer("anna", [master.link("r1", "anna")]))

    async def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ratings, "write", die)
    with pytest.raises(KeyboardInterrupt):
        await rerater(running).rate_step()
    monkeypatch.undo()
    assert await rerater(running).rate_step() == 0  # still claimed
    async with running.application.database.connection() as connection:
        await connection.execute("UPDATE rerate_queue SET claimed_until = now() - interval '1 second'")
    assert await rerater(running).rate_step() == 1
    assert await versions_count(running) == 2


async def test_a_worker_that_lost_its_claim_writes_nothing(running, master, monkeypatch, rerater):
    await running.deliver(master.customer("anna", [master.link("r1", "anna")]))
    claim = queue.claim

    async def claim_and_lose(connection, *arguments):
        result = await claim(connection, *arguments)
        await connection.execute("UPDATE rerate_queue SET claim_id = gen_random_uuid()")
        return result

    monkeypatch.setattr(queue, "claim", claim_and_lose)
    await rerater(running).rate_step()
    assert await versions_count(running) == 0
    assert await scalar(running, "SELECT count(*) FROM rerate_queue") == 1


async def test_one_that_cannot_be_rated_holds_up_nobody(running, master, monkeypatch, rerater):
    await running.deliver(*(master.customer(name, [master.link(f"r {name}", name)]) for name in ("anna", "ben", "carl")))
    load = facts.load

    async def load_or_fail(connection, customer_ids):
        if master.id("ben") in customer_ids:
            raise OverflowError
        return await load(connection, customer_ids)

    monkeypatch.setattr(facts, "load", load_or_fail)
    assert await rerater(running).rate_step() == 3
    assert {customer_id for customer_id, _ in await current(running, *map(master.id, ("anna", "ben", "carl")))} == {
        master.id("anna"), master.id("carl"),
    }  # fmt: skip
    assert await queued(running) == {master.id("ben")}


async def queued(running):
    async with running.application.database.connection() as connection:
        return {row["customer_id"] for row in await connection.fetch("SELECT customer_id FROM rerate_queue")}


async def test_dates_at_the_ends_of_the_calendar_are_rated(running, master, rate_all):
    for customer, day in (("anna", "0001-01-01"), ("ben", "9999-12-31")):
        link = master.link(f"r {customer}", customer)
        await running.deliver(
            master.customer(customer, [link], attributes=()),
            master.holding(f"h {customer}", link, opened=day),
            master.transaction(f"t {customer}", link, day, 2**62),
            master.transaction(f"u {customer}", link, day, 2**62),
        )
    await rate_all(running)
    assert len(await current(running, master.id("anna"), master.id("ben"))) == 4


async def test_workers_side_by_side_rate_everybody_once(running, master, rerater):
    await running.deliver(*(master.customer(f"c{i}", [master.link(f"r{i}", f"c{i}")]) for i in range(450)))
    counts = await asyncio.gather(*(rerater(running).rate_step() for _ in range(4)))
    assert sorted(counts, reverse=True)[:2] == [200, 200]
    assert sum(counts) == 450
    assert await versions_count(running) == 900
    assert await scalar(running, "SELECT max(version) FROM rating_versions") == 1


async def test_new_marks_wait_for_the_delay(running, master, rerater):
    await running.deliver(master.customer("anna", [master.link("r1", "anna")]))
    assert await rerater(running, delay_ms=60_000).rate_step() == 0
    assert await rerater(running).rate_step() == 1


async def test_an_activated_scorecard_rates_everybody_again_page_by_page(running, master, monkeypatch, rerater, rate_all):
    monkeypatch.setattr("rating.events.rerate.CUSTOMERS_MARKED_MAX", 2)
    links = {name: master.link(f"r {name}", name) for name in ("anna", "ben", "carl", "dora", "emil")}
    await running.deliver(*(master.customer(name, [link]) for name, link in links.items()))
    await rate_all(running)
    async with running.application.commands.unit() as unit:
        former = await scorecards.active(unit.connection)
        version = await scorecards.create(unit.connection, "standard", former.content, unit.now)
        await scorecards.activate(unit.connection, "standard", version.version, unit.now)
    assert await rerater(running).mark_step() == 2
    assert await scalar(running, "SELECT count(*) FROM rerate_queue") == 2  # another process goes on from here
    assert [await rerater(running).mark_step() for _ in range(4)] == [2, 1, 0, 0]
    await rate_all(running)
    rated = await current(running, *map(master.id, links))
    assert {version.scorecard_version for version in rated.values()} == {2}
    assert len(rated) == 10


async def test_ratings_are_published_again_for_one_service(running, master, rate_all):
    link = master.link("r1", "anna")
    await running.deliver(master.customer("anna", [link]))
    await rate_all(running)
    await running.deliver(master.holding("h1", link))
    await rate_all(running)
    said = {event.message(RatingChanged).scope: event.payload for event in await running.events(RATING_CHANGED)}
    assert await republish(running.application.database, SERVICE.republishers, "campaign") == 2
    again = [event for event in await running.events(RATING_CHANGED) if event.target == "campaign"]
    assert {event.message(RatingChanged).scope: event.payload for event in again} == said


async def test_from_the_bus_to_the_bus(start, master):
    """Real NATS: the customer master's stream is folded, rated and published."""
    running = await start(nats=True, rerate_delay_ms=0)
    link = master.link("r1", "anna")
    await until(lambda: running.server._bus is not None)
    jetstream = running.server._bus.jetstream
    for event in (master.customer("anna", [link]), master.holding("h1", link)):
        await publish(jetstream, event)
        await publish(jetstream, event)  # twice: the inbox takes one
    mature = "SELECT count(*) > 0 FROM rating_versions WHERE scope = 'alliance' AND lifecycle_stage = 3"
    await until(lambda: scalar(running, mature))
    await until(lambda: scalar(running, "SELECT count(*) = 0 FROM outbox WHERE published_at IS NULL"))
    assert await scalar(running, "SELECT count(*) FROM inbox") == 2
    pull = await jetstream.pull_subscribe(RATING_CHANGED, stream="RATING")
    [message] = await pull.fetch(1, 5)
    assert RatingChanged.FromString(message.data).customer_id == str(master.id("anna"))


async def until(condition):
    async with asyncio.timeout(20):
        while True:
            met = condition()
            if await met if asyncio.iscoroutine(met) else met:
                return
            await asyncio.sleep(0.05)


async def publish(jetstream, event):
    headers = {
        "ce-id": str(event.event_id),
        "ce-type": event.type,
        "ce-subject": "x",
        "ce-time": event.occurred_at.isoformat(),
    }
    async with asyncio.timeout(10):
        while True:
            try:
                return await jetstream.publish(event.type, event.message.SerializeToString(), headers=headers)
            except NoStreamResponseError:  # it is made while the service starts
                await asyncio.sleep(0.05)
