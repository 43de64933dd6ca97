"""Statements with holds, promises and debts; their sums and CSV; lots by when they end."""

import csv
import io
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from chassis.clock import now
from chassis.testing import reason
from concord.loyalty.v1 import account_service_pb2 as pb
from concord.loyalty.v1 import ledger_service_pb2 as ledger_pb

SCOPES = ["points.read", "points.write", "points.redeem", "points.issue"]
PROGRAM = "programs/bank-points"


def in_days(days):
    return (now() + timedelta(days=days)).replace(microsecond=0)


async def earn(alliance, account, points, days=None, **fields):
    """Points that end in so many days."""
    request = ledger_pb.EarnPointsRequest(
        name=account, program=PROGRAM, amount_points=points, institution="institutions/bank", request_id=alliance.request_id(),
        expire_time=in_days(days) if days else None, **fields,
    )  # fmt: skip
    return await alliance.ledger(scopes=SCOPES).EarnPoints(request)


def spend(alliance, account, points):
    return ledger_pb.HoldPointsRequest(
        name=account, program=PROGRAM, amount_points=points, institution="institutions/shop", request_id=alliance.request_id()
    )


async def busy(alliance):
    """An account on which everything happened: returns it and the names of its operations, oldest first."""
    _, account = await alliance.member()
    ledger = alliance.ledger(scopes=SCOPES)
    first = await earn(alliance, account, 100, days=40)
    second = await earn(alliance, account, 50, days=10)
    promised = await earn(alliance, account, 7, pending=True)
    hold = await ledger.HoldPoints(spend(alliance, account, 60))
    captured = await ledger.CaptureHold(
        ledger_pb.CaptureHoldRequest(name=hold.name, amount_units=40, final=True, request_id=alliance.request_id())
    )
    confirmed = await ledger.ConfirmEarning(ledger_pb.ConfirmEarningRequest(name=promised.name, request_id=alliance.request_id()))
    redeemed = await ledger.RedeemPoints(alliance.redemption(account, 100))
    taken = await ledger.ClawBackEarning(ledger_pb.ClawBackEarningRequest(name=first.name, request_id=alliance.request_id()))
    names = [first.name, second.name, promised.name, f"operations/{hold.name.removeprefix('holds/')}"]
    return account, hold.name, [*names, captured.name, confirmed.name, redeemed.name, taken.name]


async def pages(stub, request) -> list[pb.StatementLine]:
    lines = []
    while True:
        page = await stub.ListStatementLines(request)
        lines += page.statement_lines
        if not page.next_page_token:
            return lines
        request.page_token = page.next_page_token


async def test_a_statement_tells_of_holds_promises_and_debts_with_the_balance_after_each(alliance):
    account, hold, names = await busy(alliance)
    stub = alliance.accounts()
    lines = await pages(stub, pb.ListStatementLinesRequest(parent=account, page_size=3))
    assert [line.operation for line in reversed(lines)] == names
    seen = [
        (line.amount_points, line.balance_points, line.pending_change_points, line.held_change_points, line.debt_change_points)
        for line in reversed(lines)
    ]
    assert seen == [
        (100, 100, 0, 0, 0), (50, 150, 0, 0, 0), (0, 150, 7, 0, 0), (-60, 90, 0, 60, 0), (20, 110, 0, -60, 0),
        (7, 117, -7, 0, 0), (-100, 17, 0, 0, 0), (-17, 0, 0, 0, 83),
    ]  # fmt: skip
    assert [line.entry_version for line in reversed(lines)] == [1, 2, 0, 3, 4, 5, 6, 7]
    assert [line.hold for line in reversed(lines)] == ["", "", "", hold, hold, "", "", ""]
    assert lines[-1].expire_time.ToDatetime(UTC) == in_days(40).replace(second=lines[-1].expire_time.ToDatetime(UTC).second)
    balance = (await stub.GetAccount(pb.GetAccountRequest(name=account))).balances[0]
    assert (balance.balance_points, balance.debt_points, balance.pending_points, balance.held_points) == (0, 83, 0, 0)
    assert not balance.HasField("next_expire_time")

    kinds = [pb.OPERATION_KIND_HOLD, pb.OPERATION_KIND_REDEEM]
    some = await pages(stub, pb.ListStatementLinesRequest(parent=account, kinds=kinds, page_size=1))
    assert [line.operation for line in some] == [names[6], names[3]]
    assert [line.balance_points for line in some] == [17, 90]
    middle = pb.ListStatementLinesRequest(parent=account, page_size=2)
    middle.begin_time.CopyFrom(lines[5].post_time)  # the third
    middle.end_time.CopyFrom(lines[1].post_time)
    assert [line.operation for line in await pages(stub, middle)] == names[2:6][::-1]
    middle.begin_time.FromDatetime(datetime(2100, 1, 1, tzinfo=UTC))
    middle.page_token = ""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ListStatementLines(middle)
    assert reason(refused.value) == "PERIOD_INVALID"
    assert await alliance.broken() == set()


