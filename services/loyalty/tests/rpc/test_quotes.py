"""Quotes through the contract: which points pay, by which agreements and rates, and why not."""

import json
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from chassis.clock import now
from chassis.identity import PrincipalKind
from chassis.ids import new_id
from chassis.testing import reason
from concord.common.v1.money_pb2 import Money
from concord.loyalty.v1 import exchange_service_pb2 as pb
from concord.loyalty.v1 import ledger_service_pb2 as ledger_pb
from concord.loyalty.v1 import program_service_pb2 as programs_pb
from concord.loyalty.v1.exchange_service_pb2_grpc import ExchangeServiceStub
from loyalty.domain.agreements import Approval, Terms, Version, VersionState
from loyalty.domain.four_eyes import Person
from loyalty.domain.ledger.configuration import Basis, Funding
from loyalty.domain.rates import Rate
from loyalty.store import agreements, configuration, quotes, rates

SOON, LATER = timedelta(days=10), timedelta(days=90)


class Market:
    """A member with points of bank, broker and shop; the shop takes them by agreement."""

    def __init__(self, alliance) -> None:
        self.alliance = alliance
        self.database = alliance.running.application.database

    async def open(self) -> None:
        for program, institution in (("broker-points", "broker"), ("shop-points", "shop")):
            await self.alliance.program(program, institution)
        self.customer = await self.alliance.customer("bank", "shop")
        self.account = await self.alliance.account(self.customer, "bank")

    def stub(self, institution: str | None = "bank"):
        return ExchangeServiceStub(self.alliance.channel(institution))

    async def lot(self, program: str, points: int, ends: timedelta | None = None, state="ACTIVE", account=None) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(
                "INSERT INTO lots (lot_id, account_id, program_id, institution_id, state, issued_points, remaining_points,"
                " active_time, expire_time) SELECT coalesce(max(lot_id), 0) + 1, $1, $2, 'bank', $3, $4, $4, now(), $5 FROM lots",
                (account or self.account).split("/")[1], program, state, points, now() + ends if ends else None,
            )  # fmt: skip

    async def agree(self, issuer: str, numerator: int, denominator: int = 1, basis=Basis.AT_REDEMPTION, currency="USD"):
        terms = Terms(numerator, denominator, 0, 10**9, 0, "00:00", "UTC")
        approvals = tuple(Approval(side, Person(f"{side}-person", side), now()) for side in (issuer, "shop"))
        version = Version(1, VersionState.APPROVED, terms, (Person("ann", issuer),), approvals, None, now())
        async with self.database.transaction() as connection:
            await configuration.raise_version(connection)
            agreement_id = new_id()
            assert await agreements.insert(connection, agreement_id, issuer, "shop", basis, currency, Funding.CREDIT, now())
            row = await agreements.get(connection, agreement_id)
            assert row is not None
            await agreements.save_version(connection, row, version, now())
            await connection.execute("UPDATE agreements SET state = 'ACTIVE' WHERE agreement_id = $1", agreement_id)
        return agreement_id

    async def rate(self, source: str, numerator: int, denominator: int = 1, target: str = "shop-points") -> None:
        async with self.database.transaction() as connection:
            await configuration.raise_version(connection)
            rate_id, begins = new_id(), now()
            made = Rate(source, target, begins, numerator, denominator)
            await rates.insert(connection, rate_id, made, Person("a", "bank"), begins)
            await rates.publish(connection, rate_id, begins, Person("b", "shop"), begins)

    def request(self, price: int | Money = 100, **fields) -> pb.CreateQuoteRequest:
        asked = (
            {"money": price} if isinstance(price, Money) else {"target_program": "programs/shop-points", "amount_points": price}
        )
        base = {"parent": self.account, "institution": "institutions/shop", "request_id": self.alliance.request_id()}
        return pb.CreateQuoteRequest(**base | asked | fields)

    async def quote(self, price: int | Money = 100, **fields):
        return await self.stub().CreateQuote(self.request(price, **fields))


def lines(quote: pb.Quote) -> list[tuple[str, int, int]]:
    return [(line.program.removeprefix("programs/"), line.points, line.value) for line in quote.lines]


def usd(minor_units: int) -> Money:
    return Money(currency_code="USD", minor_units=minor_units)


