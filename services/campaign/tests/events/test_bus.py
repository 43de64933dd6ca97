"""Through the real bus: what others publish is folded, and what campaign says goes out."""

import asyncio

from chassis import bus
from concord.campaign.v1.campaign_events_pb2 import TouchPlanned


async def publish(connected, event) -> None:
    await connected.jetstream.publish(
        event.type,
        event.message.SerializeToString(),
        headers={
            "Nats-Msg-Id": str(event.event_id),
            "ce-id": str(event.event_id),
            "ce-type": event.type,
            "ce-subject": "x",
            "ce-time": event.occurred_at.isoformat(),
        },
    )


async def test_events_come_in_and_touches_go_out(start, workshop, others, settings, nats_server):
    running = await start(nats=True, target_contact=workshop.contact.address)
    connected = await bus.connect(running.application.settings, "tests")
    for owner in ("customer", "rating", "loyalty", "contact"):
        await connected.ensure_stream(owner)
    try:
        for event in (
            others.customer("ann", birth_year=1980),
            others.rating("ann", level=3),
            others.account("a1", "ann"),
            others.points("a1", "miles", 5),
            others.permission("ann"),
        ):
            await publish(connected, event)
        await _until(workshop, "SELECT FROM record_links, profile_ratings, profile_points, loyalty_accounts, permissions")
        campaign_id = await workshop.launch()
        rows = await _until(workshop, "SELECT touch_id FROM touches")
        pull = await connected.jetstream.pull_subscribe("concord.campaign.v1.touch.planned", stream="CAMPAIGN")
        (message,) = await pull.fetch(1, timeout=15)
        said = TouchPlanned.FromString(message.data)
        assert (said.touch_id, said.campaign_id) == (str(rows[0]["touch_id"]), str(campaign_id))
        assert (message.headers or {})["ce-id"] == said.touch_id
        await publish(connected, others.contacted(said.touch_id, "DELIVERED"))
        await _until(workshop, "SELECT FROM campaigns WHERE state = 'FINISHED'")
    finally:
        await connected.client.close()


async def _until(workshop, statement: str):
    async with asyncio.timeout(20):
        while not (rows := await workshop.rows(statement)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return rows
