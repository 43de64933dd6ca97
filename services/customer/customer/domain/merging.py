"""Which customers may become one, and which of them wins."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import TypeAlias
from uuid import UUID

Document: TypeAlias = tuple[int, str, str]
"""Scheme, country and number of a valid document that has not expired."""

PARTY_KIND_DIFFERS = "PARTY_KIND_DIFFERS"
DOCUMENT_DIFFERS = "DOCUMENT_DIFFERS"
REJECTED_PAIRS_MAX = 10_000
"""Pairs of records in one rejection: two customers of a hundred records each."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A customer that is to be merged."""

    customer_id: UUID
    records_count: int
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Proof:
    """What a record proves about identity."""

    party_kind: int
    documents: frozenset[Document]


def winner(candidates: Iterable[Candidate]) -> UUID:
    """Who keeps its id: the one with most records, then the oldest, then the lowest id."""
    return min(candidates, key=lambda one: (-one.records_count, one.create_time, one.customer_id)).customer_id


def objections(sides: Sequence[Collection[Proof]]) -> list[str]:
    """Why these cannot be one party: another kind, or different valid documents of one scheme and country.

    Two sides that share a document of a scheme may hold others of it: a passport is renewed.
    """
    found: set[str] = set()
    for left, right in combinations(sides, 2):
        if {proof.party_kind for proof in left} != {proof.party_kind for proof in right}:
            found.add(PARTY_KIND_DIFFERS)
        ours, theirs = _by_scheme(left), _by_scheme(right)
        if any(ours[scheme].isdisjoint(theirs[scheme]) for scheme in ours.keys() & theirs.keys()):
            found.add(DOCUMENT_DIFFERS)
    return sorted(found)


def _by_scheme(proofs: Iterable[Proof]) -> dict[tuple[int, str], set[str]]:
    numbers: dict[tuple[int, str], set[str]] = {}
    for proof in proofs:
        for scheme, country, number in proof.documents:
            numbers.setdefault((scheme, country), set()).add(number)
    return numbers


@dataclass(frozen=True, slots=True)
class Restoration:
    """What an unmerge gives back, and what it cannot: records that moved on (where to), and erased ones."""

    restored: frozenset[UUID]
    elsewhere: Mapping[UUID, UUID]
    erased: frozenset[UUID]


def restoration(snapshot: Iterable[UUID], present: Mapping[UUID, UUID], winner_id: UUID) -> Restoration:
    """Of the records a loser had at the merge, those that are still with the winner go back.

    Args:
        snapshot: the loser's records at the merge.
        present: whom each of them belongs to now; an erased one is missing.
        winner_id: who has the winner's records now, at the end of a chain of merges.
    """
    wanted = frozenset(snapshot)
    known = {record_id: present[record_id] for record_id in wanted if record_id in present}
    return Restoration(
        restored=frozenset(record_id for record_id, customer_id in known.items() if customer_id == winner_id),
        elsewhere={record_id: customer_id for record_id, customer_id in known.items() if customer_id != winner_id},
        erased=wanted - known.keys(),
    )
