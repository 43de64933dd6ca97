import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from campaign.domain.campaign import CampaignState
from chassis.command_line import ServiceDefinition
from chassis.errors import from_rpc
from chassis.identity import PrincipalKind
from chassis.republish import rebuild, republish
from chassis.testing import reason
from concord.campaign.v1 import campaign_service_pb2 as pb
from concord.campaign.v1.campaign_events_pb2 import CampaignLaunched, TouchPlanned
from concord.campaign.v1.campaign_service_pb2_grpc import CampaignServiceStub
from concord.campaign.v1.offer_service_pb2 import CreateOfferRequest, Offer
from concord.campaign.v1.offer_service_pb2_grpc import OfferServiceStub
from concord.contact.v1.reservation_service_pb2 import RESERVE_OUTCOME_CAPPED

SCOPES = ["campaign.read", "campaign.write"]
PARENT = "institutions/northbank"
RULE = pb.AudienceRule(
    all_of=[
        pb.AudienceGroup(
            any_of=[
                pb.AudienceCondition(field=pb.AUDIENCE_FIELD_BIRTH_YEAR, operator=pb.AUDIENCE_OPERATOR_LESS_THAN, number=2000)
            ]
        )
    ]
)


@pytest.fixture
async def stub(running):
    channel = running.channel(kind=PrincipalKind.STAFF, institution="northbank", scopes=SCOPES)
    offer = Offer(display_name="Spring", title="More for your savings", body="From May on.")
    await OfferServiceStub(channel).CreateOffer(
        CreateOfferRequest(parent=PARENT, offer_id="spring", offer=offer, request_id="offer"), timeout=5
    )
    return CampaignServiceStub(channel)


def drafted(request_id="create", **changes):
    fields: dict[str, Any] = {"display_name": "Spring", "offer": f"{PARENT}/offers/spring", "channel": 1, "audience_rule": RULE}
    return pb.CreateCampaignRequest(parent=PARENT, campaign=pb.Campaign(**(fields | changes)), request_id=request_id)


async def launch(stub, campaign, **values):
    return await stub.LaunchCampaign(
        pb.LaunchCampaignRequest(**({"name": campaign.name, "request_id": "launch"} | values)), timeout=5
    )


async def refusal(awaitable):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await awaitable
    return from_rpc(refused.value)


async def until_state(stub, name, state: CampaignState | None = None):
    """The campaign once its wave is planned, or once it has this state."""
    async with asyncio.timeout(15):
        while True:
            campaign = await stub.GetCampaign(pb.GetCampaignRequest(name=name), timeout=5)
            planned = [wave.state for wave in campaign.waves] == [pb.WAVE_STATE_PLANNED]
            if planned and (state is None or campaign.state == pb.CampaignState.Value(f"CAMPAIGN_STATE_{state}")):
                return campaign
            await asyncio.sleep(0.02)


async def test_a_campaign_is_drafted_and_read(stub):
    made = await stub.CreateCampaign(drafted(), timeout=5)
    assert made.state == pb.CAMPAIGN_STATE_DRAFT
    assert made.audience_rule == RULE
    assert made.audience_expression == '(("birth_year" in number && number["birth_year"] < 2000.0))'
    assert made.create_time.seconds > 0
    assert not made.HasField("launch_time")
    assert made.etag
    assert await stub.CreateCampaign(drafted(), timeout=5) == made
    assert await stub.GetCampaign(pb.GetCampaignRequest(name=made.name), timeout=5) == made
    assert (await refusal(stub.CreateCampaign(drafted(display_name="Other"), timeout=5))).reason == "REQUEST_ID_REUSED"


