"""Between contracts and domain."""

from collections.abc import Iterable

from chassis import pages
from chassis.errors import InvalidArgument
from chassis.etags import etag
from concord.rating.v1 import rating_service_pb2 as pb
from concord.rating.v1 import scorecard_service_pb2 as scorecard_pb
from rating.domain.degrees import Degree
from rating.domain.rating import REASONS_KEPT_MAX
from rating.domain.scorecard import (
    DegreeKind,
    Level,
    LevelThreshold,
    LoyaltyParameters,
    PiecewiseLinearMap,
    Scorecard,
)
from rating.store.ratings import RatingVersion
from rating.store.scorecards import ScorecardVersion

CONTRIBUTION_DECIMALS = 4
VERSION_MAX = 2**31 - 1


def rating_to_proto(rating: RatingVersion) -> pb.Rating:
    """A rating with the strongest reasons of each degree. Version 0, of one that is not kept, has no etag."""
    message = pb.Rating(
        name=f"customers/{rating.customer_id}/ratings/{rating.scope}",
        degrees=degrees_to_proto(rating.rating.degrees, REASONS_KEPT_MAX),
        customer_level=pb.CustomerLevel.ValueType(rating.rating.level.value),
        lifecycle_stage=pb.LifecycleStage.ValueType(rating.rating.stage.value),
        scorecard_version=f"scorecards/{rating.scorecard_id}/versions/{rating.scorecard_version}",
        etag=etag(rating.version) if rating.version else "",
    )
    message.as_of_time.FromDatetime(rating.rating.as_of)
    message.create_time.FromDatetime(rating.created_at)
    return message


def degrees_to_proto(degrees: Iterable[Degree], reasons_max: int | None = None) -> list[pb.Degree]:
    """Degrees, each with its strongest reasons, or all."""
    return [
        pb.Degree(
            kind=pb.DegreeKind.ValueType(degree.kind.value),
            value=degree.value,
            confidence=degree.confidence,
            reasons=[
                pb.DegreeReason(
                    code=reason.code,
                    description=reason.description,
                    contribution=round(reason.contribution, CONTRIBUTION_DECIMALS),
                )
                for reason in degree.reasons[:reasons_max]
            ],
        )
        for degree in degrees
    ]


def scorecard_from_proto(message: scorecard_pb.ScorecardVersion) -> Scorecard:
    """The content of a version, whose fields the contract's own rules have passed."""
    loyalty = message.loyalty
    return Scorecard(
        loyalty=LoyaltyParameters(
            tenure_weight=loyalty.tenure_weight,
            tenure_years_scale=loyalty.tenure_years_scale,
            products_weight=loyalty.products_weight,
            products_max=loyalty.products_max,
            steadiness_weight=loyalty.steadiness_weight,
        ),
        contribution=PiecewiseLinearMap(tuple((point.x, point.y) for point in message.contribution.points)),
        credit=PiecewiseLinearMap(tuple((point.x, point.y) for point in message.credit.points)),
        level_thresholds=tuple(
            LevelThreshold(
                Level(threshold.customer_level),
                tuple((DegreeKind(minimum.degree_kind), minimum.value_min) for minimum in threshold.degree_minimums),
            )
            for threshold in message.level_thresholds
        ),
        reference_currency_code=message.reference_currency_code,
    )


def scorecard_to_proto(version: ScorecardVersion) -> scorecard_pb.ScorecardVersion:
    """A version."""
    content, loyalty = version.content, version.content.loyalty
    message = scorecard_pb.ScorecardVersion(
        name=f"scorecards/{version.scorecard_id}/versions/{version.version}",
        active=version.active,
        loyalty=scorecard_pb.LoyaltyParameters(
            tenure_weight=loyalty.tenure_weight,
            tenure_years_scale=loyalty.tenure_years_scale,
            products_weight=loyalty.products_weight,
            products_max=loyalty.products_max,
            steadiness_weight=loyalty.steadiness_weight,
        ),
        contribution=_map_to_proto(content.contribution),
        credit=_map_to_proto(content.credit),
        level_thresholds=[
            scorecard_pb.LevelThreshold(
                customer_level=pb.CustomerLevel.ValueType(threshold.level.value),
                degree_minimums=[
                    scorecard_pb.DegreeMinimum(degree_kind=pb.DegreeKind.ValueType(kind.value), value_min=minimum)
                    for kind, minimum in threshold.minimums
                ],
            )
            for threshold in content.level_thresholds
        ],
        reference_currency_code=content.reference_currency_code,
    )
    message.create_time.FromDatetime(version.created_at)
    return message


def before_version(request: pb.ListRatingHistoryRequest | scorecard_pb.ListScorecardVersionsRequest) -> int | None:
    """The version that the page begins below; None on the first page.

    Raises:
        InvalidArgument: PAGE_TOKEN_INVALID.
    """
    keys = pages.decode(request.page_token, request)
    if not keys:
        return None
    if len(keys) == 1 and keys[0].isascii() and keys[0].isdigit() and int(keys[0]) <= VERSION_MAX:
        return int(keys[0])
    rule = "must be the next_page_token of the page before"
    raise InvalidArgument("PAGE_TOKEN_INVALID", f"page_token {rule}", field_violations=[("page_token", rule)])


def _map_to_proto(curve: PiecewiseLinearMap) -> scorecard_pb.PiecewiseLinearMap:
    return scorecard_pb.PiecewiseLinearMap(points=[scorecard_pb.MapPoint(x=x, y=y) for x, y in curve.points])
