"""The reconciliation file of an institution: CSV as RFC 4180 has it, the same bytes whenever it is made. Pure.

First the items by agreement, sequence and position, then corrections, then what they come to: lines, a residue and a pair for
each counterparty, the institution's position, and the control totals. Every row has all columns; what does not concern it is
empty. Amounts are fractions of minor units in lowest terms.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple
from uuid import UUID

from loyalty.domain.settlement import BASIS_POINTS, Line, LineKind, Pair, Terms, amount_of, fee_of

HEADER = (
    "record", "payer", "payee", "agreement", "agreement_version", "program", "operation", "sequence", "position", "dispute",
    "post_time", "items_count", "points", "price_numerator", "price_denominator", "fee_basis_points", "amount_numerator",
    "amount_denominator", "fee_numerator", "fee_denominator", "minor_units", "currency", "ledger_hash",
)  # fmt: skip
ITEM, CORRECTION, RESIDUE, PAIR, POSITION, CONTROL = "ITEM", "CORRECTION", "RESIDUE", "PAIR", "POSITION", "CONTROL"
LEADING = (LineKind.PRINCIPAL, LineKind.CORRECTION)
"""Lines that count every item once."""


class Item(NamedTuple):
    """One item of a batch. A correction names its dispute, and operation and position of the item that it corrects."""

    terms: Terms
    operation_id: UUID
    sequence: int
    position: int
    points: int
    post_time: datetime
    dispute_id: UUID | None = None
    order_sequence: int = 0
    """Its place in the order: the sequence; of a correction that of its acceptance."""

    @property
    def amount(self) -> Fraction:
        """Exact minor units that the payer owes."""
        return amount_of(self.points, self.terms)

    @property
    def fee(self) -> Fraction:
        """Exact minor units that the payee owes for it."""
        return fee_of(self.points, self.terms)


class Totals(NamedTuple):
    """Control totals: of all items in a file."""

    items_count: int = 0
    points: int = 0
    amount: Fraction = Fraction(0)

    def plus(self, items: Iterable[Item]) -> "Totals":
        """With more items."""
        count, points_of = 0, dict[Terms, int]()
        for item in items:
            count += 1
            points_of[item.terms] = points_of.get(item.terms, 0) + item.points
        amount = sum((amount_of(points, terms) for terms, points in points_of.items()), Fraction(0))
        return self.and_also(Totals(count, sum(points_of.values()), amount))

    def and_also(self, other: "Totals") -> "Totals":
        """With other totals."""
        return Totals(self.items_count + other.items_count, self.points + other.points, self.amount + other.amount)


def text_of(rows: Iterable[Sequence[object]]) -> str:
    """Rows as lines of the file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def header() -> str:
    """The first line."""
    return text_of([HEADER])


def item_rows(items: Iterable[Item], currency_code: str) -> Iterator[tuple[object, ...]]:
    """Items and corrections as rows."""
    for item in items:
        terms, points = item.terms, item.points
        amount = _lowest(points * terms.price_numerator, terms.price_denominator)
        fee = _lowest(points * terms.price_numerator * terms.fee_basis_points, terms.price_denominator * BASIS_POINTS)
        yield (
            CORRECTION if item.dispute_id else ITEM, terms.payer, terms.payee, terms.agreement_id, terms.agreement_version,
            terms.program_id, item.operation_id, item.sequence, item.position, item.dispute_id or "",
            item.post_time.isoformat(), 1, points, terms.price_numerator, terms.price_denominator, terms.fee_basis_points,
            *amount, *fee, "", currency_code, "",
        )  # fmt: skip


def summary_rows(
    lines: Sequence[Line],
    pairs: Sequence[Pair],
    position_minor_units: int,
    totals: Totals,
    institution_id: str,
    currency_code: str,
    cut_off_sequence: int,
    cut_off_hash: bytes,
) -> list[tuple[object, ...]]:
    """What follows the items. Lines and the residue of a pair sum to its minor units."""
    rows: list[dict[str, object]] = [
        {
            "record": line.kind,
            "payer": line.payer,
            "payee": line.payee,
            "agreement": line.agreement_id,
            "agreement_version": line.agreement_version,
            "program": line.program_id,
            "items_count": line.items_count,
            "points": line.points,
            **_amount(line.amount),
        }
        for line in lines
    ]
    for pair in pairs:
        two = {"payer": pair.first, "payee": pair.second}
        rows.append({"record": RESIDUE, **two, **_amount(pair.residue)})
        rows.append({"record": PAIR, **two, **_amount(pair.exact), "minor_units": pair.amount_minor_units})
    rows.append({"record": POSITION, "payee": institution_id, "minor_units": position_minor_units})
    rows.append(
        {
            "record": CONTROL,
            "sequence": cut_off_sequence,
            "items_count": totals.items_count,
            "points": totals.points,
            **_amount(totals.amount),
            "ledger_hash": cut_off_hash.hex(),
        }
    )
    return [tuple((row | {"currency": currency_code}).get(column, "") for column in HEADER) for row in rows]


def _amount(amount: Fraction) -> dict[str, int]:
    return {"amount_numerator": amount.numerator, "amount_denominator": amount.denominator}


def _lowest(numerator: int, denominator: int) -> tuple[int, int]:
    """A fraction in lowest terms; `Fraction` does the same ten times slower, and a file may have a million of them."""
    common = math.gcd(numerator, denominator)
    return numerator // common, denominator // common
