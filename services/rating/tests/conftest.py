"""The service under test, and the customer master's events as a test needs them."""

import asyncio
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

import grpc
import pytest

from chassis.channel import channel
from chassis.command_line import ServiceDefinition
from chassis.consumer import ReceivedEvent
from chassis.identity import METADATA_KEY, InternalTokens, PrincipalKind
from chassis.testing import received
from concord.common.v1.event_pb2 import RecordLink, StateVersion
from concord.common.v1.money_pb2 import Money
from concord.customer.v1 import activity_pb2, attribute_pb2, customer_events_pb2, holding_pb2, quality_service_pb2
from concord.customer.v1.quality_service_pb2_grpc import (
    QualityServiceServicer,
    QualityServiceStub,
    add_QualityServiceServicer_to_server,
)
from rating.events.qualities import Qualities
from rating.events.rerate import Rerater
from rating.wiring import SERVICE

TYPE = "concord.customer.v1."


@pytest.fixture(scope="session")
def service() -> ServiceDefinition:
    return SERVICE


class QualityService(QualityServiceServicer):
    """Stands in for the customer master's QualityService: 70 and 60 of everybody whom `figures` and `unknown` do not name."""

    def __init__(self, tokens: InternalTokens) -> None:
        self.figures: dict[uuid.UUID, tuple[int, int]] = {}
        self.unknown: set[uuid.UUID] = set()
        self.poisonous: set[uuid.UUID] = set()
        self.asked: list[list[uuid.UUID]] = []
        self.delay_seconds = 0.0
        self.address = "127.0.0.1:0"
        self._tokens = tokens
        self._server: grpc.aio.Server | None = None

    async def GetQuality(self, request, context):
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "rating asks for many at once")

    async def BatchGetQualities(self, request, context):
        caller = self._tokens.verify(dict(context.invocation_metadata())[METADATA_KEY])
        assert (caller.kind, caller.client) == (PrincipalKind.SERVICE, "rating")
        ids = [uuid.UUID(name.removeprefix("customers/")) for name in request.names]
        self.asked.append(ids)
        await asyncio.sleep(self.delay_seconds)
        if self.poisonous & set(ids):
            await context.abort(grpc.StatusCode.INTERNAL, "broken")
        return quality_service_pb2.BatchGetQualitiesResponse(
            qualities=[self._quality(customer_id) for customer_id in ids if customer_id not in self.unknown]
        )

    def _quality(self, customer_id):
        completeness, credibility = self.figures.get(customer_id, (70, 60))
        reason = quality_service_pb2.QualityReason
        return quality_service_pb2.CustomerQuality(
            name=f"customers/{customer_id}/quality",
            completeness_percent=completeness,
            credibility_percent=credibility,
            reasons=[
                reason(attribute=attribute_pb2.ATTRIBUTE_NAME, required_weight=completeness, credibility_percent=credibility),
                reason(
                    attribute=attribute_pb2.ATTRIBUTE_PHONE,
                    required_weight=100 - completeness,
                    findings=[quality_service_pb2.QUALITY_FINDING_MISSING],
                ),
            ],
        )

    async def start(self) -> "QualityService":
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_QualityServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(self.address)}"
        await self._server.start()
        return self

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


@pytest.fixture
async def quality_service(tokens, settings):
    fake = await QualityService(InternalTokens.from_settings("customer", settings)).start()
    yield fake
    await fake.stop()


@pytest.fixture
async def rerater(settings, quality_service):
    """Makes workers to step by hand: `rerater(running)`."""
    channels = [channel(quality_service.address, InternalTokens.from_settings("rating", settings))]

    def make(running, delay_ms=0):
        return Rerater(running.application.commands, Qualities(QualityServiceStub(channels[0])), delay_ms)

    yield make
    await channels[0].close()


@pytest.fixture
def rate_all(rerater):
    """Rates until nobody waits: `await rate_all(running)`."""

    async def rate(running):
        worker = rerater(running)
        while await worker.mark_step() + await worker.rate_step():
            pass

    return rate


@pytest.fixture
def start(start, quality_service):
    async def start_with(**overrides):
        return await start(**{"target_customer": quality_service.address} | overrides)

    return start_with


