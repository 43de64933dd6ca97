"""Keeps the sums of the reports near the end of the ledger, so that a report has little to add."""

import asyncio

from chassis.unit_of_work import Commands
from loyalty.store import liability

POLL_SECONDS = 2.0


class Summing:
    """Runs in the background of every replica; they take turns by the lock on the progress."""

    def __init__(self, commands: Commands, poll_seconds: float = POLL_SECONDS) -> None:
        self._commands = commands
        self._poll_seconds = poll_seconds

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if not await self.step():
                await asyncio.sleep(self._poll_seconds)

    async def step(self) -> bool:
        """Sums up the next operations; False when there are none."""
        async with self._commands.unit() as unit:
            return await liability.fold(unit.connection)
