"""The six degrees: how good a relationship is, each 0 to 100, or no value where it cannot be measured.

The contributions of a degree's reasons add up to its value. What is missing is said in a reason and is never a zero.
"""

import math
import statistics
from dataclasses import dataclass
from datetime import datetime

from rating.domain.facts import (
    ALLIANCE,
    DAYS_OF_YEAR,
    WINDOW_MONTHS,
    AttributeQuality,
    Facts,
    first_opened,
    last_complete_month,
    margin_months,
    monthly_turnover,
    open_holdings,
)
from rating.domain.scorecard import DegreeKind, Scorecard

STEADINESS_MONTHS_MIN = 3
RISK_SCORE_HALF_LIFE_DAYS = 365
MISSING = "MISSING"
INVALID = "INVALID"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a degree has its value; `contribution` is what it added to it."""

    code: str
    description: str
    contribution: float = 0.0


@dataclass(frozen=True, slots=True)
class Degree:
    """One degree: 0 to 100 or None; confidence 0 to 1; all reasons, strongest first."""

    kind: DegreeKind
    value: float | None
    confidence: float
    reasons: tuple[Reason, ...]


def loyalty(facts: Facts, scorecard: Scorecard) -> Degree:
    """Tenure, breadth and steadiness; a part that cannot be measured leaves its weight to the others, at less confidence."""
    parameters = scorecard.loyalty
    opened = first_opened(facts)
    if opened is None:
        return _unmeasured(DegreeKind.LOYALTY, "NO_HOLDING", "There has been no holding.")
    held = open_holdings(facts)
    end = facts.as_of.date()
    if not held:
        end = max(holding.close_date for holding in facts.holdings if holding.close_date)
    years = max(0, (end - opened).days) / DAYS_OF_YEAR
    kinds_count = len({holding.kind for holding in held})
    parts = [
        (
            "TENURE",
            f"The relationship lasts {years:.1f} years.",
            parameters.tenure_weight,
            1 - math.exp(-years / parameters.tenure_years_scale),
        ),
        (
            "PRODUCTS",
            f"Kinds of products held: {kinds_count}.",
            parameters.products_weight,
            min(1.0, kinds_count / parameters.products_max),
        ),
    ]
    steady = steadiness(facts)
    missing = []
    if steady is None:
        text = f"Steadiness needs {STEADINESS_MONTHS_MIN} complete months with transactions."
        missing.append(Reason("TURNOVER_NOT_MEASURED", text))
    else:
        parts.append(("STEADINESS", f"Monthly turnover is steady at {steady:.0%}.", parameters.steadiness_weight, steady))
    measured_weight = sum(weight for _, _, weight, _ in parts)
    if measured_weight <= 0:
        return _unmeasured(DegreeKind.LOYALTY, *_code_and_text(missing))
    reasons = [Reason(code, text, 100 * weight * part / measured_weight) for code, text, weight, part in parts]
    return _measured(DegreeKind.LOYALTY, reasons + missing, min(1.0, measured_weight))


def steadiness(facts: Facts) -> float | None:
    """One less the coefficient of variation of the monthly turnover since its first month in the window, at least zero."""
    end = last_complete_month(facts.as_of)
    turnover = {month: sum_ for month, sum_ in monthly_turnover(facts).items() if end - WINDOW_MONTHS < month <= end}
    if len(turnover) < STEADINESS_MONTHS_MIN:
        return None
    months = [float(turnover.get(month, 0)) for month in range(min(turnover), end + 1)]
    mean = statistics.fmean(months)
    return max(0.0, 1 - statistics.pstdev(months, mean) / mean) if mean > 0 else None


def satisfaction(facts: Facts, scorecard: Scorecard) -> Degree:
    """Not measured yet: the traces are kept, the model is not there."""
    return _unmeasured(DegreeKind.SATISFACTION, "NOT_MEASURED_YET", "Satisfaction from behaviour traces is not measured yet.")


def contribution(facts: Facts, scorecard: Scorecard) -> Degree:
    """What the last twelve months earned, in the reference currency, through the scorecard's map."""
    currency = scorecard.reference_currency_code
    months = margin_months(facts, currency)
    notes = []
    if any(margin.partial or margin.currency_code != currency for margin in facts.margins):
        notes.append(Reason("CURRENCY_NOT_COUNTED", f"Results in other currencies than {currency} are not counted."))
    if not months:
        if notes:
            return _unmeasured(DegreeKind.CONTRIBUTION, *_code_and_text(notes))
        return _unmeasured(DegreeKind.CONTRIBUTION, "NO_MARGIN", "Finance systems gave no result of the last twelve months.")
    result = sum(months.values())
    text = f"Result of {len(months)} months: {result} minor units of {currency}."
    reasons = [Reason("RESULT_12_MONTHS", text, scorecard.contribution(result))]
    return _measured(DegreeKind.CONTRIBUTION, reasons + notes, len(months) / WINDOW_MONTHS)


