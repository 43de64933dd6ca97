"""How far each source should be trusted, measured by its agreement with what others verified. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import exp, lgamma, log
from typing import Any, TypeAlias

from customer.domain.golden import EMPTY, Golden, RecordView
from customer.domain.survivorship import AttributeStandard, Policy, SourceTrust, Standard
from customer.domain.vocabulary import Attribute

COMPARISONS_MIN = 30
"""Fewer say too little for a proposal."""
INTERVAL_SHARE = 0.9
Comparison: TypeAlias = tuple[str, Attribute, bool, int]
"""A source, an attribute, whether it says what another source has verified, and its rank."""
_ONE_VALUE = frozenset(Attribute) - {
    Attribute.PARTY_KIND, Attribute.IDENTIFIER, Attribute.PHONE, Attribute.EMAIL, Attribute.ADDITIONAL_ADDRESS, Attribute.ROLE,
}  # fmt: skip
"""Of an attribute with many values, saying another one contradicts nothing."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """How far a source should be trusted for an attribute: mean and interval of a Beta posterior from a flat prior, in points."""

    source_system: str
    attribute: Attribute
    agreements_count: int
    disagreements_count: int
    trust_points: float
    trust_points_low: float
    trust_points_high: float
    present_trust_points: float

    @property
    def proposed(self) -> bool:
        """Whether there were enough comparisons."""
        return self.agreements_count + self.disagreements_count >= COMPARISONS_MIN


def compared(records: Sequence[RecordView], believed: Golden, policy: Policy, instant: datetime) -> Iterator[Comparison]:
    """Comparisons in one customer.

    A source that says it has verified the attribute itself is no witness of its own trust.
    """
    for attribute, values in believed.items():
        verified = values[0].candidate.verified
        if verified is None or attribute not in _ONE_VALUE:
            continue
        rules, verifier = policy.of(attribute), values[0].record.source_system
        for record in records:
            said = record.verifications.get(attribute, ())
            if record.source_system == verifier:
                continue
            for stated in record.statements.get(attribute, ()):
                itself = rules.verified(record.source_system, said, stated.key, instant.date())
                if stated.key not in EMPTY and itself is None:
                    yield record.source_system, attribute, stated.key == values[0].key, record.ranks.of(attribute)


def counted(result: Mapping[str, Any], comparisons: Iterable[Comparison]) -> dict[str, Any]:
    """The counts so far and further comparisons, as they are kept between pages."""
    sources: dict[str, Any] = {source: dict(counts) for source, counts in result.get("sources", {}).items()}
    for source, attribute, agrees, rank in comparisons:
        mine = sources.setdefault(source, {})
        agreements, disagreements, _ = mine.get(str(int(attribute)), (0, 0, rank))
        mine[str(int(attribute))] = [agreements + agrees, disagreements + (not agrees), rank]
    return {"sources": sources}


def estimates(result: Mapping[str, Any], policy: Policy) -> list[Estimate]:
    """What the counts say, by source and attribute, beside what the policy says now."""
    found = []
    for source, counts in sorted(result.get("sources", {}).items()):
        for number, (agreements, disagreements, rank) in sorted(counts.items(), key=lambda one: int(one[0])):
            attribute = Attribute(int(number))
            low, high = beta_interval(agreements + 1, disagreements + 1, INTERVAL_SHARE)
            found.append(
                Estimate(
                    source,
                    attribute,
                    agreements,
                    disagreements,
                    100 * (agreements + 1) / (agreements + disagreements + 2),
                    100 * low,
                    100 * high,
                    policy.of(attribute).trust(source, rank, True, (), 0.0).base_points,
                )
            )
    return found


def proposal(standard: Standard, found: Iterable[Estimate]) -> Standard | None:
    """The standard with the estimates that rest on enough comparisons; None when there is none."""
    proposed: dict[Attribute, dict[str, float]] = {}
    for one in found:
        if one.proposed:
            proposed.setdefault(one.attribute, {})[one.source_system] = round(one.trust_points, 1)
    if not proposed:
        return None
    attributes = {one.attribute: one for one in standard.attributes}
    for attribute, points in proposed.items():
        before = attributes.get(attribute, AttributeStandard(attribute))
        kept = [one for one in before.source_trusts if one.source_system not in points]
        calibrated = [SourceTrust(source, value) for source, value in sorted(points.items())]
        attributes[attribute] = replace(before, source_trusts=(*kept, *calibrated))
    return replace(
        standard,
        title="Calibrated trust, a proposal",
        reason="Trust of sources by their agreement with verified values. Sources without enough comparisons are as before.",
        attributes=tuple(attributes[attribute] for attribute in sorted(attributes)),
    )


def beta_interval(a: float, b: float, share: float) -> tuple[float, float]:
    """The central interval of a Beta distribution that holds this share of it."""
    return _beta_quantile(a, b, (1 - share) / 2), _beta_quantile(a, b, (1 + share) / 2)


def _beta_quantile(a: float, b: float, share: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if _beta_cdf(middle, a, b) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(1 - x))
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(x, a, b) / a
    return 1 - front * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float, steps: int = 200) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    value = d
    for m in range(1, steps):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            value *= d * c
        if abs(d * c - 1) < 1e-12:
            break
    return value
