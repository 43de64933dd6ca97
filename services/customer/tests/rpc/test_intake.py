"""Holdings and activities."""

import asyncio
from typing import Any

import pytest
from grpc.aio import AioRpcError

from chassis.republish import republish
from chassis.testing import reason
from concord.customer.v1 import customer_events_pb2 as events_pb
from concord.customer.v1 import intake_service_pb2 as pb
from customer.events.republish import REPUBLISHERS

ACTIVITY = "concord.customer.v1.activity.recorded"
HOLDING = "concord.customer.v1.holding.changed"


def holding(master, key="h1", day=0, **changes):
    fields: dict[str, Any] = {
        "kind": 1,
        "product_code": "classic",
        "open_date": "1996-02-29",
        "holders": [{"source_record_key": "k1", "role": 1}],
    }
    return pb.SourceHolding(source_holding_key=key, observe_time=master.at(day), **fields | changes)


async def upsert(master, *holdings, parent=None):
    parent = parent or master.core
    request = pb.BatchUpsertHoldingsRequest(parent=parent, source_holdings=holdings, request_id=master.request_id())
    return (await master.intake(parent.split("/")[1]).BatchUpsertHoldings(request)).results


def activity(master, key, record="k1", minor_units=100, **changes):
    detail: Any = {"occurred_at": master.at(0), "transaction": {"amount": {"currency_code": "CZK", "minor_units": minor_units}}}
    detail |= changes.pop("detail", {})
    return pb.SourceActivity(
        source_system=changes.pop("source_system", master.core),
        source_activity_key=key, source_record_key=record, detail=detail, **changes,
    )  # fmt: skip


async def record(master, *activities, institution="bank", **caller):
    request = pb.RecordActivitiesRequest(activities=activities, request_id=master.request_id())
    return (await master.intake(institution, **caller).RecordActivities(request)).results


async def test_holdings_are_created_updated_unchanged_stale(master):
    one, two = await master.ingest("k1", name="Jan"), await master.ingest("k2", name="Eva")
    amount = {"currency_code": "CZK", "minor_units": 5_000}
    holders = [{"source_record_key": "k1", "role": 1}, {"source_record_key": "k2", "role": 2}]
    newer = holding(master, day=1, amount=amount, holders=holders)
    results = await upsert(master, holding(master), holding(master), newer, holding(master, day=-1, kind=2))
    assert [result.outcome for result in results] == [1, 3, 2, 4]
    assert len({result.holding_id for result in results}) == 1
    (event,) = await master.running.events(HOLDING)
    state = event.message(events_pb.HoldingChanged)
    assert (state.state_version.version, state.amount.minor_units, state.institution_id) == (2, 5_000, "bank")
    assert {f"customers/{holder.record_link.customer_id}" for holder in state.holders} == {one.customer, two.customer}
    (again,) = await upsert(master, newer)
    assert again.outcome == pb.INGEST_OUTCOME_UNCHANGED
    assert len(await master.running.events(HOLDING)) == 1


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"holders": [{"source_record_key": "zz", "role": 1}]}, "holders[0].source_record_key", "RECORD_UNKNOWN"),
        ({"amount": {"currency_code": "XXY", "minor_units": 1}}, "amount.currency_code", "CURRENCY_UNKNOWN"),
        ({"holders": [{"source_record_key": "k1", "role": 1}] * 2}, "holders[1].source_record_key", "HOLDER_DUPLICATE"),
        ({"open_date": "1997-02-29"}, "open_date", "DATE_INVALID"),
        ({"close_date": "1995-01-01"}, "close_date", "CLOSE_BEFORE_OPEN"),
        ({"day": 40_000}, "observe_time", "TIME_OUT_OF_RANGE"),
    ],
)
async def test_a_wrong_holding_is_rejected_alone(master, changes, field, expected):
    await master.ingest("k1", name="Jan")
    wrong, right = await upsert(master, holding(master, "h1", **changes), holding(master, "h2"))
    assert (wrong.outcome, wrong.error.field, wrong.error.reason) == (pb.INGEST_OUTCOME_REJECTED, field, expected)
    assert right.outcome == pb.INGEST_OUTCOME_CREATED


