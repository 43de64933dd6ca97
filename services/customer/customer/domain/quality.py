"""How complete and how credible a golden customer is, why, and what to ask for next. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import IntEnum
from math import log2
from typing import Any
from uuid import UUID

from customer.domain import identity_documents
from customer.domain.golden import Believed
from customer.domain.vocabulary import Attribute, PartyKind

CUSTOMER_ROLE = 2
"""`PARTY_ROLE_KIND_CUSTOMER`."""
CHECKED_BY_DIGIT = frozenset({1, 5, 6})
"""Schemes whose numbers end with a check digit: national ids, registrations of organisations, LEI."""


class Stage(IntEnum):
    """Stages that ask for different data."""

    PROSPECT = 1
    CUSTOMER = 2


class Finding(IntEnum):
    """What speaks for or against a golden value."""

    MISSING = 1
    INVALID = 2
    VERIFIED = 3
    SOURCES_AGREE = 4
    SOURCES_CONFLICT = 5
    CHECK_DIGIT_RIGHT = 6
    CONSISTENT_WITH_DOCUMENT = 7
    CONTRADICTS_DOCUMENT = 8
    WEAK_LINK = 9
    AGED = 10
    PINNED = 11


class Advice(IntEnum):
    """What to do about an attribute."""

    NOTHING = 0
    ASK = 1
    CORRECT = 2
    VERIFY = 3


Weights = Mapping[Attribute, int]


@dataclass(frozen=True, slots=True)
class Required:
    """Weights of the attributes that a kind of party needs, by stage and by kind of holding."""

    stages: Mapping[Stage, Weights]
    holdings: Mapping[int, Weights]

    def weights(self, stage: Stage, holding_kinds: Collection[int]) -> dict[Attribute, int]:
        """The greatest weight of each attribute that is required."""
        weights = dict(self.stages[stage])
        for kind in holding_kinds:
            for attribute, weight in self.holdings.get(kind, {}).items():
                weights[attribute] = max(weight, weights.get(attribute, 0))
        return weights


@dataclass(frozen=True, slots=True)
class Evidence:
    """What findings are worth, as in the file `quality_standard.yaml`."""

    trust_percent_min: float
    trust_percent_max: float
    agreeing_source_bits: float
    conflicting_source_bits: float
    sources_counted_max: int
    verified_bits: float
    verified_half_life_days: float
    pinned_bits: float
    check_digit_bits: float
    consistent_bits: float
    contradiction_bits: float
    weak_link_bits: float
    weak_link_weight_bits: float
    sure_link_weight_bits: float
    aged_share: float
    enough_percent: float


@dataclass(frozen=True, slots=True)
class QualityStandard:
    """What is required of whom, what evidence is worth, and how wide a band is."""

    required: Mapping[PartyKind, Required]
    evidence: Evidence
    band_percent: int

    def band(self, percent: int) -> int:
        """The number of the band; the topmost is closed at 100."""
        return min(percent, 99) // self.band_percent


@dataclass(frozen=True, slots=True)
class Reason:
    """One attribute's part in the scores."""

    attribute: Attribute
    weight: int
    credibility_percent: float
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """The scores of a customer with their reasons."""

    stage: Stage
    completeness_percent: int
    credibility_percent: int
    reasons: tuple[Reason, ...]
    next_attribute: Attribute | None
    next_advice: Advice


def assess(
    believed: Mapping[Attribute, Sequence[Believed]],
    holding_kinds: Collection[int],
    link_weights_bits: Mapping[UUID, float],
    standard: QualityStandard,
    instant: datetime,
) -> Quality:
    """The quality of a golden customer.

    Args:
        believed: what `golden` says.
        holding_kinds: of what is held and open.
        link_weights_bits: how strong the match was, of records that belong to the customer by a match alone.
        standard: what is required, and what evidence is worth.
        instant: at which it is asked.
    """
    kind = PartyKind.ORGANISATION if _first(believed, Attribute.PARTY_KIND) == PartyKind.ORGANISATION else PartyKind.PERSON
    stage = _stage(believed, holding_kinds)
    weights = standard.required[kind].weights(stage, holding_kinds)
    encoded = _encoded(believed)
    reasons = tuple(
        _reason(
            attribute, weights.get(attribute, 0), believed.get(attribute), encoded, link_weights_bits, standard.evidence, instant
        )
        for attribute in sorted({*weights, *believed} - {Attribute.PARTY_KIND})
    )
    filled = [reason for reason in reasons if Finding.MISSING not in reason.findings]
    sound = sum(reason.weight for reason in filled if Finding.INVALID not in reason.findings)
    share = sum(max(reason.weight, 1) for reason in filled)
    mean = sum(max(reason.weight, 1) * reason.credibility_percent for reason in filled) / share if share else 0.0
    attribute, advice = _next(reasons, standard.evidence)
    return Quality(stage, round(100 * sound / (sum(weights.values()) or 1)), round(mean), reasons, attribute, advice)


def _first(believed: Mapping[Attribute, Sequence[Believed]], attribute: Attribute) -> Any:
    values = believed.get(attribute)
    return values[0].value if values else None


def _stage(believed: Mapping[Attribute, Sequence[Believed]], holding_kinds: Collection[int]) -> Stage:
    roles = believed.get(Attribute.ROLE, ())
    customer = bool(holding_kinds) or any(role.key == CUSTOMER_ROLE for role in roles)
    return Stage.CUSTOMER if customer else Stage.PROSPECT


