"""Earn rules as expressions, through the contract: drafted, approved, tried, and what activities earn by them."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from chassis.identity import PrincipalKind
from chassis.ids import new_id
from chassis.testing import reason, received
from concord.common.v1.event_pb2 import StateVersion
from concord.common.v1.money_pb2 import Money
from concord.customer.v1.activity_pb2 import ActivityDetail, LifeEvent
from concord.customer.v1.customer_events_pb2 import ActivityRecorded, CustomerErased
from concord.loyalty.v1 import earn_rule_service_pb2 as pb
from concord.loyalty.v1.earn_rule_service_pb2_grpc import EarnRuleServiceStub
from concord.rating.v1.rating_events_pb2 import RatingChanged
from concord.rating.v1.rating_service_pb2 import CUSTOMER_LEVEL_GOLD, CUSTOMER_LEVEL_SILVER

PROGRAM = "programs/bank-points"
BASE, PROMOTION = pb.EARN_RULE_KIND_BASE, pb.EARN_RULE_KIND_PROMOTION
LATER = datetime.now(UTC) + timedelta(days=1)
"""Activities of the tests happen after their rules were approved."""


def staff(alliance, subject, institution="bank"):
    return EarnRuleServiceStub(alliance.channel(institution, kind=PrincipalKind.STAFF, subject=subject))


async def refused(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await call
    return told.value


def drafting(alliance, rule_id, kind=BASE, most=10_000, caps=None, program=PROGRAM, **fields) -> pb.DraftEarnRuleRequest:
    rule = pb.EarnRule(kind=kind, caps=pb.EarnCaps(activity_points_max=most, **(caps or {})), **fields)
    return pb.DraftEarnRuleRequest(parent=f"{program}/earnRules/{rule_id}", earn_rule=rule, request_id=alliance.request_id())


async def hold(alliance, rule_id, **fields) -> pb.EarnRule:
    """A rule that Ann drafts and Bob approves."""
    drafted = await staff(alliance, "ann").DraftEarnRule(drafting(alliance, rule_id, **fields))
    return await staff(alliance, "bob").ApproveEarnRule(  # type: ignore[no-any-return]
        pb.ApproveEarnRuleRequest(name=drafted.name, request_id=alliance.request_id())
    )


def spent(alliance, customer, minor_units=10_000, **changes):
    return alliance.spending(customer, -minor_units, **{"occurred_at": LATER} | changes)


async def test_two_persons_make_a_rule(alliance):
    ann, bob = staff(alliance, "ann"), staff(alliance, "bob")
    request = drafting(alliance, "weekend", points="amount / 10", condition="local.weekday >= 6")
    drafted = await ann.DraftEarnRule(request)
    assert (drafted.name, drafted.state, drafted.drafted_by) == (
        f"{PROGRAM}/earnRules/weekend/versions/1", pb.DECISION_STATE_DRAFT, "ann",
    )  # fmt: skip
    assert (await ann.DraftEarnRule(request)).name == drafted.name
    approving = pb.ApproveEarnRuleRequest(name=drafted.name, request_id="a")
    assert reason(await refused(ann.ApproveEarnRule(approving))) == "APPROVAL_BY_SAME_PERSON"
    assert reason(await refused(staff(alliance, "eve", "shop").ApproveEarnRule(approving))) == "PROGRAM_NOT_FOUND"
    before = datetime.now(UTC)
    approved = await bob.ApproveEarnRule(approving)
    assert (approved.state, approved.approved_by) == (pb.DECISION_STATE_ACTIVE, "bob")
    assert approved.effective_time.ToDatetime(UTC) >= before, "never for the past"
    assert (
        reason(await refused(bob.ApproveEarnRule(pb.ApproveEarnRuleRequest(name=drafted.name, request_id="b")))) == "NOT_A_DRAFT"
    )
    second = await ann.DraftEarnRule(drafting(alliance, "weekend", points="1"))
    gone = await ann.WithdrawEarnRule(pb.WithdrawEarnRuleRequest(name=second.name, request_id="w"))
    assert (second.name[-1], gone.state) == ("2", pb.DECISION_STATE_WITHDRAWN)
    ended = await ann.EndEarnRule(pb.EndEarnRuleRequest(name=drafted.name, request_id="e"))
    assert ended.HasField("end_time")
    assert reason(await refused(ann.EndEarnRule(pb.EndEarnRuleRequest(name=drafted.name, request_id="f")))) == "RULE_NOT_ACTIVE"
    page = await ann.ListEarnRules(pb.ListEarnRulesRequest(parent=PROGRAM, page_size=1))
    rest = await ann.ListEarnRules(pb.ListEarnRulesRequest(parent=PROGRAM, page_size=1, page_token=page.next_page_token))
    assert [rule.name[-1] for rule in (*page.earn_rules, *rest.earn_rules)] == ["1", "2"]
    assert (await ann.GetEarnRule(pb.GetEarnRuleRequest(name=drafted.name))).condition == "local.weekday >= 6"
    assert reason(await refused(staff(alliance, "e", "shop").GetEarnRule(pb.GetEarnRuleRequest(name=drafted.name)))) == (
        "PROGRAM_NOT_FOUND"
    )


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"points": "amount >"}, "earn_rule.points line 1, column 9: Syntax error"),
        ({"points": "1", "condition": "amount > 1 &&\n foo"}, "earn_rule.condition line 2, column 2: undeclared reference"),
        ({"points": "amount * 1.5"}, "earn_rule.points line 1, column 10: points are counted in whole numbers"),
        ({}, "earn_rule.points or fraction must say how many"),
        ({"points": "1", "institutions": ["institutions/nowhere"]}, "earn_rule.institutions names institutions/nowhere"),
    ],
)
async def test_a_wrong_rule_says_where(alliance, fields, says):
    error = await refused(staff(alliance, "ann").DraftEarnRule(drafting(alliance, "wrong", **fields)))
    assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "RULE_INVALID")
    assert says in error.details()  # type: ignore[operator]


async def test_activities_earn_by_base_promotions_levels_and_caps_once(alliance):
    await hold(alliance, "everything", points="amount / 50")  # the next version of the linear rule
    await hold(
        alliance, "gold", kind=PROMOTION, fraction=pb.EarnFraction(numerator=3, denominator=2),
        condition="level == 'GOLD' && alliance_level == 'SILVER'",
    )  # fmt: skip
    await hold(alliance, "bonus", kind=PROMOTION, points="60", caps={"member_points_max": 100})
    customer, account = await alliance.member()
    for scope, level in (("bank", CUSTOMER_LEVEL_GOLD), ("alliance", CUSTOMER_LEVEL_SILVER)):
        rating = RatingChanged(
            customer_id=str(customer.customer_id),
            scope=scope,
            customer_level=level,
            state_version=StateVersion(epoch=1, version=2),
        )
        await alliance.running.deliver(received("concord.rating.v1.rating.changed", rating))
    old = RatingChanged(customer_id=str(customer.customer_id), scope="bank", state_version=StateVersion(epoch=1, version=1))
    await alliance.running.deliver(received("concord.rating.v1.rating.changed", old))
    first, second = spent(alliance, customer), spent(alliance, customer)
    await alliance.running.deliver(first, second, first)
    assert await alliance.balance(account) == (200 + 100 + 60) + (200 + 100 + 40)
    await alliance.running.deliver(first, second)
    assert await alliance.balance(account) == 700
    async with alliance.running.application.database.connection() as connection:
        rules = await connection.fetchval("SELECT rule FROM operations ORDER BY sequence LIMIT 1")
    assert rules == "everything/versions/2 bonus/versions/1 gold/versions/1"
    # What is reversed is taken back to the point, and its cap is free again.
    await alliance.running.deliver(alliance.reversal(customer, first.event_id))
    assert await alliance.balance(account) == 340
    await alliance.running.deliver(spent(alliance, customer))
    assert await alliance.balance(account) == 340 + 360
    assert await alliance.broken() == set()


async def test_an_activity_and_its_reversal_in_one_batch_leave_nothing(alliance):
    await hold(alliance, "everything", points="amount / 50", caps={"total_points_max": 200})
    customer, account = await alliance.member()
    event = spent(alliance, customer)
    await alliance.running.deliver(event, alliance.reversal(customer, event.event_id))
    assert await alliance.balance(account) == 0
    await alliance.running.deliver(spent(alliance, customer), spent(alliance, customer))
    assert await alliance.balance(account) == 200


async def test_points_never_earn_points(alliance):
    await hold(alliance, "everything", points="1000")
    customer, account = await alliance.member()
    await alliance.running.deliver(spent(alliance, customer, category="points-redemption"))
    assert await alliance.balance(account) == 0
    # The ledger's own facts are no activities: nothing of them is folded.
    types = {name for each in alliance.running.application.consumers for name in each.types}
    assert not any(name.startswith("concord.loyalty.") for name in types)


async def test_life_events_earn_where_a_rule_says_so(alliance):
    customer, account = await alliance.member()

    def event(activity_id):
        detail = ActivityDetail(life_event=LifeEvent(life_event_kind="LIFE_EVENT_KIND_MARRIAGE"))  # type: ignore[arg-type]
        detail.occurred_at.FromDatetime(LATER)
        message = ActivityRecorded(activity_id=str(activity_id), record_link=customer.links["bank"], detail=detail)
        return received("concord.customer.v1.activity.recorded", message, event_id=activity_id)

    married = event(new_id())
    kinds = [pb.EARN_ACTIVITY_KIND_LIFE_EVENT]
    await hold(alliance, "wedding", points="500", activity_kinds=kinds, condition="detail == 'MARRIAGE'")
    await alliance.running.deliver(married, married)
    assert await alliance.balance(account) == 500


async def test_a_partner_rule_needs_who_pays(alliance):
    await hold(alliance, "at-shop", points="100", institutions=["institutions/shop"])
    customer = await alliance.customer("bank", "shop")
    account = await alliance.account(customer, "bank", "shop")
    await alliance.running.deliver(spent(alliance, customer, institution="shop"))
    assert await alliance.balance(account) == 0
    async with alliance.running.application.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM operations") == 0


async def test_a_simulation_says_what_and_why_and_changes_nothing(alliance):
    await hold(alliance, "everything", points="amount / 50", caps={"member_day_points_max": 250})
    await staff(alliance, "ann").DraftEarnRule(
        drafting(alliance, "double", kind=PROMOTION, fraction=pb.EarnFraction(numerator=2, denominator=1))
    )
    customer, account = await alliance.member()
    activity = pb.SimulatedActivity(amount=Money(currency_code="USD", minor_units=-10_000), category="grocery")
    activity.occurred_time.FromDatetime(LATER)
    request = pb.SimulateEarnRulesRequest(parent=PROGRAM, activities=[activity, activity], account=account, include_drafts=True)
    answer = await staff(alliance, "ann").SimulateEarnRules(request)
    assert [earning.points for earning in answer.earnings] == [400, 100]
    assert [(rule.name.split("/")[3], rule.points, rule.wanted_points, rule.effect) for rule in answer.earnings[1].rules] == [
        ("everything", 50, 200, pb.EARN_RULE_EFFECT_CAPPED), ("double", 50, 50, pb.EARN_RULE_EFFECT_GAVE),
    ]  # fmt: skip
    request.include_drafts = False
    again = await staff(alliance, "ann").SimulateEarnRules(request)
    assert [earning.points for earning in again.earnings] == [200, 50]
    event = spent(alliance, customer)
    await alliance.running.deliver(event)
    tried = await staff(alliance, "ann").SimulateEarnRules(
        pb.SimulateEarnRulesRequest(parent=PROGRAM, activity=f"activities/{event.event_id}")
    )
    assert [earning.points for earning in tried.earnings] == [50], "the day's cap has 50 left"
    assert await alliance.balance(account) == 200
    other = pb.SimulateEarnRulesRequest(parent=PROGRAM, activities=[activity], account=f"accounts/{new_id()}")
    assert reason(await refused(staff(alliance, "ann").SimulateEarnRules(other))) == "ACCOUNT_NOT_FOUND"
    assert reason(await refused(staff(alliance, "ann").SimulateEarnRules(pb.SimulateEarnRulesRequest(parent=PROGRAM)))) == (
        "SIMULATION_INVALID"
    )


async def test_an_erased_person_leaves_no_facts(alliance):
    customer, _ = await alliance.member(100)
    async with alliance.running.application.database.connection() as connection:
        before = json.loads(await connection.fetchval("SELECT facts FROM earn_decisions"))
        assert before["money"][1] == -10_000
        links = list(customer.links.values())
        message = CustomerErased(
            customer_id=str(customer.customer_id), record_ids=[link.record_id for link in links], whole=True, erase_time_seconds=1
        )
        await alliance.running.deliver(received("concord.customer.v1.customer.erased", message))
        assert await connection.fetchval("SELECT facts FROM earn_decisions") == "{}"


async def test_two_consumers_at_once_do_not_exceed_a_budget(alliance, start):
    await hold(alliance, "everything", points="7", caps={"total_points_max": 100})
    members = [await alliance.member() for _ in range(4)]
    events = [spent(alliance, members[i % 4][0]) for i in range(40)]
    batches = [events[i : i + 5] for i in range(0, 40, 5)]
    first, second = alliance.running, await start()
    await asyncio.gather(*((first if i % 2 else second).deliver(*batch) for i, batch in enumerate(batches)))
    assert sum([await alliance.balance(account) for _, account in members]) == 100
    async with alliance.running.application.database.connection() as connection:
        assert await connection.fetchval("SELECT points FROM earn_counters WHERE subject = ''") == 100
    # All of it is reversed: the budget is whole again.
    reversals = [alliance.reversal(members[i % 4][0], event.event_id) for i, event in enumerate(events)]
    await asyncio.gather(*((first if i % 2 else second).deliver(*reversals[i::2]) for i in range(2)))
    assert sum([await alliance.balance(account) for _, account in members]) == 0
    async with alliance.running.application.database.connection() as connection:
        assert await connection.fetchval("SELECT points FROM earn_counters WHERE subject = ''") == 0
    assert await alliance.broken() == set()
