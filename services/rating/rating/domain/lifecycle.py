"""The stage of life of a relationship."""

from enum import IntEnum

from rating.domain.facts import (
    Facts,
    first_opened,
    last_complete_month,
    month_of,
    monthly_turnover,
    open_holdings,
)

GROWTH_MONTHS = 12
HALF_WINDOW_MONTHS = 6
DECLINE_SHARE = 0.25
MONTHS_WITH_TRANSACTIONS_MIN = 3


class Stage(IntEnum):
    """Stages, numbered as in `concord.rating.v1.LifecycleStage`."""

    PROSPECT = 1
    GROWTH = 2
    MATURE = 3
    DECLINE = 4
    LOST = 5


def lifecycle_stage(facts: Facts) -> Stage:
    """The stage at `facts.as_of`.

    Prospect: never a holding. Lost: all holdings closed. Growth: less than 12 months since the first holding was opened.
    Decline: turnover of the last six complete months at least a quarter below that of the six before. Mature: all others.
    """
    if not facts.holdings:
        return Stage.PROSPECT
    if not open_holdings(facts):
        return Stage.LOST
    opened = first_opened(facts)
    today = facts.as_of.date()
    if opened is not None and month_of(today) - month_of(opened) - (today.day < opened.day) < GROWTH_MONTHS:
        return Stage.GROWTH
    return Stage.DECLINE if _turnover_falls(facts) else Stage.MATURE


def _turnover_falls(facts: Facts) -> bool:
    turnover = monthly_turnover(facts)
    end = last_complete_month(facts.as_of)
    before = range(end - 2 * HALF_WINDOW_MONTHS + 1, end - HALF_WINDOW_MONTHS + 1)
    last = range(end - HALF_WINDOW_MONTHS + 1, end + 1)
    if sum(month in turnover for month in before) < MONTHS_WITH_TRANSACTIONS_MIN:
        return False
    sum_before = sum(turnover.get(month, 0) for month in before)
    sum_last = sum(turnover.get(month, 0) for month in last)
    return sum_before > 0 and sum_last <= (1 - DECLINE_SHARE) * sum_before
