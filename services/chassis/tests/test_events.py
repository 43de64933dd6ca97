"""Outbox → relay → JetStream → consumer, with everything that goes wrong on the way."""

import asyncio
import uuid
from typing import Any

import pytest
from echo_service import contract as pb
from echo_service.service import ADDED, CHANGED, SERVICE, add, changed, fold, fold_state
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from chassis import bus, consumer, dead_letters, leases, outbox, publisher, record_links, republish, streams
from chassis.clock import now
from chassis.consumer import Consumer, Subscription
from chassis.ids import new_id
from chassis.outbox import Event
from chassis.relay import LEASE, Deposed, Relay
from chassis.streams import ConfigurationError
from chassis.testing import received
from chassis.unit_of_work import Commands
from concord.common.v1.event_pb2 import RecordLink, Republished, StateVersion
from concord_local import nats


async def eventually(check, seconds: float = 20) -> None:
    """Waits until an async check is true."""
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110 - polls a database
            await asyncio.sleep(0.05)


async def rows(database, table: str):
    async with database.connection() as connection:
        return [tuple(row) for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY 1")]


async def folded(database) -> dict[str, int]:
    return dict(await rows(database, "sums"))


async def add_through_rpc(running, count: int, counter: str = "c", prefix: str = "r") -> None:
    stub = pb.Stub(running.channel())
    await asyncio.gather(
        *(stub.Add(pb.AddRequest(request_id=f"{prefix}{i}", counter=counter, amount=1), timeout=20) for i in range(count))
    )


async def published_everything(database) -> bool:
    async with database.connection() as connection:
        return not await connection.fetchval("SELECT EXISTS (SELECT FROM outbox WHERE published_at IS NULL)")


async def test_what_is_added_is_folded_once_by_two_replicas(start):
    replicas = [await start(nats=True), await start(nats=True)]
    database = replicas[0].application.database
    await asyncio.gather(*(add_through_rpc(running, 60, prefix=f"{i}-") for i, running in enumerate(replicas)))

    async def done():
        return await folded(database) == {"c": 120}

    await eventually(done)
    [copy] = await rows(database, "copies")
    assert copy == ("c", 120, 1, 120)
    assert await published_everything(database)


async def test_a_consumer_with_nothing_to_do_keeps_running(start, caplog):
    running = await start(nats=True)
    await add_through_rpc(running, 1)
    await asyncio.sleep(3 * consumer.FETCH_SECONDS_MAX)
    assert "failed" not in caplog.text
    await add_through_rpc(running, 1, prefix="later")

    async def done():
        return await folded(running.application.database) == {"c": 2}

    await eventually(done, 5)


async def test_headers_are_cloud_events(start, settings):
    running = await start(nats=True)
    connected = await bus.connect(running.application.settings, "test")
    await add_through_rpc(running, 1)
    await eventually(lambda: published_everything(running.application.database))
    message = await connected.jetstream.get_last_msg("ECHO", ADDED)
    [event] = await running.events(ADDED)
    headers = message.headers or {}
    async with running.application.database.connection() as connection:
        row_id = await connection.fetchval("SELECT row_id FROM outbox WHERE type = $1", ADDED)
    assert headers["Nats-Msg-Id"] == str(row_id)
    assert (headers["ce-id"], headers["ce-type"], headers["ce-source"]) == (str(event.event_id), ADDED, "concord/echo")
    assert (headers["ce-subject"], headers["ce-specversion"]) == ("c", "1.0")
    assert headers["content-type"] == "application/protobuf"
    await connected.client.close()


async def test_published_again_and_delivered_again_it_counts_once(start):
    running = await start(nats=True)
    database = running.application.database
    await add_through_rpc(running, 50)
    await eventually(lambda: published_everything(database))
    # A relay that died between publishing and marking, long ago: the stream no longer recognises the id.
    async with database.connection() as connection:
        for _ in range(2):
            await connection.execute("UPDATE outbox SET published_at = NULL, row_id = gen_random_uuid()")
            await eventually(lambda: published_everything(database))

    async def stream_is_folded():
        connected = await bus.connect(running.application.settings, "test")
        info = await connected.jetstream.consumer_info("ECHO", "echo")
        count = (await connected.jetstream.stream_info("ECHO")).state.messages
        await connected.client.close()
        return count == 300 and info.num_pending == 0 and info.num_ack_pending == 0

    await eventually(stream_is_folded)
    assert await folded(database) == {"c": 50}


async def test_a_batch_of_which_the_stream_knows_a_part_is_stored_once(start):
    running = await start(nats=True)
    database = running.application.database
    await add_through_rpc(running, 50)
    await eventually(lambda: published_everything(database))
    # A relay that died between publishing and marking, just now: old and new events go together.
    async with database.transaction() as connection:
        await connection.execute("UPDATE outbox SET published_at = NULL")
        await outbox.write(connection, [changed("d", number, 1, number) for number in range(40)], now())
    await eventually(lambda: published_everything(database))
    connected = await bus.connect(running.application.settings, "test")
    assert (await connected.jetstream.stream_info("ECHO")).state.messages == 140
    await connected.client.close()


def test_batches_are_bounded_and_whole():
    small: Any = [{"payload": b"1"}] * (publisher.BATCH_MESSAGES_MAX + 1)
    assert [len(batch) for batch in publisher.batches(small)] == [publisher.BATCH_MESSAGES_MAX, 1]
    large: Any = [{"payload": b"1" * publisher.BATCH_BYTES_MAX}] * 2
    assert [len(batch) for batch in publisher.batches([*large, *small[:3]])] == [1, 1, 3]
    assert list(publisher.batches([])) == []


async def test_a_failing_handler_is_tried_again_and_a_poisoned_event_is_kept_and_replayed(start, monkeypatch):
    monkeypatch.setattr(consumer, "BACKOFF_SECONDS", (0.01,))
    running = await start(nats=True)
    database = running.application.database
    await add_through_rpc(running, 5, "poison", "p")
    await add_through_rpc(running, 20)

    async def letters():
        async with database.connection() as connection:
            return await dead_letters.open_letters(connection)

    async def kept():
        return len(await letters()) == 10 and await folded(database) == {"c": 20}

    await eventually(kept)
    letter = (await letters())[0]
    assert letter["deliveries_count"] == consumer.DELIVERIES_MAX
    assert letter["error"].startswith("ValueError < service.py:")
    assert "4111" not in letter["error"]

    healthy = [Subscription("echo", "echo", {CHANGED: pb.CounterChanged, ADDED: pb.Added}, fold_without_poison)]
    with pytest.raises(ValueError, match="4111"):
        await dead_letters.replay(running.application.commands, running.application.consumers, letter["dead_letter_id"])
    assert len(await letters()) == 10
    for each in await letters():
        await dead_letters.replay(running.application.commands, healthy, each["dead_letter_id"])
    with pytest.raises(LookupError):
        await dead_letters.replay(running.application.commands, healthy, letter["dead_letter_id"])
    assert await folded(database) == {"c": 20, "poison": 5}


async def fold_without_poison(unit, events):
    for event in events:
        if event.type == ADDED:
            await unit.connection.execute(
                "INSERT INTO sums AS s VALUES ($1, $2) ON CONFLICT (counter) DO UPDATE SET total = s.total + excluded.total",
                event.message.counter, event.message.amount,
            )  # fmt: skip
        else:
            await fold_state(unit, event.message)


async def test_a_handler_that_fails_for_a_while_loses_nothing(start, monkeypatch):
    monkeypatch.setattr(consumer, "BACKOFF_SECONDS", (0.01,))
    failures = iter(range(4))

    async def sulky(unit, events):
        await fold(unit, events)
        if next(failures, None) is not None:
            raise RuntimeError("not yet")

    monkeypatch.setattr("echo_service.service.fold", sulky)
    running = await start(nats=True)
    await add_through_rpc(running, 1)

    async def done():
        return await folded(running.application.database) == {"c": 1}

    await eventually(done)
    assert next(failures, None) is None
    assert await rows(running.application.database, "dead_letters") == []


async def test_what_cannot_be_decoded_is_kept_and_an_unknown_type_is_passed_over(start):
    running = await start(nats=True)
    database = running.application.database
    connected = await bus.connect(running.application.settings, "test")
    await eventually(lambda: consumer_exists(connected))
    headers = {"ce-type": ADDED, "ce-id": str(new_id()), "ce-time": "2026-01-01T00:00:00+00:00", "ce-subject": "c"}
    publish = connected.jetstream.publish
    await publish(ADDED, b"\xff\xff", headers=dict(headers))
    await publish(ADDED, b"", headers={})
    await publish(ADDED, b"", headers=headers | {"ce-id": "no uuid"})
    await publish("concord.echo.republish.echo.v1.other", b"", headers=headers | {"ce-type": "concord.echo.v1.other"})
    await add_through_rpc(running, 1)

    async def done():
        return await folded(database) == {"c": 1} and len(await rows(database, "dead_letters")) == 3

    await eventually(done)
    info = await connected.jetstream.consumer_info("ECHO", "echo")
    assert (info.num_pending, info.num_ack_pending) == (0, 0)
    await connected.client.close()


async def consumer_exists(connected) -> bool:
    try:
        return any(info.name == "echo" for info in await connected.jetstream.consumers_info("ECHO"))
    except NotFoundError:
        return False


@pytest.mark.timeout(180)
async def test_nats_killed_in_the_middle_of_a_load_loses_and_doubles_nothing(start):
    with nats.temporary() as server:
        replicas = [await start(nats_url=server.url(), nats=True), await start(nats_url=server.url(), nats=True)]
        database = replicas[0].application.database
        for round_number in range(3):
            load = asyncio.gather(*(add_through_rpc(r, 150, prefix=f"{round_number}-{i}-") for i, r in enumerate(replicas)))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.kill)
            await load  # commands do not need the bus
            await asyncio.to_thread(server.start)

        async def done():
            return await folded(database) == {"c": 900} and await published_everything(database)

        await eventually(done, 90)
        [copy] = await rows(database, "copies")
        assert copy == ("c", 900, 1, 900)
        for running in replicas:
            await running.stop()
        replicas.clear()