@pytest.fixture
async def market(alliance) -> Market:
    made = Market(alliance)
    await made.open()
    return made


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return reason(refused.value), refused.value.details()


async def test_points_of_three_issuers_pay_one_price(market):
    agreement_id = await market.agree("bank", 1)
    await market.agree("broker", 1)
    await market.rate("bank-points", 2, 3)
    await market.rate("broker-points", 5)
    await market.lot("bank-points", 90, LATER)
    await market.lot("bank-points", 31, SOON)
    await market.lot("broker-points", 50)
    await market.lot("shop-points", 5)
    made = await market.quote(100)
    # 121 bank points are worth 80; of what never expires the broker's come first by id: 4 of them are worth 20.
    assert lines(made) == [("bank-points", 120, 80), ("broker-points", 4, 20)]
    assert (made.amount, made.points_value, made.money_minor_units, made.currency_code) == (100, 100, 0, "")
    assert made.lines[0].agreement == f"agreements/{agreement_id}/versions/1"
    assert (made.lines[0].numerator, made.lines[0].denominator, made.lines[0].residue_numerator) == (2, 3, 0)
    assert made.lines[0].rate_valid_from.ToDatetime(UTC) < datetime.now(UTC)
    assert (made.expire_time.ToDatetime(UTC) - made.create_time.ToDatetime(UTC)).total_seconds() == 300
    assert await market.stub("shop").GetQuote(pb.GetQuoteRequest(name=made.name)) == made
    best = await market.quote(100, precedence=pb.QUOTE_PRECEDENCE_BEST_VALUE)
    assert lines(best) == [("broker-points", 20, 100)]
    odd = await market.quote(101, precedence=pb.QUOTE_PRECEDENCE_BEST_VALUE)
    assert [(line.points, line.value, line.residue_numerator) for line in odd.lines] == [(21, 101, 4)]
    chosen = [pb.QuoteChoice(program="programs/shop-points"), pb.QuoteChoice(program="programs/bank-points", points_max=30)]
    choice = await market.quote(25, precedence=pb.QUOTE_PRECEDENCE_CHOICE, choices=chosen, ttl_seconds=60)
    assert lines(choice) == [("shop-points", 5, 5), ("bank-points", 30, 20)]
    assert (choice.expire_time.ToDatetime(UTC) - choice.create_time.ToDatetime(UTC)).total_seconds() == 60


async def test_a_price_in_money_is_paid_by_the_agreements_price(market):
    await market.agree("bank", 3, 2)
    await market.agree("broker", 1, currency="EUR")
    await market.lot("bank-points", 101)
    await market.lot("broker-points", 1000)
    made = await market.quote(usd(150))
    assert (lines(made), made.currency_code) == ([("bank-points", 100, 150)], "USD")
    assert (await refusal(market.quote(usd(152))))[0] == "INSUFFICIENT_POINTS"
    part = await market.quote(usd(500), money_allowed=True)
    assert (lines(part), part.points_value, part.money_minor_units) == ([("bank-points", 101, 151)], 151, 349)
    # The shop's own points pay for what it stands for, once it has said so.
    await market.lot("shop-points", 1000, SOON)
    assert lines(await market.quote(usd(150))) == [("bank-points", 100, 150)]
    program = programs_pb.Program(name="programs/shop-points")
    program.liability_value.CopyFrom(programs_pb.PointValue(numerator=1, denominator=4, currency_code="USD"))
    await market.alliance.programs("shop").UpdateProgram(programs_pb.UpdateProgramRequest(program=program, request_id="v"))
    assert lines(await market.quote(usd(260))) == [("shop-points", 1000, 250), ("bank-points", 7, 10)]


async def test_money_pays_what_points_of_a_programme_do_not(market):
    await market.lot("shop-points", 40)
    assert (await refusal(market.quote(100)))[0] == "INSUFFICIENT_POINTS"
    assert (await refusal(market.quote(100, money_allowed=True)))[0] == "MONEY_NOT_PRICED"
    program = programs_pb.Program(name="programs/shop-points")
    program.liability_value.CopyFrom(programs_pb.PointValue(numerator=2, denominator=7, currency_code="CZK"))
    await market.alliance.programs("shop").UpdateProgram(programs_pb.UpdateProgramRequest(program=program, request_id="v"))
    made = await market.quote(100, money_allowed=True)
    assert (lines(made), made.money_minor_units, made.currency_code) == ([("shop-points", 40, 40)], 18, "CZK")  # 60 × 2/7 = 17.1
    whole = await market.quote(40, money_allowed=True)
    assert (whole.money_minor_units, whole.currency_code) == (0, "")


