"""What the tests of contact share: linked customers, permissions, and callers."""

import uuid
from collections.abc import Iterable
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.command_line import ServiceDefinition
from chassis.identity import PrincipalKind
from chassis.ids import new_id
from chassis.testing import Running, received
from concord.campaign.v1.campaign_events_pb2 import TouchPlanned
from concord.common.v1.channel_pb2 import CHANNEL_INBOX
from concord.common.v1.event_pb2 import RecordLink, StateVersion
from concord.contact.v1 import contact_service_pb2 as contacts_pb
from concord.contact.v1 import permission_service_pb2 as permissions_pb
from concord.contact.v1 import reservation_service_pb2 as reservations_pb
from concord.contact.v1.permission_service_pb2_grpc import PermissionServiceStub
from concord.contact.v1.reservation_service_pb2_grpc import ReservationServiceStub
from concord.customer.v1.customer_events_pb2 import CustomerChanged
from contact.wiring import SERVICE

MARKETING, SALES = 1, 2


@pytest.fixture(scope="session")
def service() -> ServiceDefinition:
    return SERVICE


def touch_name(touch_id: str, institution: str = "northbank", campaign: str | None = None) -> str:
    """Of a campaign of its own, unless one is given: a customer is reached once in a wave."""
    return f"institutions/{institution}/campaigns/{campaign or touch_id}/waves/1/touches/{touch_id}"


def reserve_request(items, institution="northbank", purpose=MARKETING, request_id=None, **changes):
    fields: dict[str, Any] = {
        "parent": f"institutions/{institution}",
        "channel": CHANNEL_INBOX,
        "purpose": purpose,
        "contact_message": reservations_pb.ContactMessage(title="A better rate", body="Your savings could earn more."),
        "items": [
            reservations_pb.ReserveItem(touch=touch_name(touch, institution), customer=f"customers/{customer}")
            for touch, customer in items
        ],
        "request_id": request_id or str(uuid.uuid4()),
    }
    return reservations_pb.ReserveContactsRequest(**(fields | changes))


def planned(touch_id: str, customer: str, event_id: str | None = None, institution: str = "northbank", record: str = ""):
    message = TouchPlanned(
        touch_id=touch_id,
        campaign_id=touch_id,
        record_id=record,
        wave=1,
        institution_id=institution,
        customer_id=customer,
        channel=CHANNEL_INBOX,
    )
    return received("concord.campaign.v1.touch.planned", message, event_id=uuid.UUID(event_id or touch_id), aggregate_id=touch_id)


def new_touch() -> str:
    return str(new_id())


def at(instant) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(instant)
    return made


def record_request(customer: str, instant, **changes):
    fields: dict[str, Any] = {
        "parent": f"customers/{customer}",
        "direction": contacts_pb.CONTACT_DIRECTION_OUTBOUND,
        "channel": 7,
        "purpose": MARKETING,
        "contact_time": at(instant),
        "request_id": str(uuid.uuid4()),
    }
    return contacts_pb.RecordContactRequest(**(fields | changes))


class World:
    """A running contact service with customers in it, and short ways to call it."""

    MARKETING, SALES, SERVICE = 1, 2, 3

    def __init__(self, running: Running) -> None:
        self.running = running
        self.application = running.application
        self.database = running.application.database

    async def customers(self, count: int, institutions: Iterable[str] = ("northbank",), permitted: bool = True) -> list[str]:
        """New customers, linked with the institutions; each permits marketing and sales in the inbox to each of them."""
        ids = [str(new_id()) for _ in range(count)]
        for institution in institutions:
            links = [
                RecordLink(
                    record_id=str(new_id()),
                    institution_id=institution,
                    customer_id=customer,
                    state_version=StateVersion(epoch=1, version=1),
                )
                for customer in ids
            ]
            changed = [CustomerChanged(customer_id=link.customer_id, record_links=[link]) for link in links]
            await self.running.deliver(*(received("concord.customer.v1.customer.updated", message) for message in changed))
            if permitted:
                for start in range(0, count, 250):
                    await self.permit(institution, ids[start : start + 250])
        return ids

    async def permit(self, institution: str, customers: Iterable[str], state: int = 1):
        """Every customer says yes, or no, to marketing and sales in the inbox, now."""
        now = Timestamp()
        now.GetCurrentTime()
        request = permissions_pb.BatchSetPermissionsRequest(parent=f"institutions/{institution}", request_id=str(uuid.uuid4()))
        for customer in customers:
            for purpose in (MARKETING, SALES):
                request.permissions.add(
                    customer=f"customers/{customer}", channel=CHANNEL_INBOX, purpose=purpose, state=state, state_time=now
                )
        return await self.stub(PermissionServiceStub, institution).BatchSetPermissions(request, timeout=20)

    def stub(self, stub_class, institution=None, kind=PrincipalKind.CHANNEL, customer=None, client="app"):
        """A stub whose caller may do what its kind may."""
        channel = self.running.channel(
            kind=kind, institution=institution, client=client, customer=customer, scopes=["contact.read", "contact.write"]
        )
        return stub_class(channel)

    @property
    def campaign(self) -> Any:
        """The campaign service, calling for itself."""
        return self.stub(ReservationServiceStub, kind=PrincipalKind.SERVICE, client="campaign")

    async def reserve(self, items, institution="northbank", purpose=MARKETING, request_id=None, stub=None, **changes):
        """Reserves for (touch id, customer id) pairs and returns the results."""
        request = reserve_request(items, institution, purpose, request_id, **changes)
        return (await (stub or self.campaign).ReserveContacts(request, timeout=20)).results

    async def plan(self, touch_id: str, customer: str, event_id: str | None = None, record: str = "") -> None:
        """The campaign service says that a touch is planned."""
        await self.running.deliver(planned(touch_id, customer, event_id, record=record))

    async def row(self, touch_id: str):
        async with self.database.connection() as connection:
            return await connection.fetchrow("SELECT * FROM contacts WHERE contact_id = $1", uuid.UUID(touch_id))

    async def execute(self, statement: str, *arguments: object) -> None:
        async with self.database.connection() as connection:
            await connection.execute(statement, *arguments)

    async def value(self, statement: str, *arguments: object):
        async with self.database.connection() as connection:
            return await connection.fetchval(statement, *arguments)

    touch_name = staticmethod(touch_name)
    reserve_request = staticmethod(reserve_request)
    record_request = staticmethod(record_request)
    planned = staticmethod(planned)
    new_touch = staticmethod(new_touch)
    at = staticmethod(at)


@pytest.fixture
async def world(start) -> World:
    return World(await start())


@pytest.fixture
def make_world() -> type[World]:
    return World