async def test_one_relay_leads_and_a_deposed_one_cannot_mark(database):
    commands = Commands(database)
    async with commands.unit() as unit:
        await add(unit, pb.AddRequest(counter="c", amount=1))
    first = await leases.acquire(database, LEASE, "first")
    assert first is not None
    assert await leases.acquire(database, LEASE, "second") is None
    async with database.connection() as connection:
        assert await leases.renew(connection, first)
        await connection.execute("UPDATE leases SET expires_at = now() - interval '1 second'")
    second = await leases.acquire(database, LEASE, "second")
    assert second is not None
    assert second.fence == first.fence + 1
    relay = Relay("echo", database, commands.outbox_wake)
    row_ids = [row[0] for row in await rows(database, "outbox")]
    with pytest.raises(Deposed):
        await relay.mark(first, row_ids)
    assert not await published_everything(database)
    await leases.release(database, first)  # of a lease that is not ours any more: nothing
    async with database.connection() as connection:
        assert not await leases.renew(connection, first)
    assert await leases.acquire(database, LEASE, "third") is None
    await relay.mark(second, row_ids)
    assert await published_everything(database)
    await leases.release(database, second)
    third = await leases.acquire(database, LEASE, "third")
    assert third is not None
    assert third.fence == second.fence + 1


async def test_a_state_is_applied_when_it_is_newer(start):
    running = await start()
    for total, epoch, version in [(10, 1, 5), (9, 1, 4), (10, 1, 5), (12, 1, 7), (3, 2, 1), (13, 1, 8), (4, 2, 2)]:
        await running.deliver(received(CHANGED, changed("c", total, epoch, version).message, aggregate_id="c"))
    assert await rows(running.application.database, "copies") == [("c", 4, 2, 2)]


