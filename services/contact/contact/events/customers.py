"""Customers are known here by their record links only."""

from chassis import record_links
from chassis.consumer import ReceivedEvent
from chassis.unit_of_work import UnitOfWork
from concord.customer.v1.customer_events_pb2 import CustomerChanged, RecordsMoved

TYPES = {
    "concord.customer.v1.customer.updated": CustomerChanged,
    "concord.customer.v1.customer.records_moved": RecordsMoved,
}


async def fold_customers(unit: UnitOfWork, events: list[ReceivedEvent]) -> None:
    """Follows the links. Contacts and permissions stay with the customer they were made for."""
    await record_links.fold(unit.connection, [link for event in events for link in event.message.record_links])
