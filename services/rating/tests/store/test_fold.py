"""Folding: whatever the order, number of deliveries and way of batching, the facts are the same."""

import asyncio
import json
import random
from datetime import UTC, datetime

import pytest

from chassis.republish import rebuild
from rating.domain.facts import ALLIANCE, month_of
from rating.store import facts, fold
from rating.store.fold import ActivityKind, ActivityRow
from rating.wiring import SERVICE


async def projection(running):
    """Every row of every projection."""
    async with running.application.database.connection() as connection:
        return {
            table: sorted(
                json.dumps(json.loads(row["row"]), sort_keys=True)
                for row in await connection.fetch(f"SELECT row_to_json(t) AS row FROM {table} t")
            )
            for table in SERVICE.projections
        }


async def queued(running):
    async with running.application.database.connection() as connection:
        return {row["customer_id"] for row in await connection.fetch("SELECT customer_id FROM rerate_queue")}


async def loaded(running, customer_id):
    async with running.application.database.connection() as connection:
        found = await facts.load(connection, [customer_id])
    return {scope: value for (_, scope), value in found.items()}


def story(master):
    """A customer with records at two institutions, in events of every kind; two of one activity are one."""
    north, south = master.link("r1", "anna"), master.link("r2", "anna", "south")
    payment = master.transaction("t1", north, "2016-03-05", 10_000, fee=50)
    first = master.customer("anna", [north])
    return [
        first,
        master.customer("anna", [north, south]),
        master.holding("h1", north),
        master.holding("h1", north, closed="2016-11-30"),
        master.holding("h2", south, kind="CARD", opened="2016-02-01"),
        payment,
        payment,
        master.transaction("t2", north, "2016-04-05", -4_000),
        master.transaction("t3", north, "2016-04-06", 7_777),
        master.reversal("t4", north, "2016-04-07", of="t3"),
        master.transaction("t5", south, "2016-12-31", 100, currency="EUR"),
        master.margin("m1", north, "2016-10", 5_000, cost=1_000),
        master.score("s1", south, "2016-05-01", 900),
        master.score("s2", north, "2016-06-01", 400),
        master.activity("c1", north, "2016-07-01", complaint={"topic": "fees"}),
        master.activity("j1", north, "2016-07-01", journey_step={"journey": "a/1", "attempt": "1", "step": 1, "event": 1}),
        master.activity("l1", north, "2016-07-01", life_event={"life_event_kind": 2}),
    ]


async def test_facts_of_every_kind_in_both_scopes(start, master):
    running = await start(rerate_paused=True)
    await running.deliver(*story(master))
    scopes = await loaded(running, master.id("anna"))
    assert set(scopes) == {ALLIANCE, "north", "south"}
    alliance, north, south = scopes[ALLIANCE], scopes["north"], scopes["south"]
    assert alliance.as_of.date().isoformat() == south.as_of.date().isoformat() == "2016-12-31"
    assert north.as_of.date().isoformat() == "2016-11-30"  # the closing of h1
    assert sorted((month.month - 2016 * 12, month.in_minor_units, month.out_minor_units) for month in north.turnover) == [
        (2, 10_000, 0), (3, 0, 4_000),
    ]  # fmt: skip
    assert sum(month.fees_minor_units for month in alliance.turnover) == 50
    assert [month.currency_code for month in south.turnover] == ["EUR"]
    assert [(margin.result_minor_units, margin.partial) for margin in north.margins] == [(4_000, False)]
    assert alliance.risk_score.default_probability_ppm == north.risk_score.default_probability_ppm == 400
    assert south.risk_score.default_probability_ppm == 900
    assert {holding.kind for holding in alliance.holdings} == {"HOLDING_KIND_DEPOSIT", "HOLDING_KIND_CARD"}
    assert [holding.close_date for holding in north.holdings if holding.close_date]
    assert (north.complaints_count, north.journey_steps_count) == (1, 1)
    assert (alliance.records_count, alliance.attributes_stated_count, north.attributes_stated_count) == (2, 2, 0)
    assert await queued(running) == {master.id("anna")}


@pytest.mark.parametrize("seed", range(8))
async def test_any_order_any_batches_and_duplicates_give_the_same_facts(start, master, seed):
    running = await start(rerate_paused=True)
    events = story(master)
    await running.deliver(*events)
    expected = await projection(running)
    await forget(running)
    chance = random.Random(seed)
    shuffled = chance.sample(events, len(events)) + chance.sample(events, 5)
    while shuffled:
        size = chance.randint(1, 6)
        batch, shuffled = shuffled[:size], shuffled[size:]
        await running.deliver(*batch)
    assert await projection(running) == expected


