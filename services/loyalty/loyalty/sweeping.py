"""What time does to the ledger: holds end, promised points become the members', lots end.

Any replica may sweep at any time: each chunk is chosen and posted under the head's lock, so what was swept is not found again.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeAlias

import asyncpg
from opentelemetry import metrics

from chassis.database import Connection
from chassis.ids import new_id
from chassis.unit_of_work import Commands, UnitOfWork
from loyalty.domain.ledger.commands import AnyCommand, Confirm, ExpireHold, ExpireLots
from loyalty.domain.ledger.types import Operation, SystemKey
from loyalty.store import ledger as ledger_store
from loyalty.store.posting import configuration_of, post

EVERY_SECONDS = 5.0
HOLDS_MAX = 200
"""Holds in a chunk."""
LOTS_MAX = 500
"""Lots in a chunk: the longest that a redemption waits for the sweep, some 20 ms."""

swept = metrics.get_meter("concord").create_counter("loyalty.swept", description="Holds and lots whose time had come, by sweep")
logger = logging.getLogger(__name__)
Chunk: TypeAlias = Callable[[UnitOfWork], Awaitable[int]]
Finder: TypeAlias = Callable[[Connection, datetime, int], Awaitable[list[asyncpg.Record]]]


class Sweeper:
    """Sweeps every so often, chunk after chunk until nothing is due."""

    def __init__(self, commands: Commands, every_seconds: float = EVERY_SECONDS, lots_max: int = LOTS_MAX) -> None:
        self._commands = commands
        self._every_seconds = every_seconds
        self._lots_max = lots_max

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            await self.sweep()
            await asyncio.sleep(self._every_seconds)

    async def sweep(self) -> dict[str, int]:
        """Sweeps once. Says how many holds ended, and how many lots were activated and ended."""
        # Holds first, so that what they release can end; promises before ends, so that a lot is a member's before it ends.
        chunks = {"holds": self._end_holds, "activations": self._activate_lots, "expiries": self._expire_lots}
        return {name: await self._all(name, chunk) for name, chunk in chunks.items()}

    async def _all(self, name: str, chunk: Chunk) -> int:
        total = 0
        while True:
            async with self._commands.unit() as unit:
                count = await chunk(unit)
            if not count:
                return total
            total += count
            swept.add(count, {"sweep": name})
            await asyncio.sleep(0)  # a chunk is a turn: whoever waits for the loop comes before the next one

    async def _end_holds(self, unit: UnitOfWork) -> int:
        if not await ledger_store.holds_due(unit.connection, unit.now, 1):
            return 0  # nothing to lock the ledger for
        head = await ledger_store.lock_head(unit.connection)
        due = await ledger_store.holds_due(unit.connection, unit.now, HOLDS_MAX)
        commands = [
            ExpireHold(
                operation_id=new_id(),
                key=SystemKey(f"hold-expire/{row['hold_id']}"),
                account_id=row["account_id"],
                institution_id=row["institution_id"],
                effective_time=row["expire_time"],
                hold_id=row["hold_id"],
            )
            for row in due
        ]
        return len([each for each in await post(unit, commands, head) if isinstance(each, Operation)])

    async def _activate_lots(self, unit: UnitOfWork) -> int:
        return await _sweep_lots(unit, Confirm, "confirm", ledger_store.lots_to_activate, self._lots_max)

    async def _expire_lots(self, unit: UnitOfWork) -> int:
        return await _sweep_lots(unit, ExpireLots, "expire", ledger_store.lots_to_expire, self._lots_max)


async def _sweep_lots(unit: UnitOfWork, kind: type[Confirm | ExpireLots], name: str, find: Finder, limit: int) -> int:
    """One operation for the lots of each programme, whosesoever they are."""
    if not await find(unit.connection, unit.now, 1):
        return 0
    head = await ledger_store.lock_head(unit.connection)
    due = await find(unit.connection, unit.now, limit)
    configuration = await configuration_of(unit, head)
    commands: list[AnyCommand] = []
    for program_id, lot_ids in _by_program(due):
        program = configuration.program(program_id)
        assert program is not None
        commands.append(
            kind(
                operation_id=new_id(),
                key=SystemKey(f"{name}/{lot_ids[0]}/{lot_ids[-1]}"),
                account_id=None,
                institution_id=program.institution_id,
                effective_time=unit.now,
                program_id=program_id,
                lot_ids=lot_ids,
            )
        )
    operations = [each for each in await post(unit, commands, head) if isinstance(each, Operation)]
    return sum(len((operation.result or {}).get("lots", ())) for operation in operations)


def _by_program(due: Sequence[asyncpg.Record]) -> list[tuple[str, tuple[int, ...]]]:
    ordered = sorted((row["program_id"], row["lot_id"]) for row in due)
    return [
        (program_id, tuple(lot_id for _, lot_id in group))
        for program_id, group in itertools.groupby(ordered, key=lambda pair: pair[0])
    ]