async def test_a_fact_twice_in_a_batch_counts_once(start):
    running = await start()
    fact = received(ADDED, pb.Added(counter="c", amount=4))
    await running.deliver(fact, fact, received(ADDED, pb.Added(counter="c", amount=1)))
    await running.deliver(fact)
    assert await folded(running.application.database) == {"c": 5}


async def test_a_projection_is_rebuilt_by_its_owner(start, monkeypatch):
    monkeypatch.setattr(republish, "PAGE_EVENTS_MAX", 7)
    running = await start(nats=True)
    database = running.application.database
    for i in range(20):
        await add_through_rpc(running, 2, f"c{i:02}", f"{i}-")
    before = {f"c{i:02}": 2 for i in range(20)}

    async def done():
        return await folded(database) == before and len(await rows(database, "copies")) == 20

    await eventually(done)
    copies = await rows(database, "copies")
    await republish.rebuild(database, SERVICE.projections, ["echo/echo"])
    assert await folded(database) == {}

    # Interrupted after two pages of the facts, and taken up again.
    broken = [SERVICE.republishers[0], republish.Republisher("additions", fails_after(SERVICE.republishers[1].pages, 2))]
    with pytest.raises(RuntimeError):
        await republish.republish(database, broken, "echo")
    assert await republish.republish(database, SERVICE.republishers, "echo") == 40 - 14
    await eventually(done)
    assert await rows(database, "copies") == copies
    # Once more, to one that has everything: nothing changes.
    assert await republish.republish(database, SERVICE.republishers, "echo") == 60
    assert await republish.republish(database, SERVICE.republishers, "other") == 60
    await eventually(lambda: published_everything(database))
    await asyncio.sleep(0.5)
    assert await folded(database) == before


