"""Accounts follow the customer master: merged ones stand together and part again, erased ones are nobody's."""

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from chassis.clock import now
from chassis.testing import reason, received
from chassis.unit_of_work import Commands
from concord.common.v1.event_pb2 import RecordLink, StateVersion
from concord.customer.v1.customer_events_pb2 import CustomerChanged, CustomerErased, RecordsMoved
from concord.loyalty.v1 import account_service_pb2 as accounts_pb
from concord.loyalty.v1 import ledger_service_pb2 as ledger_pb
from concord.loyalty.v1 import program_service_pb2 as programs_pb
from concord.loyalty.v1.loyalty_events_pb2 import AccountChanged, PointsPosted
from loyalty.expiring import ExpiryNotices

CUSTOMER = "concord.customer.v1.customer"
LEDGER = ("operations", "entries", "ledger_accounts", "ledger_heads")
VERSIONS = iter(range(2, 10_000))


def state(customer, merged_into=None):
    message = CustomerChanged(
        customer_id=str(customer.customer_id),
        state_version=StateVersion(epoch=1, version=next(VERSIONS)),
        merged_into_customer_id=str(merged_into.customer_id) if merged_into else "",
    )
    return received(f"{CUSTOMER}.updated", message)


def moved(why, source, target, links):
    """The event, and the links as they are then."""
    now = {
        institution: RecordLink(
            record_id=link.record_id, institution_id=institution, customer_id=str(target.customer_id),
            state_version=StateVersion(epoch=1, version=next(VERSIONS)),
        )
        for institution, link in links.items()
    }  # fmt: skip
    message = RecordsMoved(
        from_customer_id=str(source.customer_id), to_customer_id=str(target.customer_id), record_links=now.values(), reason=why
    )
    return received(f"{CUSTOMER}.records_moved", message), now


async def merge(alliance, loser, winner, links=None):
    """Merges customers; returns the loser as its activities tell of it from now on."""
    event, now = moved("MERGE", loser, winner, links or loser.links)
    await alliance.running.deliver(event, state(loser, winner), state(winner))
    return replace(loser, links=now)


async def unmerge(alliance, winner, loser):
    event, now = moved("UNMERGE", winner, loser, loser.links)
    await alliance.running.deliver(event, state(loser), state(winner))
    return replace(loser, links=now)


def erased(customer, *institutions, whole=True):
    message = CustomerErased(
        customer_id=str(customer.customer_id), whole=whole, erase_time_seconds=1_790_000_000,
        record_ids=[link.record_id for institution, link in customer.links.items() if institution in institutions],
    )  # fmt: skip
    return received(f"{CUSTOMER}.erased", message)


async def account_of(alliance, customer, institution=None) -> accounts_pb.Account:
    request = accounts_pb.GetCustomerAccountRequest(customer=customer.name)
    account: accounts_pb.Account = await alliance.accounts(institution).GetCustomerAccount(request)
    return account


async def view(alliance, *customers) -> list[dict[str, Any]]:
    """What is told of customers' points, but for etags, which are made of versions."""
    seen = []
    for customer in customers:
        account = await account_of(alliance, customer)
        request = accounts_pb.ListStatementLinesRequest(parent=account.name)
        lines = await alliance.accounts(None).ListStatementLines(request)
        account.ClearField("etag")
        seen.append({"account": MessageToDict(account), "lines": MessageToDict(lines)})
    return seen


