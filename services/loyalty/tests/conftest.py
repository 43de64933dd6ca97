import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
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
from loyalty.domain.expiry import ExpiryKind, ExpiryPolicy
from loyalty.domain.ledger import commands
from loyalty.domain.ledger.books import Books
from loyalty.domain.ledger.chain import chain_hash
from loyalty.domain.ledger.configuration import AgreementTerms, Basis, Funding, PlainConfiguration, ProgramTerms, RateTerms
from loyalty.domain.ledger.engine import decide
from loyalty.domain.ledger.types import (
    HASH_OF_NOTHING,
    Account,
    AccountKind,
    AccountStatus,
    Head,
    HoldState,
    LotState,
    OperationKind,
    Outcome,
    Quote,
    RequestKey,
    SpendLine,
    Target,
)
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


def _order(kind: OperationKind, account_id: uuid.UUID, points: int, request_id: str, content: bytes = b"", **changes):
    """What a caller asks for, for tests of the ledger alone: earned at the bank, redeemed at the shop."""
    redeem = kind is OperationKind.REDEEM
    fields: dict[str, Any] = {
        "operation_id": new_id(), "key": RequestKey("bank/app", request_id), "account_id": account_id, "program_id": "p",
        "institution_id": "shop" if redeem else "bank", "amount_points": points, "effective_time": OCCURRED_AT,
        "content_hash": content,
    }  # fmt: skip
    return (commands.Redeem if redeem else commands.Earn)(**fields | changes)


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


START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ANA, BOB, CHILD = (uuid.UUID(int=n) for n in (1, 2, 3))
BANK_SHOP, BANK_AIR, AIR_BANK, BANK_CAFE = (uuid.UUID(int=n) for n in (11, 12, 13, 14))


def configuration(**changes):
    """A bank with points that live 100 days, an airline with miles that do not end, both spendable at each other; a shop that
    accepts the bank's points by an agreement with a cap, and a cafe that gives them out."""
    policy = ExpiryPolicy(1, START - DAY, ExpiryKind.DAYS, days=100)
    programs = [
        ProgramTerms("bank", "bank", (policy,), transfers_allowed=True),
        ProgramTerms("miles", "air", refund_grace_days=7),
        ProgramTerms("old", "bank", (policy,), refund_grace_days=7, pending_days=10),
    ]
    agreements = [
        AgreementTerms(BANK_SHOP, 1, "bank", "shop", Basis.AT_REDEMPTION, 7, 10, 100, "USD", limit_minor_units=700),
        AgreementTerms(BANK_AIR, 1, "bank", "air", Basis.AT_REDEMPTION, 1, 2, 0, "USD", Funding.PREPAID, 10**6, 10),
        AgreementTerms(AIR_BANK, 1, "air", "bank", Basis.AT_REDEMPTION, 3, 1, 0, "USD"),
        AgreementTerms(BANK_CAFE, 1, "bank", "cafe", Basis.AT_ISSUANCE, 1, 1, 0, "USD", limit_minor_units=5000),
    ]
    fields: dict[str, Any] = {
        "programs": {terms.program_id: terms for terms in programs},
        "agreements": {(terms.agreement_id, terms.version): terms for terms in agreements},
        "rates": {("bank", "miles"): (RateTerms(3, 10, START),), ("miles", "bank"): (RateTerms(33, 10, START),)},
    }
    return PlainConfiguration(**fields | changes)