async def test_a_reversal_takes_back_exactly_whatever_comes_first(start, master):
    running = await start(rerate_paused=True)
    link = master.link("r1", "anna")
    kept = master.transaction("kept", link, "2016-03-05", 10_000)
    taken = [
        master.transaction("taken", link, "2016-03-06", 500, fee=20),
        master.margin("taken margin", link, "2016-10", 5_000),
        master.score("taken score", link, "2016-06-01", 400),
        master.activity("taken complaint", link, "2016-07-01", complaint={"topic": "fees"}),
    ]
    reversals = [
        master.reversal(f"reversal of {name}", link, "2016-04-07", of=name)
        for name in ("taken", "taken margin", "taken score", "taken complaint")
    ]
    await running.deliver(master.customer("anna", [link]), kept)
    without = await loaded(running, master.id("anna"))
    for order in ([*taken, *reversals], [*reversals, *taken]):
        await forget(running)
        await running.deliver(master.customer("anna", [link]), kept)
        for event in order:
            await running.deliver(event)
        assert await loaded(running, master.id("anna")) == without
    await forget(running)
    await running.deliver(master.customer("anna", [link]), kept, *reversals, *taken)  # all in one batch
    assert await loaded(running, master.id("anna")) == without


async def test_a_reversal_in_a_transaction_at_the_same_time_is_not_missed(start, master):
    """The activity and its reversal in two transactions that overlap: the second waits for the row of the first."""
    running = await start(rerate_paused=True)
    link = master.link("r1", "anna")
    await running.deliver(master.customer("anna", [link]))
    row = ActivityRow(
        master.id("t"),
        master.id("r1"),
        ActivityKind.TRANSACTION,
        instant("2016-03-05"),
        month_of(instant("2016-03-05").date()),
        1,
        "CZK",
    )
    database = running.application.database
    async with database.transaction() as connection:
        await fold.activities(connection, [row], [])

        async def reverse():
            async with database.transaction() as other:
                return await fold.activities(other, [], [master.id("t")])

        waiting = asyncio.create_task(reverse())
        await asyncio.sleep(0.1)
        assert not waiting.done()
    assert await waiting == [master.id("r1")]
    assert (await loaded(running, master.id("anna")))[ALLIANCE].turnover == ()


async def test_an_authorised_holder_does_not_own(start, master):
    running = await start(rerate_paused=True)
    link = master.link("r1", "anna")
    await running.deliver(master.customer("anna", [link]), master.holding("h1", link, role="AUTHORISED"))
    assert (await loaded(running, master.id("anna")))[ALLIANCE].holdings == ()


async def test_a_holding_held_through_two_records_is_one(start, master):
    running = await start(rerate_paused=True)
    links = [master.link("r1", "anna"), master.link("r2", "anna")]
    await running.deliver(master.customer("anna", links), master.holding("h1", *links))
    assert len((await loaded(running, master.id("anna")))[ALLIANCE].holdings) == 1


async def test_a_holding_that_changes_its_owner_marks_both(start, master):
    running = await start(rerate_paused=True)
    anna, ben = master.link("r1", "anna"), master.link("r2", "ben")
    await running.deliver(master.customer("anna", [anna]), master.customer("ben", [ben]), master.holding("h1", anna))
    await settle_all(running)
    await running.deliver(master.holding("h1", ben))
    assert await queued(running) == {master.id("anna"), master.id("ben")}
    assert (await loaded(running, master.id("anna")))[ALLIANCE].holdings == ()


async def test_margins_of_mixed_currencies_count_their_own_and_say_so(start, master):
    running = await start(rerate_paused=True)
    link = master.link("r1", "anna")
    await running.deliver(
        master.customer("anna", [link], observed="2016-11-01"),
        master.margin("m1", link, "2016-10", 5_000, cost=900, cost_currency="EUR"),
    )
    [margin] = (await loaded(running, master.id("anna")))["north"].margins
    assert (margin.result_minor_units, margin.currency_code, margin.partial) == (5_000, "CNY", True)


async def test_nobody_is_rated_without_a_state_a_record_or_after_a_merge(start, master):
    running = await start(rerate_paused=True)
    link = master.link("r1", "anna")
    await running.deliver(master.transaction("t1", link, "2016-03-05", 1))
    assert await loaded(running, master.id("anna")) == {}  # its own state has not come yet
    await running.deliver(master.customer("anna", [link]))
    assert set(await loaded(running, master.id("anna"))) == {ALLIANCE, "north"}
    moved = master.link("r1", "ben")
    await running.deliver(master.customer("ben", [moved]), master.customer("anna", merged_into="ben"))
    assert await loaded(running, master.id("anna")) == {}
    assert set(await loaded(running, master.id("ben"))) == {ALLIANCE, "north"}


async def test_rebuild_gives_the_identical_projection(start, master):
    running = await start(rerate_paused=True)
    events = story(master)
    await running.deliver(*events)
    expected = await projection(running)
    await forget(running)
    assert not any((await projection(running)).values())
    await running.deliver(*events)
    assert await projection(running) == expected


async def forget(running):
    """What `python -m rating rebuild` does."""
    consumers = [subscription.consumer for subscription in running.application.consumers]
    await rebuild(running.application.database, SERVICE.projections, consumers)


async def settle_all(running):
    async with running.application.database.connection() as connection:
        await connection.execute("DELETE FROM rerate_queue")


def instant(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
