"""Ends the pause of a rebuild: when all that an owner said is folded, or at the latest after a day. Replicas may all do so."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from opentelemetry import metrics

from chassis import bus
from chassis.clock import now
from chassis.config import Settings
from chassis.database import Database
from rating.store import pauses

CHECK_SECONDS = 1.0
SAY_SECONDS = 60.0
BUS_SECONDS_MAX = 10.0
PAUSE_HOURS_MAX = 24

logger = logging.getLogger(__name__)
_paused_seconds = metrics.get_meter("concord").create_gauge(
    "rating.paused", unit="s", description="For how long a rebuild has kept everybody from being rated; 0 when none does"
)


class Resumer:
    """The worker.

    Args:
        database: where the pauses are.
        acknowledged: given an owner, up to where in its stream everything is acknowledged, hence folded.
    """

    def __init__(self, database: Database, acknowledged: Callable[[str], Awaitable[int]]) -> None:
        self._database = database
        self._acknowledged = acknowledged
        self._say_at = 0.0

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(CHECK_SECONDS)

    async def step(self) -> None:
        """Looks at each pause once."""
        async with self._database.connection() as connection:
            waiting = await pauses.unended(connection)
        instant = now()
        _paused_seconds.set(max(((instant - pause["since"]).total_seconds() for pause in waiting), default=0))
        if not waiting:
            self._say_at = 0.0
        says = asyncio.get_running_loop().time() >= self._say_at
        for pause in waiting:
            owner, run_id, sequence = pause["owner"], pause["run_id"], pause["stream_sequence"]
            if instant - pause["since"] > timedelta(hours=PAUSE_HOURS_MAX):
                logger.error(
                    "%s has not said all within %d hours of the rebuild: ratings go on from the facts that there are",
                    owner, PAUSE_HOURS_MAX,
                )  # fmt: skip
            elif sequence is None or await self._acknowledged(owner) < sequence:
                if says:
                    self._say_at = asyncio.get_running_loop().time() + SAY_SECONDS
                    logger.warning(
                        "nobody is rated since the rebuild at %s, until %s has said all and it is folded: unless it runs,"
                        " run python -m %s republish --to rating --run %s",
                        pause["since"].isoformat(timespec="seconds"), owner, owner, run_id,
                    )  # fmt: skip
                continue
            async with self._database.connection() as connection:
                await pauses.end(connection, owner, run_id, instant)
            logger.info("the pause of the rebuild is over for %s", owner)


def acknowledged_by_bus(settings: Settings) -> Callable[[str], Awaitable[int]]:
    """Asks JetStream, by a connection of its own: rare, and only while a pause lasts."""

    async def up_to(owner: str) -> int:
        async with asyncio.timeout(BUS_SECONDS_MAX):
            connected = await bus.connect(settings, "rating resumer")
            try:
                info = await connected.jetstream.consumer_info(owner.upper(), "rating")
                return info.ack_floor.stream_seq if info.ack_floor else 0
            finally:
                await connected.client.close()

    return up_to
