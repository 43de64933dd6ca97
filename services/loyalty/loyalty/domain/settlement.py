"""What institutions owe one another: lines, pairs and positions of a batch, exact until a pair is rounded once. Pure.

Amounts are fractions of minor units. A line says what one institution owes another; a pair nets all lines between two
institutions and is rounded, half to even, to whole minor units when its batch is closed. The difference is the pair's residue.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple
from zoneinfo import ZoneInfo

BASIS_POINTS = 10_000
"""Basis points in a whole."""


class BatchState(StrEnum):
    """Where a batch is. Items of later operations never get into a batch that is not OPEN."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"
    CONFIRMED = "CONFIRMED"
    SETTLED = "SETTLED"


class LineKind(StrEnum):
    """What a line is for."""

    PRINCIPAL = "PRINCIPAL"
    """Points at their price: the item's payer owes its payee."""
    FEE = "FEE"
    """The fee on the principal: the item's payee owes its payer."""
    PREFUNDED = "PREFUNDED"
    """Whole minor units of a principal that the packs of a prepaid agreement bear: they were paid before."""
    CORRECTION = "CORRECTION"
    """Points of an accepted dispute at their price."""
    CORRECTION_FEE = "CORRECTION_FEE"
    """The fee on a correction."""


class Terms(NamedTuple):
    """By what an item is priced: one version of an agreement."""

    payer: str
    payee: str
    agreement_id: uuid.UUID
    agreement_version: int
    program_id: str
    price_numerator: int
    price_denominator: int
    fee_basis_points: int
    prefunded: bool = False


class Group(NamedTuple):
    """All items of a batch with the same terms."""

    terms: Terms
    items_count: int
    points: int
    """Signed: refunds are negative."""
    correction: bool = False


class Line(NamedTuple):
    """`payer` owes `payee` the amount, in exact minor units; a negative amount is owed the other way."""

    kind: LineKind
    payer: str
    payee: str
    agreement_id: uuid.UUID
    agreement_version: int
    program_id: str
    items_count: int
    points: int
    amount: Fraction


@dataclass(frozen=True, slots=True)
class Pair:
    """What is left between two institutions: `first` owes `second`; a negative amount is owed the other way."""

    first: str
    second: str
    exact: Fraction
    amount_minor_units: int

    @property
    def residue(self) -> Fraction:
        """What rounding added to the exact amount: at most half a minor unit either way."""
        return self.amount_minor_units - self.exact

    def owed_by(self, institution_id: str) -> int:
        """Whole minor units that one of the two owes the other."""
        return self.amount_minor_units if institution_id == self.first else -self.amount_minor_units


def amount_of(points: int, terms: Terms) -> Fraction:
    """Points at their price, in exact minor units."""
    return Fraction(points * terms.price_numerator, terms.price_denominator)


def fee_of(points: int, terms: Terms) -> Fraction:
    """The fee on points at their price, in exact minor units."""
    return amount_of(points, terms) * terms.fee_basis_points / BASIS_POINTS


def merged(groups: Iterable[Group]) -> list[Group]:
    """Groups of the same terms put together, in order."""
    sums: dict[tuple[Terms, bool], tuple[int, int]] = {}
    for group in groups:
        count, points = sums.get((group.terms, group.correction), (0, 0))
        sums[group.terms, group.correction] = count + group.items_count, points + group.points
    return [Group(terms, count, points, correction) for (terms, correction), (count, points) in sorted(sums.items())]


def lines_of(groups: Iterable[Group]) -> list[Line]:
    """The lines of a batch: one for each kind, pair, programme and version of an agreement. Every item is in one PRINCIPAL or
    CORRECTION line. What a pack bears is whole, so that nothing is rounded here: the rest of the principal stays in the pair."""
    lines = []
    for group in merged(groups):
        terms = group.terms
        principal, fee = (
            (LineKind.CORRECTION, LineKind.CORRECTION_FEE) if group.correction else (LineKind.PRINCIPAL, LineKind.FEE)
        )
        amount = amount_of(group.points, terms)
        lines.append(_line(principal, group, terms.payer, terms.payee, amount))
        if terms.fee_basis_points:
            lines.append(_line(fee, group, terms.payee, terms.payer, fee_of(group.points, terms)))
        if terms.prefunded and not group.correction:
            lines.append(_line(LineKind.PREFUNDED, group, terms.payee, terms.payer, Fraction(int(amount))))
    return lines


def _line(kind: LineKind, group: Group, payer: str, payee: str, amount: Fraction) -> Line:
    terms, where = group.terms, (group.items_count, group.points)
    return Line(kind, payer, payee, terms.agreement_id, terms.agreement_version, terms.program_id, *where, amount)


def pairs_of(lines: Iterable[Line]) -> list[Pair]:
    """Nets the lines between every two institutions and rounds each result once, half to even."""
    exact: dict[tuple[str, str], Fraction] = {}
    for line in lines:
        first, second = sorted((line.payer, line.payee))
        signed = line.amount if line.payer == first else -line.amount
        exact[first, second] = exact.get((first, second), Fraction(0)) + signed
    return [Pair(first, second, amount, round(amount)) for (first, second), amount in sorted(exact.items())]


def positions_of(pairs: Iterable[Pair]) -> dict[str, int]:
    """The multilateral net position of every institution in whole minor units: what it gets, negative what it pays; sum zero."""
    positions: dict[str, int] = {}
    for pair in pairs:
        for institution_id in (pair.first, pair.second):
            positions[institution_id] = positions.get(institution_id, 0) - pair.owed_by(institution_id)
    return dict(sorted(positions.items()))


def points_to_clear(groups: Iterable[Group], issuers: Mapping[str, str]) -> dict[tuple[str, str], int]:
    """Points to go back from a redeemer's clearing account to the issuer: (redeemer, programme) to points, negative after more
    refunds than redemptions. Points sold at issuance and corrections never were in a clearing account."""
    points: dict[tuple[str, str], int] = {}
    for group in groups:
        terms = group.terms
        if issuers[terms.program_id] == terms.payer and not group.correction:
            key = terms.payee, terms.program_id
            points[key] = points.get(key, 0) + group.points
    return {key: amount for key, amount in sorted(points.items()) if amount}


def cut_off_before(now: datetime, cut_off: time, zone: ZoneInfo) -> datetime:
    """The latest instant, not after now, at which it was the cut-off time in the zone.

    There is one on every local day: a time that a change of clocks leaves out is taken at the offset before it, one that comes
    twice is taken the first time.
    """
    day = now.astimezone(zone).date() + timedelta(days=1)
    while (instant := _instant(day, cut_off, zone)) > now:
        day -= timedelta(days=1)
    return instant


def business_date(cut_off_time: datetime, zone: ZoneInfo) -> date:
    """The local day that ends at a cut-off; one at midnight ends the day before it."""
    return (cut_off_time - timedelta(microseconds=1)).astimezone(zone).date()


def _instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, at, tzinfo=zone).astimezone(UTC)
