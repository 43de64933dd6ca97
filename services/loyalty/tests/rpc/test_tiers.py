"""Tiers through the contract: reached at once by what activities earn, lost at reviews, told as events."""

from datetime import UTC, datetime

import grpc
import pytest

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.loyalty.v1 import tier_service_pb2 as pb
from concord.loyalty.v1.loyalty_events_pb2 import TierChanged
from concord.loyalty.v1.tier_service_pb2_grpc import TierServiceStub
from loyalty.caretaking import Caretaker

PROGRAM = "programs/bank-points"


def staff(alliance, subject="ann", institution="bank"):
    return TierServiceStub(alliance.channel(institution, kind=PrincipalKind.STAFF, subject=subject))


def tier(tier_id, threshold, keep, percent=100):
    return pb.Tier(tier_id=tier_id, display_name=tier_id.title(), threshold=threshold, keep_threshold=keep, percent=percent)


def drafting(alliance, **changes):
    fields = {
        "basis": pb.TIER_BASIS_POINTS, "window": pb.TIER_WINDOW_ROLLING, "window_months": 12, "review_months": 12,
        "tiers": [tier("silver", 100, 80), tier("gold", 500, 400, 150)],
    }  # fmt: skip
    return pb.DraftTierSchemeRequest(
        parent=PROGRAM,
        tier_scheme=pb.TierScheme(**fields | changes),  # type: ignore[arg-type]
        request_id=alliance.request_id(),
    )


async def scheme(alliance, **changes):
    drafted = await staff(alliance).DraftTierScheme(drafting(alliance, **changes))
    return await staff(alliance, "bob").ApproveTierScheme(
        pb.ApproveTierSchemeRequest(name=drafted.name, request_id=alliance.request_id())
    )


async def refusal(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await call
    return reason(told.value)


async def standing(alliance, account, institution="bank"):
    (found,) = (
        await staff(alliance, institution=institution).ListAccountTiers(pb.ListAccountTiersRequest(parent=account))
    ).account_tiers
    return found


@pytest.fixture
def clock(alliance, monkeypatch):
    """The clock of commands, and of what is read."""
    now = [datetime(2026, 5, 2, tzinfo=UTC)]
    monkeypatch.setattr(alliance.running.application.commands, "_clock", lambda: now[0])
    monkeypatch.setattr("loyalty.rpc.tier_service.clock.now", lambda: now[0])
    return now


async def test_two_persons_make_tiers(alliance):
    first = await scheme(alliance)
    assert (first.name, first.drafted_by, first.approved_by) == (f"{PROGRAM}/tierSchemes/1", "ann", "bob")
    drafted = await staff(alliance).DraftTierScheme(drafting(alliance))
    approving = pb.ApproveTierSchemeRequest(name=drafted.name, request_id="a")
    assert await refusal(staff(alliance).ApproveTierScheme(approving)) == "APPROVAL_BY_SAME_PERSON"
    assert await refusal(staff(alliance, "eve", "shop").ApproveTierScheme(approving)) == "PROGRAM_NOT_FOUND"
    wrong = drafting(alliance, tiers=[tier("silver", 100, 101)])
    assert await refusal(staff(alliance).DraftTierScheme(wrong)) == "TIERS_INVALID"
    listed = await staff(alliance).ListTierSchemes(pb.ListTierSchemesRequest(parent=PROGRAM))
    assert [each.name[-1] for each in listed.tier_schemes] == ["2", "1"]
    assert (await staff(alliance).GetTierScheme(pb.GetTierSchemeRequest(name=first.name))).tiers == first.tiers
    assert await refusal(staff(alliance).GetTierScheme(pb.GetTierSchemeRequest(name=f"{PROGRAM}/tierSchemes/9"))) == (
        "TIER_SCHEME_NOT_FOUND"
    )


async def test_up_at_once_down_at_the_review_and_told(alliance, clock):
    await scheme(alliance)
    customer, account = await alliance.member(120)
    assert (await standing(alliance, account)).tier_id == "silver"
    event = alliance.spending(customer, -40_000)
    await alliance.running.deliver(event)
    now = await standing(alliance, account)
    assert (now.tier_id, now.qualifying, now.next_tier_id, now.review_date) == ("gold", 520, "", "2027-05-01")
    await alliance.running.deliver(alliance.reversal(customer, event.event_id))
    now = await standing(alliance, account)
    assert (now.tier_id, now.qualifying) == ("gold", 120), "nobody falls between reviews"
    caretaker = Caretaker(alliance.running.application.commands)
    clock[0] = datetime(2027, 4, 30, 23, 59, tzinfo=UTC)
    assert await caretaker.step() == 0
    clock[0] = datetime(2027, 5, 1, tzinfo=UTC)
    assert await caretaker.step() == 1
    now = await standing(alliance, account)
    assert (now.tier_id, now.review_date, now.next_tier_id, now.missing) == ("silver", "2028-05-01", "gold", 500)
    clock[0] = datetime(2028, 5, 1, tzinfo=UTC)
    assert await caretaker.step() == 1
    assert (await standing(alliance, account)).tier_id == ""
    assert await caretaker.step() == 0
    told = [event.message(TierChanged) for event in await alliance.running.events("concord.loyalty.v1.tier.changed")]
    assert [(each.previous_tier_id, each.tier_id, each.state_version.version) for each in told] == [
        ("", "silver", 1), ("silver", "gold", 2), ("gold", "silver", 3), ("silver", "", 4),
    ]  # fmt: skip
    assert told[0].customer_id == str(customer.customer_id)


async def test_amounts_qualify_in_one_currency_and_rules_see_the_tier(alliance, clock):
    await scheme(alliance, basis=pb.TIER_BASIS_AMOUNT, currency_code="USD", tiers=[tier("gold", 10_000, 10_000, 200)])
    customer, account = await alliance.member(99)
    assert (await standing(alliance, account)).missing == 100
    await alliance.running.deliver(alliance.spending(customer, -100))
    assert (await standing(alliance, account)).tier_id == "gold"


async def test_others_do_not_see_where_a_member_stands(alliance, clock):
    await scheme(alliance)
    _, account = await alliance.member(120)
    call = staff(alliance, institution="shop").ListAccountTiers(pb.ListAccountTiersRequest(parent=account))
    assert await refusal(call) == "ACCOUNT_NOT_FOUND"
