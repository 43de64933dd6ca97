"""What the tests of campaign share: a contact service that really serves, the events of others, and a planner to step by hand."""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import pytest

from campaign.domain.campaign import Draft
from campaign.domain.evaluator import CelEvaluator
from campaign.events import fold
from campaign.events.planner import Planner
from campaign.store import campaigns, offers
from campaign.wiring import SERVICE
from chassis.channel import channel
from chassis.clock import now
from chassis.command_line import ServiceDefinition
from chassis.database import Database
from chassis.identity import METADATA_KEY, InternalTokens, PrincipalKind
from chassis.ids import new_id
from chassis.testing import received
from chassis.unit_of_work import Commands
from concord.common.v1.channel_pb2 import CHANNEL_INBOX
from concord.common.v1.event_pb2 import RecordLink, StateVersion
from concord.contact.v1 import reservation_service_pb2 as reservations
from concord.contact.v1.contact_events_pb2 import ContactRecorded, PermissionChanged
from concord.contact.v1.contact_service_pb2 import CONTACT_PURPOSE_MARKETING
from concord.contact.v1.permission_service_pb2 import PERMISSION_STATE_DENIED, PERMISSION_STATE_GRANTED
from concord.contact.v1.reservation_service_pb2_grpc import (
    ReservationServiceServicer,
    ReservationServiceStub,
    add_ReservationServiceServicer_to_server,
)
from concord.customer.v1.customer_events_pb2 import CustomerChanged
from concord.loyalty.v1.loyalty_events_pb2 import AccountChanged, PointsPosted
from concord.rating.v1.rating_events_pb2 import DegreeValue, RatingChanged

NORTH = "northbank"
OFFER = f"institutions/{NORTH}/offers/spring"


@pytest.fixture(scope="session")
def service() -> ServiceDefinition:
    return SERVICE


class FakeContact(ReservationServiceServicer):
    """A contact service with an idempotency of its own, as the contract says. `outcomes` says what customers get; else a slot."""

    def __init__(self, tokens: InternalTokens) -> None:
        self.outcomes: dict[str, reservations.ReserveOutcome.ValueType] = {}
        self.slots: dict[str, reservations.ReserveResult] = {}
        self.customers: list[str] = []
        self.requests: dict[str, tuple[bytes, reservations.ReserveContactsResponse]] = {}
        self.calls_count = 0
        self.problems: list[str] = []
        self.delay_seconds = 0.0
        self.port = 0
        self._tokens = tokens
        self._server: grpc.aio.Server | None = None

    async def ReserveContacts(self, request, context):
        self.calls_count += 1
        await asyncio.sleep(self.delay_seconds)
        self._look_at(request, dict(context.invocation_metadata()))
        request_id = request.request_id
        request.ClearField("request_id")
        content = request.SerializeToString(deterministic=True)
        known = self.requests.get(request_id)
        if known is not None:
            if known[0] != content:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_ID_REUSED")
            return known[1]
        response = reservations.ReserveContactsResponse(results=[self._slot(item) for item in request.items])
        self.requests[request_id] = content, response
        return response

    def _slot(self, item):
        if item.touch not in self.slots:
            outcome = self.outcomes.get(item.customer.removeprefix("customers/"), reservations.RESERVE_OUTCOME_RESERVED)
            result = reservations.ReserveResult(touch=item.touch, outcome=outcome)
            if outcome == reservations.RESERVE_OUTCOME_CAPPED:
                result.next_free_time.FromSeconds(2_000_000_000)
            self.slots[item.touch] = result
            self.customers.append(item.customer)
        return self.slots[item.touch]

    def _look_at(self, request, metadata) -> None:
        caller = self._tokens.verify(metadata[METADATA_KEY])
        if caller.kind is not PrincipalKind.SERVICE or caller.client != "campaign":
            self.problems.append(f"called by {caller}")
        if not 0 < len(request.request_id) <= 255:
            self.problems.append(f"request_id of {len(request.request_id)} characters")
        if not 0 < len(request.items) <= 500 or request.purpose != CONTACT_PURPOSE_MARKETING or request.channel != CHANNEL_INBOX:
            self.problems.append("not a request for marketing in the inbox")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> "FakeContact":
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_ReservationServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(self.address)
        await self._server.start()
        return self

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


@pytest.fixture
async def contact(settings):
    fake = await FakeContact(InternalTokens.from_settings("campaign", settings)).start()
    yield fake
    await fake.stop()
    assert fake.problems == []


