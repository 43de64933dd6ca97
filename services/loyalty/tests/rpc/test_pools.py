"""Households: who may take whose points, in which order, how many, and what becomes of it on the way out."""

from datetime import timedelta

import grpc
import pytest

from chassis.clock import now
from chassis.identity import PrincipalKind
from chassis.testing import reason, received
from concord.common.v1.event_pb2 import StateVersion
from concord.customer.v1.customer_events_pb2 import CustomerChanged
from concord.loyalty.v1 import account_service_pb2 as accounts_pb
from concord.loyalty.v1 import ledger_service_pb2 as ledger_pb
from concord.loyalty.v1 import pool_service_pb2 as pb
from concord.loyalty.v1.pool_service_pb2_grpc import PoolServiceStub

SCOPES = ["points.read", "points.write", "points.redeem", "points.issue"]
PROGRAM = "programs/bank-points"


async def refusal(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return reason(refused.value)


class Household:
    """Accounts of the bank: the first is the head, all others have joined."""

    def __init__(self, alliance) -> None:
        self.alliance, self.stub = alliance, PoolServiceStub(alliance.channel("bank"))
        self.accounts: list[str] = []
        self.customers: list[str] = []
        self.pool = ""

    async def found(self, *points, limit=None):
        for each in points:
            customer, account = await self.alliance.member(each)
            self.customers.append(str(customer.customer_id))
            self.accounts.append(account)
        head, *others = self.accounts
        self.pool = (await self.stub.CreatePool(pb.CreatePoolRequest(parent=head, request_id=self.id()))).name
        for other in others:
            await self.invite(other, limit)
            await self.join(other)
        return self.accounts

    def id(self):
        return self.alliance.request_id()

    async def invite(self, member, limit=None, head=None):
        name = head or self.accounts[0]
        return await self.stub.InviteToPool(
            pb.InviteToPoolRequest(name=name, member=member, draw_points_max=limit, request_id=self.id())
        )

    async def join(self, account, stub=None):
        return await (stub or self.stub).JoinPool(pb.JoinPoolRequest(name=account, pool=self.pool, request_id=self.id()))

    async def leave(self, account, member=""):
        return await self.stub.LeavePool(pb.LeavePoolRequest(name=account, member=member, request_id=self.id()))

    async def redeem(self, account, points, **changes):
        request = self.alliance.redemption(account, points, use_pool=True, **changes)
        return await self.alliance.ledger().RedeemPoints(request)

    async def hold(self, account, points):
        request = ledger_pb.HoldPointsRequest(
            name=account,
            program=PROGRAM,
            amount_points=points,
            institution="institutions/shop",
            request_id=self.id(),
            use_pool=True,
        )
        return await self.alliance.ledger().HoldPoints(request)

    async def balances(self):
        return [await self.alliance.balance(account) for account in self.accounts]


@pytest.fixture
def household(alliance):
    return Household(alliance)


async def test_own_points_go_first_and_then_what_ends_first_in_the_pool(alliance, household):
    head, second, third = await household.found(10, 0, 0)
    for account, points, days in ((second, 20, 30), (third, 20, 10), (third, 5, 40)):
        await alliance.ledger(scopes=SCOPES).EarnPoints(
            ledger_pb.EarnPointsRequest(
                name=account, program=PROGRAM, amount_points=points, institution="institutions/bank", request_id=household.id(),
                expire_time=now() + timedelta(days=days),  # type: ignore[arg-type]
            )
        )  # fmt: skip
    assert await refusal(alliance.ledger().RedeemPoints(alliance.redemption(head, 11))) == "INSUFFICIENT_POINTS"
    spent = await household.redeem(head, 35)
    assert (spent.amount_points, spent.balance_points) == (35, 0)
    assert await household.balances() == [0, 15, 5], "the head's, then the third's that end first, then the second's"
    assert await refusal(household.redeem(head, 21)) == "INSUFFICIENT_POINTS"
    held = await household.hold(second, 18)
    assert await household.balances() == [0, 0, 2]
    await alliance.ledger().VoidHold(ledger_pb.VoidHoldRequest(name=held.name, request_id="v"))
    assert await household.balances() == [0, 15, 5]
    refund = ledger_pb.RefundOperationRequest(name=spent.name, request_id="back")
    await alliance.ledger(None).RefundOperation(refund)
    assert await household.balances() == [10, 20, 25], "to the lots they came from"
    assert await alliance.broken() == set()


async def test_each_member_agrees_by_a_request_of_its_own_and_leaves_when_it_likes(alliance, household):
    head, second, third = await household.found(10, 20, 30)
    _, stranger = await alliance.member(40)
    assert await refusal(household.join(stranger)) == "POOL_NOT_FOUND"
    assert await refusal(household.invite(stranger, head=second)) == "NOT_HEAD_OF_POOL"
    invited = await household.invite(stranger)
    assert [(m.account, m.HasField("join_time")) for m in invited.members] == [
        (head, True), (second, True), (third, True), (stranger, False),
    ]  # fmt: skip
    assert await refusal(household.redeem(head, 61)) == "INSUFFICIENT_POINTS", "an invitation gives nothing"
    bound = PoolServiceStub(alliance.channel("bank", customer=household.customers[0]))
    assert await refusal(household.join(stranger, bound)) == "ACCOUNT_NOT_FOUND", "nobody agrees for another"
    await household.join(stranger)
    assert (await household.redeem(head, 61)).balance_points == 0
    assert await refusal(household.join(second)) == "IN_POOL"
    assert [m.account for m in (await household.leave(head, stranger)).members] == [head, second, third]
    assert await refusal(household.leave(head, stranger)) == "POOL_MEMBER_NOT_FOUND"
    assert await refusal(household.leave(second, third)) == "NOT_HEAD_OF_POOL"
    assert await refusal(household.join(stranger)) == "POOL_NOT_FOUND", "who was taken out is not invited any more"
    left = await household.leave(second)
    assert [m.account for m in left.members] == [head, third]
    assert await refusal(household.leave(second)) == "NOT_IN_POOL"
    closed = await household.leave(head)
    assert (list(closed.members), closed.HasField("close_time")) == ([], True)
    assert await refusal(household.stub.GetPool(pb.GetPoolRequest(parent=third))) == "NOT_IN_POOL"
    eve = PoolServiceStub(alliance.channel("broker"))
    assert await refusal(eve.GetPool(pb.GetPoolRequest(parent=third))) == "ACCOUNT_NOT_FOUND"


async def test_a_member_takes_no_more_of_others_than_its_limit_also_within_one_batch(alliance, household):
    _, second = await household.found(100, 10, limit=30)
    asked = [
        ledger_pb.OperationItem(
            request_id=household.id(), kind=accounts_pb.OPERATION_KIND_REDEEM, account=second, program=PROGRAM,
            amount_units=points, institution="institutions/shop", use_pool=True,
        )
        for points in (25, 15, 1)
    ]  # fmt: skip
    results = (
        await alliance.ledger(scopes=SCOPES).BatchSubmitOperations(
            ledger_pb.BatchSubmitOperationsRequest(items=asked, request_id="batch")
        )
    ).results
    assert [result.operation.outcome for result in results] == [
        ledger_pb.OPERATION_OUTCOME_POSTED, ledger_pb.OPERATION_OUTCOME_POSTED, ledger_pb.OPERATION_OUTCOME_INSUFFICIENT_POINTS,
    ]  # fmt: skip
    assert await household.balances() == [70, 0]
    assert await refusal(household.redeem(second, 1)) == "INSUFFICIENT_POINTS", "it is counted from the ledger, too"
    await household.invite(second, 35)
    held = await household.hold(second, 5)
    assert await refusal(household.redeem(second, 1)) == "INSUFFICIENT_POINTS"
    await alliance.ledger().VoidHold(ledger_pb.VoidHoldRequest(name=held.name, request_id="v"))
    assert (await household.redeem(second, 5)).balance_points == 0, "what was not spent does not count"
    await household.invite(second)
    await household.redeem(second, 60)
    assert await household.balances() == [5, 0]
    assert await alliance.broken() == set()


async def test_frozen_and_closed_members_give_nothing(alliance, household):
    head, second, third = await household.found(0, 20, 30)
    staff = alliance.accounts(kind=PrincipalKind.STAFF)
    await staff.FreezeAccount(accounts_pb.FreezeAccountRequest(name=second, reason_code="FRAUD", request_id="f"))
    assert await refusal(household.redeem(head, 31)) == "INSUFFICIENT_POINTS"
    await staff.CloseAccount(accounts_pb.CloseAccountRequest(name=third, give_up_points=True, request_id="c"))
    pool = await household.stub.GetPool(pb.GetPoolRequest(parent=head))
    assert [member.account for member in pool.members] == [head, second]
    await staff.UnfreezeAccount(accounts_pb.UnfreezeAccountRequest(name=second, reason_code="CLEARED", request_id="u"))
    assert (await household.redeem(head, 20)).balance_points == 0
    assert await alliance.broken() == set()


async def test_pools_are_as_they_were_after_a_merge_is_undone(alliance, household):
    head, second = await household.found(10, 20)
    other, _ = await alliance.member(30)
    versions = iter(range(2, 99))

    async def merge(loser, winner=""):
        version = StateVersion(epoch=1, version=next(versions))
        message = CustomerChanged(customer_id=loser, merged_into_customer_id=winner, state_version=version)
        await alliance.running.deliver(received("concord.customer.v1.customer.updated", message))

    await merge(household.customers[1], str(other.customer_id))
    assert await refusal(household.redeem(head, 11)) == "INSUFFICIENT_POINTS", "who took the member over has not agreed"
    assert await refusal(household.redeem(second, 1)) == "CUSTOMER_MERGED"
    await merge(household.customers[1])
    assert (await household.redeem(head, 11)).balance_points == 0
    await merge(str(other.customer_id), household.customers[1])
    assert (await household.redeem(head, 48)).amount_points == 48, "with what the member took over"
    await merge(str(other.customer_id))
    assert await household.balances() == [0, 0]
    assert await refusal(household.redeem(head, 1)) == "INSUFFICIENT_POINTS"
    assert await alliance.broken() == set()
