"""Liability reports: what was issued less what went is what is left, by lots and by the ledger; days; revenue."""

import csv
import io
from datetime import UTC, datetime

import grpc
import pytest

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.loyalty.v1 import liability_service_pb2 as pb
from concord.loyalty.v1.liability_service_pb2_grpc import LiabilityServiceStub
from loyalty.reporting import Summing

PARENT = "institutions/bank"


@pytest.fixture
def reports(alliance):
    def stub(institution="bank"):
        kind = PrincipalKind.OPERATOR if institution is None else PrincipalKind.STAFF
        return LiabilityServiceStub(alliance.channel(institution, kind=kind, scopes=["settlement.read"]))

    return stub


async def refused(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return reason(error.value)


async def test_the_roll_forward_is_of_now_and_the_same_after_summing_up(alliance, reports):
    _, account = await alliance.member(500)
    await alliance.member(70)
    await alliance.ledger().RedeemPoints(alliance.redemption(account, 120))
    await alliance.ledger().RedeemPoints(alliance.redemption(account, 30, institution="institutions/bank"))
    request = pb.ReportLiabilitiesRequest(parent=PARENT, begin_date="2020-01-01")
    [before] = (await reports().ReportLiabilities(request)).liabilities
    assert (before.opening_points, before.issued_points, before.closing_points) == (0, 570, 420)
    assert (before.redeemed_own_points, before.redeemed_elsewhere_points) == (-30, -120)
    assert (before.lots_points, before.unsettled_points, before.issuer_balance_points) == (420, 120, -540)
    assert before.tied
    summing = Summing(alliance.running.application.commands)
    while await summing.step():
        pass
    [after] = (await reports().ReportLiabilities(request)).liabilities
    assert after == before
    await alliance.ledger().RedeemPoints(alliance.redemption(account, 20))
    [later] = (await reports().ReportLiabilities(request)).liabilities
    assert (later.closing_points, later.lots_points, later.tied) == (400, 400, True)


async def test_days(alliance, reports):
    _, account = await alliance.member(500)
    await alliance.ledger().RedeemPoints(alliance.redemption(account, 120))
    today = datetime.now(UTC).date()
    request = pb.ReportPointsRequest(parent=PARENT, begin_date=today.replace(day=1).isoformat(), end_date=today.isoformat())
    days = (await reports().ReportPoints(request)).days
    assert [day.date for day in days] == [today.replace(day=n).isoformat() for n in range(1, today.day + 1)]
    last = days[-1]
    assert (last.issued_points, last.redeemed_points, last.expired_points, last.withdrawn_points) == (500, 120, 0, 0)
    assert last.outstanding_points == 380
    download = pb.DownloadPointsReportRequest(
        parent=PARENT, begin_date=request.begin_date, end_date=request.end_date, page_size=4
    )
    text = ""
    while True:
        page = await reports().DownloadPointsReport(download)
        text += page.csv
        if not page.next_page_token:
            break
        download.page_token = page.next_page_token
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(row["date"], int(row["outstanding_points"])) for row in rows] == [(day.date, day.outstanding_points) for day in days]


async def test_reports_are_the_issuers_own(alliance, reports):
    await alliance.program("shop-points", "shop")
    for kind, method in ((pb.ReportLiabilitiesRequest, "ReportLiabilities"), (pb.ReportPointsRequest, "ReportPoints")):
        assert await refused(getattr(reports("shop"), method)(kind(parent=PARENT))) == "INSTITUTION_NOT_FOUND"
        assert await refused(getattr(reports("shop"), method)(kind(parent="institutions/-"))) == "INSTITUTION_NOT_FOUND"
        assert await refused(getattr(reports(), method)(kind(parent=PARENT, end_date="2026-02-30"))) == "DATE_INVALID"
        wrong = kind(parent=PARENT, begin_date="2026-02-02", end_date="2026-02-01")
        assert await refused(getattr(reports(), method)(wrong)) == "PERIOD_INVALID"
    revenue = pb.ReportRevenueRequest(parent="institutions/shop", program="programs/bank-points")
    assert await refused(reports("shop").ReportRevenue(revenue)) == "PROGRAM_NOT_FOUND"
    revenue = pb.ReportRevenueRequest(parent=PARENT, program="programs/bank-points")
    assert await refused(reports().ReportRevenue(revenue)) == "LIABILITY_VALUE_MISSING"
    whole = await reports(None).ReportLiabilities(pb.ReportLiabilitiesRequest(parent="institutions/-"))
    assert [one.program for one in whole.liabilities] == ["programs/bank-points", "programs/shop-points"]
