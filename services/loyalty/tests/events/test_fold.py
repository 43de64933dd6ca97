import asyncio
import uuid
from datetime import UTC, datetime

import pytest

from chassis.consumer import Consumer
from chassis.ids import new_id
from chassis.testing import received
from concord.common.v1.event_pb2 import RecordLink, StateVersion
from concord.customer.v1.customer_events_pb2 import InstitutionChanged, RecordsMoved
from concord.loyalty.v1.account_service_pb2 import OPERATION_KIND_CLAWBACK, OPERATION_KIND_EARN
from concord.loyalty.v1.loyalty_events_pb2 import PointsPosted


async def operations(alliance) -> list[tuple[object, ...]]:
    async with alliance.running.application.database.connection() as connection:
        rows = await connection.fetch(
            "SELECT kind, outcome, amount_points, balance_points, shortfall_points FROM operations ORDER BY sequence"
        )
    return [tuple(row) for row in rows]


async def test_a_transaction_earns_by_rule_and_is_told(alliance):
    customer, account = await alliance.member()
    activity_id = new_id()
    await alliance.running.deliver(alliance.spending(customer, -12_399, activity_id=activity_id))
    assert await alliance.balance(account) == 123
    (event,) = await alliance.running.events("concord.loyalty.v1.points.posted")
    message = event.message(PointsPosted)
    assert (message.kind, message.amount_points, message.balance_points) == (OPERATION_KIND_EARN, 123, 123)
    assert (message.activity_id, message.program_id, message.institution_id) == (str(activity_id), "bank-points", "bank")
    assert message.effective_time_seconds == int(datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp())
    assert await alliance.broken() == set()


async def test_what_earns_nothing(alliance):
    customer, account = await alliance.member()
    stranger = await alliance.customer("bank")  # has no account
    unlinked = await alliance.customer("bank", "broker")
    await alliance.account(unlinked, "broker")
    await alliance.running.deliver(
        alliance.spending(customer, 5000),  # received, not spent
        alliance.spending(customer, -99),  # rounds down to nothing
        alliance.spending(customer, -5000, currency_code="EUR"),
        alliance.spending(customer, -5000, occurred_at=datetime(2025, 12, 31, tzinfo=UTC)),  # before the rule
        alliance.closing_balance(customer, -5000),
        alliance.spending(stranger, -5000),
        alliance.spending(unlinked, -5000, institution="bank"),
        alliance.spending(unlinked, -5000, institution="broker"),  # no programme there
    )
    assert await operations(alliance) == []
    assert await alliance.balance(account) == 0


async def test_the_same_activity_earns_once(alliance):
    customer, account = await alliance.member()
    activity_id = new_id()
    event = alliance.spending(customer, -5000, activity_id=activity_id)
    await alliance.running.deliver(event, event)
    await alliance.running.deliver(event)
    # As after a rebuild, which forgets the inbox: another event id, the same activity.
    await alliance.running.deliver(received(event.type, event.message))
    assert await operations(alliance) == [("EARN", "POSTED", 50, 50, 0)]
    assert await alliance.balance(account) == 50


async def test_a_republication_does_not_earn_for_what_came_before_the_account(alliance):
    customer = await alliance.customer("bank")
    event = alliance.spending(customer, -5000)
    await alliance.running.deliver(event)
    account = await alliance.account(customer, "bank")
    await alliance.running.deliver(received(event.type, event.message))
    assert await alliance.balance(account) == 0


async def test_the_best_rule_of_each_programme_earns(alliance):
    customer, account = await alliance.member()
    await alliance.rule("bank-points", "groceries", categories=["grocery"])
    double = await alliance.rule("bank-points", "groceries", categories=["grocery"], amount_minor_units_min=1000)
    assert double.name == "programs/bank-points/earnRules/groceries/versions/2"
    await alliance.program("bank-miles", "bank")
    await alliance.rule("bank-miles", "everything")
    await alliance.running.deliver(alliance.spending(customer, -5_000_000))
    assert (await alliance.balance(account), await alliance.balance(account, "bank-miles")) == (10_000, 10_000)  # points_max
    async with alliance.running.application.database.connection() as connection:
        rules = await connection.fetch("SELECT program_id, rule FROM operations ORDER BY program_id")
    assert [tuple(row) for row in rules] == [
        ("bank-miles", "everything/versions/1"), ("bank-points", "everything/versions/1"),
    ]  # fmt: skip
    assert await alliance.broken() == set()


