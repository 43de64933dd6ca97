"""The reconciliation file of an institution: CSV as RFC 4180 has it, the same bytes whenever it is made. Pure.

First the items by agreement, sequence and position, then corrections, then what they come to: lines, a residue and a pair for each
counterparty, the institution's position, and the control totals. Every row has all columns; what does not concern it is empty.
Amounts are fractions of minor units in lowest terms.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID

from loyalty.domain.settlement import Line, LineKind, Pair, Terms, amount_of, fee_of

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
        count, points, amount = self
        for item in items:
            count, points, amount = count + 1, points + item.points, amount + item.amount
        return Totals(count, points, amount)

    def and_also(self, other: "Totals") -> "Totals":
        """With other totals."""
        return Totals(self.items_count + other.items_count, self.points + other.points, self.amount + other.amount)


def text_of(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as lines of the file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HEADER, restval="", lineterminator="\r\n")
    writer.writerows(rows)
    return text.getvalue()


def header() -> str:
    """The first line."""
    return text_of([dict(zip(HEADER, HEADER, strict=True))])


def item_rows(items: Iterable[Item], currency_code: str) -> list[dict[str, Any]]:
    """Items and corrections as rows."""
    return [
        {
            "record": CORRECTION if item.dispute_id else ITEM,
            "payer": item.terms.payer,
            "payee": item.terms.payee,
            "agreement": item.terms.agreement_id,
            "agreement_version": item.terms.agreement_version,
            "program": item.terms.program_id,
            "operation": item.operation_id,
            "sequence": item.sequence,
            "position": item.position,
            "dispute": item.dispute_id or "",
            "post_time": item.post_time.astimezone(UTC).isoformat(),
            "items_count": 1,
            "points": item.points,
            "price_numerator": item.terms.price_numerator,
            "price_denominator": item.terms.price_denominator,
            "fee_basis_points": item.terms.fee_basis_points,
            **_amount("amount", item.amount),
            **_amount("fee", item.fee),
            "currency": currency_code,
        }
        for item in items
    ]


def summary_rows(
    lines: Sequence[Line],
    pairs: Sequence[Pair],
    position_minor_units: int,
    totals: Totals,
    institution_id: str,
    currency_code: str,
    cut_off_sequence: int,
    cut_off_hash: bytes,
) -> list[dict[str, Any]]:
    """What follows the items. Lines and the residue of a pair sum to its minor units."""
    rows: list[dict[str, Any]] = [
        {
            "record": line.kind,
            "payer": line.payer,
            "payee": line.payee,
            "agreement": line.agreement_id,
            "agreement_version": line.agreement_version,
            "program": line.program_id,
            "items_count": line.items_count,
            "points": line.points,
            **_amount("amount", line.amount),
            "currency": currency_code,
        }
        for line in lines
    ]
    for pair in pairs:
        two = {"payer": pair.first, "payee": pair.second, "currency": currency_code}
        rows.append({"record": RESIDUE, **two, **_amount("amount", pair.residue)})
        rows.append({"record": PAIR, **two, **_amount("amount", pair.exact), "minor_units": pair.amount_minor_units})
    rows.append({"record": POSITION, "payee": institution_id, "minor_units": position_minor_units, "currency": currency_code})
    rows.append(
        {
            "record": CONTROL,
            "sequence": cut_off_sequence,
            "items_count": totals.items_count,
            "points": totals.points,
            **_amount("amount", totals.amount),
            "currency": currency_code,
            "ledger_hash": cut_off_hash.hex(),
        }
    )
    return rows


def _amount(name: str, amount: Fraction) -> dict[str, int]:
    return {f"{name}_numerator": amount.numerator, f"{name}_denominator": amount.denominator}
