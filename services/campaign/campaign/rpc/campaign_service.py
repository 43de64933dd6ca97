"""CampaignService: translates."""

import asyncio
import uuid
from dataclasses import replace
from typing import Any

import asyncpg

from campaign.domain import campaign as rules
from campaign.domain import evaluator
from campaign.domain.audience import expression
from campaign.domain.campaign import CampaignState, Draft, offer_prefix
from campaign.domain.evaluator import Evaluator
from campaign.published import campaign_launched
from campaign.rpc.translate import (
    campaign_ids,
    campaign_name,
    campaign_to_proto,
    draft_from_proto,
    draft_from_row,
    institution_id,
    metrics_to_proto,
    refuse,
    touch_to_proto,
)
from campaign.store import audience, campaigns, offers, touches
from campaign.store.campaigns import LAST_ID, NIL_ID
from chassis import etags, pages
from chassis.database import Connection, Database
from chassis.errors import FailedPrecondition, NotFound
from chassis.ids import new_id, parse_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.campaign.v1 import campaign_service_pb2 as pb
from concord.campaign.v1.campaign_service_pb2_grpc import CampaignServiceServicer

PAGE_DEFAULT = 50
PAGE_MAX = 200
# Fields of a draft that may be changed, and the attribute of Draft that holds each.
UPDATABLE = {"display_name": "display_name", "offer": "offer", "channel": "channel", "audience_rule": "rule"}


class CampaignServicer(CampaignServiceServicer):
    """See the contract. `wake` tells the planner of a launch."""

    def __init__(self, database: Database, commands: Commands, evaluator: Evaluator, wake: asyncio.Event) -> None:
        self._database = database
        self._commands = commands
        self._evaluator = evaluator
        self._wake = wake

    async def CreateCampaign(self, request: pb.CreateCampaignRequest, context: Any) -> pb.Campaign:
        institution = institution_id(request.parent)
        draft = draft_from_proto(request.campaign)

        async def handler(unit: UnitOfWork) -> pb.Campaign:
            await self._check(unit.connection, draft, institution)
            return campaign_to_proto(await campaigns.insert(unit.connection, new_id(), institution, draft, unit.now))

        return await self._commands.run(request, handler)

    async def GetCampaign(self, request: pb.GetCampaignRequest, context: Any) -> pb.Campaign:
        async with self._database.connection() as connection:
            row = await _existing(connection, *campaign_ids(request.name))
            waves = await campaigns.waves_of(connection, [row["campaign_id"]])
        return campaign_to_proto(row, waves[row["campaign_id"]])

    async def ListCampaigns(self, request: pb.ListCampaignsRequest, context: Any) -> pb.ListCampaignsResponse:
        institution = institution_id(request.parent)
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        before = parse_id(keys[0], "page_token") if keys else LAST_ID
        async with self._database.connection() as connection:
            rows = await campaigns.page_before(connection, institution, before, limit + 1)
            waves = await campaigns.waves_of(connection, [row["campaign_id"] for row in rows[:limit]])
        return pb.ListCampaignsResponse(
            campaigns=[campaign_to_proto(row, waves[row["campaign_id"]]) for row in rows[:limit]],
            next_page_token=_next_page_token([row["campaign_id"] for row in rows], limit, request),
        )

    async def UpdateCampaign(self, request: pb.UpdateCampaignRequest, context: Any) -> pb.Campaign:
        institution, campaign_id = campaign_ids(request.campaign.name, "campaign.name")
        changes = _changes(request)

        async def handler(unit: UnitOfWork) -> pb.Campaign:
            row = await _draft_to_change(unit.connection, institution, campaign_id, request.etag)
            draft = replace(draft_from_row(row), **changes)
            await self._check(unit.connection, draft, institution)
            return campaign_to_proto(await campaigns.update(unit.connection, campaign_id, institution, draft))

        return await self._commands.run(request, handler)

    async def PreviewAudience(self, request: pb.PreviewAudienceRequest, context: Any) -> pb.AudiencePreview:
        institution, campaign_id = campaign_ids(request.name)
        preview, after = pb.AudiencePreview(), NIL_ID
        async with self._database.connection() as connection:
            row = await _existing(connection, institution, campaign_id)
        rule = self._evaluator.compile(row["audience_expression"])
        while True:
            # A connection for each page only: a large audience must not hold one for seconds.
            async with self._database.connection() as connection:
                profiles = await audience.page(connection, institution, row["channel"], after, audience.PAGE_PROFILES_MAX)
            selection = await evaluator.select(rule, profiles)
            preview.linked_count += len(profiles)
            preview.matching_count += len(selection.members)
            preview.permitted_count += sum(member.permitted for member in selection.members)
            if len(profiles) < audience.PAGE_PROFILES_MAX:
                return preview
            after = profiles[-1].customer_id

    async def LaunchCampaign(self, request: pb.LaunchCampaignRequest, context: Any) -> pb.Campaign:
        institution, campaign_id = campaign_ids(request.name)

        async def handler(unit: UnitOfWork) -> pb.Campaign:
            await _draft_to_change(unit.connection, institution, campaign_id, request.etag)
            row = await campaigns.launch(unit.connection, campaign_id, unit.now)
            waves = await campaigns.waves_of(unit.connection, [campaign_id])
            unit.publish(campaign_launched(campaign_id, institution, unit.now))
            return campaign_to_proto(row, waves[campaign_id])

        launched = await self._commands.run(request, handler)
        self._wake.set()
        return launched

    async def GetCampaignMetrics(self, request: pb.GetCampaignMetricsRequest, context: Any) -> pb.CampaignMetrics:
        async with self._database.connection() as connection:
            row = await _existing(connection, *campaign_ids(request.name))
            return metrics_to_proto(campaign_name(row), await touches.counts(connection, row["campaign_id"]))

    async def ListTouches(self, request: pb.ListTouchesRequest, context: Any) -> pb.ListTouchesResponse:
        institution, campaign, wave = resource_segments(request.parent, "institutions", "campaigns", "waves", field="parent")
        ids = campaign_ids(f"institutions/{institution}/campaigns/{campaign}", "parent")
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        after = parse_id(keys[0], "page_token") if keys else NIL_ID
        async with self._database.connection() as connection:
            row = await _existing(connection, *ids)
            waves = await campaigns.waves_of(connection, [row["campaign_id"]])
            if wave not in {str(each["wave"]) for each in waves[row["campaign_id"]]}:
                raise NotFound("WAVE_NOT_FOUND", f"{request.parent} does not exist; a campaign has waves once it is launched")
            rows = await touches.page(connection, row["campaign_id"], int(wave), after, limit + 1)
        return pb.ListTouchesResponse(
            touches=[touch_to_proto(touch, request.parent) for touch in rows[:limit]],
            next_page_token=_next_page_token([touch["touch_id"] for touch in rows], limit, request),
        )

    async def _check(self, connection: Connection, draft: Draft, institution: str) -> None:
        """Refuses a draft that breaks a rule, naming every wrong field."""
        violations = rules.violations(draft, institution)
        offer_id = draft.offer.removeprefix(offer_prefix(institution))
        if "offer" not in dict(violations) and await offers.get(connection, institution, offer_id) is None:
            violations.append(("offer", "must be an offer that exists: create it first"))
        refuse("campaign.", violations, "CAMPAIGN_INVALID")
        self._evaluator.compile(expression(draft.rule))


