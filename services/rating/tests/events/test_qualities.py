"""Completeness and credibility are the customer master's figures; one that is slow or away stops no rating."""

import asyncio
from datetime import timedelta

import pytest

from chassis import clock
from rating.domain.facts import ALLIANCE
from rating.events import qualities
from rating.store import ratings


@pytest.fixture
async def running(start, master):
    running = await start(rerate_paused=True)
    await running.deliver(master.customer("anna", [master.link("r1", "anna")]))
    return running


async def figures(running, customer_id):
    """Completeness and credibility as a reader sees them; None before the first rating."""
    async with running.application.database.connection() as connection:
        version = (await ratings.current(connection, [customer_id])).get((customer_id, ALLIANCE))
    return tuple(degree.value for degree in version.rating.degrees[4:]) if version else None


async def queue_of(running):
    async with running.application.database.connection() as connection:
        return await connection.fetch("SELECT * FROM rerate_queue")


async def test_the_masters_figures_are_asked_for_in_one_batch(running, master, rerater, quality_service):
    await running.deliver(*(master.customer(f"c{i}", [master.link(f"q{i}", f"c{i}")]) for i in range(3)))
    quality_service.figures[master.id("c1")] = (33, 44)
    assert await rerater(running).rate_step() == 4
    assert [len(asked) for asked in quality_service.asked] == [4]
    assert await figures(running, master.id("anna")) == (70, 60)
    assert await figures(running, master.id("c1")) == (33, 44)


async def test_a_changed_quality_and_a_holding_are_asked_for_and_an_activity_is_not(running, master, rate_all, quality_service):
    await rate_all(running)
    quality_service.figures[master.id("anna")] = (90, 60)
    await running.deliver(master.score("s1", master.seen_link("r1", "anna"), "2016-05-01", 7_000))
    await rate_all(running)
    assert len(quality_service.asked) == 1
    assert await figures(running, master.id("anna")) == (70, 60)
    await running.deliver(master.quality_changed("anna"))
    await rate_all(running)
    assert await figures(running, master.id("anna")) == (90, 60)
    quality_service.figures[master.id("anna")] = (80, 60)
    await running.deliver(master.holding("h1", master.seen_link("r1", "anna"), role="AUTHORISED"))
    await rate_all(running)
    assert await figures(running, master.id("anna")) == (80, 60)


async def test_while_the_master_is_away_ratings_go_on_with_what_it_last_said(running, master, rerater, quality_service):
    worker = rerater(running)
    await worker.rate_step()
    quality_service.figures[master.id("anna")] = (90, 90)
    await quality_service.stop()
    link = master.seen_link("r1", "anna")
    await running.deliver(master.quality_changed("anna"), master.score("s1", link, "2016-05-01", 7_000))
    assert await worker.rate_step() == 1
    async with running.application.database.connection() as connection:
        [version] = [one for one in (await ratings.current(connection, [master.id("anna")])).values() if one.scope == ALLIANCE]
    assert [version.rating.degrees[place].value for place in (4, 5)] == [70, 60]
    assert version.rating.degrees[3].value is not None
    [mark] = await queue_of(running)
    assert mark["asks_quality"]
    assert mark["since"] > clock.now()
    assert await worker.rate_step() == 0  # not before its time
    await running.deliver(master.score("s2", link, "2016-06-01", 9_000))
    assert await worker.rate_step() == 1  # new facts do not wait for the master
    await quality_service.start()
    async with running.application.database.connection() as connection:
        await connection.execute("UPDATE rerate_queue SET since = now() - interval '1 second'")
    assert await rerater(running).rate_step() == 1
    assert await figures(running, master.id("anna")) == (90, 90)
    assert await queue_of(running) == []


async def test_a_slow_master_is_waited_for_once(running, master, rerater, quality_service, monkeypatch):
    monkeypatch.setattr(qualities, "ANSWER_SECONDS_MAX", 0.2)
    quality_service.delay_seconds = 5
    worker = rerater(running)
    started = asyncio.get_running_loop().time()
    for name in ("ben", "cid", "dora"):
        await running.deliver(master.customer(name, [master.link(f"r {name}", name)]))
        assert await worker.rate_step() >= 1
    assert asyncio.get_running_loop().time() - started < 2
    assert len(quality_service.asked) == 1
    assert await figures(running, master.id("dora")) == (None, None)
    assert len(await queue_of(running)) == 4


async def test_one_that_the_master_cannot_answer_for_takes_nobody_with_it(running, master, rerater, quality_service):
    await running.deliver(*(master.customer(f"c{i}", [master.link(f"q{i}", f"c{i}")]) for i in range(6)))
    quality_service.poisonous = {master.id("c2")}
    assert await rerater(running).rate_step() == 7
    assert {await figures(running, master.id(name)) for name in ("anna", "c0", "c1", "c3", "c4", "c5")} == {(70, 60)}
    assert [mark["customer_id"] for mark in await queue_of(running)] == [master.id("c2")]


async def test_one_that_the_master_does_not_know_has_no_figures(running, master, rate_all, quality_service):
    await rate_all(running)
    quality_service.unknown = {master.id("anna")}
    await running.deliver(master.quality_changed("anna"))
    await rate_all(running)
    assert await figures(running, master.id("anna")) == (None, None)
    assert await queue_of(running) == []


async def test_old_figures_are_asked_for_again(running, master, rate_all, quality_service):
    await rate_all(running)
    quality_service.figures[master.id("anna")] = (70, 30)
    await rate_all(running)
    assert len(quality_service.asked) == 1
    async with running.application.database.connection() as connection:
        old = clock.now() - qualities.AGE_MAX - timedelta(minutes=1)
        await connection.execute("UPDATE customer_qualities SET asked_at = $1", old)
    await rate_all(running)
    assert await figures(running, master.id("anna")) == (70, 30)
    assert len(quality_service.asked) == 2
