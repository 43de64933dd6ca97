"""Which of a customer's statements about being contacted holds."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from contact.domain.kinds import Permission


class Key(NamedTuple):
    """What a permission is about."""

    customer_id: uuid.UUID
    institution_id: str
    purpose: int
    channel: int


@dataclass(frozen=True, slots=True)
class Statement:
    """What the customer said and when; `statement_id` (UUIDv7) decides between statements of the same instant."""

    statement_id: uuid.UUID
    key: Key
    state: Permission
    state_time: datetime
    evidence_reference: str = ""

    @property
    def order(self) -> tuple[datetime, uuid.UUID]:
        """The statement with the greatest one holds."""
        return self.state_time, self.statement_id

    def repeats(self, other: "Statement") -> bool:
        """Whether this says nothing that the other did not say."""
        return (self.state, self.state_time, self.evidence_reference) == (
            other.state,
            other.state_time,
            other.evidence_reference,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """What a batch of statements changes.

    Args:
        held: for each statement whether what it says holds now.
        kept: those that go into the history: all but repetitions of what holds.
        current: the new holders, one for each key that changed.
    """

    held: list[bool]
    kept: list[Statement]
    current: list[Statement]


def decide(current: Mapping[Key, Statement], statements: Sequence[Statement]) -> Decision:
    """Lets the newest statement of each key hold; repeating what holds changes nothing."""
    holders = dict(current)
    kept = []
    for statement in statements:
        holder = holders.get(statement.key)
        if holder is not None and statement.repeats(holder):
            continue
        kept.append(statement)
        if holder is None or statement.order > holder.order:
            holders[statement.key] = statement
    changed = [holder for key, holder in holders.items() if holder is not current.get(key)]
    held = [_holds(statement, holders[statement.key]) for statement in statements]
    return Decision(held, kept, changed)


def _holds(statement: Statement, holder: Statement) -> bool:
    return statement is holder or statement.repeats(holder)
