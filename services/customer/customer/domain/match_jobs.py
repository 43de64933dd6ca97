"""What long jobs of matching decide: states, and whether the records of one customer belong together."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import combinations
from uuid import UUID

from customer.domain.features import Features
from customer.domain.match_model import Model
from customer.domain.matching import Explanation, explain

CLUSTER_RECORDS_MAX = 100
"""Of a larger customer so many records are compared with one another; the guard of clusters keeps customers smaller."""


class ModelState(IntEnum):
    """How far a model is made. What is in force is said by instants."""

    TRAINING = 1
    TRAINED = 2
    FAILED = 3


class RunState(IntEnum):
    """States of a rematch run."""

    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3


class FindingKind(IntEnum):
    """What a rematch run finds."""

    MISSED_PAIR = 1
    DOUBTFUL_CLUSTER = 2


@dataclass(frozen=True, slots=True)
class Doubt:
    """Records that hardly belong to the others of their customer, and how the nearest of the two sides compare."""

    stay: tuple[UUID, ...]
    apart: tuple[UUID, ...]
    explanation: Explanation


def doubt(model: Model, members: Mapping[UUID, Features], by_hand: Collection[UUID], population: int) -> Doubt | None:
    """Whether a customer falls into parts that nothing holds together; None when it does not.

    Two records hold together from the stewards' threshold on, unless their documents differ. What a steward linked holds with all
    others.
    """
    records = sorted(members)[:CLUSTER_RECORDS_MAX]
    explained = {
        (one, other): explain(model, members[one], members[other], population=population)
        for one, other in combinations(records, 2)
    }
    part = {record: record for record in records}

    def root(record: UUID) -> UUID:
        while part[record] != record:
            record = part[record]
        return record

    for (one, other), found in explained.items():
        held = found.rule == "SAME_DOCUMENT" or (found.weight_bits >= model.steward_bits and found.rule != "DIFFERENT_DOCUMENT")
        if held or one in by_hand or other in by_hand:
            part[max(root(one), root(other))] = min(root(one), root(other))
    parts: dict[UUID, list[UUID]] = {}
    for record in records:
        parts.setdefault(root(record), []).append(record)
    if len(parts) < 2:
        return None
    largest = max(parts.values(), key=lambda one: (len(one), -one[0].int))
    apart = tuple(record for record in records if record not in largest)
    across = (found for pair, found in explained.items() if (pair[0] in apart) != (pair[1] in apart))
    return Doubt(tuple(largest), apart, max(across, key=lambda found: found.weight_bits))