async def test_every_wrong_field_is_named(stub):
    condition = pb.AudienceCondition(field=pb.AUDIENCE_FIELD_SEX, operator=pb.AUDIENCE_OPERATOR_AT_LEAST, number=1)
    rule = pb.AudienceRule(all_of=[pb.AudienceGroup(any_of=[condition])])
    wrong = await refusal(
        stub.CreateCampaign(
            drafted(display_name=" ", offer="institutions/otherbank/offers/spring", channel=4, audience_rule=rule), timeout=5
        )
    )
    assert wrong.reason == "CAMPAIGN_INVALID"
    assert [path for path, _ in wrong.field_violations] == [
        "campaign.display_name",
        "campaign.offer",
        "campaign.channel",
        "campaign.audience_rule.all_of[0].any_of[0].operator",
    ]
    missing = await refusal(stub.CreateCampaign(drafted(offer=f"{PARENT}/offers/none"), timeout=5))
    assert missing.field_violations == [("campaign.offer", "must be an offer that exists: create it first")]
    empty = await refusal(stub.CreateCampaign(drafted(offer="", channel=0, display_name=""), timeout=5))
    assert [path for path, _ in empty.field_violations] == ["campaign.display_name", "campaign.offer", "campaign.channel"]


async def test_campaigns_are_listed_newest_first(stub):
    names = [(await stub.CreateCampaign(drafted(f"create {i}"), timeout=5)).name for i in range(5)]
    request, seen = pb.ListCampaignsRequest(parent=PARENT, page_size=2), []
    while True:
        page = await stub.ListCampaigns(request, timeout=5)
        seen += [campaign.name for campaign in page.campaigns]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == names[::-1]
    request.page_token = "bm90IG91cnM"
    assert (await refusal(stub.ListCampaigns(request, timeout=5))).reason == "PAGE_TOKEN_INVALID"


async def test_a_draft_is_changed_field_by_field(stub):
    made = await stub.CreateCampaign(drafted(), timeout=5)

    async def update(request_id, mask=None, etag="", **fields):
        request = pb.UpdateCampaignRequest(campaign=pb.Campaign(name=made.name, **fields), etag=etag, request_id=request_id)
        if mask is not None:
            request.update_mask.CopyFrom(FieldMask(paths=mask))
        return await stub.UpdateCampaign(request, timeout=5)

    renamed = await update("1", ["display_name"], made.etag, display_name="May", channel=4)
    assert (renamed.display_name, renamed.channel, renamed.audience_rule) == ("May", 1, RULE)
    assert renamed.etag != made.etag
    everybody = await update("2", ["audience_rule"])
    assert everybody.audience_expression == "true"
    assert not everybody.audience_rule.all_of
    what_is_set = await update("3", audience_rule=RULE)
    assert (what_is_set.display_name, what_is_set.audience_rule) == ("May", RULE)
    assert (await refusal(update("4", ["display_name"], made.etag, display_name="June"))).reason == "ETAG_MISMATCH"
    assert (await refusal(update("5", ["state"]))).reason == "UPDATE_MASK_INVALID"
    assert (await refusal(update("6", ["display_name"]))).field_violations[0][0] == "campaign.display_name"
    assert (await refusal(update("7", channel=4))).field_violations[0][0] == "campaign.channel"
    assert (await stub.GetCampaign(pb.GetCampaignRequest(name=made.name), timeout=5)) == what_is_set


