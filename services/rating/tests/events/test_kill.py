"""The process is killed in the middle of its work, again and again: facts and ratings are those of a run in peace."""

import asyncio
import os
import random
import sys
from asyncio.subprocess import PIPE

import asyncpg
import pytest
import pytest_asyncio

from chassis import bus
from chassis.republish import rebuild
from rating.store import ratings
from rating.wiring import SERVICE

CUSTOMERS_COUNT = 60
ACTIVITIES_COUNT = 6000
KILLS_COUNT = 6
FACTS = "SELECT md5(string_agg(a::text, ',' ORDER BY activity_id)) FROM activities a"


def history(master):
    """A year of sixty customers, with reversals and scores."""
    chance = random.Random(7)
    links = [master.link(f"r{i}", f"c{i}") for i in range(CUSTOMERS_COUNT)]
    events = [master.customer(f"c{i}", [link]) for i, link in enumerate(links)]
    events += [master.holding(f"h{i}", link, opened="2012-05-05") for i, link in enumerate(links)]
    for i in range(ACTIVITIES_COUNT):
        when = f"2016-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
        link = links[i % CUSTOMERS_COUNT]
        if i % 10 == 9:
            events.append(master.reversal(f"a{i}", link, when, of=f"a{i - chance.randint(1, 8)}"))
        elif i % 10 == 0:
            events.append(master.score(f"a{i}", link, when, chance.randint(0, 100_000)))
        else:
            events.append(master.transaction(f"a{i}", link, when, chance.randint(-90_000, 90_000)))
    return events


@pytest_asyncio.fixture
async def jetstream(settings, nats_server):
    connected = await bus.connect(settings.model_copy(update={"nats_url": nats_server.url()}), "tests")
    yield connected.jetstream
    await connected.client.close()


@pytest.mark.soak  # what a killed process had in hand comes again after JetStream's 30 seconds
@pytest.mark.faults
async def test_killed_again_and_again(start, settings, nats_server, jetstream, master, quality_service, rate_all):
    events = history(master)
    running = await start(nats=True, rerate_paused=True)
    database = running.application.database
    expected = await in_peace(running, events, rate_all)
    async with database.connection() as connection:
        await connection.execute("TRUNCATE ratings, rating_versions, outbox, rerate_queue")
    await rebuild(database, SERVICE.projections, ["customer/rating"])
    await running.server.stop(grace_seconds=0)

    publishing = asyncio.create_task(publish_all(jetstream, events))
    environment = os.environ | {
        "CONCORD_DATABASE_URL": settings.database_url,
        "CONCORD_IDENTITY_KEYS": settings.identity_keys,
        "CONCORD_IDENTITY_PRIVATE_KEY": settings.identity_private_key,
        "CONCORD_NATS_URL": nats_server.url(),
        "CONCORD_RERATE_DELAY_MS": "0",
        "CONCORD_TARGET_CUSTOMER": quality_service.address,
    }
    connection = await asyncpg.connect(settings.database_url)
    chance = random.Random(1)
    for _ in range(KILLS_COUNT):
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "rating", "serve", env=environment, stderr=PIPE)
        assert process.stderr is not None
        await process.stderr.readline()  # it serves
        await asyncio.sleep(chance.uniform(0.1, 1.5))
        process.kill()
        await process.communicate()
        await connection.execute("UPDATE rerate_queue SET claimed_until = now()")  # as if the dead one's time were over
    await connection.close()
    await publishing
    calm = await start(nats=True)
    database = calm.application.database
    [progress] = await fetch(database, "SELECT (SELECT count(*) FROM activities), (SELECT count(*) FROM ratings)")
    assert all(progress)  # the processes that were killed did work
    async with asyncio.timeout(100):
        while True:
            if await state_of(database) == expected:
                break
            await asyncio.sleep(0.5)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM inbox") == len(events)
        assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 0
        published = await connection.fetchrow("SELECT count(*), count(DISTINCT (aggregate_id, payload)) FROM outbox")
        assert published[0] == published[1] == await connection.fetchval("SELECT count(*) FROM rating_versions")


async def in_peace(running, events, rate_all):
    """What is right: everything folded and rated in this process."""
    for first in range(0, len(events), 500):
        await running.deliver(*events[first : first + 500])
    await rate_all(running)
    return await state_of(running.application.database)


async def state_of(database):
    """The facts, and every current rating as a reader sees it."""
    customers = await fetch(database, "SELECT DISTINCT customer_id FROM ratings")
    async with database.connection() as connection:
        current = await ratings.current(connection, [row["customer_id"] for row in customers])
    facts = await fetch(database, FACTS)
    return facts[0][0], {key: version._seen() for key, version in current.items()}


async def fetch(database, statement):
    async with database.connection() as connection:
        return await connection.fetch(statement)


async def publish_all(jetstream, events):
    for event in events:
        headers = {
            "ce-id": str(event.event_id),
            "ce-type": event.type,
            "ce-subject": "x",
            "ce-time": event.occurred_at.isoformat(),
        }

        await jetstream.publish(event.type, event.message.SerializeToString(), headers=headers)
