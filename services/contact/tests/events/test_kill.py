"""`kill -9` of the real process while it carries touches out: every touch one message, none lost."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL

import pytest

from chassis import bus

RECORDED = "concord.contact.v1.contact.recorded"
TOUCHES = 4000


async def spawn(settings):
    environment = {
        "PATH": os.environ["PATH"],
        "CONCORD_DATABASE_URL": settings.database_url,
        "CONCORD_NATS_URL": settings.nats_url,
        "CONCORD_IDENTITY_KEYS": settings.identity_keys,
        "CONCORD_IDENTITY_PRIVATE_KEY": settings.identity_private_key,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "contact", "serve", env=environment, stdout=DEVNULL, stderr=DEVNULL
    )


async def publish(connected, events, attempt):
    for event in events:
        headers = {
            "Nats-Msg-Id": f"{event.event_id}-{attempt}",
            "ce-id": str(event.event_id),
            "ce-type": event.type,
            "ce-subject": event.aggregate_id,
            "ce-time": event.occurred_at.isoformat(),
        }
        await connected.jetstream.publish_async(event.type, event.message.SerializeToString(), headers=headers)
    await connected.jetstream.publish_async_completed()


@pytest.mark.timeout(180)
async def test_kill_9_in_the_middle_of_the_touches(start, settings, nats_server, make_world):
    settings = settings.model_copy(update={"nats_url": nats_server.url()})
    world = make_world(await start())  # to reserve; the process that is killed consumes
    customers = await world.customers(TOUCHES // 4)
    pairs = [(world.new_touch(), customer) for customer in customers for _ in range(4)]
    for first in range(0, TOUCHES, 500):
        results = await world.reserve(pairs[first : first + 500])
        assert {result.outcome for result in results} == {1}
    connected = await bus.connect(settings, "tests")
    for stream in await connected.jetstream.streams_info():
        await connected.jetstream.delete_stream(str(stream.config.name))
    await connected.ensure_stream("campaign")
    events = [world.planned(*pair) for pair in pairs]
    publishing = asyncio.create_task(publish(connected, events, 1))

    async def delivered():
        return await world.value("SELECT count(*) FROM inbox_messages")

    kills = []
    for share in (0.1, 0.4, 0.7):
        process = await spawn(settings)
        while await delivered() < TOUCHES * share:
            assert process.returncode is None
            await asyncio.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        kills.append(await delivered())
    await publishing
    assert kills[0] < TOUCHES  # it was in the middle
    process = await spawn(settings)
    await publish(connected, events, 2)  # and everything is told again
    while await delivered() < TOUCHES or await world.value("SELECT EXISTS (SELECT FROM outbox WHERE published_at IS NULL)"):
        assert process.returncode is None
        await asyncio.sleep(0.05)
    process.terminate()
    assert await process.wait() == 0
    assert await delivered() == TOUCHES
    assert await world.value("SELECT count(*) FROM contacts WHERE state = 3 AND version = 2") == TOUCHES
    assert len(await world.running.events(RECORDED)) == TOUCHES
    await connected.client.close()
