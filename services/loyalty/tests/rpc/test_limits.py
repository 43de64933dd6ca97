"""Limits through the contract: two persons decide, the ledger refuses in its own transaction, also when many ask at once."""

import asyncio

import grpc
import pytest

from chassis.errors import from_rpc
from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.loyalty.v1 import limit_service_pb2 as pb
from concord.loyalty.v1.limit_service_pb2_grpc import LimitServiceStub

SPENDING = [pb.LIMITED_OPERATION_REDEEM, pb.LIMITED_OPERATION_HOLD]


def staff(alliance, subject="ann", institution="bank"):
    return LimitServiceStub(alliance.channel(institution, kind=PrincipalKind.STAFF, subject=subject))


def drafting(alliance, **changes) -> pb.CreateLimitRequest:
    fields = {
        "scope": pb.LIMIT_SCOPE_MEMBER, "window": pb.LIMIT_WINDOW_DAY, "program": "programs/bank-points", "operations": SPENDING,
    }  # fmt: skip
    return pb.CreateLimitRequest(limit=pb.Limit(**fields | changes), request_id=alliance.request_id())  # type: ignore[arg-type]


async def limit(alliance, institution="bank", **changes) -> pb.Limit:
    drafted = await staff(alliance, institution=institution).CreateLimit(drafting(alliance, **changes))
    return await staff(alliance, "bob", institution).ApproveLimit(  # type: ignore[no-any-return]
        pb.ApproveLimitRequest(name=drafted.name, request_id=alliance.request_id())
    )


async def refused(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await call
    return told.value


def metadata(error) -> dict[str, str]:
    return from_rpc(error).metadata


async def test_two_persons_make_and_end_a_limit(alliance):
    drafted = await staff(alliance).CreateLimit(drafting(alliance, points_max=100))
    approving = pb.ApproveLimitRequest(name=drafted.name, request_id="a")
    assert reason(await refused(staff(alliance).ApproveLimit(approving))) == "APPROVAL_BY_SAME_PERSON"
    assert reason(await refused(staff(alliance, "eve", "shop").ApproveLimit(approving))) == "LIMIT_NOT_FOUND"
    assert (await staff(alliance, "bob").ApproveLimit(approving)).state == pb.LIMIT_STATE_ACTIVE
    ending = pb.EndLimitRequest(name=drafted.name, request_id="e")
    assert (await staff(alliance).EndLimit(ending)).state == pb.LIMIT_STATE_ENDING
    again = pb.EndLimitRequest(name=drafted.name, request_id="f")
    assert reason(await refused(staff(alliance).EndLimit(again))) == "APPROVAL_BY_SAME_PERSON"
    assert (await staff(alliance, "bob").EndLimit(again)).state == pb.LIMIT_STATE_ENDED
    listed = await staff(alliance).ListLimits(pb.ListLimitsRequest())
    assert [each.name for each in listed.limits] == [drafted.name]
    assert not (await staff(alliance, institution="shop").ListLimits(pb.ListLimitsRequest())).limits
    assert (await staff(alliance).GetLimit(pb.GetLimitRequest(name=drafted.name))).points_max == 100


async def test_nobody_limits_what_is_not_theirs(alliance):
    assert reason(await refused(staff(alliance, institution="shop").CreateLimit(drafting(alliance, points_max=1)))) == (
        "PROGRAM_NOT_FOUND"
    )
    at_bank = drafting(alliance, program="", institution="institutions/bank", points_max=1)
    assert reason(await refused(staff(alliance, institution="shop").CreateLimit(at_bank))) == "INSTITUTION_NOT_FOUND"
    assert reason(await refused(staff(alliance).CreateLimit(drafting(alliance)))) == "LIMIT_INVALID"
    assert (
        reason(await refused(staff(alliance).CreateLimit(drafting(alliance, points_max=1, time_zone="Moon")))) == "LIMIT_INVALID"
    )


async def test_many_at_once_do_not_pass_a_limit(alliance):
    made = await limit(alliance, points_max=100, time_zone="Asia/Shanghai")
    _, account = await alliance.member(1000)
    calls = [alliance.ledger().RedeemPoints(alliance.redemption(account, 9)) for _ in range(32)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert (len(answers) - len(errors), {reason(error) for error in errors}) == (11, {"LIMIT_EXCEEDED"})
    told = metadata(errors[0])
    assert told["limit"] == made.name
    assert told["free_time"].endswith("T00:00:00+08:00")
    assert await alliance.balance(account) == 1000 - 99
    _, other = await alliance.member(1000)
    await alliance.ledger().RedeemPoints(alliance.redemption(other, 100))
    assert await alliance.broken() == set()


async def test_a_refusal_is_kept_and_answered_again(alliance):
    await limit(alliance, operations_max=0)
    _, account = await alliance.member(10)
    request = alliance.redemption(account, 1)
    first, second = [metadata(await refused(alliance.ledger().RedeemPoints(request))) for _ in range(2)]
    assert first == second
    async with alliance.running.application.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM operations WHERE outcome = 'LIMIT_EXCEEDED'") == 1


async def test_newly_linked_members_cool_off_at_the_shop(alliance):
    made = await staff(alliance, institution="shop").CreateLimit(
        drafting(
            alliance,
            scope=pb.LIMIT_SCOPE_MEMBER_AT_INSTITUTION,
            program="",
            institution="institutions/shop",
            operations_max=0,
            first_days=3,
        )
    )
    await staff(alliance, "bob", "shop").ApproveLimit(pb.ApproveLimitRequest(name=made.name, request_id="a"))
    _, account = await alliance.member(100)
    assert reason(await refused(alliance.ledger().RedeemPoints(alliance.redemption(account, 1)))) == "LIMIT_EXCEEDED"
    await alliance.ledger().RedeemPoints(alliance.redemption(account, 1, institution="institutions/broker"))


async def test_earning_is_limited_too(alliance):
    await limit(alliance, operations=[pb.LIMITED_OPERATION_EARN], points_max=150)
    customer, account = await alliance.member(100)
    await alliance.running.deliver(alliance.spending(customer, -6000), alliance.spending(customer, -5000))
    assert await alliance.balance(account) == 150
    assert await alliance.broken() == set()