async def test_why_points_cannot_pay(market):
    await market.lot("bank-points", 100)
    reason_given, words = await refusal(market.quote(10))
    assert (reason_given, "no active agreement" in words) == ("NO_AGREEMENT", True)
    await market.agree("bank", 1, basis=Basis.AT_ISSUANCE)
    assert (await refusal(market.quote(10)))[0] == "NO_AGREEMENT"  # it pays for earning there, not for spending
    agreement_id = await market.agree("bank", 1)
    assert (await refusal(market.quote(10)))[0] == "NO_RATE"
    await market.rate("bank-points", 1)
    assert lines(await market.quote(10)) == [("bank-points", 10, 10)]
    staff = ExchangeServiceStub(market.alliance.channel("shop", kind=PrincipalKind.STAFF))
    await staff.SuspendAgreement(pb.SuspendAgreementRequest(name=f"agreements/{agreement_id}", request_id="s"))
    assert (await refusal(market.quote(10)))[0] == "NO_AGREEMENT"
    await market.lot("shop-points", 5)
    assert (await refusal(market.quote(10)))[0] == "INSUFFICIENT_POINTS"
    chosen = {"precedence": pb.QUOTE_PRECEDENCE_CHOICE, "choices": [pb.QuoteChoice(program="programs/bank-points")]}
    assert (await refusal(market.quote(10, **chosen)))[0] == "NO_AGREEMENT"


async def test_only_points_that_can_be_spent_are_counted(market):
    await market.lot("shop-points", 10, -timedelta(seconds=1))
    await market.lot("shop-points", 20, None, "PENDING")
    await market.lot("shop-points", 40, SOON)
    async with market.database.transaction() as connection:
        await connection.execute("UPDATE lots SET reserved_points = 15 WHERE remaining_points = 40")
    assert lines(await market.quote(25)) == [("shop-points", 25, 25)]
    assert (await refusal(market.quote(26)))[0] == "INSUFFICIENT_POINTS"


async def test_points_to_try_with_do_not_pay_for_real_ones(market):
    staff = market.alliance.programs("shop")
    for program_id, sandbox in (("shop-trial", True), ("shop-other", False)):
        program = programs_pb.Program(institution="institutions/shop", display_name="X", sandbox=sandbox)
        await staff.CreateProgram(
            programs_pb.CreateProgramRequest(program_id=program_id, program=program, request_id=market.alliance.request_id())
        )
    await market.lot("shop-trial", 100)
    assert (await refusal(market.quote(10)))[0] == "SANDBOX"
    assert lines(await market.quote(10, target_program="programs/shop-trial")) == [("shop-trial", 10, 10)]
    mixed = pb.Rate(from_program="programs/shop-trial", to_program="programs/shop-other", numerator=1, denominator=1)
    desk = ExchangeServiceStub(market.alliance.channel("shop", kind=PrincipalKind.STAFF))
    assert (await refusal(desk.CreateRate(pb.CreateRateRequest(rate=mixed, request_id="m"))))[0] == "SANDBOX_MIXED"


