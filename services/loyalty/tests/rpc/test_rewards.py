"""Rewards through the contract: never oversold, a voucher for points or neither, codes that are kept nowhere and used once."""

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.common.v1.money_pb2 import Money
from concord.loyalty.v1 import exchange_service_pb2 as exchange_pb
from concord.loyalty.v1 import ledger_service_pb2 as ledger_pb
from concord.loyalty.v1 import program_service_pb2 as programs_pb
from concord.loyalty.v1 import reward_service_pb2 as pb
from concord.loyalty.v1.exchange_service_pb2_grpc import ExchangeServiceStub
from concord.loyalty.v1.reward_service_pb2_grpc import RewardServiceStub
from loyalty.caretaking import Caretaker


def staff(alliance, institution="bank"):
    return RewardServiceStub(alliance.channel(institution, kind=PrincipalKind.STAFF))


def channel(alliance, institution="bank"):
    return RewardServiceStub(alliance.channel(institution))


async def refusal(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await call
    return reason(told.value)


def wanted(**changes) -> pb.Reward:
    fields = {
        "institution": "institutions/bank", "display_name": "Umbrella", "price_program": "programs/bank-points",
        "price_points": 100, "voucher_days": 30,
    }  # fmt: skip
    return pb.Reward(**fields | changes)  # type: ignore[arg-type]


async def reward(alliance, **changes) -> pb.Reward:
    made = await staff(alliance).CreateReward(pb.CreateRewardRequest(reward=wanted(**changes), request_id=alliance.request_id()))
    assert made.state == pb.REWARD_STATE_DRAFT
    on_sale = pb.Reward(name=made.name, state=pb.REWARD_STATE_ACTIVE)
    return await staff(alliance).UpdateReward(  # type: ignore[no-any-return]
        pb.UpdateRewardRequest(reward=on_sale, etag=made.etag, request_id=alliance.request_id())
    )


def buying(alliance, account, made, **changes) -> pb.RedeemRewardRequest:
    return pb.RedeemRewardRequest(**{"parent": account, "reward": made.name, "request_id": alliance.request_id()} | changes)


async def stock(alliance, made) -> int:
    return (await staff(alliance).GetReward(pb.GetRewardRequest(name=made.name))).stock_left  # type: ignore[no-any-return]


async def test_a_reward_is_bought_for_points_and_its_voucher_used_once(alliance):
    made = await reward(alliance, stock_left=5)
    _, account = await alliance.member(150)
    request = buying(alliance, account, made)
    bought = await channel(alliance).RedeemReward(request)
    assert await channel(alliance).RedeemReward(request) == bought, "the same request is answered the same, with its code"
    assert (await alliance.balance(account), await stock(alliance, made)) == (50, 4)
    async with alliance.running.application.database.connection() as connection:
        kept = str(await connection.fetch("SELECT * FROM vouchers")) + str(await connection.fetch("SELECT * FROM idempotency"))
    assert bought.code not in kept
    assert bought.code.replace("-", "") not in kept
    partner = RewardServiceStub(alliance.channel("bank", kind=PrincipalKind.PARTNER))
    checked = await partner.VerifyVoucher(pb.VerifyVoucherRequest(code=bought.code.lower()))
    assert (checked.voucher, checked.state, checked.display_name) == (bought.voucher.name, pb.VOUCHER_STATE_ISSUED, "Umbrella")
    for other in ("shop", "broker"):
        assert (
            await refusal(channel(alliance, other).VerifyVoucher(pb.VerifyVoucherRequest(code=bought.code)))
            == "VOUCHER_NOT_FOUND"
        )
    assert await refusal(partner.VerifyVoucher(pb.VerifyVoucherRequest(code="ABCDE"))) == "VOUCHER_NOT_FOUND"
    uses = [partner.UseVoucher(pb.UseVoucherRequest(code=bought.code, request_id=f"use-{i}")) for i in range(8)]
    answers = await asyncio.gather(*uses, return_exceptions=True)
    used = [answer for answer in answers if not isinstance(answer, Exception)]
    assert [answer.state for answer in used] == [pb.VOUCHER_STATE_USED]
    assert {reason(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)} == {"VOUCHER_NOT_ISSUED"}
    cancelling = pb.CancelVoucherRequest(name=bought.voucher.name, request_id="c")
    assert await refusal(channel(alliance).CancelVoucher(cancelling)) == "VOUCHER_NOT_ISSUED"
    listed = await channel(alliance).ListVouchers(pb.ListVouchersRequest(parent=account))
    assert [each.state for each in listed.vouchers] == [pb.VOUCHER_STATE_USED]
    assert await alliance.broken() == set()


async def test_32_buyers_do_not_get_more_than_10(alliance):
    made = await reward(alliance, stock_left=10)
    members = [await alliance.member(100) for _ in range(4)]
    for customer, _ in members:
        await alliance.running.deliver(alliance.spending(customer, -100_000))
    calls = [channel(alliance).RedeemReward(buying(alliance, members[i % 4][1], made)) for i in range(32)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    bought = [answer for answer in answers if isinstance(answer, pb.RedeemRewardResponse)]
    errors = {reason(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)}
    assert (len(bought), errors, await stock(alliance, made)) == (10, {"REWARD_OUT_OF_STOCK"}, 0)
    assert len({answer.code for answer in bought}) == 10
    assert sum([await alliance.balance(account) for _, account in members]) == 4 * 1100 - 10 * 100
    assert await alliance.broken() == set()


async def test_what_is_refused_leaves_nothing(alliance):
    made = await reward(alliance, stock_left=5, member_max=1)
    _, poor = await alliance.member(99)
    assert await refusal(channel(alliance).RedeemReward(buying(alliance, poor, made))) == "INSUFFICIENT_POINTS"
    assert (await alliance.balance(poor), await stock(alliance, made)) == (99, 5)
    _, rich = await alliance.member(300)
    bought = await channel(alliance).RedeemReward(buying(alliance, rich, made))
    assert await refusal(channel(alliance).RedeemReward(buying(alliance, rich, made))) == "REWARD_MEMBER_MAX"
    cancelled = await channel(alliance).CancelVoucher(pb.CancelVoucherRequest(name=bought.voucher.name, request_id="c"))
    assert cancelled.state == pb.VOUCHER_STATE_CANCELLED
    assert (await alliance.balance(rich), await stock(alliance, made)) == (300, 5)
    await channel(alliance).RedeemReward(buying(alliance, rich, made))
    assert await refusal(channel(alliance, "shop").RedeemReward(buying(alliance, rich, made))) == "ACCOUNT_NOT_FOUND"
    assert (
        await refusal(channel(alliance, "shop").GetVoucher(pb.GetVoucherRequest(name=bought.voucher.name))) == "VOUCHER_NOT_FOUND"
    )
    assert await alliance.broken() == set()


async def test_vouchers_end(alliance, monkeypatch):
    made = await reward(alliance, stock_left=1, voucher_days=1)
    _, account = await alliance.member(100)
    bought = await channel(alliance).RedeemReward(buying(alliance, account, made))
    tomorrow = datetime.now(UTC) + timedelta(days=1, seconds=1)
    monkeypatch.setattr("loyalty.rpc.reward_service.clock.now", lambda: tomorrow)
    use = pb.UseVoucherRequest(code=bought.code, request_id="u")
    assert await refusal(channel(alliance).UseVoucher(use)) == "VOUCHER_NOT_ISSUED"
    commands = alliance.running.application.commands
    monkeypatch.setattr(commands, "_clock", lambda: tomorrow)
    assert await Caretaker(commands).step() == 1
    voucher = await channel(alliance).GetVoucher(pb.GetVoucherRequest(name=bought.voucher.name))
    assert (voucher.state, voucher.HasField("close_time"), await stock(alliance, made)) == (pb.VOUCHER_STATE_EXPIRED, True, 0)


async def test_the_catalogue_is_the_institutions_own(alliance):
    made = await reward(alliance, stock_left=2)
    shop = staff(alliance, "shop")
    assert [each.name for each in (await shop.ListRewards(pb.ListRewardsRequest())).rewards] == [made.name]
    off = pb.UpdateRewardRequest(reward=pb.Reward(name=made.name, state=pb.REWARD_STATE_PAUSED), request_id="p")
    assert await refusal(shop.UpdateReward(off)) == "REWARD_NOT_FOUND"
    await staff(alliance).UpdateReward(off)
    assert not (await shop.ListRewards(pb.ListRewardsRequest())).rewards
    assert await refusal(shop.GetReward(pb.GetRewardRequest(name=made.name))) == "REWARD_NOT_FOUND"
    _, account = await alliance.member(100)
    assert await refusal(channel(alliance).RedeemReward(buying(alliance, account, made))) == "REWARD_NOT_ACTIVE"
    stale = pb.UpdateRewardRequest(reward=pb.Reward(name=made.name, display_name="x"), etag=made.etag, request_id="q")
    assert await refusal(staff(alliance).UpdateReward(stale)) == "ETAG_MISMATCH"
    less = pb.ChangeRewardStockRequest(name=made.name, change=-3, request_id="s")
    assert await refusal(staff(alliance).ChangeRewardStock(less)) == "REWARD_OUT_OF_STOCK"
    more = pb.ChangeRewardStockRequest(name=made.name, change=3, request_id="t")
    assert (await staff(alliance).ChangeRewardStock(more)).stock_left == 5
    ending = pb.UpdateRewardRequest(
        reward=pb.Reward(name=made.name, state=pb.REWARD_STATE_ENDED), update_mask=FieldMask(paths=["state"]), request_id="e"
    )
    await staff(alliance).UpdateReward(ending)
    ending.request_id = "f"
    assert await refusal(staff(alliance).UpdateReward(ending)) == "REWARD_ENDED"


@pytest.mark.parametrize(
    ("changes", "reason_"),
    [
        ({"institution": "institutions/shop"}, "INSTITUTION_NOT_FOUND"),
        ({"display_name": " "}, "REWARD_INVALID"),
        ({"price_points": 0}, "REWARD_INVALID"),
        ({"price_program": "programs/nothing"}, "PROGRAM_NOT_FOUND"),
        ({"voucher_days": 0}, "REWARD_INVALID"),
    ],
)
async def test_what_is_no_reward(alliance, changes, reason_):
    request = pb.CreateRewardRequest(reward=wanted(**changes), request_id="r")
    assert await refusal(staff(alliance).CreateReward(request)) == reason_


async def test_what_was_refunded_is_good_for_nothing(alliance):
    made = await reward(alliance, stock_left=1)
    _, account = await alliance.member(100)
    bought = await channel(alliance).RedeemReward(buying(alliance, account, made))
    await alliance.ledger().RefundOperation(ledger_pb.RefundOperationRequest(name=bought.voucher.operation, request_id="r"))
    assert await alliance.balance(account) == 100
    use = pb.UseVoucherRequest(code=bought.code, request_id="u")
    assert await refusal(channel(alliance).UseVoucher(use)) == "VOUCHER_REFUNDED"


async def test_a_price_in_money_is_paid_by_a_quote_of_exactly_it(alliance):
    value = programs_pb.Program(name="programs/bank-points")
    value.liability_value.CopyFrom(programs_pb.PointValue(numerator=1, denominator=1, currency_code="USD"))
    await alliance.programs().UpdateProgram(programs_pb.UpdateProgramRequest(program=value, request_id="v"))
    price = Money(currency_code="USD", minor_units=150)
    made = await reward(alliance, price_program="", price_points=0, price_money=price)
    _, account = await alliance.member(100)
    assert await refusal(channel(alliance).RedeemReward(buying(alliance, account, made))) == "QUOTE_NEEDED"
    exchange = ExchangeServiceStub(alliance.channel("bank"))

    async def quote(minor_units):
        money = Money(currency_code="USD", minor_units=minor_units)
        return await exchange.CreateQuote(
            exchange_pb.CreateQuoteRequest(
                parent=account, institution="institutions/bank", money=money, money_allowed=True, request_id=alliance.request_id()
            )
        )

    wrong, right = await quote(149), await quote(150)
    assert await refusal(channel(alliance).RedeemReward(buying(alliance, account, made, quote=wrong.name))) == "QUOTE_MISMATCH"
    bought = await channel(alliance).RedeemReward(buying(alliance, account, made, quote=right.name))
    assert (bought.voucher.money_due.minor_units, await alliance.balance(account)) == (50, 0)
    assert await refusal(channel(alliance).RedeemReward(buying(alliance, account, made, quote=right.name))) == "QUOTE_USED"
    assert await alliance.broken() == set()
