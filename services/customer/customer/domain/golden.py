"""Survivorship: what is believed of a party, as a pure function of the records that the caller may see."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

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
    """

    value: Any
    key: Hashable
    valid: bool = True


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
    """A record as survivorship sees it."""

    record_id: UUID
    source_system: str
    observed_at: datetime
    ranks: Ranks
    statements: Mapping[Attribute, Sequence[Stated]]


@dataclass(frozen=True, slots=True)
class Believed:
    """A value with where it comes from, and how it stands against its rivals.

    `rivals_count`: other values that lost against this one. `agreeing_count`: source systems, each once, that state this value;
    `conflicting_count`: those that state other values only.
    """

    value: Any
    valid: bool
    record: RecordView
    rank: int
    rule: SurvivorshipRule
    rivals_count: int
    agreeing_count: int
    conflicting_count: int


# A statement after what decides about it, in the order of the rules: valid > rank > recency > record id > place in the record.
_Candidate = tuple[bool, int, float, UUID, int, Stated, RecordView]


def golden(records: Sequence[RecordView]) -> dict[Attribute, list[Believed]]:
    """What is believed: for each attribute that anybody states, its distinct values, best first.

    The first is the golden value of an attribute that has one value; an attribute with many keeps them all in this order.
    The order of `records` does not matter.
    """
    candidates: dict[Attribute, list[_Candidate]] = {}
    for record in records:
        recency = -record.observed_at.timestamp()
        for attribute, statements in record.statements.items():
            rank = record.ranks.of(attribute)
            mine = candidates.setdefault(attribute, [])
            for place, stated in enumerate(statements):
                if stated.key not in EMPTY:
                    mine.append((not stated.valid, rank, recency, record.record_id, place, stated, record))
    return {attribute: _ranked(candidates[attribute]) for attribute in sorted(candidates) if candidates[attribute]}


def _ranked(candidates: list[_Candidate]) -> list[Believed]:
    if len(candidates) == 1:
        invalid, rank, _, _, _, stated, record = candidates[0]
        return [Believed(stated.value, not invalid, record, rank, SurvivorshipRule.ONLY_VALUE, 0, 1, 0)]
    candidates.sort(key=lambda candidate: candidate[:5])
    best: dict[Hashable, _Candidate] = {}
    sources: dict[Hashable, set[str]] = {}
    for candidate in candidates:
        key = candidate[5].key
        best.setdefault(key, candidate)
        sources.setdefault(key, set()).add(candidate[6].source_system)
    everybody = set().union(*sources.values())
    values = list(best.values())
    believed = []
    for index, candidate in enumerate(values):
        rival = values[index + 1] if index + 1 < len(values) else values[index - 1]
        agreeing = sources[candidate[5].key]
        believed.append(
            Believed(
                value=candidate[5].value,
                valid=not candidate[0],
                record=candidate[6],
                rank=candidate[1],
                rule=_deciding_rule(candidate, rival) if len(values) > 1 else SurvivorshipRule.ONLY_VALUE,
                rivals_count=len(values) - 1 - index,
                agreeing_count=len(agreeing),
                conflicting_count=len(everybody - agreeing),
            )
        )
    return believed


def _deciding_rule(candidate: _Candidate, rival: _Candidate) -> SurvivorshipRule:
    if candidate[0] != rival[0]:
        return SurvivorshipRule.VALID
    if candidate[1] != rival[1]:
        return SurvivorshipRule.RANK
    return SurvivorshipRule.RECENCY if candidate[2] != rival[2] else SurvivorshipRule.TIE
