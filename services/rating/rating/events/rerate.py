"""Rates marked customers again, in the background. Several replicas share the marks."""

import asyncio
import logging
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta

from chassis import telemetry
from chassis.database import is_unavailable
from chassis.unit_of_work import Commands
from rating.domain.facts import Facts
from rating.domain.rating import Rating, rate
from rating.events.published import rating_changed
from rating.store import facts, pauses, queue, ratings, scorecards
from rating.store.pauses import Fence
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
        delay_ms: how long new facts of a customer are gathered before it is rated.
    """

    def __init__(self, commands: Commands, delay_ms: int) -> None:
        self._commands = commands
        self._delay = timedelta(milliseconds=delay_ms)

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            worked = await self.mark_step() + await self.rate_step()
            await asyncio.sleep(0 if worked else POLL_SECONDS)

    async def mark_step(self) -> int:
        """Marks a page of all customers for a scorecard activated lately; returns how many."""
        async with self._commands.unit() as unit:
            return await queue.mark_everybody(unit.connection, unit.now, CUSTOMERS_MARKED_MAX)

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

    async def _rate_apart(self, claim_id: uuid.UUID, claimed: Mapping[uuid.UUID, int], fence: Fence) -> None:
        """Rates a batch; where one customer makes it fail, each alone. A mark that fails stays and is tried again later."""
        try:
            await self._rate(claim_id, claimed, fence)
        except Exception as error:
            if is_unavailable(error):
                raise
            if len(claimed) == 1:
                logger.error("customers/%s cannot be rated: %s", next(iter(claimed)), telemetry.failure_text(error))
                return
            for customer_id, marks_count in claimed.items():
                await self._rate_apart(claim_id, {customer_id: marks_count}, fence)

    async def _rate(self, claim_id: uuid.UUID, claimed: Mapping[uuid.UUID, int], fence: Fence) -> None:
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
            await queue.settle(unit.connection, unit.now, {customer_id: claimed[customer_id] for customer_id in owned})


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
