"""What callers may ask of the ledger, and who."""

import asyncio
import uuid

import grpc
import pytest

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.loyalty.v1 import account_service_pb2 as accounts_pb
from concord.loyalty.v1 import ledger_service_pb2 as pb
from concord.loyalty.v1.ledger_service_pb2_grpc import LedgerServiceStub
from concord.loyalty.v1.loyalty_events_pb2 import PointsPosted

SCOPES = ["points.read", "points.redeem", "points.issue", "points.admin"]


class Desk:
    """Asks as an institution's till would; each request has an id of its own."""

    def __init__(self, alliance) -> None:
        self.alliance = alliance

    def stub(self, institution: str | None = "bank", scopes=SCOPES, **caller):
        return LedgerServiceStub(self.alliance.channel(institution, scopes=scopes, **caller))

    async def ask(self, method, request, institution="bank", **caller):
        if not request.request_id:
            request.request_id = self.alliance.request_id()
        return await getattr(self.stub(institution, **caller), method)(request)

    async def earn(self, account, points, institution="bank", program="bank-points", **fields):
        request = pb.EarnPointsRequest(
            name=account, program=f"programs/{program}", amount_points=points, institution=f"institutions/{institution}", **fields
        )
        return await self.ask("EarnPoints", request, institution)

    async def hold(self, account, points, place="bank", **fields):
        request = pb.HoldPointsRequest(
            name=account, program="programs/bank-points", amount_points=points, institution=f"institutions/{place}", **fields
        )
        return await self.ask("HoldPoints", request)


@pytest.fixture
async def desk(alliance):
    return Desk(alliance)


@pytest.fixture
async def ana(alliance):
    return (await alliance.member())[1]


async def refused(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), reason(error.value)


FAILED, MISSING = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND


async def test_points_are_promised_confirmed_cancelled_and_clawed_back(alliance, desk, ana):
    promised = await desk.earn(ana, 40, pending=True)
    assert (promised.kind, promised.balance_points) == (accounts_pb.OPERATION_KIND_EARN, 0)
    confirmed = await desk.ask("ConfirmEarning", pb.ConfirmEarningRequest(name=promised.name))
    assert (confirmed.balance_points, confirmed.target, confirmed.account) == (40, promised.name, ana)
    again = desk.ask("CancelEarning", pb.CancelEarningRequest(name=promised.name))
    assert await refused(again) == (FAILED, "LOT_NOT_PENDING")
    taken = await desk.ask("ClawBackEarning", pb.ClawBackEarningRequest(name=promised.name, amount_points=15))
    assert (taken.amount_points, taken.balance_points, taken.shortfall_points) == (15, 25, 0)
    over = desk.ask("ClawBackEarning", pb.ClawBackEarningRequest(name=promised.name, amount_points=26))
    assert await refused(over) == (FAILED, "OVER_CLAWBACK")
    other = await desk.earn(ana, 7, pending=True)
    await desk.ask("CancelEarning", pb.CancelEarningRequest(name=other.name))
    assert await alliance.balance(ana) == 25
    assert await alliance.broken() == set()


