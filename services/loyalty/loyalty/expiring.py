"""Tells of points that are about to end, and ends what comes back of erased persons' points."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime

from chassis.ids import new_id
from chassis.unit_of_work import Commands
from loyalty.domain.ledger.commands import ExpireLots
from loyalty.domain.ledger.types import Operation, SystemKey
from loyalty.store import erasure, expiring
from loyalty.store import ledger as ledger_store
from loyalty.store.messages import points_expiring
from loyalty.store.posting import post

DAYS_BEFORE = (30, 7)
POLL_SECONDS = 600.0
LOTS_MAX = 2000
"""Lots in a chunk, which is one transaction."""
LEFTOVERS_MAX = 100
logger = logging.getLogger(__name__)


class ExpiryNotices:
    """Runs in the background of every replica; what one has told of, the others do not find."""

    def __init__(
        self,
        commands: Commands,
        days_before: Sequence[int] = DAYS_BEFORE,
        poll_seconds: float = POLL_SECONDS,
        lots_max: int = LOTS_MAX,
    ) -> None:
        self._commands = commands
        self._days_before = sorted(days_before)
        self._poll_seconds = poll_seconds
        self._lots_max = lots_max

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            told, ended = await self.step(), await self.end_leftovers()
            if told or ended:
                logger.info("told of points that end %s times; ended the points of %s erased accounts", told, ended)
            await asyncio.sleep(self._poll_seconds)

    async def step(self) -> int:
        """Tells of all that has passed a mark. Returns how many events left. The nearest mark first: what passes two at once is
        told of by both, the more urgent one before."""
        told = 0
        for days in self._days_before:
            place: tuple[datetime, int] | None = None
            while True:
                async with self._commands.unit() as unit:
                    rows, place = await expiring.take(unit.connection, days, unit.now, place or (unit.now, 0), self._lots_max)
                    for row in rows:
                        unit.publish(points_expiring(row, days))
                told += len(rows)
                if place is None:
                    break
        async with self._commands.unit() as unit:
            await expiring.forget(unit.connection, unit.now)
        return told

    async def end_leftovers(self) -> int:
        """Ends points of erased persons that holds or refunds have brought back. Returns of how many accounts and programmes."""
        async with self._commands.unit() as unit:
            if not await erasure.leftovers(unit.connection, 1):
                return 0
            head = await ledger_store.lock_head(unit.connection)
            rows = await erasure.leftovers(unit.connection, LEFTOVERS_MAX)
            commands = [
                ExpireLots(
                    operation_id=new_id(),
                    key=SystemKey(f"erase/{row['account_id']}/{row['program_id']}/{row['version']}"),
                    account_id=row["account_id"],
                    institution_id=row["institution_id"],
                    effective_time=unit.now,
                    program_id=row["program_id"],
                )
                for row in rows
            ]
            results = await post(unit, commands, head)
            return sum(isinstance(result, Operation) for result in results)