async def test_the_last_event_of_a_run_comes_when_all_others_are_in_the_stream(start, monkeypatch):
    monkeypatch.setattr(republish, "PAGE_EVENTS_MAX", 3)
    running = await start()  # no relay
    database = running.application.database
    for i in range(4):
        await add_through_rpc(running, 1, f"c{i}", f"{i}-")
    first, second = "0193a5b0-0000-7000-8000-000000000001", "0193a5b0-0000-7000-8000-000000000002"

    async def publish_again(run_id, republishers=SERVICE.republishers):
        return await republish.republish(database, republishers, "other", "echo", run_id)

    async def said():
        return [event.message(Republished).run_id for event in await running.events("concord.echo.v1.republished")]

    async def all_is_published():
        async with database.connection() as connection:
            await connection.execute("UPDATE outbox SET published_at = now()")

    interrupted = [SERVICE.republishers[0], republish.Republisher("additions", fails_after(SERVICE.republishers[1].pages, 1))]
    with pytest.raises(RuntimeError):
        await publish_again(first, interrupted)
    with pytest.raises(TimeoutError):  # killed while it waits for the relay
        async with asyncio.timeout(1):
            await publish_again(second)  # another rebuild: what the first run said is gone
    assert len([event for event in await running.events() if event.target == "other"]) == (4 + 3) + (4 + 4)
    assert await said() == []
    await all_is_published()
    assert await publish_again(second) == 0
    assert await said() == [second]
    [last] = [event for event in await running.events() if event.type.endswith(".republished")]
    assert last == (await running.events())[-1]
    assert last.target == "other"
    await all_is_published()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await publish_again(second)  # again, from the beginning
    await all_is_published()
    await publish_again(second)
    assert await said() == [second, second]


def fails_after(pages, count: int):
    left = iter(range(count))

    async def limited(connection, cursor, limit):
        if next(left, None) is None:
            raise RuntimeError("killed")
        return await pages(connection, cursor, limit)

    return limited


async def test_a_stream_that_lost_messages_is_filled_from_the_outbox(start):
    running = await start(nats=True)
    database = running.application.database
    await add_through_rpc(running, 10)
    await eventually(lambda: published_everything(database))
    [first] = (await running.events(ADDED))[:1]
    await asyncio.sleep(0.3)
    connected = await bus.connect(running.application.settings, "test")
    await connected.jetstream.purge_stream("ECHO")
    async with database.connection() as connection:  # as if it had never arrived
        await connection.execute("TRUNCATE inbox, sums")
        await connection.execute("UPDATE outbox SET row_id = row_id")
    assert await republish.republish_since(database, first.occurred_at) == 20
    await eventually(lambda: published_everything(database))
    await connected.client.close()


def test_a_republication_has_a_subject_that_only_its_target_hears():
    assert outbox.subject(CHANGED, None) == CHANGED
    assert outbox.subject(CHANGED, "rating") == "concord.echo.republish.rating.v1.counter.changed"
    config = streams.consumer_config("rating", "rating", [CHANGED])
    assert config.filter_subjects == sorted([CHANGED, "concord.echo.republish.rating.v1.counter.changed"])