async def test_a_hold_is_captured_in_parts_and_refunded(alliance, desk, ana):
    await desk.earn(ana, 100)
    held = await desk.hold(ana, 60, ttl_seconds=60)
    assert (held.state, held.amount_units, held.program) == (pb.HOLD_STATE_OPEN, 60, "programs/bank-points")
    assert [(line.points, line.value_units, line.captured_points) for line in held.lines] == [(60, 60, 0)]
    assert held.expire_time.seconds - held.create_time.seconds == 60
    captured = await desk.ask("CaptureHold", pb.CaptureHoldRequest(name=held.name, amount_units=25))
    assert (captured.kind, captured.amount_points, captured.hold) == (accounts_pb.OPERATION_KIND_CAPTURE, 25, held.name)
    over = desk.ask("CaptureHold", pb.CaptureHoldRequest(name=held.name, amount_units=36))
    assert await refused(over) == (FAILED, "OVER_CAPTURE")
    await desk.ask("VoidHold", pb.VoidHoldRequest(name=held.name))
    now = await desk.stub().GetHold(pb.GetHoldRequest(name=held.name))
    assert (now.state, now.captured_units, now.lines[0].captured_points) == (pb.HOLD_STATE_VOIDED, 25, 25)
    late = desk.ask("CaptureHold", pb.CaptureHoldRequest(name=held.name))
    assert await refused(late) == (FAILED, "HOLD_NOT_OPEN")
    back = await desk.ask("RefundOperation", pb.RefundOperationRequest(name=captured.name, amount_units=5))
    assert (back.balance_points, back.target) == (80, captured.name)
    more = desk.ask("RefundOperation", pb.RefundOperationRequest(name=captured.name, amount_units=21))
    assert await refused(more) == (FAILED, "OVER_REFUND")
    assert await refused(desk.ask("RefundOperation", pb.RefundOperationRequest(name=back.name))) == (FAILED, "NOT_REFUNDABLE")
    assert await alliance.broken() == set()
    events = [event.message(PointsPosted) for event in await alliance.running.events("concord.loyalty.v1.points.posted")]
    assert [(e.amount_points, e.held_change_points, e.balance_points) for e in events] == [
        (100, 0, 100), (-60, 60, 40), (0, -25, 0), (35, -35, 75), (5, 0, 80),
    ]  # fmt: skip


async def test_points_are_reversed_by_the_issuer(alliance, desk, ana):
    earned = await desk.earn(ana, 100)
    by = {"kind": PrincipalKind.STAFF}
    undone = await desk.ask("ReverseOperation", pb.ReverseOperationRequest(name=earned.name), **by)
    assert (undone.kind, undone.balance_points) == (accounts_pb.OPERATION_KIND_REVERSE, 0)
    again = desk.ask("ReverseOperation", pb.ReverseOperationRequest(name=earned.name), **by)
    assert await refused(again) == (FAILED, "NOT_REVERSIBLE")
    bob = (await alliance.member())[1]
    await desk.earn(ana, 10)
    sent = pb.TransferPointsRequest(name=ana, to_account=bob, program="programs/bank-points", amount_points=10)
    assert await refused(desk.ask("TransferPoints", sent)) == (FAILED, "TRANSFER_NOT_ALLOWED")
    await alliance.program("miles", "shop")
    change = pb.ExchangePointsRequest(name=ana, program="programs/bank-points", amount_points=10, to_program="programs/miles")
    assert await refused(desk.ask("ExchangePoints", change)) == (FAILED, "NO_RATE")


