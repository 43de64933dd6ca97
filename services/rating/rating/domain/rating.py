"""A rating: the six degrees, the level and the stage, computed from facts and a scorecard and nothing else."""

from dataclasses import dataclass
from datetime import datetime

from rating.domain.degrees import DEGREES, Degree
from rating.domain.facts import (
    Facts,
    first_opened,
    main_currency,
    margin_months,
    monthly_turnover,
    open_holdings,
)
from rating.domain.levels import customer_level
from rating.domain.lifecycle import Stage, lifecycle_stage
from rating.domain.scorecard import Level, Scorecard

VALUE_DECIMALS = 2
REASONS_KEPT_MAX = 4


@dataclass(frozen=True, slots=True)
class Rating:
    """A rating as computed: every reason, degrees in the order of their kinds, values rounded to 0.01."""

    degrees: tuple[Degree, ...]
    level: Level
    stage: Stage
    as_of: datetime


def rate(facts: Facts, scorecard: Scorecard) -> Rating:
    """Rates one customer in one scope. The level is decided on the rounded values, which are what a reader sees."""
    degrees = tuple(_rounded(degree(facts, scorecard)) for degree in DEGREES)
    level = customer_level({degree.kind: degree.value for degree in degrees}, scorecard.level_thresholds)
    return Rating(degrees, level, lifecycle_stage(facts), facts.as_of)


def explained_facts(facts: Facts, scorecard: Scorecard) -> dict[str, str]:
    """The facts behind a rating, by code in lower snake case; numbers in full. A fact that is not known is left out."""
    opened = first_opened(facts)
    turnover = monthly_turnover(facts)
    currency = main_currency(facts)
    reference = scorecard.reference_currency_code
    margins = margin_months(facts, reference)
    of_main = [month for month in facts.turnover if month.currency_code == currency]
    values: dict[str, object] = {
        "records_count": facts.records_count,
        "holdings_count": len(facts.holdings),
        "open_holdings_count": len(open_holdings(facts)),
        "product_kinds_count": len({holding.kind for holding in open_holdings(facts)}),
        "journey_steps_count": facts.journey_steps_count,
        "complaints_count": facts.complaints_count,
        "attributes_stated_count": facts.attributes_stated_count,
        "reference_currency_code": reference,
    }
    if opened is not None:
        values["first_opened_date"] = opened
        values["tenure_days"] = (facts.as_of.date() - opened).days
    if currency is not None:
        values["turnover_currency_code"] = currency
        values["turnover_months_count"] = len(turnover)
        values["turnover_in_minor_units"] = sum(month.in_minor_units for month in of_main)
        values["turnover_out_minor_units"] = sum(month.out_minor_units for month in of_main)
        values["fees_minor_units"] = sum(month.fees_minor_units for month in of_main)
        values["transactions_count"] = sum(month.transactions_count for month in facts.turnover)
    if margins:
        values["result_12_months_minor_units"] = sum(margins.values())
        values["result_months_count"] = len(margins)
    if facts.risk_score is not None:
        values["default_probability_ppm"] = facts.risk_score.default_probability_ppm
        values["risk_score_time"] = facts.risk_score.occurred_at.isoformat()
    return {code: str(value) for code, value in values.items()}


def _rounded(degree: Degree) -> Degree:
    if degree.value is None:
        return degree
    return Degree(degree.kind, round(degree.value, VALUE_DECIMALS), round(degree.confidence, VALUE_DECIMALS), degree.reasons)
