"""Carries out waves: selects members page by page, reserves a slot for each, and plans their touches.

Any number of replicas may plan at once, and any may die at any moment: a page is claimed under a fence, touch ids are computed,
contact answers a repeated reservation as before, and touches, events and the cursor are committed together.
"""

import asyncio
import contextlib
import hashlib
import logging
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from campaign.domain import evaluator, touch
from campaign.domain.evaluator import Evaluator
from campaign.domain.profile import Profile
from campaign.published import touch_planned
from campaign.store import audience, touches, waves
from campaign.store.touches import PlannedTouch
from campaign.store.waves import ClaimedWave
from chassis import record_links, telemetry
from chassis.unit_of_work import Commands
from concord.common.v1.channel_pb2 import Channel
from concord.contact.v1.contact_service_pb2 import CONTACT_PURPOSE_MARKETING
from concord.contact.v1.reservation_service_pb2 import (
    RESERVE_OUTCOME_ALREADY_REACHED,
    RESERVE_OUTCOME_RESERVED,
    RESERVE_OUTCOME_UNSPECIFIED,
    ContactMessage,
    ReserveContactsRequest,
    ReserveContactsResponse,
    ReserveItem,
    ReserveOutcome,
)

if TYPE_CHECKING:  # a type of the stubs only
    from concord.contact.v1.reservation_service_pb2_grpc import ReservationServiceAsyncStub

CLAIM_SECONDS = 30.0
"""More than a page takes: at most four reservations of at most 5 s. A planner that is slower loses its page, nothing else."""
POLL_SECONDS = 1.0
RESERVATIONS_MAX = 500

logger = logging.getLogger(__name__)


class ReservationAnswerInvalid(Exception):
    """Contact's answer does not fit what was asked."""


class Planner:
    """Plans the waves of all campaigns. `wake` is set after a launch, so that nobody waits for the poll."""

    def __init__(
        self,
        commands: Commands,
        evaluator: Evaluator,
        contact: "ReservationServiceAsyncStub",
        page_profiles_max: int = audience.PAGE_PROFILES_MAX,
        claim_seconds: float = CLAIM_SECONDS,
    ) -> None:
        self.wake = asyncio.Event()
        self._commands = commands
        self._evaluator = evaluator
        self._contact = contact
        self._page_profiles_max = page_profiles_max
        self._claim_seconds = claim_seconds

    async def plan(self) -> None:
        """Plans until cancelled."""
        while True:
            self.wake.clear()
            while await self.step():
                pass
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self.wake.wait()

    async def settle(self) -> None:
        """Finishes campaigns of which every touch has arrived or failed, until cancelled."""
        while True:
            async with self._commands.unit() as unit:
                more = await waves.settle(unit.connection)
            await asyncio.sleep(0 if more else POLL_SECONDS)

    async def step(self) -> bool:
        """Plans a page of the wave that has waited longest; False when there is none to plan now."""
        async with self._commands.database.connection() as connection:
            claimed = await waves.claim(connection, self._claim_seconds)
        if claimed is None:
            return False
        try:
            with telemetry.span("plan wave"):
                await self._plan_page(claimed)
        except asyncio.CancelledError:  # this process stops in good order: another need not wait for the end of the claim
            await self._give_back(claimed, pause_seconds=0.0, failures_count=claimed.failures_count)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the wave waits and is tried again
            failures_count = claimed.failures_count + 1
            seconds = touch.pause_seconds(failures_count)
            logger.warning(
                "wave %d of campaign %s waits %.1f s, failure %d in a row: %s",
                claimed.wave, claimed.campaign_id, seconds, failures_count, telemetry.failure_text(error),
            )  # fmt: skip
            await self._give_back(claimed, pause_seconds=seconds, failures_count=failures_count)
        return True

    async def _give_back(self, claimed: ClaimedWave, *, pause_seconds: float, failures_count: int) -> None:
        async with self._commands.database.connection() as connection:
            await waves.give_back(connection, claimed, pause_seconds=pause_seconds, failures_count=failures_count)

    async def _plan_page(self, claimed: ClaimedWave) -> None:
        async with self._commands.database.connection() as connection:
            profiles = await audience.page(
                connection, claimed.institution_id, claimed.channel, claimed.cursor_customer_id, self._page_profiles_max
            )
        rule = self._evaluator.compile(claimed.audience_expression)
        members, failures_count = await evaluator.select(rule, profiles)
        async with self._commands.database.connection() as connection:
            reached = await touches.reached(connection, claimed, [member.customer_id for member in members])
        planned = [
            _already_reached(claimed, member, reached[member.customer_id]) for member in members if member.customer_id in reached
        ]
        members = [member for member in members if member.customer_id not in reached]
        for first in range(0, len(members), RESERVATIONS_MAX):
            planned += await self._reserve(claimed, members[first : first + RESERVATIONS_MAX])
        await self._commit(claimed, profiles, planned, failures_count)

    async def _reserve(self, claimed: ClaimedWave, members: list[Profile]) -> list[PlannedTouch]:
        request = ReserveContactsRequest(
            parent=f"institutions/{claimed.institution_id}",
            channel=Channel.Value(f"CHANNEL_{claimed.channel}"),
            purpose=CONTACT_PURPOSE_MARKETING,
            contact_message=ContactMessage(title=claimed.title, body=claimed.body),
            items=[_item(claimed, member) for member in members],
        )
        # A page that is planned again may have other members, because profiles change: that is another request.
        content = hashlib.blake2b(request.SerializeToString(deterministic=True), digest_size=16).hexdigest()
        request.request_id = f"{claimed.campaign_id}/{claimed.wave}/{claimed.cursor_customer_id}/{content}"
        response = await self._contact.ReserveContacts(request)
        return _planned(request, response, claimed, members)

    async def _commit(
        self, claimed: ClaimedWave, profiles: list[Profile], planned: list[PlannedTouch], failures_count: int
    ) -> None:
        async with self._commands.unit() as unit:
            advanced = await waves.advance(
                unit.connection,
                claimed,
                cursor_customer_id=profiles[-1].customer_id if profiles else claimed.cursor_customer_id,
                examined_count=len(profiles),
                rule_failures_count=failures_count,
                finish_time=unit.now if len(profiles) < self._page_profiles_max else None,
            )
            if not advanced:
                logger.info("another planner took wave %d of campaign %s", claimed.wave, claimed.campaign_id)
                return
            erased = await record_links.erased(unit.connection, [each.record_id for each in planned])
            planned = [each for each in planned if each.record_id not in erased]
            await touches.insert(unit.connection, claimed.campaign_id, claimed.wave, planned, unit.now)
            for each in planned:
                if each.refused_reason is None:
                    unit.publish(
                        touch_planned(
                            each.touch_id,
                            claimed.campaign_id,
                            claimed.wave,
                            claimed.institution_id,
                            each.record_id,
                            each.customer_id,
                            claimed.channel,
                            unit.now,
                        )
                    )
        if failures_count:
            logger.warning("the rule of campaign %s failed for %d profiles", claimed.campaign_id, failures_count)