async def test_a_reversal_takes_back_once(alliance):
    customer, account = await alliance.member(30)
    activity_id = new_id()
    await alliance.running.deliver(alliance.spending(customer, -5000, activity_id=activity_id))
    await alliance.running.deliver(alliance.reversal(customer, activity_id), alliance.reversal(customer, activity_id))
    await alliance.running.deliver(alliance.reversal(customer, activity_id))
    assert await alliance.balance(account) == 30
    assert (await operations(alliance))[1:] == [("EARN", "POSTED", 50, 80, 0), ("CLAWBACK", "POSTED", 50, 30, 0)]
    events = await alliance.running.events("concord.loyalty.v1.points.posted")
    message = events[-1].message(PointsPosted)
    assert (message.kind, message.amount_points, message.activity_id) == (OPERATION_KIND_CLAWBACK, -50, str(activity_id))
    assert await alliance.broken() == set()


@pytest.mark.parametrize("together", [True, False])
async def test_a_reversal_that_comes_first_leaves_nothing_to_earn(alliance, together):
    customer, account = await alliance.member()
    activity_id = new_id()
    events = [alliance.reversal(customer, activity_id), alliance.spending(customer, -5000, activity_id=activity_id)]
    for batch in [events] if together else [[event] for event in events]:
        await alliance.running.deliver(*batch)
    assert await operations(alliance) == []
    assert await alliance.balance(account) == 0


async def test_earned_and_reversed_in_one_batch(alliance):
    customer, _ = await alliance.member()
    activity_id = new_id()
    await alliance.running.deliver(
        alliance.spending(customer, -5000, activity_id=activity_id), alliance.reversal(customer, activity_id)
    )
    assert await operations(alliance) == [("EARN", "POSTED", 50, 50, 0), ("CLAWBACK", "POSTED", 50, 0, 0)]
    assert await alliance.broken() == set()


@pytest.mark.parametrize(
    ("spent", "expected"), [(30, ("CLAWBACK", "POSTED", 50, 0, 30)), (50, ("CLAWBACK", "POSTED", 50, 0, 50))]
)
async def test_what_a_reversal_finds_spent_is_a_debt_that_the_next_earnings_pay(alliance, spent, expected):
    customer, account = await alliance.member()
    activity_id = new_id()
    await alliance.running.deliver(alliance.spending(customer, -5000, activity_id=activity_id))
    await alliance.ledger().RedeemPoints(alliance.redemption(account, spent))
    await alliance.running.deliver(alliance.reversal(customer, activity_id))
    assert (await operations(alliance))[-1] == expected
    assert await alliance.balance(account) == 0
    await alliance.running.deliver(alliance.spending(customer, -6000))
    assert await alliance.balance(account) == 60 - spent
    assert await alliance.broken() == set()


async def test_two_consumers_at_once_earn_once(alliance, start):
    members = [await alliance.member(5) for _ in range(5)]
    other = await start()
    events = [alliance.spending(customer, -1000 - i) for i in range(40) for customer, _ in members]
    shuffled = sorted(events, key=lambda event: event.event_id.hex[::-1])

    def consume(running, batch):
        subscription = running.application.consumers[0]
        return Consumer("loyalty", subscription, running.application.commands).apply(batch)

    redemptions = [alliance.ledger().RedeemPoints(alliance.redemption(account, 1)) for _, account in members for _ in range(5)]
    await asyncio.gather(
        *(consume(alliance.running, events[i : i + 25]) for i in range(0, 200, 25)),
        *(consume(other, shuffled[i : i + 25]) for i in range(0, 200, 25)),
        *redemptions,
        return_exceptions=False,
    )
    assert [await alliance.balance(account) for _, account in members] == [400] * 5
    assert await alliance.broken() == set()


async def test_records_that_moved_earn_for_their_new_customer(alliance):
    left, left_account = await alliance.member()
    joined, joined_account = await alliance.member()
    link = RecordLink()
    link.CopyFrom(left.links["bank"])
    link.customer_id = str(joined.customer_id)
    link.state_version.CopyFrom(StateVersion(epoch=1, version=2))
    await alliance.running.deliver(
        received("concord.customer.v1.customer.records_moved", RecordsMoved(record_links=[link], reason="MERGE")),
        alliance.spending(left, -5000),  # told with the link of before
    )
    assert (await alliance.balance(left_account), await alliance.balance(joined_account)) == (0, 50)


async def test_older_states_of_an_institution_are_ignored(alliance):
    for version in (5, 3):
        message = InstitutionChanged(institution_id="insurer", state_version=StateVersion(epoch=1, version=version))
        await alliance.running.deliver(received("concord.customer.v1.institution.changed", message))
    async with alliance.running.application.database.connection() as connection:
        assert await connection.fetchval("SELECT version FROM institutions WHERE institution_id = 'insurer'") == 5


async def test_an_activity_without_a_record_is_a_fault_and_keeps_nothing(alliance):
    customer, account = await alliance.member()
    broken = alliance.spending(customer, -5000)
    broken.message.record_link.record_id = "not an id"
    with pytest.raises(ValueError, match="badly formed"):
        await alliance.running.deliver(alliance.spending(customer, -100, activity_id=uuid.uuid4()), broken)
    assert await alliance.balance(account) == 0