async def _existing(connection: Connection, institution: str, campaign_id: uuid.UUID, *, lock: bool = False) -> asyncpg.Record:
    row = await campaigns.get(connection, institution, campaign_id, lock=lock)
    if row is None:
        raise NotFound("CAMPAIGN_NOT_FOUND", f"institutions/{institution}/campaigns/{campaign_id} does not exist")
    return row


async def _draft_to_change(connection: Connection, institution: str, campaign_id: uuid.UUID, etag: str) -> asyncpg.Record:
    """The campaign, locked, if it may still be changed."""
    row = await _existing(connection, institution, campaign_id, lock=True)
    if row["state"] != CampaignState.DRAFT:
        raise FailedPrecondition(
            "CAMPAIGN_NOT_DRAFT",
            "the campaign was launched, and a launched campaign never changes; create another",
            metadata={"state": row["state"]},
        )
    etags.require(etag, etags.etag(row["version"]))
    return row


def _changes(request: pb.UpdateCampaignRequest) -> dict[str, Any]:
    """The attributes of Draft to change, from the mask, or from what is set."""
    given = request.campaign
    paths = list(request.update_mask.paths)
    if not paths:
        paths = [descriptor.name for descriptor, _ in given.ListFields() if descriptor.name in UPDATABLE]
    allowed = ", ".join(UPDATABLE)
    refuse("", [("update_mask", f"must name fields of {allowed}")] if set(paths) - set(UPDATABLE) else [], "UPDATE_MASK_INVALID")
    draft = draft_from_proto(given)
    return {UPDATABLE[path]: getattr(draft, UPDATABLE[path]) for path in paths}


def _next_page_token(keys: list[uuid.UUID], limit: int, request: pb.ListCampaignsRequest | pb.ListTouchesRequest) -> str:
    return pages.encode([str(keys[limit - 1])], request) if len(keys) > limit else ""
