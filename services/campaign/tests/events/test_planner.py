"""Planning: nothing doubled and nothing missing, whoever dies when, and whether contact is there or not."""

import asyncio
import functools
import os
import random
import signal
import sys
import uuid

import pytest

from campaign.domain.audience import Condition, Field, Operator
from campaign.domain.touch import touch_id
from campaign.events import planner as planner_module
from campaign.store import audience, touches, waves
from concord.campaign.v1.campaign_events_pb2 import TouchPlanned
from concord.contact.v1.reservation_service_pb2 import RESERVE_OUTCOME_CAPPED, RESERVE_OUTCOME_NO_PERMISSION_TO_CONTACT

ADULTS = ((Condition(Field.BIRTH_YEAR, Operator.LESS_THAN, number=2000.0),),)
TOUCHES = "SELECT touches.*, customer_id FROM touches LEFT JOIN record_links USING (record_id)"
NOBODY = ((Condition(Field.BIRTH_YEAR, Operator.LESS_THAN, number=1000.0),),)


class Killed(BaseException):
    """As if the process had been killed here."""


async def people(workshop, others, count: int) -> list[str]:
    """Customers of northbank; every third is too young. Returns the ids of the others."""
    events = [others.customer(f"customer {i}", birth_year=2010 if i % 3 == 2 else 1980) for i in range(count)]
    await workshop.fold(*events, others.customer("stranger", ("otherbank",), birth_year=1980))
    return [others.id(f"customer {i}") for i in range(count) if i % 3 != 2]


async def assert_planned_exactly(workshop, campaign_id, members, examined_count, refused=()):
    rows = await workshop.rows(f"{TOUCHES} WHERE campaign_id = $1", campaign_id)
    assert sorted(str(row["customer_id"]) for row in rows) == sorted(members)
    assert all(row["touch_id"] == touch_id(campaign_id, 1, row["customer_id"]) for row in rows)
    assert sorted(str(row["customer_id"]) for row in rows if row["refused_reason"]) == sorted(refused)
    events = await workshop.rows("SELECT event_id, payload FROM outbox WHERE type = 'concord.campaign.v1.touch.planned'")
    said = [TouchPlanned.FromString(event["payload"]) for event in events]
    assert sorted(message.touch_id for message in said) == sorted(
        str(row["touch_id"]) for row in rows if row["refused_reason"] is None
    )
    assert sorted(str(event["event_id"]) for event in events) == sorted(message.touch_id for message in said)
    assert {(message.campaign_id, message.wave, message.institution_id, message.channel) for message in said} <= {
        (str(campaign_id), 1, "northbank", 1)
    }
    slots = workshop.contact.slots
    assert sorted(name.rsplit("/", 1)[1] for name in slots) == sorted(str(row["touch_id"]) for row in rows)
    (wave,) = await workshop.rows("SELECT * FROM waves WHERE campaign_id = $1", campaign_id)
    assert wave["state"] == "PLANNED"
    assert wave["examined_count"] == examined_count
    assert wave["finish_time"] is not None


async def plan_to_the_end(workshop, planner) -> None:
    """Steps until every wave is planned; time passes quickly here."""
    for _ in range(200):
        while await planner.step():
            pass
        if not await workshop.rows("SELECT FROM waves WHERE state = 'PLANNING'"):
            return
        await workshop.execute("UPDATE waves SET claimable_at = clock_timestamp()")
    raise AssertionError("the wave is never planned")


async def test_a_wave_is_planned_page_by_page(workshop, others):
    members = await people(workshop, others, 20)
    capped, unwilling = members[0], members[1]
    workshop.contact.outcomes = {capped: RESERVE_OUTCOME_CAPPED, unwilling: RESERVE_OUTCOME_NO_PERMISSION_TO_CONTACT}
    campaign_id = await workshop.launch(ADULTS)
    planner = workshop.planner(page=6)
    assert [await planner.step() for _ in range(5)] == [True, True, True, True, False]
    await assert_planned_exactly(workshop, campaign_id, members, 20, refused=[capped, unwilling])
    rows = {str(row["customer_id"]): row for row in await workshop.rows(TOUCHES)}
    assert rows[capped]["refused_reason"] == "CAPPED"
    assert rows[capped]["next_free_time"].timestamp() == 2_000_000_000
    assert rows[unwilling]["refused_reason"] == "NO_PERMISSION_TO_CONTACT"