@dataclass
class Master:
    """Stands in for the customer master: says what it would publish. Ids come from names, so that a test reads."""

    versions: dict[str, int] = field(default_factory=dict)

    def id(self, name: str) -> uuid.UUID:
        return uuid.uuid5(uuid.NAMESPACE_URL, name)

    def state(self, name: str) -> StateVersion:
        self.versions[name] = self.versions.get(name, 0) + 1
        return StateVersion(epoch=1, version=self.versions[name])

    def link(self, record: str, customer: str, institution: str = "north") -> RecordLink:
        """A new link of the record."""
        return RecordLink(
            record_id=str(self.id(record)),
            institution_id=institution,
            customer_id=str(self.id(customer)),
            state_version=self.state(f"link {record}"),
        )

    def seen_link(self, record: str, customer: str, institution: str = "north") -> RecordLink:
        """The link as it is: the version of the last one."""
        version = StateVersion(epoch=1, version=self.versions.setdefault(f"link {record}", 1))
        return RecordLink(
            record_id=str(self.id(record)), institution_id=institution, customer_id=str(self.id(customer)), state_version=version
        )

    def customer(
        self, customer: str, links=(), attributes=("NAME", "PHONE"), merged_into=None, observed="2016-01-01"
    ) -> ReceivedEvent:
        message = customer_events_pb2.CustomerChanged(
            customer_id=str(self.id(customer)),
            state_version=self.state(f"customer {customer}"),
            record_links=links,
            merged_into_customer_id=str(self.id(merged_into)) if merged_into else "",
            create_time_seconds=1_400_000_000,
            attribute_qualities=[
                customer_events_pb2.AttributeQuality(
                    attribute=attribute_pb2.Attribute.Value(f"ATTRIBUTE_{name}"),
                    valid=True,
                    rank=1,
                    sources_agreeing_count=1,
                    observe_time_seconds=int(instant(observed).timestamp()),
                )
                for name in attributes
            ],
        )
        return received(f"{TYPE}customer.updated", message)

    def quality_changed(self, customer: str) -> ReceivedEvent:
        message = customer_events_pb2.QualityChanged(
            customer_id=str(self.id(customer)), state_version=self.state(f"quality {customer}"), completeness_percent=1
        )
        return received(f"{TYPE}quality.changed", message)

    def moved(self, source: str, target: str, links) -> ReceivedEvent:
        message = customer_events_pb2.RecordsMoved(
            from_customer_id=str(self.id(source)), to_customer_id=str(self.id(target)), record_links=links, reason="MERGE"
        )
        return received(f"{TYPE}customer.records_moved", message)

    def holding(self, holding: str, *holders, kind="DEPOSIT", opened="2010-01-01", closed="", role="OWNER") -> ReceivedEvent:
        message = customer_events_pb2.HoldingChanged(
            holding_id=str(self.id(holding)),
            state_version=self.state(f"holding {holding}"),
            institution_id="north",
            kind=holding_pb2.HoldingKind.Value(f"HOLDING_KIND_{kind}"),
            open_date=opened,
            close_date=closed,
            holders=[
                customer_events_pb2.Holder(record_link=link, role=holding_pb2.HolderRole.Value(f"HOLDER_ROLE_{role}"))
                for link in holders
            ],
        )
        return received(f"{TYPE}holding.changed", message)

    def activity(self, activity: str, link: RecordLink, when: str, reverses: str = "", **kind) -> ReceivedEvent:
        detail = activity_pb2.ActivityDetail(**kind)
        detail.occurred_at.FromDatetime(instant(when))
        message = customer_events_pb2.ActivityRecorded(
            activity_id=str(self.id(activity)),
            record_link=link,
            source_system_id="core",
            detail=detail,
            reversed_activity_id=str(self.id(reverses)) if reverses else "",
        )
        return received(f"{TYPE}activity.recorded", message, event_id=self.id(activity))

    def transaction(self, activity, link, when, minor_units, currency="CZK", fee=0) -> ReceivedEvent:
        money = Money(currency_code=currency, minor_units=minor_units)
        fee_money = Money(currency_code=currency, minor_units=fee) if fee else None
        return self.activity(activity, link, when, transaction=activity_pb2.Transaction(amount=money, fee=fee_money))

    def margin(self, activity, link, month, minor_units, currency="CNY", cost=0, cost_currency="CNY") -> ReceivedEvent:
        margin = activity_pb2.Margin(
            month=month,
            interest_margin=Money(currency_code=currency, minor_units=minor_units),
            cost=Money(currency_code=cost_currency, minor_units=cost),
        )
        return self.activity(activity, link, f"{month}-28", margin=margin)

    def score(self, activity, link, when, ppm) -> ReceivedEvent:
        score = activity_pb2.RiskScore(model="pd/3", default_probability_ppm=ppm)
        return self.activity(activity, link, when, risk_score=score)

    def reversal(self, activity, link, when, of: str) -> ReceivedEvent:
        return self.activity(activity, link, when, reverses=of, reversal=activity_pb2.Reversal(source_activity_key=of))


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def master() -> Master:
    return Master()
