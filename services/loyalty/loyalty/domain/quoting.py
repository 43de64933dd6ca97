"""Quotes: which points of which programmes cover a price, at which rates. Pure and exact; moves nothing."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from fractions import Fraction

from loyalty.domain.ledger.configuration import Basis, PlainConfiguration
from loyalty.domain.rates import converted, points_needed

NEVER = datetime.max.replace(tzinfo=UTC)


class Precedence(StrEnum):
    """Whose points go first. Among equals: what expires sooner, then the programme's id."""

    SOONEST_EXPIRY = "SOONEST_EXPIRY"
    BEST_VALUE = "BEST_VALUE"
    """The points that are worth most here, each; so the fewest are spent."""
    CHOICE = "CHOICE"
    """The programmes that the customer names, in that order, and no others."""


class Excluded(StrEnum):
    """Why a programme's points cannot pay."""

    NO_AGREEMENT = "NO_AGREEMENT"
    NO_RATE = "NO_RATE"
    SANDBOX = "SANDBOX"
    """Points to try with and real ones never pay for each other."""


@dataclass(frozen=True, slots=True)
class Available:
    """Points of a programme that end together; `expire_time` None: never."""

    program_id: str
    points: int
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What s points of a programme are worth at the redeemer: floor(s × numerator / denominator) units of the target, and by
    which agreement (None: the redeemer's own points)."""

    program_id: str
    numerator: int
    denominator: int
    rate_valid_from: datetime | None = None
    agreement_id: uuid.UUID | None = None
    agreement_version: int | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What is to be paid at an institution: points of its programme `program_id`, or minor units of `currency_code`."""

    institution_id: str
    amount: int
    program_id: str | None = None
    currency_code: str | None = None
    sandbox: bool = False
    """Whether it is paid with points to try with."""


@dataclass(frozen=True, slots=True)
class OwnValue:
    """What an institution takes its own points for: minor units for `denominator` points."""

    numerator: int
    denominator: int
    currency_code: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A programme that the customer names, and the most of its points that may go."""

    program_id: str
    points_max: int | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """`points` is the least number that is worth at least `value` units of the target."""

    terms: Terms
    points: int
    value: int

    @property
    def residue(self) -> Fraction:
        """What the points are worth beyond the value: less than one point's worth, exact, in units of the target."""
        return Fraction(self.points * self.terms.numerator, self.terms.denominator) - self.value


@dataclass(frozen=True, slots=True)
class Plan:
    """The lines in the order in which they are used, and the units of the target that they leave to money."""

    lines: tuple[Line, ...]
    rest: int


def terms_of(
    program_id: str, price: Price, own: Mapping[str, OwnValue], configuration: PlainConfiguration, at: datetime
) -> Terms | Excluded:
    """What a programme's points are worth for a price, or why they take no part.

    Points of another institution need its agreement with the redeemer. A price in points is reached by the rate between the
    programmes, a price in money by the price that the agreement states, or for the redeemer's own points by what it stands for.

    Args:
        own: of the redeemer's own programmes.
    """
    program = configuration.program(program_id)
    if program is None or program.sandbox is not price.sandbox:
        return Excluded.SANDBOX
    agreement = None
    if program.institution_id != price.institution_id:
        agreement = configuration.agreement(program.institution_id, price.institution_id, Basis.AT_REDEMPTION, at)
        if agreement is None:
            return Excluded.NO_AGREEMENT
    by = (agreement.agreement_id, agreement.version) if agreement else (None, None)
    if price.program_id is None:
        value = agreement or own.get(program_id)
        if value is None or value.currency_code != price.currency_code:
            return Excluded.NO_RATE
        numerator, denominator = (
            (value.numerator, value.denominator)
            if isinstance(value, OwnValue)
            else (value.price_numerator, value.price_denominator)
        )
        return Terms(program_id, numerator, denominator, None, *by)
    if program_id == price.program_id:
        return Terms(program_id, 1, 1)
    rate = configuration.rate(program_id, price.program_id, at)
    return Terms(program_id, rate.numerator, rate.denominator, rate.valid_from, *by) if rate else Excluded.NO_RATE


def plan(
    price: int,
    available: Iterable[Available],
    terms: Mapping[str, Terms],
    precedence: Precedence = Precedence.SOONEST_EXPIRY,
    choices: Sequence[Choice] = (),
) -> Plan:
    """Covers a price as far as the points reach: the values of the lines and the rest sum to it exactly.

    Args:
        price: units of the target, above zero.
        available: programmes without terms are left alone.
        terms: of the programmes that take part; each worth more than nothing.
        choices: where the precedence is CHOICE.
    """
    usable = [part for part in available if part.program_id in terms and part.points > 0]
    if precedence is Precedence.CHOICE:
        usable = _limited(usable, choices)
    else:
        usable.sort(key=lambda part: _order(part, terms[part.program_id], precedence))
    points: dict[str, int] = {}
    values: dict[str, int] = {}
    rest = price
    for part in usable:
        if not rest:
            break
        mine = terms[part.program_id]
        points[part.program_id] = points.get(part.program_id, 0) + part.points
        before = values.get(part.program_id, 0)
        # Of all its points so far, not of these alone: halves of two expiry dates make a whole.
        value = min(converted(points[part.program_id], mine.numerator, mine.denominator), before + rest)
        values[part.program_id], rest = value, rest - (value - before)
    lines = (
        Line(terms[program_id], points_needed(value, terms[program_id].numerator, terms[program_id].denominator), value)
        for program_id, value in values.items()
        if value
    )
    return Plan(tuple(lines), rest)


def money_for(rest: int, price_numerator: int, price_denominator: int) -> int:
    """Minor units that pay for `rest` points at the issuer's price of a point, rounded up once."""
    return -(-rest * price_numerator // price_denominator)


def _order(part: Available, terms: Terms, precedence: Precedence) -> tuple[Fraction, datetime, str]:
    worth = Fraction(terms.numerator, terms.denominator) if precedence is Precedence.BEST_VALUE else Fraction(0)
    return -worth, part.expire_time or NEVER, part.program_id


def _limited(usable: list[Available], choices: Sequence[Choice]) -> list[Available]:
    """The parts of the chosen programmes, in the customer's order, within the customer's limits."""
    chosen = []
    for choice in choices:
        left = choice.points_max
        mine = [part for part in usable if part.program_id == choice.program_id]
        for part in sorted(mine, key=lambda part: part.expire_time or NEVER):
            taken = part.points if left is None else min(part.points, left)
            left = None if left is None else left - taken
            if taken:
                chosen.append(Available(part.program_id, taken, part.expire_time))
    return chosen
