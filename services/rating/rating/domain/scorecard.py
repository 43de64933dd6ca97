"""Scorecards: the parameters of a rating, frozen in a version, and the rules they must keep."""

import math
from dataclasses import dataclass
from enum import IntEnum

WEIGHT_TOLERANCE = 1e-9


class DegreeKind(IntEnum):
    """The six degrees, numbered as in `concord.rating.v1.DegreeKind`."""

    LOYALTY = 1
    SATISFACTION = 2
    CONTRIBUTION = 3
    CREDIT = 4
    COMPLETENESS = 5
    CREDIBILITY = 6


class Level(IntEnum):
    """Customer levels, numbered as in `concord.rating.v1.CustomerLevel`."""

    BASIC = 1
    SILVER = 2
    GOLD = 3
    PLATINUM = 4


@dataclass(frozen=True, slots=True)
class LoyaltyParameters:
    """Weights, which add up to 1, and scales of loyalty."""

    tenure_weight: float
    tenure_years_scale: float
    products_weight: float
    products_max: int
    steadiness_weight: float


@dataclass(frozen=True, slots=True)
class PiecewiseLinearMap:
    """A map through points; linear between them, constant outside. Two or more points, x strictly rising."""

    points: tuple[tuple[float, float], ...]

    def __call__(self, x: float) -> float:
        """The value at x."""
        x_before, y_before = self.points[0]
        if x <= x_before:
            return y_before
        for x_point, y_point in self.points[1:]:
            if x <= x_point:
                share = (x - x_before) / (x_point - x_before)
                # Written so that both ends are exact and nothing between leaves their range.
                return y_before * (1 - share) + y_point * share
            x_before, y_before = x_point, y_point
        return y_before


@dataclass(frozen=True, slots=True)
class LevelThreshold:
    """What a level asks for: the least value of each degree listed."""

    level: Level
    minimums: tuple[tuple[DegreeKind, float], ...]


@dataclass(frozen=True, slots=True)
class Scorecard:
    """The content of one version."""

    loyalty: LoyaltyParameters
    contribution: PiecewiseLinearMap
    credit: PiecewiseLinearMap
    level_thresholds: tuple[LevelThreshold, ...]
    reference_currency_code: str


def violations(scorecard: Scorecard) -> list[tuple[str, str]]:
    """(field, rule) for every rule that a scorecard breaks."""
    loyalty = scorecard.loyalty
    found: list[tuple[str, str]] = []
    total = loyalty.tenure_weight + loyalty.products_weight + loyalty.steadiness_weight
    if not abs(total - 1) <= WEIGHT_TOLERANCE:
        found.append(("loyalty", f"tenure_weight, products_weight and steadiness_weight must add up to 1, not {total:g}"))
    found += _map_violations("contribution", scorecard.contribution) + _map_violations("credit", scorecard.credit)
    return found + _threshold_violations(scorecard.level_thresholds)


def _map_violations(field: str, curve: PiecewiseLinearMap) -> list[tuple[str, str]]:
    found = []
    for i, (x, y) in enumerate(curve.points):
        if not math.isfinite(x):
            found.append((f"{field}.points[{i}].x", "must be a finite number"))
        elif i and not x > curve.points[i - 1][0]:
            found.append((f"{field}.points[{i}].x", f"must be above the x of the point before, {curve.points[i - 1][0]:g}"))
        if not 0 <= y <= 100:
            found.append((f"{field}.points[{i}].y", "must be 0 to 100"))
    return found


def _threshold_violations(thresholds: tuple[LevelThreshold, ...]) -> list[tuple[str, str]]:
    found = []
    for i, threshold in enumerate(thresholds):
        field = f"level_thresholds[{i}]"
        if threshold.level is Level.BASIC:
            found.append((f"{field}.customer_level", "must be above basic, which everybody has"))
        if i and threshold.level >= thresholds[i - 1].level:
            found.append((f"{field}.customer_level", "must be below the level before: list them from high to low, each once"))
        kinds = [kind for kind, _ in threshold.minimums]
        for j, kind in enumerate(kinds):
            if kind in kinds[:j]:
                found.append((f"{field}.degree_minimums[{j}].degree_kind", f"must be listed once, and {kind.name} stands above"))
    return found
