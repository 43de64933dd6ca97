import asyncio

import nats

from concord.loyalty.v1.loyalty_events_pb2 import PointsPosted


async def test_from_the_customer_service_to_who_listens(start, alliance, nats_server):
    """Through a real JetStream: an activity comes in, the points that it earned go out."""
    customer, account = await alliance.member()
    await start(nats=True)
    client = await nats.connect(nats_server.url())
    jetstream = client.jetstream()
    event = alliance.spending(customer, -5000)
    headers = {
        "ce-id": str(event.event_id), "ce-type": event.type, "ce-subject": str(event.event_id),
        "ce-time": event.occurred_at.isoformat(), "Nats-Msg-Id": "1",
    }  # fmt: skip
    for _ in range(100):  # until the service has made its streams
        try:
            await jetstream.publish(event.type, event.message.SerializeToString(), headers=headers, timeout=1)
            break
        except nats.js.errors.Error:
            await asyncio.sleep(0.1)
    listener = await jetstream.subscribe("concord.loyalty.v1.points.posted", stream="LOYALTY", ordered_consumer=True)
    message = await listener.next_msg(10)
    posted = PointsPosted.FromString(message.data)
    assert (posted.customer_id, posted.amount_points) == (str(customer.customer_id), 50)
    assert (message.headers or {})["ce-id"] == posted.operation_id
    assert await alliance.balance(account) == 50
    await client.close()