async def test_what_is_anothers_does_not_exist(alliance, desk, ana):
    """The broker has no link with the customer; the shop accepted the points, so it may give them back, and no more."""
    earned = await desk.earn(ana, 100)
    spent = await desk.ask(
        "RedeemPoints",
        pb.RedeemPointsRequest(name=ana, program="programs/bank-points", amount_points=30, institution="institutions/shop"),
    )
    held = await desk.hold(ana, 20)
    at_shop = await desk.hold(ana, 5, place="shop")
    asked = [
        ("RefundOperation", pb.RefundOperationRequest(name=spent.name), "OPERATION_NOT_FOUND"),
        ("ClawBackEarning", pb.ClawBackEarningRequest(name=earned.name), "OPERATION_NOT_FOUND"),
        ("ConfirmEarning", pb.ConfirmEarningRequest(name=earned.name), "OPERATION_NOT_FOUND"),
        ("CancelEarning", pb.CancelEarningRequest(name=earned.name), "OPERATION_NOT_FOUND"),
        ("CaptureHold", pb.CaptureHoldRequest(name=held.name), "HOLD_NOT_FOUND"),
        ("VoidHold", pb.VoidHoldRequest(name=held.name), "HOLD_NOT_FOUND"),
        (
            "EarnPoints",
            pb.EarnPointsRequest(name=ana, program="programs/bank-points", amount_points=1, institution="institutions/broker"),
            "ACCOUNT_NOT_FOUND",
        ),
        (
            "HoldPoints",
            pb.HoldPointsRequest(name=ana, program="programs/bank-points", amount_points=1, institution="institutions/broker"),
            "ACCOUNT_NOT_FOUND",
        ),
    ]
    for method, request, expected in asked:
        assert await refused(desk.ask(method, request, "broker")) == (MISSING, expected), method
    assert await refused(desk.stub("broker").GetHold(pb.GetHoldRequest(name=held.name))) == (MISSING, "HOLD_NOT_FOUND")
    listing = pb.ListOperationsRequest(parent=ana)
    assert await refused(desk.stub("broker").ListOperations(listing)) == (MISSING, "ACCOUNT_NOT_FOUND")
    assert await refused(desk.ask("ClawBackEarning", pb.ClawBackEarningRequest(name=earned.name), "shop")) == (
        MISSING, "OPERATION_NOT_FOUND",
    )  # fmt: skip
    reverse = pb.ReverseOperationRequest(name=earned.name)
    assert await refused(desk.ask("ReverseOperation", reverse, "shop", kind=PrincipalKind.STAFF)) == (
        MISSING, "OPERATION_NOT_FOUND",
    )  # fmt: skip
    assert (await desk.stub("shop").GetHold(pb.GetHoldRequest(name=at_shop.name))).name == at_shop.name
    await desk.ask("CaptureHold", pb.CaptureHoldRequest(name=at_shop.name), "shop")
    back = await desk.ask("RefundOperation", pb.RefundOperationRequest(name=spent.name), "shop")
    assert back.balance_points == 75
    forged = pb.EarnPointsRequest(name=ana, program="programs/bank-points", amount_points=1, institution="institutions/shop")
    assert await refused(desk.ask("EarnPoints", forged)) == (MISSING, "INSTITUTION_NOT_FOUND")


async def test_operations_are_listed_newest_first_refusals_too(alliance, desk, ana):
    for points in (10, 20, 30):
        await desk.earn(ana, points)
    assert await refused(desk.hold(ana, 61)) == (FAILED, "INSUFFICIENT_POINTS")
    first = await desk.stub().ListOperations(pb.ListOperationsRequest(parent=ana, page_size=3))
    assert [operation.amount_points for operation in first.operations] == [61, 30, 20]
    assert first.operations[0].outcome == pb.OPERATION_OUTCOME_INSUFFICIENT_POINTS
    rest = pb.ListOperationsRequest(parent=ana, page_size=3, page_token=first.next_page_token)
    last = await desk.stub().ListOperations(rest)
    assert ([operation.amount_points for operation in last.operations], last.next_page_token) == ([10], "")


# ---- batches


def item(kind: str, **fields) -> pb.OperationItem:
    return pb.OperationItem(kind=accounts_pb.OperationKind.Value(f"OPERATION_KIND_{kind}"), **fields)


def spending(account, points, request_id="", **fields) -> pb.OperationItem:
    fields = {"program": "programs/bank-points", "institution": "institutions/bank"} | fields
    return item("REDEEM", account=account, amount_units=points, request_id=request_id, **fields)


