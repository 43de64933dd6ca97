"""Earn rules: what a transaction earns. Pure and exact: integers only."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class Direction(StrEnum):
    """Which way the money went."""

    SPENT = "SPENT"
    RECEIVED = "RECEIVED"


class ErasureRule(StrEnum):
    """What becomes of points whose owner was erased: the issuer gets them back, or they stay outstanding and nobody's."""

    EXPIRE = "EXPIRE"
    KEEP = "KEEP"


@dataclass(frozen=True, slots=True)
class RuleVersion:
    """One version of an earn rule; empty `categories` means all."""

    program_id: str
    rule_id: str
    version: int
    currency_code: str
    categories: frozenset[str]
    direction: Direction
    amount_minor_units_min: int
    points_numerator: int
    points_denominator: int
    points_max: int
    effective_time: datetime

    @property
    def name(self) -> str:
        """As it stands in an operation: `{rule}/versions/{version}`."""
        return f"{self.rule_id}/versions/{self.version}"


@dataclass(frozen=True, slots=True)
class Transaction:
    """Money that moved: positive into the customer's holding, negative out of it."""

    currency_code: str
    amount_minor_units: int
    category: str
    occurred_at: datetime


class Earned(NamedTuple):
    """Points a transaction earns in a programme, and the rule that gave them."""

    points: int
    rule: RuleVersion


def in_force(versions: Iterable[RuleVersion], at: datetime) -> list[RuleVersion]:
    """Of each rule the version in force at an instant: the newest of those already effective. A later version replaces the
    older ones from its own effective time on."""
    newest: dict[tuple[str, str], RuleVersion] = {}
    for version in versions:
        key = version.program_id, version.rule_id
        if version.effective_time <= at and (key not in newest or newest[key].version < version.version):
            newest[key] = version
    return list(newest.values())


def points_earned(rule: RuleVersion, transaction: Transaction) -> int:
    """Points of a transaction by one rule: rounded down, at most `points_max`, 0 when the rule does not apply."""
    amount = transaction.amount_minor_units
    direction = Direction.SPENT if amount < 0 else Direction.RECEIVED
    applies = (
        amount != 0
        and direction is rule.direction
        and transaction.currency_code == rule.currency_code
        and abs(amount) >= rule.amount_minor_units_min
        and (not rule.categories or transaction.category in rule.categories)
    )
    if not applies:
        return 0
    return min(abs(amount) * rule.points_numerator // rule.points_denominator, rule.points_max)


def earn(versions: Iterable[RuleVersion], transaction: Transaction) -> list[Earned]:
    """What a transaction earns: in each programme by the rule that gives most (the first by id among equals), in the order
    of the programmes. Programmes where it earns nothing are left out."""
    best: dict[str, Earned] = {}
    for rule in sorted(in_force(versions, transaction.occurred_at), key=lambda rule: (rule.program_id, rule.rule_id)):
        points = points_earned(rule, transaction)
        if points > 0 and (rule.program_id not in best or best[rule.program_id].points < points):
            best[rule.program_id] = Earned(points, rule)
    return list(best.values())