async def test_everybody_when_there_is_no_rule_and_nobody_when_nobody_is_linked(workshop, others):
    members = await people(workshop, others, 6)
    everybody = await workshop.launch()
    await plan_to_the_end(workshop, workshop.planner(page=3))  # ends exactly at a page
    await assert_planned_exactly(workshop, everybody, [others.id(f"customer {i}") for i in range(6)], 6)
    assert len(members) == 4
    await workshop.execute("TRUNCATE record_links")
    nobody = await workshop.launch()
    await plan_to_the_end(workshop, workshop.planner())
    assert await workshop.rows("SELECT FROM touches WHERE campaign_id = $1", nobody) == []


async def test_batches_of_reservations_are_bounded(workshop, others, monkeypatch):
    monkeypatch.setattr(planner_module, "RESERVATIONS_MAX", 4)
    members = await people(workshop, others, 30)
    campaign_id = await workshop.launch(ADULTS)
    await plan_to_the_end(workshop, workshop.planner())
    assert workshop.contact.calls_count == 5
    await assert_planned_exactly(workshop, campaign_id, members, 30)


STEPS = [
    (waves, "claim"),
    (audience, "page"),
    (planner_module.Planner, "_reserve"),
    (planner_module.Planner, "_commit"),
    (waves, "advance"),
    (touches, "insert"),
]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("occasion", [1, 2, 3])
@pytest.mark.parametrize(("owner", "step"), STEPS, ids=[name for _, name in STEPS])
async def test_killed_between_any_two_steps(workshop, others, monkeypatch, owner, step, occasion, moment):
    monkeypatch.setattr(planner_module, "RESERVATIONS_MAX", 2)
    members = await people(workshop, others, 11)
    campaign_id = await workshop.launch(ADULTS)
    original, calls = getattr(owner, step), []

    @functools.wraps(original)
    async def deadly(*arguments, **values):
        calls.append(step)
        if moment == "before" and len(calls) == occasion:
            raise Killed
        result = await original(*arguments, **values)
        if moment == "after" and len(calls) == occasion:
            raise Killed
        return result

    monkeypatch.setattr(owner, step, deadly)
    with pytest.raises(Killed):
        await plan_to_the_end(workshop, workshop.planner(page=4, claim_seconds=60.0))
    # While the dead one's claim lasts nobody else plans; afterwards another does.
    other = workshop.planner(page=4)
    (wave,) = await workshop.rows("SELECT state, claimable_at > clock_timestamp() AS claimed FROM waves")
    if wave["state"] == "PLANNING" and wave["claimed"]:
        assert not await other.step()
    await workshop.execute("UPDATE waves SET claimable_at = clock_timestamp()")
    await plan_to_the_end(workshop, other)
    await assert_planned_exactly(workshop, campaign_id, members, 11)


async def test_profiles_that_change_between_a_death_and_the_next_attempt(workshop, others, monkeypatch):
    members = await people(workshop, others, 9)
    campaign_id = await workshop.launch(ADULTS)

    async def killed(*_arguments, **_values):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(planner_module.Planner, "_commit", killed)
        with pytest.raises(Killed):
            await workshop.planner().step()
    assert len(workshop.contact.slots) == len(members)
    await workshop.fold(others.customer("customer 2", birth_year=1970))  # reserved with others, although it was not there before
    await workshop.execute("UPDATE waves SET claimable_at = clock_timestamp()")
    await plan_to_the_end(workshop, workshop.planner())
    await assert_planned_exactly(workshop, campaign_id, [*members, others.id("customer 2")], 9)


