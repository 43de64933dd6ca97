"""Between the contract's survivorship policies and the domain's. No I/O."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from google.protobuf.json_format import MessageToDict, ParseDict

from chassis.etags import etag
from concord.customer.v1 import survivorship_service_pb2 as pb
from customer.domain import calibration
from customer.domain.survivorship import Policy, Standard, standard_from, to_data
from customer.messages import timestamp
from customer.store.policies import PolicyRow
from customer.store.policy_jobs import Job

_PREFIXES = {"attribute": "ATTRIBUTE_", "rules": "SURVIVORSHIP_RULE_", "methods": "VERIFICATION_METHOD_"}
"""Fields that hold words of enumerations; the file has them without prefix."""
SKIPPED_SHOWN_MAX = 100


def policy_name(version: int) -> str:
    """The resource name of a version."""
    return f"survivorshipPolicies/{version}"


def standard_of(message: pb.SurvivorshipStandard) -> Standard:
    """A standard as the domain has it; `violations` says what is wrong with it.

    Raises:
        ValueError: naming the field, for a word that no policy may use.
    """
    data = cast("dict[str, Any]", _without_prefixes(MessageToDict(message, preserving_proto_field_name=True)))
    try:
        return standard_from(data)
    except KeyError as unknown:
        raise ValueError(f"has an attribute, rule or method that does not exist: {unknown.args[0]}") from None


def standard_message(standard: Standard) -> pb.SurvivorshipStandard:
    """A standard as the contract has it, everything written out."""
    return ParseDict(_with_prefixes(to_data(standard)), pb.SurvivorshipStandard())


def _without_prefixes(value: Any, prefix: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _without_prefixes(one, _PREFIXES.get(key, "")) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_prefixes(one, prefix) for one in value]
    return value.removeprefix(prefix) if prefix and isinstance(value, str) else value


def _with_prefixes(value: Any, prefix: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: _with_prefixes(one, _PREFIXES.get(key, "")) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_prefixes(one, prefix) for one in value]
    return prefix + value if prefix else value


def policy(row: PolicyRow, in_force: int, now: datetime, dry_runs: Sequence[Job], sweeps: Sequence[Job]) -> pb.SurvivorshipPolicy:
    """A version with its state.

    Args:
        row: the version.
        in_force: the version in force now.
        now: the present.
        dry_runs: of this version, newest first.
        sweeps: after its activation.
    """
    message = pb.SurvivorshipPolicy(
        name=policy_name(row.version),
        state=_state(row, in_force, now),
        standard=standard_message(row.standard),
        authors=row.authors,
        activator=row.activator or "",
        create_time=timestamp(row.create_time),
        update_time=timestamp(row.update_time),
        etag=etag(row.row_version),
    )
    if row.activated_at is not None and row.effective_at is not None:
        message.activate_time.CopyFrom(timestamp(row.activated_at))
        message.effective_time.CopyFrom(timestamp(row.effective_at))
    mine = next((job for job in dry_runs if job.content_hash == row.content_hash), None)
    if mine is not None:
        message.dry_run = dry_run_name(mine)
    if sweeps:
        message.sweep_percent = _percent(sweeps[0])
        message.sweep_skipped_customers.extend(_skipped(sweeps[0]))
    return message


def _state(row: PolicyRow, in_force: int, now: datetime) -> "pb.PolicyState.ValueType":
    if row.effective_at is None:
        return pb.POLICY_STATE_DRAFT
    if row.version == in_force:
        return pb.POLICY_STATE_IN_FORCE
    return pb.POLICY_STATE_SCHEDULED if row.effective_at > now else pb.POLICY_STATE_RETIRED


def _percent(job: Job) -> int:
    if job.finish_time is not None:
        return 100
    return min(100 * job.customers_done_count // max(job.customers_total_count, 1), 99)


def _skipped(job: Job) -> list[str]:
    return [f"customers/{customer_id}" for customer_id in sorted(job.skipped)[:SKIPPED_SHOWN_MAX]]


def dry_run_name(job: Job) -> str:
    """The resource name of a dry run."""
    return f"{policy_name(job.policy_version)}/dryRuns/{job.job_id}"


def _job_state(job: Job) -> "pb.PolicyJobState.ValueType":
    return pb.POLICY_JOB_STATE_RUNNING if job.finish_time is None else pb.POLICY_JOB_STATE_SUCCEEDED


def dry_run(job: Job) -> pb.PolicyDryRun:
    """A dry run with what it has counted so far."""
    attributes = job.result.get("attributes", {})
    message = pb.PolicyDryRun(
        name=dry_run_name(job),
        state=_job_state(job),
        base_policy=policy_name(job.base_version),
        sample_percent=job.sample_percent,
        customers_total_count=job.customers_total_count,
        customers_done_count=job.customers_done_count,
        customers_changed_count=job.result.get("customers_changed", 0),
        values_changed_count=sum(counts["values"] for counts in attributes.values()),
        attribute_changes=[
            pb.AttributeChange(
                attribute=cast(Any, int(number)),
                values_changed_count=counts["values"],
                sources_changed_count=counts["sources"],
                examples=[
                    pb.ChangeExample(
                        customer=f"customers/{customer_id}", from_source_system=old, to_source_system=new, rule=cast(Any, rule)
                    )
                    for customer_id, old, new, rule in counts["examples"]
                ],
            )
            for number, counts in sorted(attributes.items(), key=lambda one: int(one[0]))
        ],
        create_time=timestamp(job.create_time),
        skipped_customers=_skipped(job),
    )
    if job.finish_time is not None:
        message.finish_time.CopyFrom(timestamp(job.finish_time))
    return message


def trust_calibration(job: Job, base: Policy) -> pb.TrustCalibration:
    """A calibration with its estimates, which are there when it is finished."""
    message = pb.TrustCalibration(
        name=f"trustCalibrations/{job.job_id}",
        state=_job_state(job),
        sample_percent=job.sample_percent,
        customers_total_count=job.customers_total_count,
        customers_done_count=job.customers_done_count,
        draft_policy=policy_name(job.policy_version) if job.policy_version else "",
        create_time=timestamp(job.create_time),
        skipped_customers=_skipped(job),
    )
    if job.finish_time is None:
        return message
    message.finish_time.CopyFrom(timestamp(job.finish_time))
    for one in calibration.estimates(job.result, base):
        message.estimates.add(
            source_system=one.source_system,
            attribute=cast(Any, int(one.attribute)),
            agreements_count=one.agreements_count,
            disagreements_count=one.disagreements_count,
            trust_points=one.trust_points,
            trust_points_low=one.trust_points_low,
            trust_points_high=one.trust_points_high,
            present_trust_points=one.present_trust_points,
            proposed=one.proposed,
        )
    return message