def credit(facts: Facts, scorecard: Scorecard) -> Degree:
    """The latest official risk score through the scorecard's map; never an opinion of our own. Confidence halves in a year."""
    score = facts.risk_score
    if score is None:
        return _unmeasured(DegreeKind.CREDIT, "NO_RISK_SCORE", "There is no official risk score.")
    text = f"Official default probability: {score.default_probability_ppm} in a million."
    reason = Reason("RISK_SCORE", text, scorecard.credit(score.default_probability_ppm))
    return _measured(DegreeKind.CREDIT, [reason], 2 ** (-_age_days(score.occurred_at, facts.as_of) / RISK_SCORE_HALF_LIFE_DAYS))


def completeness(facts: Facts, scorecard: Scorecard) -> Degree:
    """The customer master's own figure: the share, by weight, of the required attributes that are filled and valid."""
    quality = facts.quality
    if quality is None:
        return _not_told(DegreeKind.COMPLETENESS, facts)
    required = [part for part in quality.attributes if part.required_weight]
    if not required:
        return _unmeasured(DegreeKind.COMPLETENESS, "NOTHING_REQUIRED", "No attribute is required of this customer.")
    sound = sum(part.required_weight for part in required if _lacking(part) is None)
    reasons = []
    for part in required:
        lacking = _lacking(part)
        if lacking is not None:
            text = "Nobody states it." if lacking == MISSING else "The value believed fails its checks."
            reasons.append(Reason(f"{_word(part)}_{lacking}", text))
        else:
            share = part.required_weight / sound
            text = f"Filled and valid; it weighs {part.required_weight}."
            reasons.append(Reason(f"{_word(part)}_KNOWN", text, quality.completeness_percent * share))
    return _measured(DegreeKind.COMPLETENESS, reasons, 1.0)


def credibility(facts: Facts, scorecard: Scorecard) -> Degree:
    """The customer master's own figure: how likely what is believed is right, the mean over the attributes that are filled."""
    quality = facts.quality
    if quality is None:
        return _not_told(DegreeKind.CREDIBILITY, facts)
    stated = [part for part in quality.attributes if MISSING not in part.findings]
    if not stated:
        return _unmeasured(DegreeKind.CREDIBILITY, "NOTHING_STATED", "No attribute that counts is stated by anybody.")
    likely = {part.attribute: max(part.required_weight, 1) * part.credibility_percent for part in stated}
    total = sum(likely.values()) or 1
    reasons = []
    for part in stated:
        text = f"Right with {part.credibility_percent} %: {', '.join(part.findings) or 'its source alone speaks for it'}."
        reasons.append(Reason(f"{_word(part)}_BELIEVED", text, quality.credibility_percent * likely[part.attribute] / total))
    required = sum(part.required_weight for part in quality.attributes)
    filled = sum(part.required_weight for part in stated)
    return _measured(DegreeKind.CREDIBILITY, reasons, filled / required if required else 1.0)


def _lacking(part: AttributeQuality) -> str | None:
    return next((finding for finding in (MISSING, INVALID) if finding in part.findings), None)


def _word(part: AttributeQuality) -> str:
    return part.attribute.removeprefix("ATTRIBUTE_")


def _not_told(kind: DegreeKind, facts: Facts) -> Degree:
    if facts.scope != ALLIANCE:
        return _unmeasured(kind, "ALLIANCE_ONLY", "Measured on the golden record of the alliance only.")
    return _unmeasured(kind, "NOT_TOLD_YET", "The customer master has not said it yet.")


def _age_days(then: datetime, now: datetime) -> float:
    return max(0.0, (now - then).total_seconds() / 86_400)


def _measured(kind: DegreeKind, reasons: list[Reason], confidence: float) -> Degree:
    ordered = tuple(sorted(reasons, key=lambda reason: (-abs(reason.contribution), reason.code)))
    value = math.fsum(reason.contribution for reason in ordered)
    return Degree(kind, min(100.0, max(0.0, value)), confidence, ordered)


def _unmeasured(kind: DegreeKind, code: str, text: str) -> Degree:
    return Degree(kind, None, 0.0, (Reason(code, text),))


def _code_and_text(reasons: list[Reason]) -> tuple[str, str]:
    return reasons[0].code, reasons[0].description


DEGREES = (loyalty, satisfaction, contribution, credit, completeness, credibility)
