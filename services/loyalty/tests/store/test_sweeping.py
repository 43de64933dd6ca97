"""What time does: ends of holds, activations, ends of lots, by any number of replicas at once."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from chassis.ids import new_id
from chassis.unit_of_work import Commands
from loyalty.domain.ledger import commands as c
from loyalty.domain.ledger.types import OperationKind, RequestKey
from loyalty.store import posting
from loyalty.sweeping import Sweeper

EARN, REDEEM = OperationKind.EARN, OperationKind.REDEEM
START = datetime(2026, 5, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def post(ledger, clock):
    """Posts in the time that the clock tells."""

    async def posted(*asked):
        async with Commands(ledger.database, clock=clock).unit() as unit:
            return await posting.post(unit, asked)

    return posted


def about(kind, **fields):
    key = RequestKey("bank/app", str(new_id()))
    return kind(operation_id=new_id(), key=key, account_id=None, institution_id="bank", effective_time=START, **fields)


async def test_holds_end_promises_come_true_and_lots_end_when_their_time_comes(ledger, clock, post):
    ana, bob, _ = ledger.members
    sweeper = Sweeper(Commands(ledger.database, clock=clock), lots_max=2)
    day = timedelta(days=1)
    await post(
        *(ledger.order(EARN, member, 100, f"ends-{member}", expire_time=START + 2 * day) for member in ledger.members),
        *(ledger.order(EARN, ana, 10, f"promise-{i}", pending=True, active_time=START + day) for i in range(3)),
        ledger.order(EARN, bob, 7, "stays"),
    )
    (held,) = await post(
        c.Hold(
            operation_id=new_id(), key=RequestKey("bank/app", "hold"), account_id=ana, institution_id="shop",
            effective_time=START, program_id="p", amount_points=60, expire_time=START + timedelta(hours=1),
        )
    )  # fmt: skip
    assert await sweeper.sweep() == {"holds": 0, "activations": 0, "expiries": 0}
    clock.now += timedelta(hours=1)
    assert await sweeper.sweep() == {"holds": 1, "activations": 0, "expiries": 0}
    (late,) = await post(about(c.Capture, hold_id=held.operation_id))
    assert late.outcome == "HOLD_EXPIRED"
    clock.now = START + day
    assert await sweeper.sweep() == {"holds": 0, "activations": 3, "expiries": 0}
    clock.now = START + 2 * day
    (refused,) = await post(ledger.order(REDEEM, bob, 50, "too-late"))
    assert (refused.outcome, refused.balance_points) == ("POINTS_EXPIRED", 7)
    assert await sweeper.sweep() == {"holds": 0, "activations": 0, "expiries": 3}
    assert await sweeper.sweep() == {"holds": 0, "activations": 0, "expiries": 0}
    balances = await ledger.fetchval("SELECT array_agg(balance_points ORDER BY owner) FROM ledger_accounts WHERE kind = 'MEMBER'")
    assert balances == [30, 7, 0]
    kinds = await ledger.fetchval("SELECT array_agg(kind ORDER BY sequence) FROM operations WHERE system_key IS NOT NULL")
    assert kinds == ["HOLD_EXPIRE", "CONFIRM", "CONFIRM", "EXPIRE", "EXPIRE"]
    assert await ledger.broken() == {}


async def test_replicas_that_sweep_at_once_end_each_lot_once_while_redemptions_go_on(ledger, clock, post):
    end = START + timedelta(days=1)
    for number in range(4):
        await post(
            *(
                ledger.order(EARN, member, 10, f"{number}-{i}-{member}", expire_time=end)
                for i in range(40)
                for member in ledger.members
            )
        )
    await post(*(ledger.order(EARN, member, 500, f"stays-{member}") for member in ledger.members))
    clock.now = end
    sweepers = [Sweeper(Commands(ledger.database, clock=clock), lots_max=50) for _ in range(3)]
    swept, redeemed = await asyncio.gather(
        asyncio.gather(*(sweeper.sweep() for sweeper in sweepers)),
        asyncio.gather(*(post(ledger.order(REDEEM, ledger.members[i % 3], 5, f"r-{i}")) for i in range(30))),
    )
    assert sum(each["expiries"] for each in swept) == 480
    assert {result.outcome for (result,) in redeemed} == {"POSTED"}
    assert await ledger.fetchval("SELECT sum(balance_points) FROM ledger_accounts WHERE kind = 'MEMBER'") == 3 * 500 - 150
    assert await ledger.broken() == {}
