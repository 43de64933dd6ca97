"""Slots that were not used are given back, by however many replicas sweep."""

import asyncio

from concord.contact.v1.contact_events_pb2 import ContactRecorded
from contact.events import expiry

RECORDED = "concord.contact.v1.contact.recorded"


async def test_expired_reservations_are_released_once_by_many_sweepers(world, monkeypatch):
    monkeypatch.setattr(expiry, "BATCH_MAX", 30)
    customers = await world.customers(200)
    touches = [(world.new_touch(), customer) for customer in customers]
    await world.reserve(touches)
    await world.execute("UPDATE contacts SET expires_at = now() - interval '1 second' WHERE contact_id < $1", await middle(world))
    assert await world.running.events(RECORDED) == []

    async def sweep():
        while await expiry.release_expired(world.application.commands):
            pass

    await asyncio.gather(*(sweep() for _ in range(4)))  # and the one that the service runs
    rows = await world.value("SELECT count(*) FROM contacts WHERE state = 7 AND state_reason = 'EXPIRED' AND version = 2")
    assert rows == 100
    assert await world.value("SELECT count(*) FROM contacts WHERE state = 1") == 100  # those in time are left alone
    events = [event.message(ContactRecorded) for event in await world.running.events(RECORDED)]
    assert len({event.contact_id for event in events}) == len(events) == 100
    assert {(event.state, event.state_version.version, bool(event.touch_id)) for event in events} == {(7, 2, True)}


async def middle(world):
    return await world.value("SELECT contact_id FROM contacts ORDER BY contact_id OFFSET 100 LIMIT 1")


async def test_the_service_sweeps_by_itself(start, make_world, monkeypatch):
    monkeypatch.setattr(expiry, "PAUSE_SECONDS", 0.05)
    world = make_world(await start())
    [anna] = await world.customers(1)
    touch = world.new_touch()
    await world.reserve([(touch, anna)])
    await world.execute("UPDATE contacts SET expires_at = now()")
    for _ in range(100):
        if (await world.row(touch))["state"] == 7:
            break
        await asyncio.sleep(0.02)
    assert (await world.row(touch))["state"] == 7
