"""Our own scorer: records go through the pipeline of the intake, one by one, and the customers are compared with the truth."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from customer.domain.blocking import blocking_keys
from customer.domain.features import Features
from customer.domain.match_model import Model
from customer.domain.matching import Decision, Zone, decide

CANDIDATES_OF_A_KEY_MAX = 200
"""As the intake reads them."""


@dataclass(slots=True)
class Pipeline:
    """The intake in memory: same keys, same decisions, same bridges."""

    model: Model
    records: dict[UUID, Features] = field(default_factory=dict)
    customer_of: dict[UUID, UUID] = field(default_factory=dict)
    members: dict[UUID, list[UUID]] = field(default_factory=dict)
    _index: dict[tuple[str, str], list[UUID]] = field(default_factory=lambda: defaultdict(list))

    def decide(self, features: Features) -> Decision:
        """What would become of a record."""
        near = {record for key in blocking_keys(features) for record in self._index.get(key, ())[:CANDIDATES_OF_A_KEY_MAX]}
        candidates: Mapping[UUID, Mapping[UUID, Features]] = {
            customer: {record: self.records[record] for record in self.members[customer]}
            for customer in {self.customer_of[record] for record in near}
        }
        return decide(self.model, features, candidates, population=len(self.members))

    def ingest(self, features: Features) -> Decision:
        """Takes a record."""
        decision = self.decide(features)
        record = UUID(int=len(self.records) + 1)
        customer = decision.customer_id if decision.zone is Zone.LINK and decision.customer_id else record
        for duplicate in decision.bridges:
            for moved in self.members.pop(duplicate):
                self.customer_of[moved] = customer
                self.members[customer].append(moved)
        self.records[record], self.customer_of[record] = features, customer
        self.members.setdefault(customer, []).append(record)
        for key in blocking_keys(features):
            self._index[key].append(record)
        return decision


@dataclass(frozen=True, slots=True)
class Score:
    """Of pairs of records that ended in one customer, against pairs that belong there."""

    precision: float
    recall: float
    zones: Mapping[str, int]

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / (self.precision + self.recall) if self.precision + self.recall else 0.0


def score(model: Model, records: Sequence[tuple[Hashable, Features]]) -> Score:
    """Takes records (whose they are, evidence) one after another, and compares. Whose they are is not shown to the pipeline."""
    pipeline = Pipeline(model)
    zones = Counter(
        f"{decision.zone.name} {decision.reason}" for decision in (pipeline.ingest(features) for _, features in records)
    )
    found = list(pipeline.customer_of.values())
    truth = [whose for whose, _ in records]
    right = _pairs(Counter(zip(found, truth, strict=True)))
    return Score(right / max(_pairs(Counter(found)), 1), right / max(_pairs(Counter(truth)), 1), zones)


def _pairs(counts: Counter[Any]) -> int:
    return sum(count * (count - 1) // 2 for count in counts.values())
