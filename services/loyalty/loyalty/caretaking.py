"""What is looked after in the background: reviews of tiers, vouchers that end, counters that are over."""

import asyncio
import logging
import random

from chassis.database import is_unavailable
from chassis.unit_of_work import Commands
from loyalty.store import limits, rewards, tiers

EVERY_SECONDS = 60.0
REVIEWED_MAX = 200
_log = logging.getLogger(__name__)


class Caretaker:
    """Does it again and again; any number of replicas may, because each takes rows that no other has."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS * random.uniform(0.5, 1.5))
            try:
                while await self.step():
                    pass
            except Exception as error:  # noqa: BLE001 - it tries again
                if not is_unavailable(error):
                    _log.exception("the caretaker failed; it tries again")

    async def step(self) -> int:
        """One round. Returns how much there was to do."""
        async with self._commands.unit() as unit:
            reviewed = await tiers.review_due(unit, REVIEWED_MAX)
        async with self._commands.unit() as unit:
            expired = await rewards.expire(unit.connection, unit.now)
        async with self._commands.unit() as unit:
            purged = await limits.purge(unit.connection, unit.now)
        return reviewed + expired + purged
