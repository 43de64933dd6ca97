"""Settlement and the ledger: clearing accounts become zero, exposures end, packs fall, liabilities tie."""

from fractions import Fraction

import pytest

from concord.loyalty.v1 import exchange_service_pb2 as exchange_pb
from concord.loyalty.v1 import ledger_service_pb2 as ledger_pb
from concord.loyalty.v1 import liability_service_pb2 as liability_pb
from concord.loyalty.v1 import settlement_service_pb2 as pb
from concord.loyalty.v1.exchange_service_pb2_grpc import ExchangeServiceStub
from concord.loyalty.v1.liability_service_pb2_grpc import LiabilityServiceStub
from loyalty.store import agreements


@pytest.fixture
async def account(alliance):
    _, account = await alliance.member(500)
    return account


async def balances(house):
    async with house.database.connection() as connection:
        rows = await connection.fetch("SELECT kind, owner, balance_points FROM ledger_accounts WHERE kind <> 'MEMBER'")
    return {(row["kind"], row["owner"]): row["balance_points"] for row in rows}


async def exposure(house, agreement):
    async with house.database.connection() as connection:
        return await agreements.exposure(connection, agreement)


async def confirmed(house, name, *sides):
    for side in sides:
        found = await house.confirm(side, name.replace("/-/", f"/{side}/"))
    return found


async def test_points_go_back_and_exposures_end(house, alliance, account):
    agreement = await house.agreement("bank", "shop", price=(1, 3))
    spent = await alliance.ledger().RedeemPoints(alliance.redemption(account, 100))
    assert await exposure(house, agreement) == Fraction(100, 3)
    name = await house.closed()
    assert (await balances(house))["PARTNER", "shop"] == 0
    assert (await balances(house))["ISSUER", "bank"] == -400
    assert await exposure(house, agreement) == Fraction(100, 3)  # closed is not yet agreed on
    await house.confirm("bank", name.replace("/-/", "/bank/"))
    assert await exposure(house, agreement) == Fraction(100, 3)
    found = await house.confirm("shop", name.replace("/-/", "/shop/"))
    assert (found.state, await exposure(house, agreement)) == (pb.SETTLEMENT_STATE_CONFIRMED, 0)
    # Given back after that: owed the other way, until the next one.
    refund = ledger_pb.RefundOperationRequest(name=spent.name, request_id=house.request_id())
    await alliance.ledger("shop").RefundOperation(refund)
    assert ((await balances(house))["PARTNER", "shop"], await exposure(house, agreement)) == (-100, Fraction(-100, 3))
    name = await house.closed()
    found = await confirmed(house, name, "bank", "shop")
    assert [(p.institution, p.amount.minor_units) for p in found.positions] == [("institutions/shop", -33)]
    assert ((await balances(house))["PARTNER", "shop"], await exposure(house, agreement)) == (0, 0)
    assert (await balances(house))["ISSUER", "bank"] == -500
    assert await alliance.broken() == set()


async def test_packs_bear_the_principal(house, alliance, account):
    agreement = await house.agreement("bank", "shop", price=(1, 3), fee=1_000, prepaid=True)
    desk = ExchangeServiceStub(house._channel("shop", "ann"))
    pack = exchange_pb.AgreementPack(minor_units=50)
    await desk.AddAgreementPack(
        exchange_pb.AddAgreementPackRequest(parent=f"agreements/{agreement}", agreement_pack=pack, request_id=house.request_id())
    )
    await alliance.ledger().RedeemPoints(alliance.redemption(account, 100))
    name = await house.closed()
    found = await confirmed(house, name, "shop", "bank")
    [pair] = found.pairs  # 100/3 less 33 of the packs, less a tenth of 100/3: the bank gets 3
    assert (pair.exact_amount.numerator, pair.exact_amount.denominator, pair.amount.minor_units) == ("-3", "1", -3)
    async with house.database.connection() as connection:
        assert await agreements.packs_minor_units(connection, agreement) == 17
    assert await exposure(house, agreement) == 0
    # What is left bears 51 points, not 52.
    await alliance.ledger().RedeemPoints(alliance.redemption(account, 51))


