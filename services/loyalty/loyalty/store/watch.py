"""Checks the ledger on a schedule: what came since the last good check, as a metric and a line in the log."""

import asyncio
import logging

from opentelemetry import metrics

from chassis.database import Database
from loyalty.store import invariants

EVERY_SECONDS = 60.0
OPERATIONS_AT_START_MAX = 10_000

violations_gauge = metrics.get_meter("concord").create_gauge(
    "loyalty.invariant.violations", description="Rows that break an invariant of the ledger; anything but 0 is an alarm"
)
logger = logging.getLogger(__name__)


class Watch:
    """Goes on from the last operation that was found good, so that a fault stays visible until it is mended."""

    def __init__(self, database: Database, every_seconds: float = EVERY_SECONDS) -> None:
        self._database = database
        self._every_seconds = every_seconds
        self._good_sequence: int | None = None

    async def run(self) -> None:
        """Checks until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(self._every_seconds)

    async def check(self) -> invariants.Report:
        """Checks once. At the start of the process it looks back over the last ten thousand operations."""
        if self._good_sequence is None:
            async with self._database.connection() as connection:
                last = await connection.fetchval("SELECT coalesce(max(sequence), 0) FROM operations")
            self._good_sequence = max(0, last - OPERATIONS_AT_START_MAX)
        report = await invariants.verify(self._database, self._good_sequence)
        for finding in report.findings:
            violations_gauge.set(finding.violations_count, {"invariant": finding.invariant.name})
            if finding.violations_count:
                logger.error(
                    "the ledger breaks %s %d times, first at %s",
                    finding.invariant.name, finding.violations_count, finding.examples[:1],
                )  # fmt: skip
        if report.valid:
            self._good_sequence = report.sequence
        return report