class World:
    """Books that go on and on, with a clock; each command gets a key of its own unless it is told one."""

    def __init__(self, **changes) -> None:
        accounts = {ANA: Account(ANA, family=(CHILD,)), BOB: Account(BOB), CHILD: Account(CHILD)}
        self.books = Books(Head(0, HASH_OF_NOTHING), configuration(**changes), START, accounts=accounts)
        self.numbers = 100

    @property
    def now(self) -> datetime:
        return self.books.now

    def later(self, **span) -> None:
        self.books.now += timedelta(**span)

    def command(self, kind, account_id=ANA, key=None, institution_id="bank", content_hash=b"", **fields):
        self.numbers += 1
        return getattr(commands, kind)(
            operation_id=uuid.UUID(int=self.numbers), key=RequestKey("bank/app", key or str(self.numbers)), account_id=account_id,
            institution_id=institution_id, effective_time=self.now, content_hash=content_hash, **fields,
        )  # fmt: skip

    def do(self, kind, *arguments, **fields):
        (result,) = decide([self.command(kind, *arguments, **fields)], self.books)
        return result

    def earn(self, points, account_id=ANA, program_id="bank", **fields):
        return self.do("Earn", account_id, program_id=program_id, amount_points=points, **fields)

    def redeem(self, points, account_id=ANA, program_id="bank", **fields):
        return self.do("Redeem", account_id, program_id=program_id, amount_points=points, **fields)

    def hold(self, points, account_id=ANA, program_id="bank", institution_id="bank", **fields):
        fields.setdefault("expire_time", self.now + DAY)
        return self.do("Hold", account_id, program_id=program_id, amount_points=points, institution_id=institution_id, **fields)

    def quote(self, lines, target, account_id=ANA, institution_id="air"):
        made = Quote(
            uuid.UUID(int=10**6 + self.numbers), account_id, institution_id, Target(*target),
            tuple(SpendLine(*line) for line in lines), self.now + timedelta(minutes=5),
        )  # fmt: skip
        self.numbers += 1
        self.books.quotes[made.quote_id] = made
        return made.quote_id

    def balance(self, owner, kind="MEMBER", program_id="bank"):
        for key, state in self.books.balances.items():
            if (key.owner, key.kind, key.program_id) == (str(owner), kind, program_id):
                return state.balance_points
        return 0

    def status(self, account_id, status: AccountStatus) -> None:
        self.books.accounts[account_id] = self.books.accounts[account_id]._replace(status=status)

    def problems(self) -> list[str]:
        """What is wrong with the books."""
        books, found = self.books, []
        sums: dict[str, int] = {}
        members: dict[Any, int] = {}
        for key, state in books.balances.items():
            sums[key.program_id] = sums.get(key.program_id, 0) + state.balance_points
            if key.kind in {AccountKind.MEMBER, AccountKind.PENDING, AccountKind.HELD}:
                members[key] = state.balance_points
                if state.balance_points < 0:
                    found.append(f"{key} below zero")
            if key.kind is AccountKind.DEBT and state.balance_points > 0:
                found.append(f"{key} above zero")
        found += [f"{program_id} does not sum to zero" for program_id, points in sums.items() if points]
        of_lots = dict.fromkeys(members, 0)
        for lot in books.lots.values():
            if not 0 <= lot.reserved_points <= lot.remaining_points <= lot.issued_points:
                found.append(f"{lot}")
            kind = AccountKind.PENDING if lot.state is LotState.PENDING else AccountKind.MEMBER
            for key, points in (
                (books.key(lot.account_id, kind, lot.program_id), lot.available_points),
                (books.key(lot.account_id, AccountKind.HELD, lot.program_id), lot.reserved_points),
            ):
                of_lots[key] = of_lots.get(key, 0) + points
        found += [f"{key} {points} is not what its lots have" for key, points in of_lots.items() if members.get(key, 0) != points]
        found += self._lots() + self._holds() + self._exposures() + self._chain()
        return found

    def _lots(self) -> list[str]:
        rest = {lot.lot_id: lot.issued_points for lot in self.books.lots.values()}
        for use in self.books.new_uses:
            rest[use.lot_id] -= use.points
        for back in self.books.returns:
            rest[back.lot_id] += back.points
        return [f"lot {lot_id}" for lot_id, points in rest.items() if self.books.lots[lot_id].remaining_points != points]

    def _holds(self) -> list[str]:
        reserved = dict.fromkeys(self.books.lots, 0)
        for hold in self.books.holds.values():
            if hold.state is HoldState.OPEN:
                for lot in hold.lots:
                    reserved[lot.lot_id] += lot.points - lot.captured_points
        return [f"held {id_}" for id_, points in reserved.items() if self.books.lots[id_].reserved_points != points]

    def _exposures(self) -> list[str]:
        sums: dict[uuid.UUID, Fraction] = {}
        owed = [(item.agreement_id, item.agreement_version, item.points) for item in self.books.items]
        for hold in self.books.holds.values():
            if hold.state is HoldState.OPEN:
                owed += [(m.line.agreement_id, m.line.agreement_version, m.line.points - m.captured_points) for m in hold.lines]
        for agreement_id, version, points in owed:
            if agreement_id is not None and version is not None:
                terms = self.books.configuration.agreement_version(agreement_id, version)
                price = Fraction(terms.price_numerator, terms.price_denominator)
                sums[agreement_id] = sums.get(agreement_id, Fraction(0)) + points * price
        agreements = sums.keys() | self.books.exposures.keys()
        return [f"exposure {id_}" for id_ in agreements if sums.get(id_, 0) != self.books.exposures.get(id_, 0)]

    def _chain(self) -> list[str]:
        legs: dict[int, list[Any]] = {}
        for sequence, entry in self.books.entries:
            legs.setdefault(sequence, []).append(entry)
        found, previous = [], HASH_OF_NOTHING
        for sequence, operation in enumerate(self.books.posted, 1):
            entries = legs.get(operation.sequence, [])
            if operation.sequence != sequence or chain_hash(previous, operation, entries) != operation.hash:
                found.append(f"chain at {sequence}")
            if operation.outcome is not Outcome.POSTED and entries:
                found.append(f"refused {sequence} has legs")
            previous = operation.hash
        return found


@pytest.fixture
def world():
    return World()


@pytest.fixture(scope="session")
def new_world():
    """Makes further worlds, for tests by Hypothesis."""
    return World
