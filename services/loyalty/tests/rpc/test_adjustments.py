import grpc
import pytest

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.loyalty.v1 import adjustment_service_pb2 as pb
from concord.loyalty.v1 import ledger_service_pb2 as ledger_pb
from concord.loyalty.v1.adjustment_service_pb2_grpc import AdjustmentServiceStub


async def refusal(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return reason(refused.value)


def staff(alliance, subject, institution="bank"):
    kind = PrincipalKind.STAFF if institution else PrincipalKind.OPERATOR
    return AdjustmentServiceStub(alliance.channel(institution, kind=kind, subject=subject))


def draft(alliance, account, points, program="bank-points"):
    adjustment = pb.Adjustment(program=f"programs/{program}", change_points=points, reason_code="GOODWILL")
    return pb.CreateAdjustmentRequest(parent=account, adjustment=adjustment, request_id=alliance.request_id())


def approve(alliance, made):
    return pb.ApproveAdjustmentRequest(name=made.name, request_id=alliance.request_id())


def reject(alliance, made):
    return pb.RejectAdjustmentRequest(name=made.name, request_id=alliance.request_id())


async def test_points_are_given_and_taken_by_two_persons_of_the_issuer(alliance):
    _, account = await alliance.member(100)
    ann, bob, operator = staff(alliance, "ann"), staff(alliance, "bob"), staff(alliance, "ann", None)
    made = await ann.CreateAdjustment(draft(alliance, account, 50))
    assert (made.state, made.drafted_by, made.operation) == (pb.ADJUSTMENT_STATE_DRAFT, "ann", "")
    assert await alliance.balance(account) == 100, "nothing moves yet"
    assert await refusal(ann.ApproveAdjustment(approve(alliance, made))) == "APPROVAL_BY_SAME_PERSON"
    request = approve(alliance, made)
    done = await bob.ApproveAdjustment(request)
    assert (done.state, done.decided_by, done.outcome) == (pb.ADJUSTMENT_STATE_POSTED, "bob", ledger_pb.OPERATION_OUTCOME_POSTED)
    assert await bob.ApproveAdjustment(request) == done, "asked again, done once"
    assert await alliance.balance(account) == 150
    assert await refusal(bob.ApproveAdjustment(approve(alliance, made))) == "ADJUSTMENT_DECIDED"
    assert await refusal(bob.RejectAdjustment(reject(alliance, made))) == "ADJUSTMENT_DECIDED"
    taken = await bob.CreateAdjustment(draft(alliance, account, -120))
    assert (await operator.ApproveAdjustment(approve(alliance, taken))).state == pb.ADJUSTMENT_STATE_POSTED
    assert await alliance.balance(account) == 30
    more = await ann.CreateAdjustment(draft(alliance, account, -31))
    refused = await bob.ApproveAdjustment(approve(alliance, more))
    assert (refused.state, refused.outcome) == (
        pb.ADJUSTMENT_STATE_REFUSED, ledger_pb.OPERATION_OUTCOME_INSUFFICIENT_POINTS
    )  # fmt: skip
    assert (await alliance.ledger().GetOperation(ledger_pb.GetOperationRequest(name=refused.operation))).amount_points == 31
    dropped = await ann.CreateAdjustment(draft(alliance, account, 1))
    assert (await ann.RejectAdjustment(reject(alliance, dropped))).state == pb.ADJUSTMENT_STATE_REJECTED
    assert await alliance.balance(account) == 30
    first = await ann.ListAdjustments(pb.ListAdjustmentsRequest(parent="institutions/bank", page_size=3))
    rest = await ann.ListAdjustments(
        pb.ListAdjustmentsRequest(parent="institutions/bank", page_size=3, page_token=first.next_page_token)
    )
    assert [a.name for page in (first, rest) for a in page.adjustments] == [a.name for a in (dropped, more, taken, made)]
    asked = pb.ListAdjustmentsRequest(parent="institutions/-", state=pb.ADJUSTMENT_STATE_POSTED)
    assert [a.name for a in (await operator.ListAdjustments(asked)).adjustments] == [taken.name, made.name]
    assert await alliance.broken() == set()


async def test_an_adjustment_is_the_issuers_alone(alliance):
    customer = await alliance.customer("bank", "broker")
    account = await alliance.account(customer, "bank", "broker")
    stranger = await alliance.account(await alliance.customer("shop"), "shop")
    ann, eve = staff(alliance, "ann"), staff(alliance, "eve", "broker")
    made = await ann.CreateAdjustment(draft(alliance, account, 5))
    for call, expected in (
        (eve.CreateAdjustment(draft(alliance, account, 5)), "PROGRAM_NOT_FOUND"),
        (ann.CreateAdjustment(draft(alliance, account, 5, "nothing")), "PROGRAM_NOT_FOUND"),
        (ann.CreateAdjustment(draft(alliance, stranger, 5)), "ACCOUNT_NOT_FOUND"),
        (eve.GetAdjustment(pb.GetAdjustmentRequest(name=made.name)), "ADJUSTMENT_NOT_FOUND"),
        (eve.ApproveAdjustment(approve(alliance, made)), "ADJUSTMENT_NOT_FOUND"),
        (eve.RejectAdjustment(reject(alliance, made)), "ADJUSTMENT_NOT_FOUND"),
        (eve.ListAdjustments(pb.ListAdjustmentsRequest(parent="institutions/bank")), "INSTITUTION_NOT_FOUND"),
    ):
        assert await refusal(call) == expected
    assert await ann.GetAdjustment(pb.GetAdjustmentRequest(name=made.name)) == made
