"""SurvivorshipService: versions of the survivorship policy, and the pins of stewards."""

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from chassis import clock, etags, pages
from chassis.database import Connection
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from chassis.identity import current_principal
from chassis.ids import parse_id, resource_id, resource_segments
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1 import survivorship_service_pb2 as pb
from concord.customer.v1.survivorship_service_pb2_grpc import SurvivorshipServiceServicer
from customer import policy_messages
from customer.core import Core
from customer.domain.audit import Action
from customer.domain.survivorship import Standard, violations
from customer.policy_messages import policy_name
from customer.policy_worker import PolicyWorker
from customer.rpc import pins
from customer.rpc.callers import require_unbound
from customer.store import policies as store
from customer.store import policy_jobs
from customer.store.policies import LEAD, PolicyRow
from customer.store.policy_jobs import Job, JobKind
from customer.survivorship_standard import FIRST_VERSION

PAGE_DEFAULT, PAGE_MAX = 50, 200
CURRENT = "survivorshipPolicies/current"
AHEAD_MAX = timedelta(days=92)
"""An activation is not taken back: so far ahead at most may it lie."""


class SurvivorshipServicer(SurvivorshipServiceServicer):
    """Translates; long work is in `policy_worker`, pins are in `rpc.pins`."""

    def __init__(self, core: Core, commands: Commands, worker: PolicyWorker) -> None:
        self._core = core
        self._database = core.database
        self._commands = commands
        self._worker = worker

    async def CreatePolicyDraft(self, request: pb.CreatePolicyDraftRequest, context: Any) -> pb.SurvivorshipPolicy:
        standard = _standard(request.standard)

        async def handler(unit: UnitOfWork) -> pb.SurvivorshipPolicy:
            row = await store.create(unit.connection, standard, unit.principal.subject, unit.now)
            return await _policy(unit.connection, row, unit.now)

        return await self._commands.run(request, handler)

    async def UpdatePolicyDraft(self, request: pb.UpdatePolicyDraftRequest, context: Any) -> pb.SurvivorshipPolicy:
        version = _version(request.name)
        standard = _standard(request.standard)

        async def handler(unit: UnitOfWork) -> pb.SurvivorshipPolicy:
            row = await _draft(unit.connection, version)
            etags.require(request.etag, etags.etag(row.row_version))
            changed = await store.replace(unit.connection, row, standard, unit.principal.subject, unit.now)
            return await _policy(unit.connection, changed, unit.now)

        return await self._commands.run(request, handler)

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Any) -> pb.SurvivorshipPolicy:
        now = clock.now()
        async with self._database.connection() as connection:
            in_force = store.in_force(await store.schedule(connection), now)
            version = in_force if request.name == CURRENT else _version(request.name)
            return await _policy(connection, _found(await store.get(connection, version), version), now)

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Any) -> pb.ListPoliciesResponse:
        limit = pages.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        keys = pages.decode(request.page_token, request)
        now = clock.now()
        async with self._database.connection() as connection:
            rows = await store.page(connection, int(keys[0]) if keys else None, limit + 1)
            shown = rows[:limit]
            versions = [row.version for row in shown]
            schedule = await store.schedule(connection)
            dry_runs = await policy_jobs.last_of_policies(connection, JobKind.DRY_RUN, versions)
            sweeps = await policy_jobs.last_of_policies(connection, JobKind.SWEEP, versions)
        in_force = store.in_force(schedule, now)
        return pb.ListPoliciesResponse(
            policies=[
                policy_messages.policy(row, in_force, now, dry_runs.get(row.version, ()), sweeps.get(row.version, ()))
                for row in shown
            ],
            next_page_token=pages.encode([str(shown[-1].version)], request) if len(rows) > limit else "",
        )

    async def DryRunPolicy(self, request: pb.DryRunPolicyRequest, context: Any) -> pb.PolicyDryRun:
        version = _version(request.name)

        async def handler(unit: UnitOfWork) -> pb.PolicyDryRun:
            row = await _draft(unit.connection, version)
            text, content_hash = store.content_of(row.standard)
            base = store.in_force(await store.schedule(unit.connection), unit.now)
            job = await policy_jobs.start(
                unit.connection,
                JobKind.DRY_RUN,
                policy_version=version,
                base_version=base,
                by=unit.principal.subject,
                now=unit.now,
                sample_percent=request.sample_percent or 100,
                content_hash=content_hash,
                standard=text,
            )
            return policy_messages.dry_run(job)

        answer = await self._commands.run(request, handler)
        self._worker.wake.set()
        return answer

    async def GetPolicyDryRun(self, request: pb.GetPolicyDryRunRequest, context: Any) -> pb.PolicyDryRun:
        version, text = resource_segments(request.name, "survivorshipPolicies", "dryRuns")
        job_id = parse_id(text, "name")
        async with self._database.connection() as connection:
            job = await policy_jobs.get(connection, job_id, JobKind.DRY_RUN)
        if job is None or str(job.policy_version) != version:
            raise NotFound("DRY_RUN_NOT_FOUND", f"{request.name} does not exist")
        return policy_messages.dry_run(job)

    async def ActivatePolicy(self, request: pb.ActivatePolicyRequest, context: Any) -> pb.SurvivorshipPolicy:
        version = _version(request.name)
        wanted = request.effective_time if request.HasField("effective_time") else None

        async def handler(unit: UnitOfWork) -> pb.SurvivorshipPolicy:
            await store.lock_all(unit.connection)
            now = clock.now()  # after waiting: the lead counts from here
            row = await _draft(unit.connection, version)
            etags.require(request.etag, etags.etag(row.row_version))
            if unit.principal.subject in row.authors:
                raise FailedPrecondition("SECOND_PERSON_NEEDED", f"somebody who wrote nothing of {request.name} must activate it")
            schedule = await store.schedule(unit.connection)
            base = schedule[0][0] if schedule else FIRST_VERSION
            await _require_dry_run(unit.connection, row, base)
            effective_at = _effective_at(wanted, now, schedule[0][1] if schedule else None)
            changed = await store.activate(unit.connection, row, unit.principal.subject, now, effective_at)
            await policy_jobs.start_sweep(unit.connection, version, base, effective_at, unit.principal.subject, now)
            answer = await _policy(unit.connection, changed, now)
            await self._core.audit.append(unit, Action.POLICY, resource=request.name)
            return answer

        return await self._commands.run(request, handler)

    async def CalibrateTrust(self, request: pb.CalibrateTrustRequest, context: Any) -> pb.TrustCalibration:
        async def handler(unit: UnitOfWork) -> pb.TrustCalibration:
            base = store.in_force(await store.schedule(unit.connection), unit.now)
            job = await policy_jobs.start(
                unit.connection,
                JobKind.CALIBRATION,
                policy_version=0,
                base_version=base,
                by=unit.principal.subject,
                now=unit.now,
                sample_percent=request.sample_percent or 100,
            )
            return await _calibration(unit.connection, job)

        answer = await self._commands.run(request, handler)
        self._worker.wake.set()
        return answer

    async def GetTrustCalibration(self, request: pb.GetTrustCalibrationRequest, context: Any) -> pb.TrustCalibration:
        job_id = resource_id(request.name, "trustCalibrations")
        async with self._database.connection() as connection:
            job = await policy_jobs.get(connection, job_id, JobKind.CALIBRATION)
            if job is None:
                raise NotFound("CALIBRATION_NOT_FOUND", f"{request.name} does not exist")
            return await _calibration(connection, job)

    async def PinValue(self, request: pb.PinValueRequest, context: Any) -> pb.Pin:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.Pin:
            return await pins.pin(unit, self._core, request)

        return await self._commands.run(request, handler)

    async def UnpinValue(self, request: pb.UnpinValueRequest, context: Any) -> pb.UnpinValueResponse:
        require_unbound(current_principal())

        async def handler(unit: UnitOfWork) -> pb.UnpinValueResponse:
            return await pins.unpin(unit, self._core, request)

        return await self._commands.run(request, handler)

    async def ListPins(self, request: pb.ListPinsRequest, context: Any) -> pb.ListPinsResponse:
        return await pins.list_pins(self._core, current_principal(), request)