async def test_a_batch_has_an_outcome_for_each_item(alliance, desk, ana):
    earning = item(
        "EARN", account=ana, program="programs/bank-points", amount_units=100, institution="institutions/bank", request_id="e"
    )
    items = [
        earning, spending(ana, 30, "r"), spending(ana, 30, "r"), spending(ana, 31, "r"), spending(ana, 71),
        spending(f"accounts/{uuid.uuid4()}", 1), spending(ana, 0), spending(ana, 1, program="programs/nowhere"), item("EXPIRE"),
        item("REFUND", target=f"operations/{uuid.uuid4()}"), spending(ana, 70),
    ]  # fmt: skip
    request = pb.BatchSubmitOperationsRequest(items=items, request_id="batch")
    answer = await desk.ask("BatchSubmitOperations", request)
    told = [
        result.error.reason or (pb.OperationOutcome.Name(result.operation.outcome)[18:], result.operation.balance_points)
        for result in answer.results
    ]
    assert told == [
        ("POSTED", 100), ("POSTED", 70), ("POSTED", 70), "REQUEST_ID_REUSED", ("INSUFFICIENT_POINTS", 70), "ACCOUNT_NOT_FOUND",
        "FIELD_INVALID", "PROGRAM_NOT_FOUND", "FIELD_INVALID", "OPERATION_NOT_FOUND", ("POSTED", 0),
    ]  # fmt: skip
    assert answer.results[1] == answer.results[2]
    # The whole again is the same again; one by one, too.
    assert await desk.ask("BatchSubmitOperations", request) == answer
    single = pb.RedeemPointsRequest(
        name=ana, program="programs/bank-points", amount_points=30, institution="institutions/bank", request_id="r"
    )
    assert await desk.ask("RedeemPoints", single) == answer.results[1].operation
    assert await alliance.balance(ana) == 0
    assert await alliance.broken() == set()


async def test_a_batch_that_gives_points_needs_the_scope_of_giving(desk, ana):
    request = pb.BatchSubmitOperationsRequest(items=[item("CONFIRM", target=f"operations/{uuid.uuid4()}")], request_id="b")
    call = desk.ask("BatchSubmitOperations", request, scopes=["points.redeem"])
    assert await refused(call) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_has_one_to_a_thousand_items(desk, ana, count):
    request = pb.BatchSubmitOperationsRequest(items=[spending(ana, 1)] * count, request_id="b")
    code, _ = await refused(desk.ask("BatchSubmitOperations", request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"pending": False, "activate_time": {"seconds": 4_000_000_000}}, "activate_time"),
        ({"expire_time": {"seconds": 1}}, "expire_time"),
        ({"reference": "x" * 201}, "reference"),
        ({"request_id": "x" * 256}, "request_id"),
        ({"amount_units": 10**12 + 1}, "amount_points"),
        ({"account": "accounts/x"}, "name"),
        ({"program": "p"}, "program"),
        ({"institution": ""}, "institution"),
        ({"reference": "a\0b"}, "reference"),
    ],
)
async def test_a_bad_item_says_which_field_and_spares_the_others(alliance, desk, ana, fields, named):
    good = {
        "account": ana, "program": "programs/bank-points", "amount_units": 5, "institution": "institutions/bank",
    }  # fmt: skip
    request = pb.BatchSubmitOperationsRequest(items=[item("EARN", **good | fields), item("EARN", **good)], request_id="b")
    bad, fine = (await desk.ask("BatchSubmitOperations", request)).results
    assert bad.error.reason in {"FIELD_INVALID", "TEXT_INVALID"}
    assert bad.error.message.startswith(named)
    assert fine.operation.balance_points == 5


async def test_batches_and_single_calls_at_two_replicas_agree(alliance, start, desk, ana):
    await desk.earn(ana, 1000)
    other = Desk(type(alliance)(await start()))
    batch = pb.BatchSubmitOperationsRequest(items=[spending(ana, 1, f"same-{i}") for i in range(100)], request_id="batch")
    singles = [
        pb.RedeemPointsRequest(
            name=ana, program="programs/bank-points", amount_points=1, institution="institutions/bank", request_id=f"same-{i}"
        )
        for i in range(100)
    ]
    answers = await asyncio.gather(
        desk.ask("BatchSubmitOperations", batch), other.ask("BatchSubmitOperations", batch),
        *(other.ask("RedeemPoints", single) for single in singles),
    )  # fmt: skip
    first = [result.operation for result in answers[0].results]
    assert [result.operation for result in answers[1].results] == first
    assert list(answers[2:]) == first
    assert await alliance.balance(ana) == 900
    assert await alliance.broken() == set()
