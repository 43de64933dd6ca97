"""Planned touches: one message each, however often they are told; none without a slot."""

import asyncio
import contextlib
import uuid

import pytest

from chassis import republish
from concord.contact.v1.contact_events_pb2 import ContactRecorded
from contact.events import touches as touches_module
from contact.published import contact_recorded
from contact.store import inbox

RECORDED = "concord.contact.v1.contact.recorded"
RESERVED, DELIVERED, READ, FAILED, RELEASED = 1, 3, 4, 5, 7


async def messages(world, touch):
    return await world.value("SELECT count(*) FROM inbox_messages WHERE touch_id = $1", uuid.UUID(touch))


async def recorded(world):
    return [event.message(ContactRecorded) for event in await world.running.events(RECORDED)]


async def reserved_touch(world, **changes):
    [anna] = await world.customers(1)
    touch = world.new_touch()
    [result] = await world.reserve([(touch, anna)], **changes)
    assert result.outcome == RESERVED
    return touch, anna


async def test_a_planned_touch_lies_in_the_inbox(world):
    touch, anna = await reserved_touch(world)
    await world.plan(touch, anna)
    row = await world.row(touch)
    assert (row["state"], row["state_reason"], row["version"]) == (DELIVERED, "", 2)
    assert await messages(world, touch) == 1
    [event] = await recorded(world)
    assert (event.contact_id, event.touch_id, event.customer_id) == (touch, touch, anna)
    assert (event.institution_id, event.direction, event.channel, event.purpose) == ("northbank", 2, 1, world.MARKETING)
    assert (event.state, event.state_version.version) == (DELIVERED, 2)
    assert event.contact_time_seconds == int(row["contact_time"].timestamp())


async def test_a_touch_told_twice_is_one_message(world):
    touch, anna = await reserved_touch(world)
    await world.plan(touch, anna)
    await world.plan(touch, anna)  # redelivered: the inbox of events knows it
    await world.plan(touch, anna, event_id=str(uuid.uuid4()))  # told again under another id: the state knows it
    same = world.planned(touch, anna, event_id=str(uuid.uuid4()))
    await world.running.deliver(same, world.planned(touch, anna, event_id=str(uuid.uuid4())))  # twice in one batch
    assert await messages(world, touch) == 1
    assert len(await recorded(world)) == 1
    assert (await world.row(touch))["version"] == 2


async def test_many_replicas_that_get_the_same_touches_send_each_once(world, start, make_world):
    other = make_world(await start())
    customers = await world.customers(100)
    pairs = [(world.new_touch(), customer) for customer in customers]
    await world.reserve(pairs)

    async def tell(replica, order):
        # Each with event ids of its own: nothing but the state of the reservation can stop a second message.
        await replica.running.deliver(*(replica.planned(*pair, event_id=str(uuid.uuid4())) for pair in order))

    await asyncio.gather(*(tell(replica, order) for replica in (world, other) for order in (pairs, pairs[::-1], pairs[50:])))
    assert await world.value("SELECT count(*) FROM inbox_messages") == 100
    assert len(await recorded(world)) == 100


async def test_after_rebuild_forgot_the_event_inbox_nothing_is_sent_again(world):
    touch, anna = await reserved_touch(world)
    await world.plan(touch, anna)
    consumers = [subscription.consumer for subscription in world.application.consumers]
    await republish.rebuild(world.database, ["record_links"], consumers)
    await world.plan(touch, anna)
    assert await messages(world, touch) == 1
    assert len(await recorded(world)) == 1


async def test_a_crash_before_the_commit_leaves_nothing_and_redelivery_sends_once(world, monkeypatch):
    """Everything was written, then the process died: the transaction takes message, state, event and inbox row with it."""
    touch, anna = await reserved_touch(world)

    def die(row, epoch):
        raise ConnectionResetError("killed")

    monkeypatch.setattr(touches_module, "contact_recorded", die)
    with pytest.raises(ConnectionResetError):
        await world.plan(touch, anna)
    assert await messages(world, touch) == 0
    assert (await world.row(touch))["state"] == RESERVED
    monkeypatch.setattr(touches_module, "contact_recorded", contact_recorded)
    await world.plan(touch, anna)
    assert await messages(world, touch) == 1
    assert len(await recorded(world)) == 1