async def test_a_statement_as_csv_and_summed_up(alliance):
    account, _, names = await busy(alliance)
    stub, text, request = alliance.accounts(), "", pb.DownloadStatementRequest(parent=account, page_size=3)
    while True:
        page = await stub.DownloadStatement(request)
        text += page.csv
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["operation"] for row in rows] == names[::-1]
    assert [int(row["amount_points"]) for row in rows] == [-17, -100, 7, 20, -60, 0, 50, 100]
    assert (rows[0]["kind"], rows[0]["program"], rows[0]["debt_change_points"]) == ("CLAWBACK", "bank-points", "83")

    lines = (await stub.ListStatementLines(pb.ListStatementLinesRequest(parent=account))).statement_lines
    asked = pb.SummarizeStatementRequest(parent=account, begin_time=lines[6].post_time, end_time=lines[0].post_time)
    told = await stub.SummarizeStatement(asked)
    [program] = told.programs
    assert (program.program, program.opening_points, program.closing_points) == (PROGRAM, 100, 17)
    sums = {pb.OperationKind.Name(k.kind)[15:]: (k.lines_count, k.credited_points, k.debited_points) for k in program.kinds}
    assert sums == {
        "EARN": (1, 50, 0), "HOLD": (1, 0, 60), "CAPTURE": (1, 20, 0), "CONFIRM": (1, 7, 0), "REDEEM": (1, 0, 100)
    }  # fmt: skip
    whole = (await stub.SummarizeStatement(pb.SummarizeStatementRequest(parent=account))).programs[0]
    assert (whole.opening_points, whole.closing_points) == (0, 0)


async def test_lots_by_when_they_end_and_what_ends_next(alliance):
    _, account = await alliance.member()
    stub = alliance.accounts()
    for points, days in ((5, 20), (6, 10), (7, None), (8, 30)):
        await earn(alliance, account, points, days=days)
    await earn(alliance, account, 9, pending=True)
    await alliance.ledger(scopes=SCOPES).HoldPoints(spend(alliance, account, 2))
    lots, request = [], pb.ListLotsRequest(parent=account, program=PROGRAM, page_size=2)
    while True:
        page = await stub.ListLots(request)
        lots += page.lots
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert [(lot.issued_points, lot.available_points, lot.held_points) for lot in lots] == [
        (6, 4, 2), (5, 5, 0), (8, 8, 0), (7, 7, 0), (9, 0, 0)
    ]  # fmt: skip
    assert [lot.state for lot in lots] == [pb.LOT_STATE_ACTIVE] * 4 + [pb.LOT_STATE_PENDING]
    assert [lot.HasField("expire_time") for lot in lots] == [True, True, True, False, False]
    assert len({lot.name for lot in lots}) == 5
    balance = (await stub.GetAccount(pb.GetAccountRequest(name=account))).balances[0]
    assert (balance.next_expire_points, balance.next_expire_time) == (4, lots[0].expire_time)
    assert (balance.balance_points, balance.pending_points, balance.held_points, balance.total_points) == (24, 9, 2, 26)
    summary = await stub.SummarizeStatement(pb.SummarizeStatementRequest(parent=account))
    assert [(e.points, e.expire_time) for e in summary.expiring] == [(4, lots[0].expire_time), (5, lots[1].expire_time),
                                                                     (8, lots[2].expire_time)]  # fmt: skip
    for call in (
        alliance.accounts("broker").ListLots(pb.ListLotsRequest(parent=account)),
        alliance.accounts("broker").SummarizeStatement(pb.SummarizeStatementRequest(parent=account)),
        alliance.accounts("broker").DownloadStatement(pb.DownloadStatementRequest(parent=account)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert reason(refused.value) == "ACCOUNT_NOT_FOUND"
