"""Works off jobs about survivorship policies, a page a transaction: killed anywhere, another process goes on where it stopped."""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from chassis import telemetry
from chassis.database import is_unavailable
from chassis.unit_of_work import Commands, UnitOfWork
from customer import published, publishing
from customer.changes import Changes
from customer.core import Core
from customer.domain import calibration, policy_changes
from customer.domain.golden import Golden, RecordView, golden
from customer.domain.survivorship import Policy, standard_from
from customer.statements import view
from customer.store import customers as customer_store
from customer.store import policies as policy_store
from customer.store import policy_jobs as store
from customer.store import records as record_store
from customer.store.policy_jobs import Job, JobKind

CUSTOMERS_AT_ONCE = 200
"""A page: about a tenth of a second."""
BELIEVED_AT_ONCE = 10
"""Customers between which the event loop turns: calls share it."""
POLL_SECONDS = 1.0
RETRY_AFTER_SECONDS = (2, 10, 60)
"""A customer that fails is skipped and tried again so long after the last page, then after the try before."""

logger = logging.getLogger(__name__)


class CustomerFailed(Exception):
    """One customer cannot be worked on."""

    def __init__(self, job_id: UUID, customer_id: UUID) -> None:
        super().__init__(f"customers/{customer_id}")
        self.job_id = job_id
        self.customer_id = customer_id


