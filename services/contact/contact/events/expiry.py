"""Gives back slots that were reserved and not used."""

import asyncio

from chassis.unit_of_work import Commands
from contact.published import contact_recorded
from contact.store import contacts

BATCH_MAX = 500
PAUSE_SECONDS = 5.0


async def release_expired(commands: Commands) -> int:
    """Releases one batch of expired reservations, and returns how many."""
    async with commands.unit() as unit:
        rows = await contacts.release_expired(unit.connection, BATCH_MAX)
        for row in rows:
            unit.publish(contact_recorded(row, unit.epoch))
    return len(rows)


async def release_expired_for_ever(commands: Commands) -> None:
    """Sweeps until cancelled. Several replicas share the work: each skips what another has in hand."""
    while True:
        if await release_expired(commands) < BATCH_MAX:
            await asyncio.sleep(PAUSE_SECONDS)