async def test_activities_are_recorded_once(master):
    mine = await master.ingest("k1", name="Jan")
    await upsert(master, holding(master))
    results = await record(
        master,
        activity(master, "a1", source_holding_key="h1"),
        activity(master, "a1", source_holding_key="h1"),
        activity(master, "a1", minor_units=101),
        activity(master, "a2", record="nobody"),
        activity(master, "a3", source_holding_key="nothing"),
        activity(master, "a4", detail={"occurred_at": master.at(40_000)}),
        activity(master, "a5"),
    )
    assert [result.outcome for result in results] == [1, 3, 5, 5, 5, 5, 1]
    assert [result.error.reason for result in results] == [
        "", "", "ACTIVITY_CONFLICT", "RECORD_UNKNOWN", "HOLDING_UNKNOWN", "TIME_OUT_OF_RANGE", "",
    ]  # fmt: skip
    again = await record(master, activity(master, "a1", source_holding_key="h1"), activity(master, "a5", minor_units=7))
    assert [result.outcome for result in again] == [3, 5]
    events = await master.running.events(ACTIVITY)
    assert [str(event.event_id) for event in events] == [results[0].activity_id, results[6].activity_id]
    fact = events[0].message(events_pb.ActivityRecorded)
    assert f"customers/{fact.record_link.customer_id}" == mine.customer
    assert (fact.source_system_id, bool(fact.holding_id), fact.detail.transaction.amount.minor_units) == ("core", True, 100)


async def test_a_negative_fee_is_rejected(master):
    await master.ingest("k1", name="Jan")
    wrong = activity(master, "a1")
    wrong.detail.transaction.fee.minor_units, wrong.detail.transaction.fee.currency_code = -1, "CZK"
    (result,) = await record(master, wrong)
    assert (result.outcome, result.error.reason) == (pb.INGEST_OUTCOME_REJECTED, "FEE_NEGATIVE")


async def test_a_reversal_names_its_activity_before_that_arrives(master):
    await master.ingest("k1", name="Jan")
    reversal: Any = {"occurred_at": master.at(0), "reversal": {"source_activity_key": "later"}}
    takes_back = pb.SourceActivity(source_system=master.core, source_activity_key="r", source_record_key="k1", detail=reversal)
    await record(master, takes_back)
    (later,) = await record(master, activity(master, "later"))
    first, _ = await master.running.events(ACTIVITY)
    assert first.message(events_pb.ActivityRecorded).reversed_activity_id == later.activity_id


async def test_concurrent_batches_record_each_activity_once(master, start):
    replica = type(master)(await start())
    await master.ingest("k1", name="Jan")
    batches = [[activity(master, f"a{(i * 7 + j) % 100}") for j in range(50)] for i in range(16)]
    answers = await asyncio.gather(*(record((master, replica)[i % 2], *batch) for i, batch in enumerate(batches)))
    outcomes = [result.outcome for answer in answers for result in answer]
    assert sorted(set(outcomes)) == [1, 3]
    events = await master.running.events(ACTIVITY)
    assert outcomes.count(1) == len(events) == len({event.event_id for event in events})


async def test_another_institutions_source_system_refuses_the_whole_call(master):
    await master.ingest("k1", name="Jan")
    await master.ingest("p1", master.policies, name="Eva")
    foreign = activity(master, "x", record="p1", source_system=master.policies)
    with pytest.raises(AioRpcError) as refused:
        await record(master, activity(master, "a"), foreign)
    assert reason(refused.value) == "INSTITUTION_NOT_FOUND"
    assert await master.running.events(ACTIVITY) == []
    results = await record(master, activity(master, "a"), foreign, **master.operator)
    assert [result.outcome for result in results] == [1, 1]


async def test_a_caller_bound_to_a_customer_records_its_activities_only(master):
    mine = await master.ingest("k1", name="Jan")
    await master.ingest("k2", name="Eva")
    bound = mine.customer.removeprefix("customers/")
    results = await record(master, activity(master, "a1"), activity(master, "a2", record="k2"), customer=bound)
    assert [result.error.reason for result in results] == ["", "RECORD_UNKNOWN"]


async def test_everything_can_be_said_again(master):
    await master.ingest("k1", name="Jan", national_id="7103192745")
    await master.ingest("k1b", name="Jan", national_id="7103192745")
    await upsert(master, holding(master))
    await record(master, activity(master, "a1", source_holding_key="h1"))
    before = await master.running.events()
    application = master.running.application
    await republish(application.database, [*REPUBLISHERS, *application.republishers], "rating")
    again = [event for event in await master.running.events() if event.target == "rating"]
    assert sorted(event.type.removeprefix("concord.customer.v1.") for event in again) == [
        "activity.recorded", "customer.updated", "holding.changed", "institution.changed", "institution.changed",
        "quality.changed",
    ]  # fmt: skip
    last = {(event.type, event.aggregate_id): event for event in before}
    for event in again:
        assert event.payload == last[event.type, event.aggregate_id].payload
        if event.type == ACTIVITY:
            assert event.event_id == last[event.type, event.aggregate_id].event_id
