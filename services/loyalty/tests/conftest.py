import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from chassis.command_line import ServiceDefinition
from chassis.consumer import ReceivedEvent
from chassis.identity import PrincipalKind
from chassis.ids import new_id
from chassis.testing import Running, received
from concord.common.v1.event_pb2 import RecordLink, StateVersion
from concord.common.v1.money_pb2 import Money
from concord.customer.v1.activity_pb2 import ActivityDetail, Balance, Reversal, Transaction
from concord.customer.v1.customer_events_pb2 import ActivityRecorded, CustomerChanged, InstitutionChanged
from concord.loyalty.v1 import account_service_pb2 as accounts_pb
from concord.loyalty.v1 import ledger_service_pb2 as ledger_pb
from concord.loyalty.v1 import program_service_pb2 as programs_pb
from concord.loyalty.v1.account_service_pb2_grpc import AccountServiceStub
from concord.loyalty.v1.ledger_service_pb2_grpc import ControlServiceStub, LedgerServiceStub
from concord.loyalty.v1.program_service_pb2_grpc import ProgramServiceStub
from loyalty.domain.ledger import AccountKey, AccountKind, OperationKind, Order, RequestKey
from loyalty.store import invariants
from loyalty.wiring import SERVICE

SCOPES = ["points.read", "points.write", "points.redeem", "points.admin", "personal.read"]
OCCURRED_AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def service() -> ServiceDefinition:
    return SERVICE


@dataclass
class Customer:
    customer_id: uuid.UUID
    links: dict[str, RecordLink]

    @property
    def name(self) -> str:
        return f"customers/{self.customer_id}"


def spending(
    customer: Customer,
    minor_units: int,
    *,
    activity_id: uuid.UUID | None = None,
    institution: str = "bank",
    category: str = "grocery",
    currency_code: str = "USD",
    occurred_at: datetime = OCCURRED_AT,
) -> ReceivedEvent:
    """A transaction of a customer, as the customer service tells it."""
    detail = ActivityDetail(
        transaction=Transaction(amount=Money(currency_code=currency_code, minor_units=minor_units), category=category)
    )
    return _recorded(customer, institution, detail, activity_id, occurred_at=occurred_at)


def closing_balance(customer: Customer, minor_units: int) -> ReceivedEvent:
    """An activity that earns nothing."""
    return _recorded(
        customer, "bank", ActivityDetail(balance=Balance(closing=Money(currency_code="USD", minor_units=minor_units)))
    )


def reversal(customer: Customer, reversed_activity_id: uuid.UUID, institution: str = "bank") -> ReceivedEvent:
    """An activity that takes back another."""
    detail = ActivityDetail(reversal=Reversal(source_activity_key="key"))
    return _recorded(customer, institution, detail, reversed_activity_id=str(reversed_activity_id))


def _recorded(customer, institution, detail, activity_id=None, occurred_at=OCCURRED_AT, **fields) -> ReceivedEvent:
    activity_id = activity_id or new_id()
    detail.occurred_at.FromDatetime(occurred_at)
    message = ActivityRecorded(activity_id=str(activity_id), record_link=customer.links[institution], detail=detail, **fields)
    return received("concord.customer.v1.activity.recorded", message, event_id=activity_id)


def _order(kind: OperationKind, account_id: uuid.UUID, points: int, request_id: str, content: bytes = b"", **changes) -> Order:
    """An order of a caller, for tests of the ledger alone."""
    redeem = kind is OperationKind.REDEEM
    counterparty = AccountKey("shop", AccountKind.PARTNER, "p") if redeem else AccountKey("bank", AccountKind.ISSUER, "p")
    fields: dict[str, Any] = {
        "operation_id": new_id(), "key": RequestKey("bank/app", request_id), "kind": kind, "account_id": account_id,
        "program_id": "p", "institution_id": counterparty.owner, "counterparty": counterparty, "amount_points": points,
        "effective_time": OCCURRED_AT, "content_hash": content,
    }  # fmt: skip
    return Order(**fields | changes)


