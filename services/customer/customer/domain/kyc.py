"""KYC rules: the risk of a customer, the checklist of a case, and what may be done with a case in its state."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import IntEnum

from customer.domain.vocabulary import Attribute, VerificationMethod


class CaseState(IntEnum):
    """Where a case stands, numbered as in the contract."""

    OPEN = 1
    SUBMITTED = 2
    APPROVED = 3
    REFUSED = 4
    CANCELLED = 5


class Trigger(IntEnum):
    """Why a case was opened, numbered as in the contract."""

    ONBOARDING = 1
    PERIODIC_REVIEW = 2
    DOCUMENT_EXPIRY = 3
    LIST_UPDATE = 4
    EVENT = 5


class RiskLevel(IntEnum):
    """How risky a customer is, numbered as in the contract."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    PROHIBITED = 4


class StepResult(IntEnum):
    """What evidence says of a step, numbered as in the contract."""

    PASSED = 1
    FAILED = 2
    WAIVED = 3


class Disposition(IntEnum):
    """What a screening hit turned out to be, numbered as in the contract."""

    OPEN = 0
    FALSE_POSITIVE = 1
    TRUE_MATCH = 2


class Topic(IntEnum):
    """What screening lists are about, numbered as in the contract."""

    SANCTIONS = 1
    POLITICALLY_EXPOSED = 2
    ADVERSE = 3


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the standard; an empty condition is met by all."""

    step_id: str
    instruction: str
    waivable: bool = False
    party_kinds: frozenset[str] = frozenset()
    risk_levels: frozenset[RiskLevel] = frozenset()
    products: frozenset[str] = frozenset()
    verifies: frozenset[Attribute] = frozenset()
    """What passed evidence verifies, once the case is approved."""
    method: VerificationMethod = VerificationMethod.DOCUMENT_SEEN

    def is_for(self, party_kind: str, risk: RiskLevel, products: Collection[str]) -> bool:
        """Whether a case needs this step."""
        return (
            (not self.party_kinds or party_kind in self.party_kinds)
            and (not self.risk_levels or min(risk, RiskLevel.HIGH) in self.risk_levels)
            and (not self.products or not self.products.isdisjoint(products))
        )


@dataclass(frozen=True, slots=True)
class Factor:
    """Something that makes a customer risky."""

    code: str
    points: int
    description: str
    prohibited: bool = False


@dataclass(frozen=True, slots=True)
class Standard:
    """The KYC standard of a version."""

    version: str
    risk_points: Mapping[RiskLevel, int]
    review_months: Mapping[RiskLevel, int]
    due_days: int
    factors: Mapping[str, Factor]
    high_risk_countries: frozenset[str]
    high_risk_products: frozenset[str]
    steps: Sequence[Step]

    def checklist(self, party_kind: str, risk: RiskLevel, products: Collection[str]) -> list[Step]:
        """The steps of a case, in the order of the standard."""
        return [step for step in self.steps if step.is_for(party_kind, risk, products)]


@dataclass(frozen=True, slots=True)
class Subject:
    """What of a customer makes risk: no name, no number."""

    party_kind: str
    """PERSON or ORGANISATION."""
    country_codes: frozenset[str]
    birth_date_known: bool
    document_valid: bool


def risk_factors(standard: Standard, subject: Subject, products: Collection[str], matches: Iterable[Topic]) -> list[Factor]:
    """The factors that hold, in the order of the standard. `matches`: topics of the hits that are true matches."""
    topics = set(matches)
    holds = {
        "COUNTRY_HIGH_RISK": not subject.country_codes.isdisjoint(standard.high_risk_countries),
        "COUNTRY_UNKNOWN": not subject.country_codes,
        "PRODUCT_HIGH_RISK": not standard.high_risk_products.isdisjoint(products),
        "BIRTH_DATE_UNKNOWN": subject.party_kind == "PERSON" and not subject.birth_date_known,
        "NO_VALID_DOCUMENT": not subject.document_valid,
        "ORGANISATION": subject.party_kind == "ORGANISATION",
        "POLITICALLY_EXPOSED": Topic.POLITICALLY_EXPOSED in topics,
        "ADVERSE": Topic.ADVERSE in topics,
        "SANCTIONED": Topic.SANCTIONS in topics,
    }
    return [factor for code, factor in standard.factors.items() if holds[code]]


def risk_level(standard: Standard, factors: Iterable[Factor]) -> RiskLevel:
    """The level that the factors' points reach."""
    factors = list(factors)
    if any(factor.prohibited for factor in factors):
        return RiskLevel.PROHIBITED
    points = sum(factor.points for factor in factors)
    return max(level for level, least in standard.risk_points.items() if points >= least)


def blocking_reason(
    checklist: Iterable[Step], results: Mapping[str, StepResult], screened: bool, dispositions: Iterable[Disposition]
) -> str:
    """What still stands between a case and its submission, in words; empty when nothing does."""
    missing = [step.step_id for step in checklist if results.get(step.step_id) is None]
    if missing:
        return f"no evidence is recorded for: {', '.join(missing)}"
    if not screened:
        return "the customer was not screened in this case"
    if Disposition.OPEN in dispositions:
        return "a screening hit was not disposed of"
    return ""


def approval_refused(risk: RiskLevel, results: Mapping[str, StepResult]) -> str:
    """Why a submitted case may not be approved, in words; empty when it may."""
    if risk is RiskLevel.PROHIBITED:
        return "the customer may not be served: a hit on a sanctions list is a true match"
    failed = sorted(step for step, result in results.items() if result is StepResult.FAILED)
    return f"these steps failed: {', '.join(failed)}" if failed else ""


def months_later(day: date, months: int) -> date:
    """The same day some months later; the last day of the month when it has no such day."""
    index = day.month - 1 + months
    year, month = day.year + index // 12, index % 12 + 1
    for last in range(day.day, 0, -1):
        try:
            return date(year, month, last)
        except ValueError:
            continue
    raise AssertionError("every month has a first day")