async def test_only_the_institutions_own_staff(stub, running):
    made = await stub.CreateCampaign(drafted(), timeout=5)
    other = CampaignServiceStub(running.channel(kind=PrincipalKind.STAFF, institution="otherbank", scopes=SCOPES))
    stolen = made.name.replace("northbank", "otherbank")
    for name in (made.name, stolen):
        for call, request in [
            (other.GetCampaign, pb.GetCampaignRequest(name=name)),
            (other.PreviewAudience, pb.PreviewAudienceRequest(name=name)),
            (other.GetCampaignMetrics, pb.GetCampaignMetricsRequest(name=name)),
            (other.ListTouches, pb.ListTouchesRequest(parent=f"{name}/waves/1")),
            (other.LaunchCampaign, pb.LaunchCampaignRequest(name=name, request_id="r")),
            (other.UpdateCampaign, pb.UpdateCampaignRequest(campaign=pb.Campaign(name=name), request_id="r")),
        ]:
            with pytest.raises(grpc.aio.AioRpcError) as hidden:
                await call(request, timeout=5)
            assert hidden.value.code() is grpc.StatusCode.NOT_FOUND
    assert not (await other.ListCampaigns(pb.ListCampaignsRequest(parent="institutions/otherbank"), timeout=5)).campaigns
    reader = CampaignServiceStub(running.channel(kind=PrincipalKind.STAFF, institution="northbank", scopes=["campaign.read"]))
    with pytest.raises(grpc.aio.AioRpcError) as denied:
        await reader.CreateCampaign(drafted("other"), timeout=5)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_audience_is_previewed(stub, running, others):
    await running.deliver(
        *(others.customer(f"customer {i}", birth_year=1980 + i) for i in range(30)),
        others.customer("not known"),
        others.customer("stranger", ("otherbank",), birth_year=1950),
        *(others.permission(f"customer {i}", granted=i % 2 == 0) for i in range(25)),
    )
    made = await stub.CreateCampaign(drafted(), timeout=5)
    preview = await stub.PreviewAudience(pb.PreviewAudienceRequest(name=made.name), timeout=5)
    assert (preview.linked_count, preview.matching_count, preview.permitted_count) == (31, 20, 10)


async def test_a_campaign_from_launch_to_end(stub, running, others, contact):
    await running.deliver(*(others.customer(f"customer {i}", birth_year=1980) for i in range(7)))
    contact.outcomes = {others.id("customer 0"): RESERVE_OUTCOME_CAPPED, others.id("customer 1"): 3}
    made = await stub.CreateCampaign(drafted(), timeout=5)
    launched = await launch(stub, made, etag=made.etag)
    assert launched.state == pb.CAMPAIGN_STATE_RUNNING
    assert [wave.name for wave in launched.waves] == [f"{made.name}/waves/1"]
    assert await launch(stub, made, etag=made.etag) == launched
    planned = await until_state(stub, made.name)
    assert planned.waves[0].examined_count == 7
    assert planned.waves[0].finish_time.seconds > 0

    page = await stub.ListTouches(pb.ListTouchesRequest(parent=f"{made.name}/waves/1", page_size=4), timeout=5)
    rest = await stub.ListTouches(
        pb.ListTouchesRequest(parent=f"{made.name}/waves/1", page_size=4, page_token=page.next_page_token), timeout=5
    )
    touches = [*page.touches, *rest.touches]
    assert not rest.next_page_token
    assert [touch.name for touch in touches] == sorted(touch.name for touch in touches)
    by_customer = {touch.customer: touch for touch in touches}
    assert len(by_customer) == 7
    capped = by_customer[f"customers/{others.id('customer 0')}"]
    assert (capped.state, capped.refused_reason, capped.next_free_time.seconds) == (5, "CAPPED", 2_000_000_000)

    ids = [touch.name.rsplit("/", 1)[1] for touch in touches if touch.state == pb.TOUCH_STATE_PLANNED]
    sent, arrived = others.contacted(ids[0], "DELIVERED", version=2), others.contacted(ids[0], "READ", version=3)
    await running.deliver(arrived, sent, sent)  # late, and twice
    await running.deliver(others.contacted(ids[1], "DELIVERED"), others.contacted(ids[2], "FAILED"))
    metrics = await stub.GetCampaignMetrics(pb.GetCampaignMetricsRequest(name=made.name), timeout=5)
    assert metrics == pb.CampaignMetrics(
        name=made.name,
        members_count=7,
        planned_count=5,
        delivered_count=2,
        read_count=1,
        failed_count=1,
        refused_counts=[
            pb.RefusedCount(reason="CAPPED", count=1),
            pb.RefusedCount(reason="NO_PERMISSION_TO_CONTACT", count=1),
        ],
    )
    assert (await stub.GetCampaign(pb.GetCampaignRequest(name=made.name), timeout=5)).state == pb.CAMPAIGN_STATE_RUNNING
    await running.deliver(*(others.contacted(touch_id, "DELIVERED") for touch_id in ids[3:]))
    finished = await until_state(stub, made.name, CampaignState.FINISHED)
    assert finished.etag not in (made.etag, launched.etag)


