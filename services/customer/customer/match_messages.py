"""Match models, explanations and rematch runs as messages of the contracts. No I/O."""

from datetime import datetime
from typing import Any, cast

from concord.customer.v1 import match_model_service_pb2 as pb
from concord.customer.v1.match_pb2 import MatchContribution, MatchExplanation, MatchZone
from customer.domain.comparisons import COMPARISONS
from customer.domain.match_jobs import ModelState
from customer.domain.match_model import Model
from customer.domain.matching import Explanation, Zone
from customer.messages import timestamp
from customer.store.match_models import SHIPPED, ModelRow
from customer.store.rematches import Finding, RunRow

SHIPPED_NAME = "default-1"
_ZONES = {
    Zone.NEW: MatchZone.MATCH_ZONE_NEW,
    Zone.STEWARD: MatchZone.MATCH_ZONE_STEWARD,
    Zone.LINK: MatchZone.MATCH_ZONE_LINK,
}


def zone(found: int) -> "MatchZone.ValueType":
    """A zone as the contracts number it."""
    return _ZONES[Zone(found)]


def explanation(found: Explanation) -> MatchExplanation:
    """Why two records are, or are not, one party."""
    return MatchExplanation(
        weight_bits=found.weight_bits,
        rule=found.rule,
        contributions=[MatchContribution(attribute=one.attribute, level=one.level, bits=one.bits) for one in found.contributions],
    )


def explanation_from_bytes(kept: bytes) -> MatchExplanation:
    """The same from what is kept beside a link; empty for nothing."""
    return explanation(Explanation.from_bytes(kept)) if kept else MatchExplanation()


def model_name(version: int) -> str:
    """`matchModels/{match_model}`."""
    return f"matchModels/{SHIPPED_NAME if version == SHIPPED else version}"


def model_name_of(model: Model) -> str:
    """The name of a model that is in use."""
    return f"matchModels/{model.version}"


def model_version(name: str) -> int:
    """The version that a valid name says."""
    text = name.removeprefix("matchModels/")
    return SHIPPED if text == SHIPPED_NAME else int(text)


def shipped_model(model: Model, in_force: int, *, whole: bool) -> pb.MatchModel:
    """The model of the package."""
    state = pb.MATCH_MODEL_STATE_ACTIVE if in_force == SHIPPED else pb.MATCH_MODEL_STATE_RETIRED
    message = pb.MatchModel(name=model_name(SHIPPED), state=state, progress_percent=100)
    _describe(message, model, whole=whole)
    return message


def match_model(row: ModelRow, model: Model | None, in_force: int, now: datetime, *, whole: bool) -> pb.MatchModel:
    """A model as it is kept, `model` the same ready to score; with its JSON when it is asked for as a whole."""
    message = pb.MatchModel(
        name=model_name(row.version),
        state=cast("pb.MatchModelState.ValueType", _state(row, in_force, now)),
        false_links_share_max=row.false_links_share_max,
        progress_percent=row.progress_percent,
        error_reason=row.error_reason,
        creator=row.created_by,
        approver=row.approved_by or "",
        create_time=timestamp(row.create_time),
    )
    if row.effective_time:
        message.effective_time.CopyFrom(timestamp(row.effective_time))
    if model is not None:
        _describe(message, model, whole=whole)
    return message


def _state(row: ModelRow, in_force: int, now: datetime) -> int:
    if row.state != ModelState.TRAINED:
        return pb.MATCH_MODEL_STATE_TRAINING if row.state == ModelState.TRAINING else pb.MATCH_MODEL_STATE_FAILED
    if row.effective_time is None:
        return pb.MATCH_MODEL_STATE_DRAFT
    if row.effective_time > now:
        return pb.MATCH_MODEL_STATE_SCHEDULED
    return pb.MATCH_MODEL_STATE_ACTIVE if row.version == in_force else pb.MATCH_MODEL_STATE_RETIRED


def _describe(message: pb.MatchModel, model: Model, *, whole: bool) -> None:
    details: Any = model.details
    message.link_bits, message.steward_bits = model.link_bits, model.steward_bits
    message.trained_from = str(details.get("trained_from", ""))
    message.records_count = int(details.get("records_count", 0))
    message.false_links_share_max = float(details.get("false_links_share_max", 0))
    message.false_links_share_expected = float(details.get("false_links_share_expected", 0))
    for attribute, (levels, _, _) in COMPARISONS.items():
        comparison = message.comparisons.add(attribute=attribute)
        for level in levels:
            comparison.levels.add(level=level.name, bits=round(model.bits(attribute, level), 3))
    if whole:
        message.content_json = model.to_json()


def rematch(row: RunRow, counts: tuple[int, int, int]) -> pb.Rematch:
    """A run."""
    missed, doubtful, applied = counts
    message = pb.Rematch(
        name=f"rematches/{row.rematch_id}",
        state=cast("pb.RematchState.ValueType", row.state),
        match_model=model_name(row.model_version),
        apply_links=row.apply_links,
        progress_percent=row.progress_percent,
        pairs_compared_count=row.pairs_compared_count,
        missed_pairs_count=missed,
        doubtful_clusters_count=doubtful,
        links_applied_count=applied,
        error_reason=row.error_reason,
        creator=row.created_by,
        create_time=timestamp(row.create_time),
    )
    if row.finish_time:
        message.finish_time.CopyFrom(timestamp(row.finish_time))
    return message


def finding(rematch_name: str, number: int, found: Finding) -> pb.RematchFinding:
    """What a run found."""
    return pb.RematchFinding(
        name=f"{rematch_name}/findings/{number}",
        kind=cast("pb.RematchFindingKind.ValueType", found.kind),
        customer=f"customers/{found.customer_id}",
        other_customer=f"customers/{found.other_customer_id}" if found.other_customer_id != found.customer_id else "",
        records_apart_count=found.records_apart_count,
        zone=zone(found.zone),
        reason=found.reason,
        explanation=explanation_from_bytes(found.explanation),
        applied=found.applied,
    )