@dataclass
class Others:
    """Says what the other services would say. Ids come from names, so that a test reads."""

    versions: dict[str, int] = field(default_factory=dict)

    def id(self, name: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, name))

    def version(self, name: str, version: int | None = None) -> StateVersion:
        self.versions[name] = version or self.versions.get(name, 0) + 1
        return StateVersion(epoch=1, version=self.versions[name])

    def link(self, record: str, customer: str, institution: str = NORTH, version: int | None = None) -> RecordLink:
        return RecordLink(
            record_id=self.id(record),
            institution_id=institution,
            customer_id=self.id(customer),
            state_version=self.version(f"link {record}", version),
        )

    def customer(self, customer: str, institutions=(NORTH,), version: int | None = None, **fields):
        message = CustomerChanged(
            customer_id=self.id(customer),
            state_version=self.version(f"customer {customer}", version),
            record_links=[self.link(f"{customer} at {institution}", customer, institution) for institution in institutions],
            **fields,
        )
        return received("concord.customer.v1.customer.updated", message)

    def rating(self, customer: str, scope: str = "alliance", level: int = 0, stage: int = 0, version=None, **degrees):
        message = RatingChanged(
            customer_id=self.id(customer),
            scope=scope,
            state_version=self.version(f"rating {customer} {scope}", version),
            customer_level=level,  # type: ignore[arg-type]
            lifecycle_stage=stage,  # type: ignore[arg-type]
            degrees=[DegreeValue(kind=f"DEGREE_KIND_{name.upper()}", value=value) for name, value in degrees.items()],  # type: ignore[arg-type]
        )
        return received("concord.rating.v1.rating.changed", message)

    def account(self, account: str, customer: str, version: int | None = None):
        message = AccountChanged(
            account_id=self.id(account),
            customer_id=self.id(customer),
            state_version=self.version(f"account {account}", version),
        )
        return received("concord.loyalty.v1.account.changed", message)

    def points(self, account: str, program: str, balance: int, version: int | None = None):
        message = PointsPosted(
            operation_id=str(new_id()),
            account_id=self.id(account),
            program_id=program,
            balance_points=balance,
            state_version=self.version(f"points {account} {program}", version),
        )
        return received("concord.loyalty.v1.points.posted", message, event_id=uuid.UUID(message.operation_id))

    def permission(self, customer: str, granted: bool = True, institution: str = NORTH, version: int | None = None):
        record = self.id(f"{customer} at {institution}")
        message = PermissionChanged(
            customer_id=self.id(customer),
            record_id=record,
            covered_record_ids=[record],
            institution_id=institution,
            channel=CHANNEL_INBOX,
            purpose=CONTACT_PURPOSE_MARKETING,
            state=PERMISSION_STATE_GRANTED if granted else PERMISSION_STATE_DENIED,
            state_version=self.version(f"permission {customer} {institution}", version),
        )
        return received("concord.contact.v1.permission.changed", message)

    def contacted(self, touch_id: str, state: str, version: int | None = None):
        message = ContactRecorded(
            contact_id=touch_id,
            touch_id=touch_id,
            state=f"CONTACT_STATE_{state}",  # type: ignore[arg-type]
            state_version=self.version(f"contact {touch_id}", version),
        )
        return received("concord.contact.v1.contact.recorded", message)


@pytest.fixture
def others() -> Others:
    return Others()


HANDLERS = {subscription.stream: subscription.handler for subscription in fold.SUBSCRIPTIONS}


@dataclass
class Workshop:
    """The service without its server: a database, folds, campaigns, and planners that a test steps by hand."""

    database: Database
    contact: FakeContact
    tokens: InternalTokens
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def fold(self, *events) -> None:
        """Applies events, one batch a stream, in the order given."""
        for stream, handler in HANDLERS.items():
            batch = [event for event in events if event.type.split(".")[1] == stream]
            if batch:
                async with Commands(self.database).unit() as unit:
                    await handler(unit, batch)

    def planner(self, page: int = 1000, claim_seconds: float = 30.0) -> Planner:
        self.channels.append(channel(self.contact.address, self.tokens))
        stub = ReservationServiceStub(self.channels[-1])
        return Planner(Commands(self.database), CelEvaluator(), stub, page, claim_seconds)

    async def launch(self, rule=()) -> uuid.UUID:
        """A campaign of northbank, launched."""
        async with self.database.transaction() as connection:
            if await offers.get(connection, NORTH, "spring") is None:
                await offers.insert(connection, NORTH, "spring", "Spring", "More for your savings", "From May on.", now())
            campaign_id = new_id()
            await campaigns.insert(connection, campaign_id, NORTH, Draft("Spring", OFFER, "INBOX", rule), now())
            await campaigns.launch(connection, campaign_id, now())
        return campaign_id

    async def until_planned(self, enough: Callable[[], bool]) -> None:
        """Waits until no wave is being planned, or it is enough; a minute at most."""
        async with asyncio.timeout(60):
            while not enough() and await self.rows("SELECT FROM waves WHERE state = 'PLANNING'"):  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def rows(self, statement: str, *arguments):
        async with self.database.connection() as connection:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]

    async def execute(self, statement: str, *arguments) -> None:
        async with self.database.connection() as connection:
            await connection.execute(statement, *arguments)


@pytest.fixture
async def workshop(database, contact, settings):
    made = Workshop(database, contact, InternalTokens.from_settings("campaign", settings))
    yield made
    for opened in made.channels:
        await opened.close()


@pytest.fixture
async def running(start, contact):
    return await start(target_contact=contact.address)