async def test_what_a_quote_needs_and_who_may_ask(market):
    await market.lot("shop-points", 100)
    choice = pb.QuoteChoice(program="programs/shop-points")
    for fields, expected in (
        ({"money": usd(5)}, "QUOTE_INVALID"),
        ({"target_program": ""}, "QUOTE_INVALID"),
        ({"target_program": "", "amount_points": 0}, "QUOTE_INVALID"),
        ({"amount_points": 0}, "QUOTE_INVALID"),
        ({"choices": [choice]}, "QUOTE_INVALID"),
        ({"precedence": pb.QUOTE_PRECEDENCE_CHOICE}, "QUOTE_INVALID"),
        ({"precedence": pb.QUOTE_PRECEDENCE_CHOICE, "choices": [choice, choice]}, "QUOTE_INVALID"),
        ({"target_program": "programs/bank-points"}, "QUOTE_INVALID"),
        ({"target_program": "programs/nothing"}, "PROGRAM_NOT_FOUND"),
        ({"institution": "institutions/nowhere"}, "INSTITUTION_NOT_FOUND"),
        ({"reference": "a\0b"}, "TEXT_INVALID"),
    ):
        assert (await refusal(market.quote(10, **fields)))[0] == expected, fields
    request = market.request(10, reference="till 4")
    first = await market.stub().CreateQuote(request)
    assert await market.stub().CreateQuote(request) == first
    request.amount_points = 11
    assert (await refusal(market.stub().CreateQuote(request)))[0] == "REQUEST_ID_REUSED"
    stranger = market.stub("broker")
    assert (await refusal(stranger.CreateQuote(market.request(10))))[0] == "ACCOUNT_NOT_FOUND"
    assert (await refusal(stranger.GetQuote(pb.GetQuoteRequest(name=first.name))))[0] == "QUOTE_NOT_FOUND"


async def test_quotes_are_forgotten(market):
    await market.lot("shop-points", 100)
    made = await market.quote(10, reference="for Anna")
    async with market.database.transaction() as connection:
        assert await quotes.clean(connection, now()) == 0
        account_id = market.account.split("/")[1]
        await quotes.forget_accounts(connection, [account_id])
        row = await quotes.get(connection, made.name.split("/")[1])
        assert row is not None
        assert (row["reference"], json.loads(row["lines"])[0]["points"]) == ("", 10)
        assert await quotes.clean(connection, now() + quotes.KEPT + timedelta(hours=1)) == 1
        assert await quotes.get(connection, made.name.split("/")[1]) is None


async def test_a_quote_is_used_once_and_what_is_owed_follows(market):
    agreement_id = await market.agree("bank", 3, 4)
    await market.rate("bank-points", 2, 3)
    spent = market.alliance.spending(market.customer, -1000 * 100)
    await market.alliance.running.deliver(spent)
    ledger, staff = market.alliance.ledger(), ExchangeServiceStub(market.alliance.channel("shop", kind=PrincipalKind.STAFF))

    async def owed() -> tuple[int, int]:
        name = f"agreements/{agreement_id}/exposure"
        exposure = await staff.GetAgreementExposure(pb.GetAgreementExposureRequest(name=name))
        return exposure.exposure_minor_units, exposure.available_minor_units

    made = await market.quote(401)
    assert lines(made) == [("bank-points", 602, 401)]
    redeem = ledger_pb.RedeemPointsRequest(name=market.account, quote=made.name, request_id="once")
    operation = await ledger.RedeemPoints(redeem)
    assert operation.outcome == ledger_pb.OPERATION_OUTCOME_POSTED
    assert await market.alliance.balance(market.account) == 398
    assert (await market.stub().GetQuote(pb.GetQuoteRequest(name=made.name))).operation == operation.name
    assert await owed() == (452, 10**9 - 452)  # 602 × 3/4 = 451.5
    redeem.request_id = "twice"
    assert (await refusal(ledger.RedeemPoints(redeem)))[0] == "QUOTE_USED"
    following = await market.quote(200)
    await staff.SuspendAgreement(pb.SuspendAgreementRequest(name=f"agreements/{agreement_id}", request_id="stop"))
    hold = ledger_pb.HoldPointsRequest(name=market.account, quote=following.name, request_id="hold")
    assert (await refusal(ledger.HoldPoints(hold)))[0] == "NO_AGREEMENT"
    desk = ExchangeServiceStub(market.alliance.channel("shop", kind=PrincipalKind.STAFF, subject="another"))
    await desk.ResumeAgreement(pb.ResumeAgreementRequest(name=f"agreements/{agreement_id}", request_id="on"))
    hold.request_id = "hold again"
    held = await ledger.HoldPoints(hold)
    assert await owed() == (677, 10**9 - 677)  # 300 more are reserved: 902 × 3/4 = 676.5
    await ledger.VoidHold(ledger_pb.VoidHoldRequest(name=held.name, request_id="void"))
    assert await owed() == (452, 10**9 - 452)
    assert not await market.alliance.broken()
