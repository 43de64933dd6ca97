"""Rates between programmes: exact fractions, and no cycle of them may gain. Pure."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import TypeAlias

from loyalty.domain.four_eyes import OPERATOR, Person, Refused, side_name

TERM_MAX = 1_000_000_000
"""The largest numerator and denominator of a rate."""
LOG_ERROR_MAX = 1e-7
"""More than floats can be wrong by over any path: above it they decide, below it fractions do."""

Pair: TypeAlias = tuple[str, str]
Edges: TypeAlias = Mapping[Pair, Fraction]


@dataclass(frozen=True, slots=True)
class Rate:
    """From `valid_from` until the next rate of the pair begins, s points of one programme are worth floor(s × numerator /
    denominator) of the other: always rounded down. A numerator of 0 closes the pair."""

    from_program_id: str
    to_program_id: str
    valid_from: datetime
    numerator: int
    denominator: int

    @property
    def pair(self) -> Pair:
        """From and to."""
        return self.from_program_id, self.to_program_id


@dataclass(frozen=True, slots=True)
class GainingCycle:
    """A way from a programme back to itself that makes more of fewer: the programmes on it, and the product of its rates."""

    programs: tuple[str, ...]
    product: Fraction
    at: datetime | None = None

    def __str__(self) -> str:
        gain = self.product - 1
        return f"{' -> '.join((*self.programs, self.programs[0]))} multiplies points by {self.product} (a gain of {gain})"


def converted(points: int, numerator: int, denominator: int) -> int:
    """What points are worth at a rate, rounded down."""
    return points * numerator // denominator


def points_needed(value: int, numerator: int, denominator: int) -> int:
    """The least points that are worth at least `value`; the rate is above zero."""
    return -(-value * denominator // numerator)


def in_force(rates: Iterable[Rate], at: datetime) -> dict[Pair, Rate]:
    """Of each pair the rate that is valid at an instant; closed pairs are left out."""
    latest: dict[Pair, Rate] = {}
    for rate in rates:
        if rate.valid_from <= at and (rate.pair not in latest or latest[rate.pair].valid_from < rate.valid_from):
            latest[rate.pair] = rate
    return {pair: rate for pair, rate in latest.items() if rate.numerator}


def require_second(drafted: Person, by: Person, issuers: Collection[str]) -> None:
    """A rate is published by a second person; where two institutions stand for its programmes, by the other side.

    Raises:
        Refused: APPROVAL_BY_SAME_PERSON, APPROVAL_OF_BOTH_SIDES.
    """
    if by.subject == drafted.subject:
        raise Refused("APPROVAL_BY_SAME_PERSON", "you drafted this rate; somebody else must publish it")
    if by.side == drafted.side and (by.side == OPERATOR or len(set(issuers)) > 1):
        rule = f"{side_name(by.side)} drafted it; somebody of the other side must publish it"
        raise Refused("APPROVAL_OF_BOTH_SIDES", rule)


def gain_of_publishing(published: Iterable[Rate], new: Rate) -> GainingCycle | None:
    """A cycle that would gain at some instant once `new` is published, or None when none would, ever.

    Rates are constant between the instants at which one begins, so only those are tried: from `new.valid_from` on, until the
    next rate of the same pair takes over.
    """
    rates = [rate for rate in published if (rate.pair, rate.valid_from) != (new.pair, new.valid_from)] + [new]
    begins = sorted({rate.valid_from for rate in rates if rate.valid_from >= new.valid_from})
    until = min((rate.valid_from for rate in rates if rate.pair == new.pair and rate.valid_from > new.valid_from), default=None)
    for at in begins:
        if until is not None and at >= until:
            break
        edges = {pair: Fraction(rate.numerator, rate.denominator) for pair, rate in in_force(rates, at).items()}
        found = gaining_cycle(edges)
        if found is not None:
            return GainingCycle(found.programs, found.product, at)
    return None


def gaining_cycle(edges: Edges) -> GainingCycle | None:
    """A cycle whose rates multiply to more than one, or None when there is none: exact, whatever floats say.

    Floats only prune: an edge whose reduced cost is clearly above zero under the potentials that Bellman-Ford left cannot lie
    on a gaining cycle. What remains, often a market whose cycles multiply to exactly one, is decided in fractions.
    """
    found, potentials = _by_logarithms(edges)
    if found is not None and found.product > 1:
        return found
    slack = LOG_ERROR_MAX * (len(potentials) + 1)
    tight = {
        (source, target): rate
        for (source, target), rate in edges.items()
        if found is not None or potentials[source] - _log(rate) - potentials[target] <= slack
    }
    return _by_fractions(tight)


def _by_logarithms(edges: Edges) -> tuple[GainingCycle | None, dict[str, float]]:
    """Bellman-Ford on -log: a candidate, to be verified, or none and the potentials."""
    distance = {program: 0.0 for pair in edges for program in pair}
    previous: dict[str, str] = {}
    costs = [(source, target, -_log(rate)) for (source, target), rate in edges.items()]
    changed = True
    while changed:
        changed = False
        for source, target, cost in costs:
            if distance[source] + cost < distance[target] - LOG_ERROR_MAX:
                distance[target], previous[target], changed = distance[source] + cost, source, True
        loop = _loop(previous)
        if loop:
            return _cycle(edges, loop), distance
    return None, distance


def _by_fractions(edges: Edges) -> GainingCycle | None:
    """Bellman-Ford on products, exact: the best way to each programme, until nothing grows or the ways run in a circle."""
    product = {program: Fraction(1) for pair in edges for program in pair}
    previous: dict[str, str] = {}
    changed = True
    while changed:
        changed = False
        before = dict(product)  # one more edge a round, so that the fractions stay short
        for (source, target), rate in edges.items():
            if before[source] * rate > product[target]:
                product[target], previous[target], changed = before[source] * rate, source, True
        loop = _loop(previous)
        if loop:
            return _cycle(edges, loop)
    return None


def _loop(previous: Mapping[str, str]) -> list[str]:
    """The programmes of a circle in the predecessors, backwards; empty when there is none."""
    seen: dict[str, str] = {}
    for start in previous:
        program = start
        while program in previous and program not in seen:
            seen[program] = start
            program = previous[program]
        if program in previous and seen[program] == start:
            loop = [program]
            while previous[loop[-1]] != program:
                loop.append(previous[loop[-1]])
            return loop
    return []


def _cycle(edges: Edges, backwards: list[str]) -> GainingCycle:
    programs = backwards[::-1]
    first = programs.index(min(programs))
    programs = programs[first:] + programs[:first]
    product = Fraction(1)
    for source, target in zip(programs, programs[1:] + programs[:1], strict=True):
        product *= edges[source, target]
    return GainingCycle(tuple(programs), product)


def _log(rate: Fraction) -> float:
    return math.log(rate.numerator) - math.log(rate.denominator)
