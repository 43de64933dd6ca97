"""Between contracts and domain: names, drafts, campaigns, touches."""

import uuid
from collections.abc import Iterable, Sequence

import asyncpg

from campaign.domain.audience import Condition, Field, Operator, Rule, Violation, from_json
from campaign.domain.campaign import Draft, offer_prefix
from campaign.domain.touch import TouchState, touch_state
from chassis import etags
from chassis.errors import InvalidArgument
from chassis.identity import current_principal, require_institution
from chassis.ids import parse_id, resource_segments
from concord.campaign.v1 import campaign_service_pb2 as pb
from concord.common.v1.channel_pb2 import Channel


def institution_id(parent: str) -> str:
    """The id in `institutions/{institution}`, which must be the caller's own.

    Raises:
        NotFound: when it is another's.
    """
    (institution,) = resource_segments(parent, "institutions", field="parent")
    require_institution(current_principal(), institution)
    return institution


def campaign_ids(name: str, field: str = "name") -> tuple[str, uuid.UUID]:
    """The ids in `institutions/{institution}/campaigns/{campaign}` of the caller's institution.

    Raises:
        NotFound: when the institution is another's.
    """
    institution, campaign = resource_segments(name, "institutions", "campaigns", field=field)
    require_institution(current_principal(), institution)
    return institution, parse_id(campaign, field)


def refuse(prefix: str, violations: Sequence[Violation], reason: str = "FIELDS_INVALID") -> None:
    """Refuses a request with these violations, if there are any.

    Raises:
        InvalidArgument: naming every wrong field and what would be right.
    """
    if violations:
        path, text = violations[0]
        raise InvalidArgument(
            reason, f"{prefix}{path} {text}", field_violations=[(f"{prefix}{path}", text) for path, text in violations]
        )


def rule_from_proto(rule: pb.AudienceRule) -> Rule:
    """The rule as the domain has it. Fields and operators were validated by the contract."""
    return tuple(
        tuple(
            Condition(
                Field(condition.field),
                Operator(condition.operator),
                condition.field_key,
                condition.number,
                tuple(condition.texts),
            )
            for condition in group.any_of
        )
        for group in rule.all_of
    )


def rule_to_proto(rule: Rule) -> pb.AudienceRule:
    """The rule as the contract has it."""
    return pb.AudienceRule(
        all_of=[
            pb.AudienceGroup(
                any_of=[
                    pb.AudienceCondition(
                        field=condition.field.value,  # type: ignore[arg-type]
                        field_key=condition.field_key,
                        operator=condition.operator.value,  # type: ignore[arg-type]
                        number=condition.number,
                        texts=condition.texts,
                    )
                    for condition in group
                ]
            )
            for group in rule
        ]
    )


def draft_from_proto(message: pb.Campaign) -> Draft:
    """What a caller wrote in a campaign."""
    return Draft(
        display_name=message.display_name,
        offer=message.offer,
        channel=Channel.Name(message.channel).removeprefix("CHANNEL_"),
        rule=rule_from_proto(message.audience_rule),
    )


def draft_from_row(row: asyncpg.Record) -> Draft:
    """What is written in a campaign now."""
    offer = f"{offer_prefix(row['institution_id'])}{row['offer_id']}"
    return Draft(row["display_name"], offer, row["channel"], from_json(row["audience_rule"]))


def campaign_name(row: asyncpg.Record) -> str:
    """`institutions/{institution}/campaigns/{campaign}`."""
    return f"institutions/{row['institution_id']}/campaigns/{row['campaign_id']}"


def campaign_to_proto(row: asyncpg.Record, waves: Iterable[asyncpg.Record] = ()) -> pb.Campaign:
    """A campaign with its waves."""
    name, draft = campaign_name(row), draft_from_row(row)
    return pb.Campaign(
        name=name,
        display_name=draft.display_name,
        offer=draft.offer,
        channel=Channel.Value(f"CHANNEL_{draft.channel}"),
        audience_rule=rule_to_proto(draft.rule),
        audience_expression=row["audience_expression"],
        state=pb.CampaignState.Value(f"CAMPAIGN_STATE_{row['state']}"),
        waves=[
            pb.Wave(
                name=f"{name}/waves/{wave['wave']}",
                state=pb.WaveState.Value(f"WAVE_STATE_{wave['state']}"),
                examined_count=wave["examined_count"],
                finish_time=wave["finish_time"],
            )
            for wave in waves
        ],
        etag=etags.etag(row["version"]),
        create_time=row["create_time"],
        launch_time=row["launch_time"],
    )


def touch_to_proto(row: asyncpg.Record, parent: str) -> pb.Touch:
    """A touch of the wave named."""
    state = touch_state(row["refused_reason"], row["contact_state"])
    return pb.Touch(
        name=f"{parent}/touches/{row['touch_id']}",
        customer=f"customers/{row['customer_id']}" if row["customer_id"] else "",
        state=pb.TouchState.Value(f"TOUCH_STATE_{state}"),
        refused_reason=row["refused_reason"] or "",
        next_free_time=row["next_free_time"],
        create_time=row["create_time"],
    )


def metrics_to_proto(name: str, counts: Iterable[asyncpg.Record]) -> pb.CampaignMetrics:
    """Counts of a campaign. A touch that was read has arrived, and one that arrived was planned."""
    metrics, refused = pb.CampaignMetrics(name=name), dict[str, int]()
    for row in counts:
        count, state = row["count"], touch_state(row["refused_reason"], row["contact_state"])
        metrics.members_count += count
        if state is TouchState.REFUSED:
            refused[row["refused_reason"]] = refused.get(row["refused_reason"], 0) + count
            continue
        metrics.planned_count += count
        metrics.delivered_count += count if state in (TouchState.DELIVERED, TouchState.READ) else 0
        metrics.read_count += count if state is TouchState.READ else 0
        metrics.failed_count += count if state is TouchState.FAILED else 0
    metrics.refused_counts.extend(pb.RefusedCount(reason=reason, count=refused[reason]) for reason in sorted(refused))
    return metrics