@pytest.mark.parametrize("rule", [ADULTS, NOBODY], ids=["adults", "nobody"])
async def test_a_planner_that_was_too_slow_changes_nothing(workshop, others, monkeypatch, rule):
    members = await people(workshop, others, 9) if rule is ADULTS else (await people(workshop, others, 9))[:0]
    campaign_id = await workshop.launch(rule)
    slow, quick = workshop.planner(page=4, claim_seconds=0.0), workshop.planner(page=4)
    original = planner_module.Planner._commit
    ready, go_on = asyncio.Event(), asyncio.Event()

    async def waiting(self, *arguments):
        if self is slow:
            ready.set()
            await go_on.wait()
        await original(self, *arguments)

    monkeypatch.setattr(planner_module.Planner, "_commit", waiting)
    late = asyncio.create_task(slow.step())
    await ready.wait()
    assert await quick.step()
    go_on.set()
    await late
    assert await workshop.rows("SELECT examined_count, failures_count FROM waves") == [{"examined_count": 4, "failures_count": 0}]
    await plan_to_the_end(workshop, quick)
    await assert_planned_exactly(workshop, campaign_id, members, 9)


async def test_a_planner_that_stops_in_good_order_gives_its_claim_back(workshop, others):
    members = await people(workshop, others, 9)
    campaign_id = await workshop.launch(ADULTS)
    workshop.contact.delay_seconds = 0.5
    stopped = asyncio.create_task(workshop.planner().plan())
    while not workshop.contact.calls_count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    stopped.cancel()
    await asyncio.gather(stopped, return_exceptions=True)
    assert await workshop.planner().step()
    await assert_planned_exactly(workshop, campaign_id, members, 9)


async def test_several_planners_share_several_waves(workshop, others):
    members = await people(workshop, others, 60)
    workshop.contact.delay_seconds = 0.002
    campaign_ids = [await workshop.launch(ADULTS) for _ in range(3)]
    planners = [workshop.planner(page=5) for _ in range(3)]
    tasks = [asyncio.create_task(planner.plan()) for planner in planners]
    await workshop.until_planned(lambda: False)
    for task in tasks:
        task.cancel()
    for campaign_id in campaign_ids:
        rows = await workshop.rows(f"{TOUCHES} WHERE campaign_id = $1", campaign_id)
        assert sorted(str(row["customer_id"]) for row in rows) == sorted(members)
    events = await workshop.rows("SELECT count(DISTINCT event_id), count(*) AS rows FROM outbox")
    assert events == [{"count": 3 * len(members), "rows": 3 * len(members)}]


async def test_a_dead_contact_service_is_waited_for(workshop, others):
    members = await people(workshop, others, 9)
    campaign_id = await workshop.launch(ADULTS)
    planner = workshop.planner(page=4)
    assert await planner.step()
    await workshop.contact.stop()
    assert await planner.step()
    (wave,) = await workshop.rows(
        "SELECT failures_count, examined_count, extract(epoch FROM claimable_at - clock_timestamp()) AS pause FROM waves"
    )
    assert (wave["failures_count"], wave["examined_count"]) == (1, 4)
    assert 0 < wave["pause"] <= 0.5
    assert not await planner.step()  # it waits
    await workshop.execute("UPDATE waves SET claimable_at = clock_timestamp()")
    await planner.step()
    (wave,) = await workshop.rows("SELECT failures_count, claimable_at - clock_timestamp() > '0.6 s' AS longer FROM waves")
    assert wave == {"failures_count": 2, "longer": True}
    await workshop.contact.start()
    await plan_to_the_end(workshop, planner)
    await assert_planned_exactly(workshop, campaign_id, members, 9)
    assert (await workshop.rows("SELECT failures_count FROM waves")) == [{"failures_count": 0}]


async def test_an_answer_that_does_not_fit_is_not_believed(workshop, others, monkeypatch):
    await people(workshop, others, 4)
    await workshop.launch()
    original = type(workshop.contact)._slot

    def other_touch(self, item):
        result = type(original(self, item))()
        result.CopyFrom(original(self, item))
        result.touch = result.touch[:-1] + ("0" if result.touch[-1] != "0" else "1")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(type(workshop.contact), "_slot", other_touch)
        await workshop.planner().step()
    assert await workshop.rows("SELECT FROM touches") == []
    assert await workshop.rows("SELECT failures_count, state FROM waves") == [{"failures_count": 1, "state": "PLANNING"}]