def _version(name: str) -> int:
    [text] = resource_segments(name, "survivorshipPolicies")
    return int(text)


def _standard(message: pb.SurvivorshipStandard) -> Standard:
    """A standard that may be used.

    Raises:
        InvalidArgument: POLICY_INVALID, naming each wrong field and what would be right.
    """
    try:
        standard = policy_messages.standard_of(message)
    except ValueError as unknown:
        broken = [("standard", str(unknown))]
    else:
        broken = [(f"standard.{field}", rule) for field, rule in violations(standard)]
        if not broken:
            return standard
    raise InvalidArgument("POLICY_INVALID", "; ".join(f"{field} {rule}" for field, rule in broken), field_violations=broken)


def _found(row: PolicyRow | None, version: int) -> PolicyRow:
    if row is None:
        raise NotFound("POLICY_NOT_FOUND", f"{policy_name(version)} does not exist")
    return row


async def _draft(connection: Connection, version: int) -> PolicyRow:
    """A draft, locked.

    Raises:
        NotFound: POLICY_NOT_FOUND.
        FailedPrecondition: POLICY_NOT_DRAFT, it was activated.
    """
    row = _found(await store.get(connection, version, lock=True), version)
    if row.activated_at is not None:
        raise FailedPrecondition(
            "POLICY_NOT_DRAFT", f"{policy_name(version)} was activated and never changes; draft its successor"
        )
    return row


