"""The owner says again what its tables hold: the newest state of everything, every page, nothing that nobody may know."""

from chassis import republish
from concord.contact.v1.contact_events_pb2 import ContactRecorded, PermissionChanged
from contact.wiring import SERVICE

RECORDED, PERMISSION = "concord.contact.v1.contact.recorded", "concord.contact.v1.permission.changed"


async def test_everything_is_said_again_to_the_one_who_asked(world, monkeypatch):
    monkeypatch.setattr(republish, "PAGE_EVENTS_MAX", 7)
    customers = await world.customers(20)
    pairs = [(world.new_touch(), customer) for customer in customers]
    await world.reserve(pairs)
    await world.running.deliver(*(world.planned(*pair) for pair in pairs[:14]))
    count = await republish.republish(world.database, SERVICE.republishers, "campaign")
    assert count == 14 + 40  # reservations that hang are not said; two permissions of each customer are
    again = [event for event in await world.running.events() if event.target == "campaign"]
    first = [event for event in await world.running.events() if event.target is None]
    for event_type, message_class in ((RECORDED, ContactRecorded), (PERMISSION, PermissionChanged)):
        said, before = (
            {event.aggregate_id: event.message(message_class) for event in events if event.type == event_type}
            for events in (again, first)
        )
        assert said == before
        assert said
