from chassis import republish
from concord.loyalty.v1.loyalty_events_pb2 import AccountChanged, PointsPosted
from loyalty.events.republish import account_pages, points_pages
from loyalty.wiring import SERVICE


async def everything(database, pages, limit):
    events, cursor = [], ""
    while cursor is not None:
        async with database.connection() as connection:
            page, cursor = await pages(connection, cursor, limit)
        assert len(page) <= limit
        events += page
    return events


async def test_what_is_said_again_is_what_was_said(alliance):
    members = [await alliance.member(points) for points in (10, 20, 30)]
    for _, account in members:
        await alliance.ledger().RedeemPoints(alliance.redemption(account, 5))
    database = alliance.running.application.database
    said = await alliance.running.events("concord.loyalty.v1.points.posted")
    again = await everything(database, points_pages, 2)
    assert [(event.event_id, event.message) for event in again] == [(e.event_id, e.message(PointsPosted)) for e in said]
    accounts = await everything(database, account_pages, 2)
    said = await alliance.running.events("concord.loyalty.v1.account.changed")
    assert sorted(e.message.SerializeToString() for e in accounts) == sorted(e.payload for e in said)
    assert {len(e.message(AccountChanged).institution_ids) for e in said} == {1}


async def test_a_rebuild_leaves_the_ledger_alone(alliance):
    customer, account = await alliance.member()
    event = alliance.spending(customer, -1000)
    await alliance.running.deliver(event)
    database = alliance.running.application.database
    consumers = [subscription.consumer for subscription in alliance.running.application.consumers]
    await republish.rebuild(database, SERVICE.projections, consumers)
    async with database.connection() as connection:
        counts = [
            await connection.fetchval(f"SELECT count(*) FROM {t}")
            for t in ("record_links", "institutions", "operations", "accounts")
        ]
    assert counts == [0, 0, 1, 1]
    # The owner says everything again: the same activity, forgotten by the inbox, earns nothing twice.
    await alliance.running.deliver(event)
    assert await alliance.balance(account) == 10
    await alliance.running.deliver(alliance.spending(customer, -100))
    assert await alliance.balance(account) == 11
    assert await alliance.broken() == set()