class PolicyWorker:
    """Runs in the background of the service; `wake` is set when a job was asked for."""

    def __init__(self, core: Core, commands: Commands) -> None:
        self._core = core
        self._commands = commands
        self.wake = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.wake.clear()
            if await self.step():
                continue
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self.wake.wait()
            except TimeoutError:
                pass

    async def step(self) -> bool:
        """Works on one page of a job; False when none is due. What it finds, and where it goes on, commit together.

        Where a page fails its customers are worked on one by one, and one that fails is skipped, named and tried again later.
        """
        try:
            return await self._advance(CUSTOMERS_AT_ONCE)
        except CustomerFailed as failed:
            if is_unavailable(failed.__cause__ or failed):
                raise
        for _ in range(CUSTOMERS_AT_ONCE):
            try:
                if not await self._advance(1):
                    break
            except CustomerFailed as failed:
                cause = failed.__cause__ or failed
                if is_unavailable(cause):
                    raise
                logger.error("policy job %s skips %s: %s", failed.job_id, failed, telemetry.failure_text(cause))
                async with self._commands.unit() as unit:
                    await store.skip(unit.connection, failed.job_id, failed.customer_id)
        return True

    async def _advance(self, limit: int) -> bool:
        """One page of so many customers.

        Raises:
            CustomerFailed: from what went wrong; the first one of the page is named.
        """
        async with self._commands.unit() as unit:
            job = await store.claim(unit.connection, unit.now)
            if job is None:
                return False
            customer_ids = await store.next_customers(unit.connection, job, limit)
            if not customer_ids and job.skipped:
                return await self._finish_or_retry(unit, job)
            try:
                result = await self._page(unit, job, customer_ids)
            except Exception as error:
                if customer_ids:
                    raise CustomerFailed(job.job_id, customer_ids[0]) from error
                raise
            finished = len(customer_ids) < limit and not job.skipped
            await self._write(unit, job, customer_ids, result, finished)
        return True

    async def _write(
        self, unit: UnitOfWork, job: Job, customer_ids: Sequence[UUID], result: dict[str, Any], finished: bool
    ) -> None:
        version = job.policy_version
        if finished and job.kind is JobKind.CALIBRATION:
            version = await _propose(unit, job, result)
        await store.advance(unit.connection, job, customer_ids, result, unit.now if finished else None, version)

    async def _finish_or_retry(self, unit: UnitOfWork, job: Job) -> bool:
        """After the last page: tries the skipped again, each apart; finishes when all went well or were tried often enough."""
        skipped, result = dict(job.skipped), job.result
        if job.retry_at is not None:
            for customer_id in job.skipped:
                try:
                    async with self._commands.unit() as apart:
                        found = await self._page(apart, replace(job, result=result), [UUID(customer_id)])
                except Exception as error:
                    if is_unavailable(error):
                        raise
                    skipped[customer_id] += 1
                else:
                    result = found
                    del skipped[customer_id]
        tries_count = max(skipped.values(), default=0)
        if tries_count > len(RETRY_AFTER_SECONDS) or not skipped:
            await store.retry(unit.connection, job, skipped, job.retry_at or unit.now)
            await self._write(unit, job, [], result, finished=True)
        else:
            retry_at = unit.now + timedelta(seconds=RETRY_AFTER_SECONDS[tries_count - 1])
            await store.retry(unit.connection, job, skipped, retry_at)
            await self._write(unit, job, [], result, finished=False)
        return True

    async def _page(self, unit: UnitOfWork, job: Job, customer_ids: Sequence[UUID]) -> dict[str, Any]:
        policies = await policy_store.policies_of(unit.connection, {job.base_version, job.policy_version} - {0})
        base = policies[job.base_version]
        if job.kind is JobKind.SWEEP:
            await self._sweep(unit, base, policies[job.policy_version], customer_ids)
            return job.result
        views = await self._views(unit, customer_ids)
        if job.kind is JobKind.DRY_RUN:
            assert job.standard is not None
            tried = Policy(job.policy_version, standard_from(json.loads(job.standard)))
            return policy_changes.counted(job.result, await _differences(views, base, tried, job))
        comparisons: list[calibration.Comparison] = []
        for place, records in enumerate(views.values()):
            if place % BELIEVED_AT_ONCE == 0:
                await asyncio.sleep(0)
            comparisons += calibration.compared(records, golden(records, base, job.begin_time), base, job.begin_time)
        return calibration.counted(job.result, comparisons)

    async def _views(self, unit: UnitOfWork, customer_ids: Sequence[UUID]) -> dict[UUID, list[RecordView]]:
        wanted = [(customer_id, None) for customer_id in customer_ids]
        found = await record_store.visible(unit.connection, self._core.vault, wanted) if wanted else []
        views: dict[UUID, list[RecordView]] = {}
        for place, (customer_id, members) in enumerate(zip(customer_ids, found, strict=True)):
            if place % BELIEVED_AT_ONCE == 0:
                await asyncio.sleep(0)
            views[customer_id] = [view(member) for member in members]
        return views

    async def _sweep(self, unit: UnitOfWork, base: Policy, policy: Policy, customer_ids: Sequence[UUID]) -> None:
        """Publishes customers of whom the policy says otherwise than the base, and qualities that entered another band."""
        if not customer_ids:
            return
        concerned = await self._concerned(unit, base, policy, customer_ids)
        if not concerned:
            return
        # Locked and read again: whoever changed a customer meanwhile has published it by the present policy.
        changes = Changes(unit, self._core)
        await changes.load(concerned)
        touched = {customer_id for customer_id, differs in concerned.items() if differs}
        for customer_id in touched:
            changes.touch(customer_id)
        await changes.write()
        present = await self._core.policies.at(unit.connection, unit.now)
        others = [(row, list(changes.members[key].values())) for key, row in changes.rows.items() if key not in touched]
        await publishing.qualities_changed(unit, present, others)

    async def _concerned(self, unit: UnitOfWork, base: Policy, policy: Policy, customer_ids: Sequence[UUID]) -> dict[UUID, bool]:
        """Customers to publish: True where their public state differs, False where only their quality does."""
        rows = await customer_store.read(unit.connection, customer_ids)
        wanted = [(customer_id, None) for customer_id in rows]
        members = await record_store.visible(unit.connection, self._core.vault, wanted)
        believed: list[Golden] = []
        concerned: dict[UUID, bool] = {}
        for place, (row, mine) in enumerate(zip(rows.values(), members, strict=True)):
            if place % BELIEVED_AT_ONCE == 0:
                await asyncio.sleep(0)
            views = [view(member) for member in mine]
            believed.append(golden(views, policy, unit.now))
            if policy.version != base.version:
                events = [
                    published.customer_changed(row, mine, values, unit.now, unit.epoch)
                    for values in (golden(views, base, unit.now), believed[-1])
                ]
                if events[0].message != events[1].message:
                    concerned[row.customer_id] = True
        assessed = [(row, mine, values) for row, mine, values in zip(rows.values(), members, believed, strict=True)]
        crossed = await publishing.crossings(unit.connection, assessed, list(rows), unit.now)
        return dict.fromkeys(crossed, False) | concerned


async def _differences(
    views: Mapping[UUID, Sequence[RecordView]], base: Policy, tried: Policy, job: Job
) -> dict[UUID, list[policy_changes.Difference]]:
    found = {}
    for place, (customer_id, records) in enumerate(views.items()):
        if place % BELIEVED_AT_ONCE == 0:
            await asyncio.sleep(0)
        before, after = golden(records, base, job.begin_time), golden(records, tried, job.begin_time)
        if differing := policy_changes.differences(before, after):
            found[customer_id] = differing
    return found


async def _propose(unit: UnitOfWork, job: Job, result: Mapping[str, Any]) -> int:
    """Writes the estimates of a finished calibration as a draft; the draft's version, 0 when there is nothing to propose."""
    base = (await policy_store.policies_of(unit.connection, {job.base_version}))[job.base_version]
    standard = calibration.proposal(base.standard, calibration.estimates(result, base))
    if standard is None:
        return 0
    return (await policy_store.create(unit.connection, standard, job.created_by, unit.now)).version