@dataclass
class Alliance:
    """A bank, a broker and a shop; the bank issues `bank-points`: one point for each dollar spent."""

    running: Running
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def channel(self, institution: str | None = "bank", **caller):
        caller.setdefault("kind", PrincipalKind.OPERATOR if institution is None else PrincipalKind.CHANNEL)
        caller.setdefault("scopes", SCOPES)
        return self.running.channel(institution=institution, **caller)

    def accounts(self, institution: str | None = "bank", **caller):
        return AccountServiceStub(self.channel(institution, **caller))

    def ledger(self, institution: str | None = "bank", **caller):
        return LedgerServiceStub(self.channel(institution, **caller))

    def programs(self, institution: str = "bank"):
        return ProgramServiceStub(self.channel(institution, kind=PrincipalKind.STAFF))

    def control(self):
        return ControlServiceStub(self.channel(None))

    def request_id(self) -> str:
        return f"request-{next(self.numbers)}"

    spending = staticmethod(spending)
    closing_balance = staticmethod(closing_balance)
    reversal = staticmethod(reversal)

    async def found(self) -> None:
        for institution in ("bank", "broker", "shop"):
            message = InstitutionChanged(institution_id=institution, state_version=StateVersion(epoch=1, version=1))
            await self.running.deliver(received("concord.customer.v1.institution.changed", message))
        await self.program("bank-points", "bank")
        await self.rule("bank-points", "everything")

    async def program(self, program_id: str, institution: str) -> None:
        program = programs_pb.Program(institution=f"institutions/{institution}", display_name=program_id.title())
        await self.programs(institution).CreateProgram(
            programs_pb.CreateProgramRequest(program_id=program_id, program=program, request_id=self.request_id())
        )

    async def rule(self, program_id: str, rule_id: str, institution: str = "bank", **changes):
        version = programs_pb.EarnRuleVersion(
            currency_code="USD", direction=programs_pb.EARN_DIRECTION_SPENT, points_numerator=1, points_denominator=100,
            points_max=10_000, **changes,
        )  # fmt: skip
        version.effective_time.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
        return await self.programs(institution).CreateEarnRuleVersion(
            programs_pb.CreateEarnRuleVersionRequest(
                parent=f"programs/{program_id}/earnRules/{rule_id}", earn_rule_version=version, request_id=self.request_id()
            )
        )

    async def customer(self, *institutions: str) -> Customer:
        customer_id = new_id()
        links = {
            institution: RecordLink(
                record_id=str(new_id()), institution_id=institution, customer_id=str(customer_id),
                state_version=StateVersion(epoch=1, version=1),
            )
            for institution in institutions
        }  # fmt: skip
        message = CustomerChanged(customer_id=str(customer_id), record_links=links.values())
        await self.running.deliver(received("concord.customer.v1.customer.updated", message))
        return Customer(customer_id, links)

    async def account(self, customer: Customer, *institutions: str):
        """Opens the account of a customer, linked to institutions. Returns its name."""
        opened = await self.accounts(None).OpenAccount(
            accounts_pb.OpenAccountRequest(
                customer=customer.name, institutions=[f"institutions/{i}" for i in institutions], request_id=self.request_id()
            )
        )
        return opened.name

    async def member(self, points: int = 0) -> tuple[Customer, str]:
        """A customer of the bank with an account and points of `bank-points`."""
        customer = await self.customer("bank")
        account = await self.account(customer, "bank")
        if points:
            await self.running.deliver(self.spending(customer, -points * 100))
        return customer, account

    async def balance(self, account: str, program_id: str = "bank-points") -> int:
        message = await self.accounts(None).GetAccount(accounts_pb.GetAccountRequest(name=account))
        return next((b.balance_points for b in message.balances if b.program == f"programs/{program_id}"), 0)

    def redemption(self, account: str, points: int, request_id: str | None = None, **changes) -> ledger_pb.RedeemPointsRequest:
        fields: dict[str, Any] = {"program": "programs/bank-points", "institution": "institutions/shop"} | changes
        return ledger_pb.RedeemPointsRequest(
            name=account, amount_points=points, request_id=request_id or self.request_id(), **fields
        )

    async def broken(self) -> set[str]:
        """Names of the invariants that do not hold."""
        report = await invariants.verify(self.running.application.database)
        return {finding.invariant.name for finding in report.findings if finding.violations_count}


@pytest.fixture
async def alliance(start) -> Alliance:
    made = Alliance(await start())
    await made.found()
    return made


@pytest.fixture
def order():
    """Makes orders of a caller, for tests of the ledger alone."""
    return _order
