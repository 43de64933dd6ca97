"""Survivorship: what is believed of a party, as a pure function of the records that the caller may see and of the policy."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from customer.domain.survivorship import AttributeRules, Policy, Trust, Verified, age_seconds
from customer.domain.vocabulary import Attribute, SurvivorshipRule

EMPTY: frozenset[Hashable] = frozenset({"", 0, ()})
"""Keys of values that say nothing."""


@dataclass(frozen=True, slots=True)
class Stated:
    """A value that a record states.

    Args:
        value: the value itself; survivorship does not look inside.
        key: equal for values that say the same; an empty key is an empty value, which is never believed.
        valid: whether it passes the checks of its kind.
        failed: reasons of the checks that it fails.
        filled_count: how many of its parts say something.
    """

    value: Any
    key: Hashable
    valid: bool = True
    failed: tuple[str, ...] = ()
    filled_count: int = 1


@dataclass(frozen=True, slots=True)
class Ranks:
    """How far a source system is believed: the lower rank first."""

    default: int
    of_attribute: Mapping[int, int]

    def of(self, attribute: Attribute) -> int:
        """The rank for an attribute."""
        return self.of_attribute.get(attribute, self.default)


@dataclass(frozen=True, slots=True)
class RecordView:
    """A record as survivorship sees it.

    `pins`: since when a steward has pinned attributes to this record. `verifications`: of what its source, or a
    KYC case, has verified.
    `shared`: the attributes that the viewer may see of it; None for all.
    """

    record_id: UUID
    source_system: str
    observed_at: datetime
    ranks: Ranks
    statements: Mapping[Attribute, Sequence[Stated]]
    pins: Mapping[Attribute, datetime] = field(default_factory=dict)
    verifications: Mapping[Attribute, Sequence[Verified]] = field(default_factory=dict)
    shared: frozenset[Attribute] | None = None


class Candidate(NamedTuple):
    """A value in the competition for an attribute."""

    stated: Stated
    place: int
    record: RecordView
    rank: int
    trust: Trust
    verified: Verified | None
    pinned_at: datetime | None


class Believed(NamedTuple):
    """A value with where it comes from, and how it stands against its rivals.

    `rule`: what decided against the best rival. `rivals_count`: other values that lost against this one. `agreeing_count`: source
    systems, each once, that state this value; `conflicting_count`: those that state other values only.
    """

    candidate: Candidate
    rule: SurvivorshipRule
    rivals_count: int
    agreeing_count: int
    conflicting_count: int

    @property
    def value(self) -> Any:
        """The value itself."""
        return self.candidate.stated.value

    @property
    def key(self) -> Hashable:
        """Equal for values that say the same."""
        return self.candidate.stated.key

    @property
    def valid(self) -> bool:
        """Whether it passes the checks of its kind."""
        return self.candidate.stated.valid

    @property
    def record(self) -> RecordView:
        """Where it comes from."""
        return self.candidate.record

    @property
    def rank(self) -> int:
        """Of the source for the attribute."""
        return self.candidate.rank

    @property
    def trust(self) -> Trust:
        """How far it is trusted."""
        return self.candidate.trust


Golden: TypeAlias = dict[Attribute, list[Believed]]
"""What is believed: of each attribute that anybody states its distinct values, best first."""


def golden(records: Sequence[RecordView], policy: Policy, instant: datetime) -> Golden:
    """What is believed at an instant: for each attribute that anybody states, its distinct values, best first.

    The first is the golden value of an attribute that has one value; an attribute with many keeps them all in this order.
    The order of `records` does not matter.
    """
    candidates: dict[Attribute, list[Candidate]] = {}
    for record in records:
        age = age_seconds(record.observed_at, instant)
        shared, said = record.shared, record.verifications
        for attribute, statements in record.statements.items():
            if shared is not None and attribute not in shared:
                continue
            rules, rank = policy.of(attribute), record.ranks.of(attribute)
            verifications = said.get(attribute, ())
            pinned_at = record.pins.get(attribute)
            for place, stated in enumerate(statements):
                if stated.key not in EMPTY:
                    trust = rules.trust(record.source_system, rank, stated.valid, stated.failed, age)
                    verified = None
                    if verifications:
                        verified = rules.verified(record.source_system, verifications, stated.key, instant.date())
                    candidate = Candidate(stated, place, record, rank, trust, verified, pinned_at)
                    candidates.setdefault(attribute, []).append(candidate)
    return {attribute: _ranked(candidates[attribute], policy.of(attribute)) for attribute in sorted(candidates)}


def _ranked(candidates: list[Candidate], rules: AttributeRules) -> list[Believed]:
    if len(candidates) == 1:
        return [Believed(candidates[0], SurvivorshipRule.ONLY_VALUE, 0, 1, 0)]
    sources: dict[Hashable, set[str]] = {}
    for candidate in candidates:
        sources.setdefault(candidate.stated.key, set()).add(candidate.record.source_system)
    everybody = set().union(*sources.values())
    order = rules.order
    # By the rules in their order; then by record id and place in the record, so that the answer is always the same.
    keyed = sorted(
        ((*(_BETTER[rule](one, sources) for rule in order), one.record.record_id, one.place), one) for one in candidates
    )
    best: dict[Hashable, tuple[tuple[Any, ...], Candidate]] = {}
    for key, candidate in keyed:
        best.setdefault(candidate.stated.key, (key, candidate))
    values = list(best.values())
    believed = []
    for index, (key, candidate) in enumerate(values):
        agreeing = len(sources[candidate.stated.key])
        rule = SurvivorshipRule.ONLY_VALUE
        if len(values) > 1:
            rival_key, rival = values[index + 1] if index + 1 < len(values) else values[index - 1]
            rule = _deciding(order, key, candidate, rival_key, rival)
        believed.append(Believed(candidate, rule, len(values) - 1 - index, agreeing, len(everybody) - agreeing))
    return believed


def _deciding(
    order: Sequence[SurvivorshipRule], key: tuple[Any, ...], candidate: Candidate, rival_key: tuple[Any, ...], rival: Candidate
) -> SurvivorshipRule:
    for rule, mine, theirs in zip(order, key, rival_key, strict=False):
        if mine != theirs:
            return _deciding_part(candidate.trust, rival.trust) if rule is SurvivorshipRule.TRUST else rule
    return SurvivorshipRule.TIE


def _deciding_part(one: Trust, other: Trust) -> SurvivorshipRule:
    """Which part of the trust decided: the checks, the ranks, or all of it together."""
    winner, loser = (one, other) if one.points > other.points else (other, one)
    if winner.validation > loser.validation:
        return SurvivorshipRule.VALID
    ranked = winner.from_rank and loser.from_rank and winner.decay == loser.decay and winner.validation == loser.validation
    return SurvivorshipRule.RANK if ranked else SurvivorshipRule.TRUST


Sources = Mapping[Hashable, set[str]]
# What each rule sorts by: the lesser is the better.
_BETTER: Mapping[SurvivorshipRule, Callable[[Candidate, Sources], float]] = {
    SurvivorshipRule.PIN: lambda one, _: -one.pinned_at.timestamp() if one.pinned_at else 0.0,
    SurvivorshipRule.VERIFIED: lambda one, _: one.verified is None,
    SurvivorshipRule.TRUST: lambda one, _: -one.trust.points,
    SurvivorshipRule.RECENCY: lambda one, _: -one.record.observed_at.timestamp(),
    SurvivorshipRule.FREQUENCY: lambda one, sources: -len(sources[one.stated.key]),
    SurvivorshipRule.COMPLETENESS: lambda one, _: -one.stated.filled_count,
}
