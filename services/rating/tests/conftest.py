"""The service under test, and the customer master's events as a test needs them."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from chassis.command_line import ServiceDefinition
from chassis.consumer import ReceivedEvent
from chassis.testing import received
from concord.common.v1.event_pb2 import RecordLink, StateVersion
from concord.common.v1.money_pb2 import Money
from concord.customer.v1 import activity_pb2, attribute_pb2, customer_events_pb2, holding_pb2
from rating.wiring import SERVICE

TYPE = "concord.customer.v1."


@pytest.fixture(scope="session")
def service() -> ServiceDefinition:
    return SERVICE


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
