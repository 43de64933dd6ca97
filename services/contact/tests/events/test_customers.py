"""Links follow the customer master; what was said stays where it was said."""

import uuid

from chassis.testing import received
from concord.common.v1.event_pb2 import RecordLink, StateVersion
from concord.customer.v1.customer_events_pb2 import CustomerChanged, RecordsMoved


def link(record, customer, version, institution="northbank"):
    version = StateVersion(epoch=1, version=version)
    return RecordLink(record_id=record, institution_id=institution, customer_id=customer, state_version=version)


async def linked(world):
    return await world.value("SELECT customer_id::text FROM record_links")


async def test_links_are_followed_and_older_ones_change_nothing(world):
    record, anna, bo = (str(uuid.uuid4()) for _ in range(3))
    moved = RecordsMoved(from_customer_id=anna, to_customer_id=bo, record_links=[link(record, bo, 2)], reason="MERGE")
    await world.running.deliver(received("concord.customer.v1.customer.records_moved", moved))
    late = CustomerChanged(customer_id=anna, record_links=[link(record, anna, 1)])
    await world.running.deliver(received("concord.customer.v1.customer.updated", late))
    assert await linked(world) == bo
    back = RecordsMoved(from_customer_id=bo, to_customer_id=anna, record_links=[link(record, anna, 3)], reason="UNMERGE")
    await world.running.deliver(received("concord.customer.v1.customer.records_moved", back))
    assert await linked(world) == anna
