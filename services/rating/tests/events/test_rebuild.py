"""A rebuild of unchanged data says nothing new: nobody is rated from facts that are folded half."""

import asyncio
import uuid
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio

from chassis import bus, streams
from chassis.clock import now
from chassis.outbox import subject
from chassis.republish import rebuild
from chassis.testing import received
from concord.common.v1.event_pb2 import Republished
from rating.events.pause import Resumer
from rating.events.published import RATING_CHANGED
from rating.store import facts
from rating.wiring import SERVICE

CUSTOMERS_COUNT = 300
REPUBLISHED = "concord.customer.v1.republished"
VERSIONS = "SELECT md5(string_agg(v::text, ',' ORDER BY customer_id, scope, version)), count(*) FROM rating_versions v"


@pytest_asyncio.fixture
async def jetstream(settings, nats_server):
    connected = await bus.connect(settings.model_copy(update={"nats_url": nats_server.url()}), "tests")
    yield connected.jetstream
    await connected.client.close()


def alliance(master):
    """Pages as the customer master says them: customers, then holdings, then activities."""
    links = {f"c{i}": master.link(f"r{i}", f"c{i}") for i in range(CUSTOMERS_COUNT)}
    return [
        [master.customer(customer, [link]) for customer, link in links.items()],
        [master.holding(f"h {customer}", link) for customer, link in links.items()],
        [
            event
            for customer, link in links.items()
            for month in range(1, 5)
            for event in (
                master.transaction(f"t {customer} {month}", link, f"2016-{month:02}-05", 5_000 * month),
                master.score(f"s {customer} {month}", link, f"2016-{month:02}-06", 7_000),
            )
        ],
    ]


def again(events):
    """The events of a new run: a state has a new event id, a fact its own."""
    return [e if e.type.endswith("activity.recorded") else replace(e, event_id=uuid.uuid4()) for e in events]


async def publish(jetstream, events, target=None):
    for event in events:
        time = event.occurred_at.isoformat()
        headers = {"ce-id": str(event.event_id), "ce-type": event.type, "ce-subject": "x", "ce-time": time}
        await jetstream.publish(subject(event.type, target), event.message.SerializeToString(), headers=headers)


def republished(run_id, sequence=0):
    return replace(received(REPUBLISHED, Republished(run_id=run_id)), sequence=sequence)


async def row(running, statement):
    async with running.application.database.connection() as connection:
        return tuple(await connection.fetchrow(statement))


async def until(running, statement, expected=(0,)):
    async with asyncio.timeout(60):
        while True:
            if await row(running, statement) == expected:
                return
            await asyncio.sleep(0.05)


async def emptied(running):
    return await rebuild(running.application.database, SERVICE.projections, ["customer/rating"], SERVICE.pause, ["customer"])


@pytest.mark.parametrize("replicas_count", [1, 2])
async def test_a_rebuild_of_unchanged_data_writes_and_publishes_nothing(start, jetstream, master, replicas_count):
    running = await start(nats=True, rerate_delay_ms=0)
    for _ in range(replicas_count - 1):
        await start(nats=True, rerate_delay_ms=0)
    pages = alliance(master)
    await streams.ensure_stream(jetstream, streams.stream_config("customer"))
    for page in pages:
        await publish(jetstream, page)
    activities_count = "SELECT count(*) FROM activities"
    await until(running, activities_count, (len(pages[2]),))
    await until(running, "SELECT count(*) FROM rerate_queue")
    before, published = await row(running, VERSIONS), await row(running, "SELECT count(*) FROM outbox")
    assert before[1] >= 2 * CUSTOMERS_COUNT

    await emptied(running)  # and once more before anybody said anything
    await publish(jetstream, again(pages[0]), "rating")
    run_id = await emptied(running)
    for page in pages:
        await publish(jetstream, again(page), "rating")
        await asyncio.sleep(1)  # time to rate from what is there so far
    assert await row(running, VERSIONS) == before
    assert await row(running, "SELECT count(*) FROM rerate_queue") == (CUSTOMERS_COUNT,)
    await publish(jetstream, [republished(run_id)], "rating")
    await until(running, "SELECT count(*) FROM rerate_queue")
    assert await row(running, activities_count) == (len(pages[2]),)
    assert await row(running, VERSIONS) == before
    assert await row(running, "SELECT count(*) FROM outbox") == published
    assert all(event.target is None for event in await running.events(RATING_CHANGED))


@pytest.fixture
async def paused(start, master):
    """A service without workers of its own, rebuilt, with one mark."""
    running = await start(rerate_paused=True)
    run_id = await emptied(running)
    await running.deliver(master.customer("anna", [master.link("r1", "anna")]))
    return running, run_id


def resumer(running, acknowledged):
    async def up_to(owner):
        assert owner == "customer"
        return acknowledged

    return Resumer(running.application.database, up_to)


async def test_rating_goes_on_when_all_before_the_last_event_is_acknowledged(paused, rerater):
    running, run_id = paused
    await resumer(running, 1_000).step()
    assert await rerater(running).rate_step() == 0  # nobody said yet that this was all
    await running.deliver(republished(run_id, sequence=50))
    await resumer(running, 49).step()
    assert await rerater(running).rate_step() == 0  # a batch before it is in some replica's hands
    await resumer(running, 50).step()
    assert await rerater(running).rate_step() == 1


async def test_the_last_event_of_an_earlier_run_ends_nothing(paused, rerater):
    running, run_id = paused
    second = await emptied(running)
    await running.deliver(republished(run_id, sequence=50))
    await resumer(running, 99).step()
    assert await rerater(running).rate_step() == 0
    await running.deliver(republished(second, sequence=60))
    await resumer(running, 99).step()
    assert await rerater(running).rate_step() == 1


async def test_resume_by_command(paused, rerater):
    running, _ = paused
    async with running.application.database.transaction() as connection:
        assert await SERVICE.pause.end(connection) == 1
        assert await SERVICE.pause.end(connection) == 0
    assert await rerater(running).rate_step() == 1


async def test_a_pause_says_what_it_waits_for_and_ends_at_last(paused, caplog, rerater):
    running, run_id = paused
    await resumer(running, 99).step()
    assert f"python -m customer republish --to rating --run {run_id}" in caplog.text
    async with running.application.database.connection() as connection:
        await connection.execute("UPDATE rerate_pauses SET since = $1", now() - timedelta(hours=24, seconds=1))
    await resumer(running, 99).step()
    assert "24 hours" in caplog.text
    assert await rerater(running).rate_step() == 1


@pytest.mark.parametrize("ended", [False, True])
async def test_a_worker_that_read_facts_around_a_rebuild_writes_nothing(start, master, monkeypatch, ended, rerater):
    """It claimed before the rebuild, read half of the facts, and wants to write while the pause lasts, or after it."""
    running = await start(rerate_paused=True)
    await running.deliver(master.customer("anna", [master.link("r1", "anna")]))
    load = facts.load

    async def rebuild_then_load(connection, customer_ids):
        await emptied(running)
        await running.deliver(master.customer("anna", [master.link("r1", "anna")]))
        if ended:
            async with running.application.database.transaction() as ending:
                await SERVICE.pause.end(ending)
        return await load(connection, customer_ids)

    monkeypatch.setattr(facts, "load", rebuild_then_load)
    assert await rerater(running).rate_step() == 1
    assert await row(running, "SELECT count(*) FROM rating_versions") == (0,)
    assert await row(running, "SELECT count(*) FROM rerate_queue") == (1,)