async def test_what_is_redeemed_without_an_agreement_waits(house, alliance, account):
    await alliance.ledger().RedeemPoints(alliance.redemption(account, 40))
    agreement = await house.agreement("bank", "shop")
    await alliance.ledger().RedeemPoints(alliance.redemption(account, 2))
    name = await house.closed()
    found = await house.settlements().GetSettlement(pb.GetSettlementRequest(name=name))
    assert (found.items_count, found.points) == (1, 2)
    assert (await balances(house))["PARTNER", "shop"] == 40
    assert agreement


async def test_the_liability_ties_over_a_settlement(house, alliance, account):
    await house.agreement("bank", "shop", price=(1, 3))
    await alliance.ledger().RedeemPoints(alliance.redemption(account, 100))
    reports = LiabilityServiceStub(house._channel("bank", "ann"))
    request = liability_pb.ReportLiabilitiesRequest(parent="institutions/bank")
    [before] = (await reports.ReportLiabilities(request)).liabilities
    [today] = (await reports.ReportPoints(liability_pb.ReportPointsRequest(parent="institutions/bank"))).days[-1:]
    assert [(o.currency_code, o.amount.numerator, o.amount.denominator) for o in today.owed] == [("USD", "100", "3")]
    name = await house.closed()
    [after] = (await reports.ReportLiabilities(request)).liabilities
    for found, unsettled in ((before, 100), (after, 0)):
        assert (found.closing_points, found.lots_points, found.unsettled_points) == (400, 400, unsettled)
        assert found.tied
    await confirmed(house, name, "bank", "shop")
    await house.acknowledge("shop", name.replace("/-/", "/shop/"), "bank")
    [today] = (await reports.ReportPoints(liability_pb.ReportPointsRequest(parent="institutions/bank"))).days[-1:]
    assert [(o.currency_code, o.amount.numerator) for o in today.owed] == [("USD", "0")]


async def test_fair_value_and_revenue(house, alliance, account):
    async with house.database.transaction() as connection:
        await connection.execute(
            "UPDATE programs SET liability_numerator = 3, liability_denominator = 2, liability_currency_code = 'USD'"
        )
    await alliance.ledger().RedeemPoints(alliance.redemption(account, 100))
    reports = LiabilityServiceStub(house._channel("bank", "ann"))
    [found] = (await reports.ReportLiabilities(liability_pb.ReportLiabilitiesRequest(parent="institutions/bank"))).liabilities
    assert (found.fair_value.amount.minor_units, found.fair_value.breakage_rate.numerator) == (600, "0")
    revenue = await reports.ReportRevenue(
        liability_pb.ReportRevenueRequest(parent="institutions/bank", program="programs/bank-points", begin_date="2020-01-01")
    )
    [cohort] = revenue.cohorts
    assert (cohort.issued_points, cohort.allocated.minor_units, cohort.recognized.minor_units) == (500, 750, 150)
    assert (revenue.period.minor_units, revenue.deferred.minor_units) == (150, 600)


async def test_points_sold_at_issuance_are_paid_by_who_gave_them(house, alliance, account):
    agreement = await house.agreement("bank", "shop", price=(2, 1), basis="AT_ISSUANCE")
    earn = ledger_pb.EarnPointsRequest(
        name=account, program="programs/bank-points", amount_points=30, institution="institutions/shop", pending=False,
        request_id=house.request_id(),
    )  # fmt: skip
    await alliance.ledger(None, scopes=["points.issue"]).EarnPoints(earn)
    assert await exposure(house, agreement) == 60
    found = await confirmed(house, await house.closed(), "bank", "shop")
    assert (found.lines[0].payer, found.pairs[0].amount.minor_units) == ("institutions/shop", -60)
    # Nothing was in a clearing account, so nothing goes back.
    assert (await balances(house)).get(("PARTNER", "shop"), 0) == 0
    assert ((await balances(house))["ISSUER", "bank"], await exposure(house, agreement)) == (-530, 0)
    assert await alliance.broken() == set()