async def test_a_launched_campaign_never_changes(stub, running):
    made = await stub.CreateCampaign(drafted(), timeout=5)
    assert (await refusal(launch(stub, made, etag='"77"'))).reason == "ETAG_MISMATCH"
    both = await asyncio.gather(launch(stub, made), launch(stub, made, request_id="2"), return_exceptions=True)
    (lost,) = [answer for answer in both if isinstance(answer, grpc.aio.AioRpcError)]
    assert (lost.code(), reason(lost)) == (grpc.StatusCode.FAILED_PRECONDITION, "CAMPAIGN_NOT_DRAFT")
    update = pb.UpdateCampaignRequest(campaign=pb.Campaign(name=made.name, display_name="x"), etag=made.etag, request_id="3")
    refused = await refusal(stub.UpdateCampaign(update, timeout=5))
    assert refused.reason == "CAMPAIGN_NOT_DRAFT"
    (event,) = await running.events("concord.campaign.v1.campaign.launched")
    message = event.message(CampaignLaunched)
    assert made.name == f"institutions/{message.institution_id}/campaigns/{message.campaign_id}"


async def test_a_wave_that_is_not_there(stub):
    made = await stub.CreateCampaign(drafted(), timeout=5)
    assert (
        await refusal(stub.ListTouches(pb.ListTouchesRequest(parent=f"{made.name}/waves/1"), timeout=5))
    ).reason == "WAVE_NOT_FOUND"


async def test_a_rebuild_keeps_campaigns_and_facts_are_said_again(stub, running, others, service: ServiceDefinition):
    events = [others.customer(f"customer {i}", birth_year=1980) for i in range(3)]
    await running.deliver(*events)
    made = await launch(stub, await stub.CreateCampaign(drafted(), timeout=5))
    await until_state(stub, made.name)
    touches = await stub.ListTouches(pb.ListTouchesRequest(parent=f"{made.name}/waves/1"), timeout=5)
    read = others.contacted(touches.touches[0].name.rsplit("/", 1)[1], "READ")
    await running.deliver(read)
    before = await stub.GetCampaignMetrics(pb.GetCampaignMetricsRequest(name=made.name), timeout=5)
    database = running.application.database

    await rebuild(database, service.projections, [each.consumer for each in running.application.consumers])
    preview = await stub.PreviewAudience(pb.PreviewAudienceRequest(name=made.name), timeout=5)
    assert preview.linked_count == 0
    assert (await stub.GetCampaignMetrics(pb.GetCampaignMetricsRequest(name=made.name), timeout=5)).read_count == 0
    await running.deliver(*events, read)
    preview = await stub.PreviewAudience(pb.PreviewAudienceRequest(name=made.name), timeout=5)
    assert (preview.linked_count, preview.matching_count) == (3, 3)
    assert await stub.GetCampaignMetrics(pb.GetCampaignMetricsRequest(name=made.name), timeout=5) == before

    assert await republish(database, service.republishers, "contact") == 4
    said = [event for event in await running.events() if event.target == "contact"]
    first = [event for event in await running.events() if event.target is None]
    assert sorted((event.event_id, event.type, event.payload) for event in said) == sorted(
        (event.event_id, event.type, event.payload) for event in first
    )
    assert {event.message(TouchPlanned).campaign_id for event in said if event.type.endswith("touch.planned")} == {
        made.name.rsplit("/", 1)[1]
    }
