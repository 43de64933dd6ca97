"""Which of a customer's statements about being contacted holds.

A statement hangs on a record of the institution it is given to. Two customers who turn out to be one keep the statements of
both, and the stricter binds, until the person says something new: that covers all records the institution has of the person.
Should they turn out to be two after all, each has again what was said for its own record.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from contact.domain.kinds import Permission


class Key(NamedTuple):
    """What a permission is about: a record of the institution it is given to, a purpose, a channel."""

    record_id: uuid.UUID
    purpose: int
    channel: int


@dataclass(frozen=True, slots=True)
class Statement:
    """What the customer said and when; `statement_id` (UUIDv7) decides between statements of the same instant.

    `covered` are all records that the institution had of the customer then.
    """

    statement_id: uuid.UUID
    key: Key
    institution_id: str
    state: Permission
    state_time: datetime
    evidence_reference: str = ""
    covered: frozenset[uuid.UUID] = frozenset()

    @property
    def order(self) -> tuple[datetime, uuid.UUID]:
        """The statement with the greatest one holds."""
        return self.state_time, self.statement_id

    def repeats(self, other: "Statement") -> bool:
        """Whether this says nothing that the other did not say."""
        return (self.state, self.state_time, self.evidence_reference, self.covered) == (
            other.state,
            other.state_time,
            other.evidence_reference,
            other.covered,
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


def binding(statements: Collection[Statement]) -> Statement | None:
    """Of the statements that hold for a customer's records at one institution, for one purpose and channel, the one that binds.

    A later statement replaces those of the records it covers. Of what is left a refusal binds before a permission, the latest
    of each first.
    """
    left = [
        statement
        for statement in statements
        if not any(statement.key.record_id in other.covered and other.order > statement.order for other in statements)
    ]
    return max(left, key=lambda statement: (statement.state is Permission.DENIED, statement.order), default=None)


def _holds(statement: Statement, holder: Statement) -> bool:
    return statement is holder or statement.repeats(holder)
