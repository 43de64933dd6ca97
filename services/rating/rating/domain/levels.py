"""The customer level: a table of thresholds over the degrees."""

from collections.abc import Mapping

from rating.domain.scorecard import DegreeKind, Level, LevelThreshold


def customer_level(values: Mapping[DegreeKind, float | None], thresholds: tuple[LevelThreshold, ...]) -> Level:
    """The first level from the top whose every minimum is met, else basic. A degree without value meets no minimum."""
    for threshold in thresholds:
        if all(_meets(values.get(kind), minimum) for kind, minimum in threshold.minimums):
            return threshold.level
    return Level.BASIC


def _meets(value: float | None, minimum: float) -> bool:
    return value is not None and value >= minimum