async def _policy(connection: Connection, row: PolicyRow, now: datetime) -> pb.SurvivorshipPolicy:
    in_force = store.in_force(await store.schedule(connection), now)
    dry_runs = await policy_jobs.last_of_policies(connection, JobKind.DRY_RUN, [row.version])
    sweeps = await policy_jobs.last_of_policies(connection, JobKind.SWEEP, [row.version])
    return policy_messages.policy(row, in_force, now, dry_runs.get(row.version, ()), sweeps.get(row.version, ()))


async def _require_dry_run(connection: Connection, row: PolicyRow, base_version: int) -> None:
    """Nobody approves what nobody has tried: a finished dry run of this standard, against what it would replace."""
    jobs = (await policy_jobs.last_of_policies(connection, JobKind.DRY_RUN, [row.version])).get(row.version, [])
    mine = [job for job in jobs if job.content_hash == row.content_hash and job.finish_time is not None]
    if not mine:
        raise FailedPrecondition(
            "DRY_RUN_MISSING", f"{policy_name(row.version)} as it is now has no finished dry run; begin one and wait for its end"
        )
    if all(job.base_version != base_version for job in mine):
        raise FailedPrecondition(
            "DRY_RUN_OUTDATED", f"the dry run was not against {policy_name(base_version)}, which this would replace; try it again"
        )


def _effective_at(wanted: Timestamp | None, now: datetime, latest: datetime | None) -> datetime:
    earliest = now + LEAD
    seconds = wanted.seconds - now.timestamp() if wanted else LEAD.total_seconds()
    if not LEAD.total_seconds() <= seconds <= AHEAD_MAX.total_seconds():
        rule = f"must be {LEAD.seconds} seconds to {AHEAD_MAX.days} days from now; leave it out for as soon as possible"
        raise InvalidArgument(
            "EFFECTIVE_TIME_OUT_OF_RANGE", f"effective_time {rule}", field_violations=[("effective_time", rule)]
        )
    effective_at = datetime.fromtimestamp(wanted.seconds, UTC) if wanted else earliest
    if latest is not None and effective_at <= latest:
        raise FailedPrecondition(
            "POLICY_SCHEDULED", f"another policy is scheduled for {latest.isoformat()}; this one must be effective later"
        )
    return effective_at


async def _calibration(connection: Connection, job: Job) -> pb.TrustCalibration:
    base = (await store.policies_of(connection, {job.base_version}))[job.base_version]
    return policy_messages.trust_calibration(job, base)