async def test_streams_are_made_changed_and_read_back(nats_server, settings):
    connected = await bus.connect(settings.model_copy(update={"nats_url": nats_server.url()}), "test")
    jetstream = connected.jetstream
    config = streams.stream_config("made")
    await asyncio.gather(*(streams.ensure_stream(jetstream, config) for _ in range(5)))
    larger = streams.stream_config("made", bytes_max=2 << 30)
    await streams.ensure_stream(jetstream, larger)
    assert (await jetstream.stream_info("MADE")).config.max_bytes == 2 << 30
    await streams.ensure_consumer(jetstream, "MADE", streams.consumer_config("echo", "echo", ["concord.made.v1.a.b"]))
    await streams.ensure_consumer(
        jetstream, "MADE", streams.consumer_config("echo", "echo", ["concord.made.v1.a.b", "concord.made.v1.c.d"])
    )
    assert len((await jetstream.consumer_info("MADE", "echo")).config.filter_subjects) == 4

    class Forgetful(JetStreamContext):  # an old server, which drops what it does not know
        async def add_consumer(self, stream, config=None, timeout=None, **params):
            return await super().add_consumer(stream, config.evolve(filter_subjects=None), timeout, **params)

    with pytest.raises(ConfigurationError, match="filter_subjects"):
        await streams.ensure_consumer(
            Forgetful(connected.client), "MADE", streams.consumer_config("x", "x", ["concord.made.v1.a.b"])
        )
    await jetstream.delete_stream("MADE")
    await connected.client.close()


def link(record: uuid.UUID, customer: uuid.UUID, version: int, epoch: int = 1) -> RecordLink:
    state = StateVersion(epoch=epoch, version=version)
    return RecordLink(record_id=str(record), institution_id="a", customer_id=str(customer), state_version=state)


async def test_record_links_say_what_moved_and_from_where(database):
    one, two, anna, berta = (new_id() for _ in range(4))
    async with database.transaction() as connection:
        moved = await record_links.fold(connection, [link(one, anna, 1), link(two, anna, 3), link(two, berta, 2)])
        assert {(row["record_id"], row["customer_id"], row["former_customer_id"]) for row in moved} == {
            (one, anna, None),
            (two, anna, None),
        }
        moved = await record_links.fold(connection, [link(one, berta, 2), link(two, berta, 3)])
        assert [tuple(row) for row in moved] == [(one, "a", berta, anna)]
        assert await record_links.fold(connection, []) == []
        assert await record_links.fold(connection, [link(one, anna, 1)]) == []
        [row] = await record_links.fold(connection, [link(one, anna, 0, epoch=2)])
        assert row["former_customer_id"] == berta


async def test_two_replicas_folding_the_same_new_record_both_see_the_truth(database):
    records = [new_id() for _ in range(50)]
    anna, berta = new_id(), new_id()

    async def fold_all(customer: uuid.UUID, version: int, order: int):
        async with database.transaction() as connection:
            return await record_links.fold(connection, [link(record, customer, version) for record in records[::order]])

    older, newer = await asyncio.gather(fold_all(anna, 1, 1), fold_all(berta, 2, -1))
    assert len(newer) == 50
    former = {row["former_customer_id"] for row in newer}
    assert former == ({anna} if older else {None})


async def test_events_of_a_unit_leave_only_with_its_commit(database):
    commands = Commands(database)

    async def fails() -> None:
        async with commands.unit() as unit:
            unit.publish(Event(CHANGED, "c", pb.CounterChanged(counter="c")))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        await fails()
    assert await rows(database, "outbox") == []


async def test_two_consumers_of_one_batch_apply_it_once(database):
    commands = Commands(database)
    subscription = Subscription("echo", "echo", {ADDED: pb.Added}, fold)
    events = [received(ADDED, pb.Added(counter=f"c{i % 7}", amount=1)) for i in range(300)]
    await asyncio.gather(*(Consumer("echo", subscription, commands).apply(events[:: 1 - 2 * (i % 2)]) for i in range(6)))
    assert sum((await folded(database)).values()) == 300
