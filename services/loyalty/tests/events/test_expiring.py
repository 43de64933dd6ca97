"""Points that are about to end are told of once."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from chassis.clock import now
from chassis.unit_of_work import Commands
from concord.loyalty.v1 import ledger_service_pb2 as pb
from concord.loyalty.v1.loyalty_events_pb2 import PointsExpiring
from loyalty.expiring import ExpiryNotices

SCOPES = ["points.read", "points.write", "points.redeem", "points.issue"]
PROGRAM = "programs/bank-points"


class Clock:
    def __init__(self) -> None:
        self.instant = now()

    def __call__(self) -> datetime:
        return self.instant


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def notices(alliance, clock):
    """Looks for two lots at a time."""
    return ExpiryNotices(Commands(alliance.running.application.database, clock=clock), (30, 7), lots_max=2)


async def earn(alliance, account, points, end):
    request = pb.EarnPointsRequest(
        name=account, program=PROGRAM, amount_points=points, institution="institutions/bank", request_id=alliance.request_id(),
        expire_time=end,
    )  # fmt: skip
    return await alliance.ledger(scopes=SCOPES).EarnPoints(request)


async def told(alliance):
    events = await alliance.running.events("concord.loyalty.v1.points.expiring")
    return [(m.account_id, m.expire_date, m.points, m.days_before) for e in events if (m := e.message(PointsExpiring))]


async def test_each_lot_is_told_of_once_at_each_mark_with_all_of_its_day(alliance, notices, clock):
    (_, first), (_, second) = await alliance.member(), await alliance.member()
    noon = now().astimezone(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    day, later = noon + timedelta(days=20), noon + timedelta(days=60)
    for points, hours in ((1, 0), (2, 3), (4, -3), (8, 5)):
        await earn(alliance, first, points, day + timedelta(hours=hours))
    await earn(alliance, second, 16, day)
    await earn(alliance, second, 32, later)
    await earn(alliance, second, 64, None)
    a, b = (account.removeprefix("accounts/") for account in (first, second))
    on, after = day.date().isoformat(), later.date().isoformat()
    assert await notices.step() == 2
    assert sorted(await told(alliance)) == sorted([(a, on, 15, 30), (b, on, 16, 30)])
    assert await notices.step() == 0, "once"
    await earn(alliance, first, 100, day)
    assert await notices.step() == 1
    assert (await told(alliance))[-1] == (a, on, 100, 30), "what came later is told of by itself"
    await alliance.ledger().RedeemPoints(alliance.redemption(second, 6))
    clock.instant = day - timedelta(days=6)
    assert await notices.step() == 2
    assert sorted((await told(alliance))[-2:]) == sorted([(a, on, 115, 7), (b, on, 10, 7)])
    clock.instant = later - timedelta(days=3)
    await notices.step()
    assert (await told(alliance))[-2:] == [(b, after, 32, 7), (b, after, 32, 30)]
    async with alliance.running.application.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM expiry_notices") == 2, "what has ended is forgotten"


async def test_two_that_tell_at_once_tell_of_different_lots(alliance, notices, clock):
    _, account = await alliance.member()
    for points in range(1, 8):
        await earn(alliance, account, points, now() + timedelta(days=points))
    others = [ExpiryNotices(Commands(alliance.running.application.database, clock=clock), (30,), lots_max=3) for _ in range(3)]
    await asyncio.gather(*(other.step() for other in others))
    assert sum(points for _, _, points, _ in await told(alliance)) == 28