async def rows(alliance, *tables) -> dict[str, list[str]]:
    async with alliance.running.application.database.connection() as connection:
        return {
            table: [str(dict(row)) for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY 1")] for table in tables
        }


def points(account: accounts_pb.Account) -> int:
    return sum(balance.balance_points for balance in account.balances)


async def redeem(alliance, account, amount, institution="bank", **caller):
    return await alliance.ledger(institution, **caller).RedeemPoints(alliance.redemption(account, amount))


async def test_merged_accounts_stand_together_and_part_again_exactly(alliance):
    (anna, first), (anja, second) = await alliance.member(100), await alliance.member(40)
    before, ledger = await view(alliance, anna, anja), await rows(alliance, *LEDGER)
    merged = await merge(alliance, anja, anna)
    account = await account_of(alliance, anna)
    assert (account.name, account.customer, points(account)) == (first, anna.name, 140)
    assert [(child.account, child.balances[0].balance_points) for child in account.child_accounts] == [(second, 40)]
    assert await view(alliance, anna) == await view(alliance, anja), "reads through the loser's id answer with the winner"
    child = await alliance.accounts().GetAccount(accounts_pb.GetAccountRequest(name=second))
    assert (child.parent_account, child.customer, points(child)) == (first, anna.name, 40)
    request = accounts_pb.ListStatementLinesRequest(parent=first, page_size=1)
    page = await alliance.accounts().ListStatementLines(request)
    request.page_token = page.next_page_token
    page.MergeFrom(await alliance.accounts().ListStatementLines(request))
    assert [(line.account, line.amount_points, line.balance_points) for line in page.statement_lines] == [
        (second, 40, 40), (first, 100, 100),
    ]  # fmt: skip

    await unmerge(alliance, anna, merged)
    assert await view(alliance, anna, anja) == before
    assert await rows(alliance, *LEDGER) == ledger, "entries never move"
    told = [event.message(AccountChanged) for event in await alliance.running.events("concord.loyalty.v1.account.changed")]
    anjas = [message for message in told if message.account_id == second.removeprefix("accounts/")]
    assert [(m.customer_id, m.parent_account_id) for m in anjas] == [
        (str(anja.customer_id), ""), (str(anna.customer_id), first.removeprefix("accounts/")), (str(anja.customer_id), ""),
    ]  # fmt: skip
    assert [m.state_version.version for m in anjas] == [1, 2, 3]
    families = await rows(alliance, "account_families")
    assert len(families["account_families"]) == 2


async def test_points_of_both_are_spent_through_the_parent_in_one_operation(alliance):
    (anna, first), (anja, second) = await alliance.member(100), await alliance.member(40)
    merged = await merge(alliance, anja, anna)
    operation = await redeem(alliance, first, 120)
    assert (operation.amount_points, operation.balance_points, operation.account) == (120, 20, first)
    facts = (await alliance.running.events("concord.loyalty.v1.points.posted"))[2:]
    said = [fact.message(PointsPosted) for fact in facts]
    assert [(m.account_id, m.amount_points, m.balance_points) for m in said] == [
        (first.removeprefix("accounts/"), -100, 0), (second.removeprefix("accounts/"), -20, 20),
    ]  # fmt: skip
    assert len({fact.event_id for fact in facts}) == 2
    again = alliance.redemption(first, 20)
    assert (await alliance.ledger().RedeemPoints(again)).balance_points == 0, "all of it is the child's"
    assert (await alliance.ledger().RedeemPoints(again)).balance_points == 0, "and once"
    with pytest.raises(grpc.aio.AioRpcError) as poor:
        await redeem(alliance, first, 1)
    assert reason(poor.value) == "INSUFFICIENT_POINTS"
    assert await alliance.broken() == set()
    await unmerge(alliance, anna, merged)
    assert [points(await account_of(alliance, customer)) for customer in (anna, anja)] == [0, 0]
    async with alliance.running.application.database.connection() as connection:
        await connection.execute("ALTER TABLE operations DISABLE TRIGGER ALL")
        await connection.execute("UPDATE operations SET others_points = others_points + 1 WHERE others_points > 0")
    assert await alliance.broken() == {"OPERATION_IS_ITS_MEMBER_LEG", "HASH_CHAIN_UNBROKEN"}


async def test_a_child_is_read_only_and_a_bound_caller_keeps_its_way_in(alliance):
    (anna, first), (anja, second) = await alliance.member(100), await alliance.member(40)
    await merge(alliance, anja, anna)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await redeem(alliance, second, 10)
    assert reason(refused.value) == "CUSTOMER_MERGED"
    assert first in str(refused.value.details())
    link = accounts_pb.LinkInstitutionRequest(parent=second, institution="institutions/shop", request_id="r")
    opening = accounts_pb.OpenAccountRequest(customer=anja.name, institutions=["institutions/bank"], request_id="r")
    for call in (alliance.accounts(None).LinkInstitution(link), alliance.accounts().OpenAccount(opening)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert reason(refused.value) == "CUSTOMER_MERGED"
    assert (await redeem(alliance, first, 110, customer=str(anja.customer_id))).balance_points == 30
    stranger, _ = await alliance.member()
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await redeem(alliance, first, 1, customer=str(stranger.customer_id))
    assert reason(unknown.value) == "ACCOUNT_NOT_FOUND"


async def test_an_activity_earns_once_for_the_account_its_record_came_with(alliance):
    (anna, first), (anja, second) = await alliance.member(), await alliance.member()
    early = alliance.spending(anja, -1000)
    await alliance.running.deliver(early)
    merged = await merge(alliance, anja, anna)
    late = alliance.spending(merged, -2000)
    again = replace(early, event_id=uuid.uuid4())
    again.message.record_link.CopyFrom(merged.links["bank"])
    await alliance.running.deliver(late, again, alliance.spending(anna, -500))
    assert points(await account_of(alliance, anna)) == 35
    await unmerge(alliance, anna, merged)
    assert [await alliance.balance(account) for account in (first, second)] == [5, 30], "each has what its own record earned"
    await alliance.running.deliver(alliance.reversal(anja, late.event_id), replace(late, event_id=uuid.uuid4()))
    assert [await alliance.balance(account) for account in (first, second)] == [5, 10]
    assert await alliance.broken() == set()


async def test_a_winner_without_an_account_has_the_losers_and_may_open_its_own(alliance):
    anja, second = await alliance.member(40)
    anna = await alliance.customer("shop")
    merged = await merge(alliance, anja, anna)
    account = await account_of(alliance, anna, "shop")
    assert (account.name, points(account)) == (second, 40)
    assert (await redeem(alliance, second, 10)).balance_points == 30
    first = await alliance.account(anna, "shop")
    account = await account_of(alliance, anna)
    assert (account.name, points(account), [c.account for c in account.child_accounts]) == (first, 30, [second])
    await unmerge(alliance, anna, merged)
    assert [points(await account_of(alliance, customer)) for customer in (anna, anja)] == [0, 30]


async def test_chains_of_merges_end_at_the_last_and_are_undone_link_by_link(alliance):
    (anna, _), (anja, _), (ann, _) = [await alliance.member(number) for number in (1, 20, 300)]
    await alliance.running.deliver(state(ann, anja))
    await merge(alliance, anja, anna)
    await alliance.running.deliver(moved("MERGE", ann, anna, ann.links)[0])
    assert [points(await account_of(alliance, customer)) for customer in (anna, anja, ann)] == [321, 321, 321]
    event, _ = moved("UNMERGE", anna, anja, anja.links | {"bank ": ann.links["bank"]})
    await alliance.running.deliver(event, state(anja))
    assert [points(await account_of(alliance, customer)) for customer in (anna, anja, ann)] == [1, 320, 320]


async def test_one_record_that_moves_leaves_the_account_where_it_is(alliance):
    anna = await alliance.customer("bank", "shop")
    first = await alliance.account(anna, "bank")
    (anja, second) = await alliance.member(7)
    await alliance.running.deliver(alliance.spending(anna, -1000))
    event, now = moved("RELINK", anna, anja, {"bank": anna.links["bank"]})
    await alliance.running.deliver(event)
    await alliance.running.deliver(alliance.spending(replace(anna, links=now), -2000))
    assert [await alliance.balance(account) for account in (first, second)] == [10, 27]


async def test_points_of_an_erased_person_end_as_each_programme_says(alliance):
    anna, first = await alliance.member(100)
    kept = programs_pb.Program(institution="institutions/bank", display_name="Kept", erasure_rule=programs_pb.ERASURE_RULE_KEEP)
    request = programs_pb.CreateProgramRequest(program_id="kept", program=kept, request_id="kept")
    assert (await alliance.programs().CreateProgram(request)).erasure_rule == programs_pb.ERASURE_RULE_KEEP
    await alliance.rule("kept", "everything")
    (anja, second) = await alliance.member(40)
    await alliance.ledger().RedeemPoints(alliance.redemption(first, 10, reference="for Anna"))
    merged = await merge(alliance, anja, anna)
    late = [alliance.spending(anna, -900), alliance.reversal(merged, uuid.uuid4()), alliance.spending(merged, -900)]
    await alliance.running.deliver(erased(replace(anna, links={"1": anna.links["bank"], "2": merged.links["bank"]}), "1", "2"))
    ledger = await rows(alliance, *LEDGER)
    await alliance.running.deliver(*late, state(anna), state(anja, anna), moved("UNMERGE", anna, anja, anja.links)[0])
    await alliance.running.deliver(erased(anna, "bank"), erased(anja, "bank"))
    assert await rows(alliance, *LEDGER) == ledger, "late events bring nothing back"
    kept_tables = await rows(
        alliance, "accounts", "memberships", "account_families", "record_accounts", "operations", "idempotency"
    )
    for customer in (anna, anja):
        assert str(customer.customer_id) not in str(kept_tables)
    assert not any("AccountService" in row for row in kept_tables["idempotency"]), "what was answered to who opened them"
    assert "for Anna" not in str(kept_tables)
    assert kept_tables["memberships"] == kept_tables["account_families"] == kept_tables["record_accounts"] == []
    expired = [row for row in ledger["operations"] if "'EXPIRE'" in row]
    assert len(expired) == 2
    balances = {name: {b.program: b.balance_points for b in (await read(alliance, name)).balances} for name in (first, second)}
    assert balances == {
        first: {"programs/bank-points": 0}, second: {"programs/bank-points": 0, "programs/kept": 40}
    }  # fmt: skip
    assert (await read(alliance, first)).customer == ""
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await read(alliance, first, "bank")
    assert reason(unknown.value) == "ACCOUNT_NOT_FOUND"
    facts = [event.message(PointsPosted) for event in await alliance.running.events("concord.loyalty.v1.points.posted")]
    assert [(fact.amount_points, fact.customer_id, fact.activity_id) for fact in facts[-2:]] == [(-90, "", ""), (-40, "", "")]
    assert await alliance.broken() == set()


async def read(alliance, name, institution=None):
    return await alliance.accounts(institution).GetAccount(accounts_pb.GetAccountRequest(name=name))


async def test_one_institutions_records_are_erased_and_the_account_lives_on(alliance):
    anna = await alliance.customer("bank", "shop")
    first = await alliance.account(anna, "bank", "shop")
    await alliance.running.deliver(alliance.spending(anna, -1000))
    await alliance.running.deliver(erased(anna, "bank", whole=False))
    await alliance.running.deliver(alliance.spending(anna, -1000))
    account = await account_of(alliance, anna, "shop")
    assert (account.name, points(account)) == (first, 10)
    assert [membership.name for membership in account.memberships] == [f"{first}/links/shop"]
    [*_, told] = await alliance.running.events("concord.loyalty.v1.account.changed")
    assert list(told.message(AccountChanged).institution_ids) == ["shop"]


SCOPES = ["points.read", "points.write", "points.redeem", "points.issue"]
PROGRAM = "programs/bank-points"


async def earn(alliance, account, points, end):
    request = ledger_pb.EarnPointsRequest(
        name=account, program=PROGRAM, amount_points=points, institution="institutions/bank", request_id=alliance.request_id(),
        expire_time=end,
    )  # fmt: skip
    return await alliance.ledger(scopes=SCOPES).EarnPoints(request)


async def test_what_a_hold_releases_after_an_erasure_ends_and_promises_end_at_once(alliance):
    anna, account = await alliance.member(100)
    notices = ExpiryNotices(Commands(alliance.running.application.database))
    ledger = alliance.ledger(scopes=SCOPES)
    await ledger.EarnPoints(
        ledger_pb.EarnPointsRequest(
            name=account, program=PROGRAM, amount_points=9, institution="institutions/bank", request_id="p", pending=True
        )
    )
    hold = await ledger.HoldPoints(
        ledger_pb.HoldPointsRequest(
            name=account, program=PROGRAM, amount_points=30, institution="institutions/shop", request_id="h"
        )
    )
    await alliance.running.deliver(erased(anna, "bank"))

    async def balance():
        [found] = (await alliance.accounts(None).GetAccount(accounts_pb.GetAccountRequest(name=account))).balances
        return found.balance_points, found.pending_points, found.held_points

    assert await balance() == (0, 0, 30)
    assert await notices.end_leftovers() == 0
    shop = alliance.ledger("shop", scopes=SCOPES)
    await shop.CaptureHold(ledger_pb.CaptureHoldRequest(name=hold.name, amount_units=20, final=True, request_id="c"))
    assert await balance() == (10, 0, 0), "the partner was promised it; the rest came back"
    assert await notices.end_leftovers() == 1
    assert await balance() == (0, 0, 0)
    assert await notices.end_leftovers() == 0
    assert await alliance.broken() == set()


async def test_lots_of_merged_accounts_are_spent_together_and_stay_where_they_are(alliance):
    (anna, first), (anja, second) = await alliance.member(), await alliance.member()
    await earn(alliance, first, 10, now() + timedelta(days=50))
    await earn(alliance, second, 10, now() + timedelta(days=20))
    merged = await merge(alliance, anja, anna)
    spent = await alliance.ledger().RedeemPoints(alliance.redemption(first, 15))
    assert spent.balance_points == 5
    lots = (await alliance.accounts().ListLots(accounts_pb.ListLotsRequest(parent=first))).lots
    assert [(lot.name.split("/lots/")[0], lot.remaining_points) for lot in lots] == [(first, 5)], "what ends first went first"
    refund = ledger_pb.RefundOperationRequest(name=spent.name, amount_units=12, request_id="back")
    await unmerge(alliance, anna, merged)
    await alliance.ledger(None, scopes=SCOPES).RefundOperation(refund)
    assert [await alliance.balance(account) for account in (first, second)] == [10, 7], "each lot has back what was its own"
    assert await alliance.broken() == set()