async def test_killed_database_sessions_send_nothing_twice_or_not_at_all(world, monkeypatch):
    """Every third session ends when its messages are written and not committed; redelivery until all is acknowledged."""
    customers = await world.customers(200)
    pairs = [(world.new_touch(), customer) for customer in customers]
    await world.reserve(pairs)
    deliver, calls, kills = inbox.deliver, 0, 0

    async def deliver_and_be_killed(connection, touch_ids):
        nonlocal calls, kills
        number = calls = calls + 1
        await deliver(connection, touch_ids)
        if number % 3 == 1:
            kills += 1
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(inbox, "deliver", deliver_and_be_killed)

    async def consume(batch):
        while True:
            with contextlib.suppress(Exception):
                return await world.running.deliver(*batch)

    batches = [[world.planned(*pair) for pair in pairs[start : start + 10]] for start in range(0, 200, 10)]
    await asyncio.gather(*(consume(batch) for batch in [*batches, *batches[::-1]]))
    assert kills >= 10
    assert await world.value("SELECT count(*) FROM inbox_messages") == 200
    assert await world.value("SELECT count(*) FROM contacts WHERE state = 3 AND version = 2") == 200
    assert len(await recorded(world)) == 200


async def test_a_touch_whose_slot_is_over_is_not_sent(world):
    touch, anna = await reserved_touch(world)
    await world.execute("UPDATE contacts SET expires_at = now() WHERE contact_id = $1", uuid.UUID(touch))
    await world.plan(touch, anna)
    row = await world.row(touch)
    assert (row["state"], row["state_reason"]) == (RELEASED, "EXPIRED")
    assert await messages(world, touch) == 0
    assert [event.state for event in await recorded(world)] == [RELEASED]


async def test_a_slot_that_was_taken_by_another_after_expiry_is_not_used_too(world):
    """The expired touch comes late, its slot is somebody else's by now: still not more than the cap."""
    [anna] = await world.customers(1)
    late = world.new_touch()
    others = [world.new_touch() for _ in range(4)]
    await world.reserve([(late, anna)])
    await world.execute("UPDATE contacts SET expires_at = now() WHERE contact_id = $1", uuid.UUID(late))
    assert [result.outcome for result in await world.reserve([(touch, anna) for touch in others])] == [RESERVED] * 4
    await world.running.deliver(*(world.planned(touch, anna) for touch in [*others, late]))
    assert await world.value("SELECT count(*) FROM inbox_messages") == 4


async def test_permission_binds_at_the_moment_of_sending(world):
    touch, anna = await reserved_touch(world)
    await world.permit("northbank", [anna], state=2)
    await world.plan(touch, anna)
    row = await world.row(touch)
    assert (row["state"], row["state_reason"]) == (RELEASED, "NO_PERMISSION_TO_CONTACT")
    assert await messages(world, touch) == 0


async def test_a_service_message_needs_no_permission(world):
    [anna] = await world.customers(1, permitted=False)
    touch = world.new_touch()
    [result] = await world.reserve([(touch, anna)], purpose=world.SERVICE)
    assert result.outcome == RESERVED
    await world.plan(touch, anna)
    assert await messages(world, touch) == 1


async def test_a_touch_without_a_reservation_fails_and_says_so(world):
    [anna] = await world.customers(1)
    touch = world.new_touch()
    record = await world.value("SELECT record_id::text FROM record_links")
    await world.plan(touch, anna, record=record)
    await world.plan(touch, anna, event_id=str(uuid.uuid4()), record=record)
    row = await world.row(touch)
    assert (row["state"], row["state_reason"], row["touch"]) == (FAILED, "NO_RESERVATION", world.touch_name(touch))
    assert await messages(world, touch) == 0
    assert [event.state for event in await recorded(world)] == [FAILED]
    [result] = await world.reserve([(touch, anna)])
    assert result.outcome == 5  # EXPIRED: this touch is over, plan another


async def test_through_nats(start, make_world):
    """Relay, stream and consumer for real: the campaign's event comes in by JetStream, the contact's goes out."""
    world = make_world(await start(nats=True))
    touch, anna = await reserved_touch(world)
    event = world.planned(touch, anna)
    headers = {
        "Nats-Msg-Id": str(event.event_id),
        "ce-id": str(event.event_id),
        "ce-type": event.type,
        "ce-subject": touch,
        "ce-time": event.occurred_at.isoformat(),
    }
    for _ in range(200):
        bus = world.running.server._bus
        if bus is not None:
            break
        await asyncio.sleep(0.05)
    await bus.ensure_stream("campaign")
    await bus.ensure_stream("contact")
    for number in range(2):  # the second is no duplicate for the stream, only for the inbox
        headers["Nats-Msg-Id"] = f"{event.event_id}-{number}"
        await bus.jetstream.publish(event.type, event.message.SerializeToString(), headers=headers)
    for _ in range(400):
        published = await world.value("SELECT count(*) FROM outbox WHERE type = $1 AND published_at IS NOT NULL", RECORDED)
        if published:
            break
        await asyncio.sleep(0.05)
    assert await messages(world, touch) == 1
    assert published == 1
