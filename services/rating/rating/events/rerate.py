"""Rates marked customers again, in the background. Several replicas share the marks."""

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from chassis import clock, telemetry
from chassis.database import is_unavailable
from chassis.unit_of_work import Commands
from rating.domain.facts import Facts
from rating.domain.rating import Rating, rate
from rating.events.published import rating_changed
from rating.events.qualities import AGE_MAX, ASK_AGAIN_AFTER, Qualities
from rating.store import facts, pauses, qualities, queue, ratings, scorecards
from rating.store.pauses import Fence
from rating.store.queue import Mark
from rating.store.ratings import RatingVersion
from rating.store.scorecards import ScorecardVersion

CUSTOMERS_MAX = 200
CUSTOMERS_MARKED_MAX = 5000
RATED_AT_ONCE_MAX = 25
POLL_SECONDS = 0.25

logger = logging.getLogger(__name__)


class Rerater:
    """The worker.

    Args:
        commands: the write path.
        master: says how complete and credible customers are.
        delay_ms: how long new facts of a customer are gathered before it is rated.
    """

    def __init__(self, commands: Commands, master: Qualities, delay_ms: int) -> None:
        self._commands = commands
        self._master = master
        self._delay = timedelta(milliseconds=delay_ms)

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            worked = await self.mark_step() + await self.rate_step()
            await asyncio.sleep(0 if worked else POLL_SECONDS)

    async def mark_step(self) -> int:
        """Marks a page of all customers for a scorecard activated lately, and some with old figures; returns how many."""
        async with self._commands.unit() as unit:
            aged = await qualities.asked_before(unit.connection, unit.now - AGE_MAX, CUSTOMERS_MAX)
            await queue.mark(unit.connection, unit.now, aged)
            return len(aged) + await queue.mark_everybody(unit.connection, unit.now, CUSTOMERS_MARKED_MAX)

    async def rate_step(self) -> int:
        """Rates the customers marked longest ago; returns how many. Killed anywhere, their marks are claimed again later."""
        async with self._commands.unit() as unit:
            fence = await pauses.fence(unit.connection)
            if fence is None:
                return 0
            claim_id, claimed = await queue.claim(unit.connection, unit.now, unit.now - self._delay, CUSTOMERS_MAX)
        if claimed:
            await self._rate_apart(claim_id, claimed, fence)
        return len(claimed)

    async def _rate_apart(self, claim_id: uuid.UUID, claimed: Mapping[uuid.UUID, Mark], fence: Fence) -> None:
        """Rates a batch; where one customer makes it fail, each alone. A mark that fails stays and is tried again later."""
        try:
            await self._rate(claim_id, claimed, fence)
        except Exception as error:
            if is_unavailable(error):
                raise
            if len(claimed) == 1:
                logger.error("customers/%s cannot be rated: %s", next(iter(claimed)), telemetry.failure_text(error))
                return
            for customer_id, mark in claimed.items():
                await self._rate_apart(claim_id, {customer_id: mark}, fence)

    async def _rate(self, claim_id: uuid.UUID, claimed: Mapping[uuid.UUID, Mark], fence: Fence) -> None:
        unanswered = await self._take_qualities(
            claim_id, [customer_id for customer_id in claimed if claimed[customer_id].asks_quality]
        )
        async with self._commands.database.connection() as connection:  # after the claim: whatever it marks is seen here
            scorecard = await scorecards.active(connection)
            loaded = await facts.load(connection, list(claimed))
        rated = await _rate_all(loaded, scorecard)
        async with self._commands.unit() as unit:
            if await pauses.fence(unit.connection) != fence:
                return  # a rebuild emptied the facts meanwhile; the marks stay for when they are complete
            owned = await queue.still_claimed(unit.connection, claim_id, list(claimed))
            current = await ratings.current(unit.connection, owned)
            changed = [
                version
                for (customer_id, scope), rating in rated.items()
                if customer_id in owned
                and (version := _next(current.get((customer_id, scope)), customer_id, scope, rating, scorecard, unit.now))
            ]
            await ratings.write(unit.connection, changed)
            for version in changed:
                former = current.get((version.customer_id, version.scope))
                former_level, former_stage = (former.rating.level, former.rating.stage) if former else (None, None)
                unit.publish(rating_changed(version, former_level, former_stage, unit.epoch))
            await queue.settle(unit.connection, unit.now, {one: claimed[one] for one in owned - unanswered})
            await queue.postpone(unit.connection, unit.now + ASK_AGAIN_AFTER, {one: claimed[one] for one in owned & unanswered})

    async def _take_qualities(self, claim_id: uuid.UUID, customer_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
        """Keeps what the customer master says of customers; returns those of whom it did not answer."""
        asked_at = clock.now()
        told, unanswered = await self._master.ask(customer_ids)
        answered = set(customer_ids) - unanswered
        if answered:
            async with self._commands.unit() as unit:
                owned = await queue.still_claimed(unit.connection, claim_id, answered)
                mine = {customer_id: quality for customer_id, quality in told.items() if customer_id in owned}
                await qualities.keep(unit.connection, asked_at, owned, mine)
        return unanswered


async def _rate_all(
    loaded: Mapping[tuple[uuid.UUID, str], Facts], scorecard: ScorecardVersion
) -> dict[tuple[uuid.UUID, str], Rating]:
    rated = {}
    for i, (key, scope_facts) in enumerate(loaded.items()):
        rated[key] = rate(scope_facts, scorecard.content)
        if i % RATED_AT_ONCE_MAX == 0:
            await asyncio.sleep(0)  # calls and folding share this loop
    return rated


def _next(
    current: RatingVersion | None, customer_id: uuid.UUID, scope: str, rating: Rating, scorecard: ScorecardVersion, now: datetime
) -> RatingVersion | None:
    """The version to write; None when a reader would see no difference."""
    version = RatingVersion(
        customer_id=customer_id,
        scope=scope,
        version=current.version + 1 if current else 1,
        rating=rating,
        scorecard_id=scorecard.scorecard_id,
        scorecard_version=scorecard.version,
        created_at=now,
    )
    return None if current and current.says_the_same(version) else version