def _encoded(believed: Mapping[Attribute, Sequence[Believed]]) -> dict[Attribute, Any]:
    """What the best valid document that encodes anything says of birth date and sex."""
    for one in believed.get(Attribute.IDENTIFIER, ()):
        if one.valid:
            document = identity_documents.checked(one.value.scheme, one.value.country_code, one.value.value)
            found = {Attribute.BIRTH_DATE: document.birth_date, Attribute.SEX: document.sex}
            if any(found.values()):
                return {attribute: value for attribute, value in found.items() if value}
    return {}


def _reason(
    attribute: Attribute,
    weight: int,
    values: Sequence[Believed] | None,
    encoded: Mapping[Attribute, Any],
    link_weights_bits: Mapping[UUID, float],
    evidence: Evidence,
    instant: datetime,
) -> Reason:
    if not values:
        return Reason(attribute, weight, 0.0, (Finding.MISSING,))
    best = values[0]
    trust = min(max(best.trust.points, evidence.trust_percent_min), evidence.trust_percent_max) / 100
    bits, findings = log2(trust / (1 - trust)), []
    for finding, worth in _findings(attribute, best, encoded, link_weights_bits, evidence, instant.date()):
        bits += worth
        findings.append(finding)
    return Reason(attribute, weight, 100 / (1 + 2.0**-bits), tuple(findings))


def _findings(
    attribute: Attribute,
    best: Believed,
    encoded: Mapping[Attribute, Any],
    link_weights_bits: Mapping[UUID, float],
    evidence: Evidence,
    today: date,
) -> list[tuple[Finding, float]]:
    """Findings with the bits they are worth; what trust has counted already is worth nothing more."""
    found: list[tuple[Finding, float]] = []
    if not best.valid:
        found.append((Finding.INVALID, 0.0))
    verified = best.candidate.verified
    if verified is not None:
        age_days = max((today - verified.on).days, 0)
        found.append((Finding.VERIFIED, evidence.verified_bits * 0.5 ** (age_days / evidence.verified_half_life_days)))
    if best.candidate.pinned_at is not None:
        found.append((Finding.PINNED, evidence.pinned_bits))
    if best.agreeing_count > 1:
        further = min(best.agreeing_count - 1, evidence.sources_counted_max)
        found.append((Finding.SOURCES_AGREE, further * evidence.agreeing_source_bits))
    if best.conflicting_count:
        counted = min(best.conflicting_count, evidence.sources_counted_max)
        found.append((Finding.SOURCES_CONFLICT, counted * evidence.conflicting_source_bits))
    if attribute is Attribute.IDENTIFIER and best.valid and best.value.scheme in CHECKED_BY_DIGIT:
        found.append((Finding.CHECK_DIGIT_RIGHT, evidence.check_digit_bits))
    if attribute in encoded:
        if encoded[attribute] == best.value:
            found.append((Finding.CONSISTENT_WITH_DOCUMENT, evidence.consistent_bits))
        else:
            found.append((Finding.CONTRADICTS_DOCUMENT, evidence.contradiction_bits))
    weak = _weakness(link_weights_bits.get(best.record.record_id), evidence)
    if weak:
        found.append((Finding.WEAK_LINK, weak * evidence.weak_link_bits))
    if best.trust.decay < evidence.aged_share:
        found.append((Finding.AGED, 0.0))
    return found


def _weakness(weight_bits: float | None, evidence: Evidence) -> float:
    """1 for the weakest match, falling to 0 for a sure one."""
    if weight_bits is None:
        return 0.0
    span = evidence.sure_link_weight_bits - evidence.weak_link_weight_bits
    return min(max((evidence.sure_link_weight_bits - weight_bits) / span, 0.0), 1.0)


def _next(reasons: Sequence[Reason], evidence: Evidence) -> tuple[Attribute | None, Advice]:
    """What raises completeness most; of a complete customer what raises credibility most."""
    wrong = {Finding.MISSING, Finding.INVALID}
    lacking = [reason for reason in reasons if reason.weight and wrong & set(reason.findings)]
    if lacking:
        worst = max(lacking, key=lambda reason: (reason.weight, -reason.attribute))
        return worst.attribute, Advice.ASK if Finding.MISSING in worst.findings else Advice.CORRECT
    doubtful = [reason for reason in reasons if reason.weight and reason.credibility_percent < evidence.enough_percent]
    if not doubtful:
        return None, Advice.NOTHING
    worst = max(doubtful, key=lambda reason: (reason.weight * (100 - reason.credibility_percent), -reason.attribute))
    return worst.attribute, Advice.CORRECT if Finding.CONTRADICTS_DOCUMENT in worst.findings else Advice.VERIFY


def standard_from(data: Mapping[str, Any], holding_kinds: Mapping[str, int]) -> QualityStandard:
    """A standard as the file has it; `holding_kinds` gives the numbers of its words."""
    required = {}
    for kind in PartyKind:
        section = data["completeness"][kind.name.lower()]
        required[kind] = Required(
            {Stage[word.upper()]: _weights(weights) for word, weights in section["stages"].items()},
            {holding_kinds[word]: _weights(weights) for word, weights in section["holdings"].items()},
        )
    return QualityStandard(required, Evidence(**data["credibility"]), data["band_percent"])


def _weights(data: Mapping[str, int]) -> dict[Attribute, int]:
    return {Attribute[word]: weight for word, weight in data.items()}