async def test_a_campaign_is_finished_when_every_planned_touch_is_settled(workshop, others):
    members = await people(workshop, others, 6)
    workshop.contact.outcomes = {members[0]: RESERVE_OUTCOME_CAPPED}
    campaign_id = await workshop.launch(ADULTS)
    open_touches = [str(touch_id(campaign_id, 1, uuid.UUID(member))) for member in members[1:]]

    async def settled() -> bool:
        async with workshop.database.transaction() as connection:
            assert not await waves.settle(connection)
        (campaign,) = await workshop.rows("SELECT state FROM campaigns")
        return str(campaign["state"]) == "FINISHED"

    await workshop.fold(others.contacted(open_touches[0], "READ"))  # before the touch is committed
    assert not await settled()  # not planned yet
    await plan_to_the_end(workshop, workshop.planner())
    assert not await settled()
    await workshop.fold(others.contacted(open_touches[1], "SENT"), others.contacted(open_touches[2], "FAILED"))
    assert not await settled()
    await workshop.fold(others.contacted(open_touches[1], "DELIVERED"))
    assert await settled()
    assert await settled()
    assert await workshop.rows("SELECT state, version FROM campaigns") == [{"state": "FINISHED", "version": 3}]


async def test_settling_goes_on_where_it_was(workshop, others, monkeypatch):
    monkeypatch.setattr(waves, "SETTLED_TOUCHES_MAX", 3)
    members = await people(workshop, others, 12)
    campaign_id = await workshop.launch(ADULTS)
    await plan_to_the_end(workshop, workshop.planner())
    in_order = [touch_id(campaign_id, 1, uuid.UUID(member)) for member in members]
    in_order.sort()

    async def settle() -> tuple[bool, uuid.UUID, str]:
        async with workshop.database.transaction() as connection:
            more = await waves.settle(connection)
        (row,) = await workshop.rows("SELECT settled_touch_id, c.state FROM waves JOIN campaigns c USING (campaign_id)")
        return more, row["settled_touch_id"], row["state"]

    assert await settle() == (False, in_order[0], "RUNNING")
    await workshop.fold(*(others.contacted(str(each), "DELIVERED") for each in in_order[:1]))
    assert await settle() == (False, in_order[1], "RUNNING")
    await workshop.fold(*(others.contacted(str(each), "READ") for each in [*in_order[1:6], *in_order[7:]]))
    assert await settle() == (True, in_order[3], "RUNNING")
    assert await settle() == (True, in_order[5], "RUNNING")
    assert await settle() == (False, in_order[6], "RUNNING")
    await workshop.fold(others.contacted(str(in_order[6]), "FAILED"))
    assert await settle() == (False, in_order[7], "FINISHED")


@pytest.mark.timeout(240)
async def test_the_process_is_killed_again_and_again(workshop, others, settings):
    members = await people(workshop, others, 240)
    workshop.contact.delay_seconds = 0.02
    campaign_id = await workshop.launch(ADULTS)
    environment = {f"CONCORD_{name.upper()}": str(value) for name, value in settings.model_dump(exclude_none=True).items()}
    environment |= {"CONCORD_TARGET_CONTACT": workshop.contact.address, "CONCORD_WAVE_PAGE_CUSTOMERS_MAX": "7"}
    environment |= {"CONCORD_NATS_URL": "nats://127.0.0.1:1", "PATH": os.environ["PATH"]}
    chance, kills_count = random.Random(7), 0
    while await workshop.rows("SELECT FROM waves WHERE state = 'PLANNING'"):
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "campaign", "serve", env=environment)
        enough = workshop.contact.calls_count + chance.randrange(6, 14)
        await workshop.until_planned(lambda: workshop.contact.calls_count >= enough)  # noqa: B023 - called at once
        await asyncio.sleep(chance.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        kills_count += 1
        await workshop.execute("UPDATE waves SET claimable_at = clock_timestamp()")  # as if the claim's time were over
    assert kills_count >= 3
    await assert_planned_exactly(workshop, campaign_id, members, 240)