def _item(claimed: ClaimedWave, member: Profile) -> ReserveItem:
    touch_id = touch.touch_id(claimed.campaign_id, claimed.wave, member.customer_id)
    wave = f"institutions/{claimed.institution_id}/campaigns/{claimed.campaign_id}/waves/{claimed.wave}"
    return ReserveItem(touch=f"{wave}/touches/{touch_id}", customer=f"customers/{member.customer_id}")


def _already_reached(claimed: ClaimedWave, member: Profile, record_id: uuid.UUID | None) -> PlannedTouch:
    """A member that was reached in this wave under another id, before a merge. Contact would say the same."""
    touch_id = touch.touch_id(claimed.campaign_id, claimed.wave, member.customer_id)
    reason = ReserveOutcome.Name(RESERVE_OUTCOME_ALREADY_REACHED).removeprefix("RESERVE_OUTCOME_")
    return PlannedTouch(touch_id, record_id or member.record_id, member.customer_id, reason, None)


def _planned(
    request: ReserveContactsRequest, response: ReserveContactsResponse, claimed: ClaimedWave, members: list[Profile]
) -> list[PlannedTouch]:
    if [result.touch for result in response.results] != [item.touch for item in request.items]:
        raise ReservationAnswerInvalid("not one result for each item, in the order of the request")
    planned = []
    for member, result in zip(members, response.results, strict=True):
        if result.outcome == RESERVE_OUTCOME_UNSPECIFIED:
            raise ReservationAnswerInvalid("a result without an outcome")
        refused = result.outcome != RESERVE_OUTCOME_RESERVED
        planned.append(
            PlannedTouch(
                touch.touch_id(claimed.campaign_id, claimed.wave, member.customer_id),
                uuid.UUID(result.record_id) if result.record_id else member.record_id,
                member.customer_id,
                ReserveOutcome.Name(result.outcome).removeprefix("RESERVE_OUTCOME_") if refused else None,
                _instant(result.next_free_time) if result.HasField("next_free_time") else None,
            )
        )
    return planned


def _instant(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(UTC)
