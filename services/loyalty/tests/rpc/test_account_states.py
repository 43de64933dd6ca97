"""Accounts are frozen, closed and unlinked, and what that does to points."""

from datetime import UTC, datetime

import grpc
import pytest

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.loyalty.v1 import account_service_pb2 as pb
from concord.loyalty.v1 import ledger_service_pb2 as ledger_pb
from concord.loyalty.v1.loyalty_events_pb2 import AccountChanged

STAFF = {"kind": PrincipalKind.STAFF}


async def refusal(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return reason(refused.value)


def freeze(alliance, account):
    return pb.FreezeAccountRequest(name=account, reason_code="FRAUD", request_id=alliance.request_id())


def unfreeze(alliance, account, institution=""):
    return pb.UnfreezeAccountRequest(
        name=account, reason_code="CLEARED", request_id=alliance.request_id(), institution=institution
    )


def close(alliance, account, give_up=False):
    return pb.CloseAccountRequest(name=account, give_up_points=give_up, request_id=alliance.request_id())


async def test_a_frozen_account_earns_and_does_not_spend_until_every_freeze_is_taken_away(alliance):
    customer = await alliance.customer("bank", "broker")
    account = await alliance.account(customer, "bank", "broker")
    await alliance.running.deliver(alliance.spending(customer, -10_000))
    bank, broker, operator = alliance.accounts(**STAFF), alliance.accounts("broker", **STAFF), alliance.accounts(None)
    frozen = await bank.FreezeAccount(freeze(alliance, account))
    assert frozen.state == pb.ACCOUNT_STATE_FROZEN
    assert [(f.institution, f.reason_code) for f in frozen.freezes] == [("institutions/bank", "FRAUD")]
    assert await refusal(bank.FreezeAccount(freeze(alliance, account))) == "ACCOUNT_FROZEN"
    assert await refusal(alliance.accounts().FreezeAccount(freeze(alliance, account))) == "KIND_NOT_ADMITTED"
    assert await refusal(alliance.ledger().RedeemPoints(alliance.redemption(account, 10))) == "ACCOUNT_FROZEN"
    hold = ledger_pb.HoldPointsRequest(
        name=account, program="programs/bank-points", amount_points=1, institution="institutions/shop", request_id="h"
    )
    assert await refusal(alliance.ledger().HoldPoints(hold)) == "ACCOUNT_FROZEN"
    await alliance.running.deliver(alliance.spending(customer, -5_000))
    assert await alliance.balance(account) == 150
    assert [f.reason_code for f in (await broker.FreezeAccount(freeze(alliance, account))).freezes] == ["", "FRAUD"]
    assert await refusal(broker.UnfreezeAccount(unfreeze(alliance, account, "institutions/bank"))) == "INSTITUTION_NOT_FOUND"
    assert (await bank.UnfreezeAccount(unfreeze(alliance, account))).state == pb.ACCOUNT_STATE_FROZEN
    assert await refusal(bank.UnfreezeAccount(unfreeze(alliance, account))) == "ACCOUNT_NOT_FROZEN"
    thawed = await operator.UnfreezeAccount(unfreeze(alliance, account, "institutions/broker"))
    assert (thawed.state, list(thawed.freezes)) == (pb.ACCOUNT_STATE_OPEN, [])
    assert (await alliance.ledger().RedeemPoints(alliance.redemption(account, 10))).balance_points == 140
    told = [e.message(AccountChanged) for e in await alliance.running.events("concord.loyalty.v1.account.changed")]
    assert [m.state for m in told] == [1, 2, 2, 2, 1]


async def test_what_is_held_is_in_the_way_of_closing_and_points_must_be_given_up(alliance):
    customer, account = await alliance.member(100)
    stub = alliance.accounts()
    hold = await alliance.ledger().HoldPoints(
        ledger_pb.HoldPointsRequest(
            name=account, program="programs/bank-points", amount_points=30, institution="institutions/shop", request_id="h"
        )
    )
    balance = (await stub.GetAccount(pb.GetAccountRequest(name=account))).balances[0]
    assert (balance.balance_points, balance.held_points, balance.total_points, balance.debt_points) == (70, 30, 100, 0)
    assert await refusal(stub.CloseAccount(close(alliance, account, True))) == "HOLD_OPEN"
    await alliance.ledger().VoidHold(ledger_pb.VoidHoldRequest(name=hold.name, request_id="v"))
    assert await refusal(stub.CloseAccount(close(alliance, account))) == "POINTS_LEFT"
    await alliance.accounts(**STAFF).FreezeAccount(freeze(alliance, account))
    assert await refusal(stub.CloseAccount(close(alliance, account, True))) == "ACCOUNT_FROZEN"
    await alliance.accounts(**STAFF).UnfreezeAccount(unfreeze(alliance, account))
    closed = await stub.CloseAccount(close(alliance, account, True))
    assert (closed.state, closed.balances[0].total_points, list(closed.memberships)) == (pb.ACCOUNT_STATE_CLOSED, 0, [])
    assert closed.HasField("close_time")
    assert await refusal(stub.CloseAccount(close(alliance, account, True))) == "ACCOUNT_CLOSED"
    assert await refusal(alliance.accounts(**STAFF).FreezeAccount(freeze(alliance, account))) == "ACCOUNT_CLOSED"
    assert await refusal(alliance.ledger().RedeemPoints(alliance.redemption(account, 1))) == "ACCOUNT_CLOSED"
    link = pb.LinkInstitutionRequest(parent=account, institution="institutions/bank", request_id="l")
    assert await refusal(stub.LinkInstitution(link)) == "ACCOUNT_CLOSED"
    await alliance.running.deliver(alliance.spending(customer, -10_000))
    assert await alliance.balance(account) == 0, "nothing is linked, so nothing earns"
    request = pb.OpenAccountRequest(customer=customer.name, institutions=["institutions/bank"], request_id="again")
    again = await stub.OpenAccount(request)
    assert (again.name, again.state, again.HasField("close_time")) == (account, pb.ACCOUNT_STATE_OPEN, False)
    await alliance.running.deliver(alliance.spending(customer, -2_000))
    assert await alliance.balance(account) == 20
    assert (await stub.CloseAccount(close(alliance, account, True))).state == pb.ACCOUNT_STATE_CLOSED, "and once more"
    assert await alliance.broken() == set()


async def test_a_membership_that_ended_earns_no_more_and_its_id_is_never_used_again(alliance):
    customer = await alliance.customer("bank", "broker")
    account = await alliance.account(customer, "broker")
    stub, when = alliance.accounts(), datetime(2026, 3, 1, tzinfo=UTC)
    asked = pb.LinkInstitutionRequest(
        parent=account,
        institution="institutions/bank",
        request_id="l",
        consent_reference="doc 7",
        consent_time=when,  # type: ignore[arg-type]
    )
    first = await stub.LinkInstitution(asked)
    assert (first.consent_reference, first.consent_time.ToDatetime(UTC)) == ("doc 7", when)
    seen = await alliance.accounts("broker").GetAccount(pb.GetAccountRequest(name=account))
    assert [(m.member_id == "", m.consent_reference) for m in seen.memberships] == [(True, ""), (False, "")]
    await alliance.running.deliver(alliance.spending(customer, -1_000))

    def unlink(name=first.name):
        return pb.UnlinkInstitutionRequest(name=name, request_id=alliance.request_id())

    assert await refusal(alliance.accounts("broker").UnlinkInstitution(unlink())) == "INSTITUTION_NOT_FOUND"
    assert await refusal(alliance.accounts("shop").UnlinkInstitution(unlink())) == "ACCOUNT_NOT_FOUND"
    ended = await stub.UnlinkInstitution(unlink())
    assert (ended.member_id, ended.consent_reference, ended.HasField("end_time")) == (first.member_id, "doc 7", True)
    assert await refusal(stub.UnlinkInstitution(unlink())) == "MEMBERSHIP_ENDED"
    never = f"{account}/links/shop"
    assert await refusal(alliance.accounts(None).UnlinkInstitution(unlink(never))) == "MEMBERSHIP_NOT_FOUND"
    await alliance.running.deliver(alliance.spending(customer, -1_000))
    assert await alliance.balance(account) == 10, "what was earned stays"
    asked.request_id, asked.consent_reference = "l2", "doc 8"
    second = await stub.LinkInstitution(asked)
    assert second.member_id != first.member_id
    await alliance.running.deliver(alliance.spending(customer, -1_000))
    assert await alliance.balance(account) == 20
    asked.request_id = "l3"
    asked.consent_time.FromDatetime(datetime(2126, 1, 1, tzinfo=UTC))
    assert await refusal(stub.LinkInstitution(asked)) == "FIELD_INVALID"
    [*_, told] = await alliance.running.events("concord.loyalty.v1.account.changed")
    assert list(told.message(AccountChanged).institution_ids) == ["bank", "broker"]
