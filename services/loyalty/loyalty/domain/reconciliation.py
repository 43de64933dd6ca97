"""Compares an institution's own file with a settlement. Pure.

The file is CSV (RFC 4180, UTF-8) with a header. Either it is a reconciliation file of ours, or a simpler one with these columns,
in any order:

    operation  the operation's id                                         one of the two
    reference  the reference that the institution gave the operation
    program    the programme; may be left out, then the programmes of an operation count together
    points     whole points, signed as in our items
    amount     minor units: whole, decimal (`12.5`) or a fraction (`25/2`)

Rows with the same key count together.
"""

import csv
import io
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from fractions import Fraction
from typing import NamedTuple

from loyalty.domain.settlement_file import CONTROL, CORRECTION, HEADER, ITEM, Item, Totals

ROWS_MAX = 200_000
"""Rows of a file, and items of a settlement, that one comparison takes."""
REFERENCE = re.compile(r"[A-Za-z0-9._:/#-]{1,100}")
POINTS = re.compile(r"-?\d{1,15}")
AMOUNT = re.compile(r"-?\d{1,30}(\.\d{1,18}|/[1-9]\d{0,29})?")
COLUMNS = ("operation", "reference", "program", "points", "amount")


class Unreadable(Exception):
    """The file breaks a rule: where, and what would be right. Holds no value of the file."""

    def __init__(self, line_number: int, column: str, rule: str) -> None:
        super().__init__(line_number, column, rule)
        self.line_number = line_number
        self.column = column
        self.rule = rule


class Result(IntEnum):
    """What became of a row, numbered as in the contract."""

    MATCHED = 1
    MISSING_HERE = 2
    MISSING_THERE = 3
    DIFFERENT = 4


class Key(NamedTuple):
    """What a row is about: an operation by id or by reference, and the programme where the file has that column."""

    operation: str
    reference: str
    program: str


class Sum(NamedTuple):
    """Rows or items with the same key."""

    line_number: int
    points: int
    amount: Fraction


class Row(NamedTuple):
    """A row of the result. `line_number` is 0 where the file has none."""

    result: Result
    line_number: int
    operation_id: uuid.UUID | None
    reference: str
    program_id: str
    their_points: int
    our_points: int
    their_amount: Fraction
    our_amount: Fraction


class Parsed(NamedTuple):
    """A file that can be read."""

    rows: dict[Key, Sum]
    by_reference: bool
    by_program: bool
    totals: Totals


def parse(content: bytes) -> Parsed:
    """Reads a file as a whole.

    Raises:
        Unreadable: naming line and column of the first fault.
    """
    lines = _lines(content)
    first = next(lines, None)
    if first is None:
        raise Unreadable(1, "header", "must name the columns: the file is empty")
    names = [name.strip() for name in first[1]]
    ours = names == list(HEADER)
    by_reference = _check_header(names, ours)
    rows: dict[Key, Sum] = {}
    totals, control = Totals(), None
    for number, values in lines:
        if totals.items_count == ROWS_MAX:
            raise Unreadable(number, "row", f"must not be: a file has at most {ROWS_MAX} rows with items")
        if len(values) != len(names):
            raise Unreadable(number, "row", f"must have {len(names)} columns as the header, and has {len(values)}")
        row = dict(zip(names, values, strict=True))
        if ours and row["record"] not in (ITEM, CORRECTION):
            control = (number, row) if row["record"] == CONTROL else control
            continue
        key, found = _row(number, row, ours, by_reference)
        totals = Totals(totals.items_count + 1, totals.points + found.points, totals.amount + found.amount)
        known = rows.get(key)
        rows[key] = Sum(known.line_number, known.points + found.points, known.amount + found.amount) if known else found
    if control:
        _check_control(*control, totals)
    return Parsed(rows, by_reference, "program" in names, totals)


def ours_by_key(items: Iterable[Item], parsed: Parsed, references: Mapping[int, str]) -> dict[Key, tuple[Sum, uuid.UUID]]:
    """Our items by the keys that the file uses.

    Args:
        items: of the settlement, as far as the institution may see them.
        parsed: the file.
        references: of operations by sequence, where the file uses them.
    """
    sums: dict[Key, tuple[Sum, uuid.UUID]] = {}
    for item in items:
        program = item.terms.program_id if parsed.by_program else ""
        reference = references.get(item.sequence, "") if parsed.by_reference else ""
        key = Key("", reference, program) if reference else Key(str(item.operation_id), "", program)
        known = sums[key][0] if key in sums else Sum(0, 0, Fraction(0))
        sums[key] = Sum(0, known.points + item.points, known.amount + item.amount), item.operation_id
    return sums


def compare(parsed: Parsed, ours: Mapping[Key, tuple[Sum, uuid.UUID]]) -> Iterator[Row]:
    """The rows of the result: those of the file in its order, then what it misses, by key."""
    for key, theirs in parsed.rows.items():
        here = ours.get(key)
        if here is None:
            operation_id = uuid.UUID(key.operation) if key.operation else None
            yield Row(
                Result.MISSING_HERE, theirs.line_number, operation_id, key.reference, key.program,
                theirs.points, 0, theirs.amount, Fraction(0),
            )  # fmt: skip
            continue
        mine, operation_id = here
        same = (mine.points, mine.amount) == (theirs.points, theirs.amount)
        yield Row(
            Result.MATCHED if same else Result.DIFFERENT, theirs.line_number, operation_id, key.reference, key.program,
            theirs.points, mine.points, theirs.amount, mine.amount,
        )  # fmt: skip
    for key, (mine, operation_id) in sorted(ours.items()):
        if key not in parsed.rows:
            yield Row(Result.MISSING_THERE, 0, operation_id, key.reference, key.program, 0, mine.points, Fraction(0), mine.amount)


def _lines(content: bytes) -> Iterator[tuple[int, list[str]]]:
    """Rows with the lines on which they begin; empty lines are left out."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = content[: wrong.start].count(b"\n") + 1
        raise Unreadable(line, "row", "must be UTF-8 text") from None
    if "\0" in text:
        raise Unreadable(text[: text.index("\0")].count("\n") + 1, "row", "must not contain the character U+0000")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begin = 1
    try:
        for values in reader:
            if values:
                yield begin, values
            begin = reader.line_num + 1
    except csv.Error:
        raise Unreadable(
            begin, "row", "must be CSV as RFC 4180 has it: a quote stands alone or is doubled inside quotes"
        ) from None


def _check_header(names: Sequence[str], ours: bool) -> bool:
    """Whether rows are named by reference."""
    if ours:
        return False
    for name in names:
        if name not in COLUMNS or names.count(name) > 1:
            raise Unreadable(1, "header", f"must name each of {', '.join(COLUMNS)} at most once, and nothing else")
    for name in ("points", "amount"):
        if name not in names:
            raise Unreadable(1, "header", f"must have the column {name}")
    if ("operation" in names) == ("reference" in names):
        raise Unreadable(1, "header", "must have one of the columns operation and reference")
    return "reference" in names


def _row(number: int, row: Mapping[str, str], ours: bool, by_reference: bool) -> tuple[Key, Sum]:
    operation, reference = "", ""
    if by_reference:
        reference = row["reference"].strip()
        if not REFERENCE.fullmatch(reference):
            raise Unreadable(number, "reference", "must be 1 to 100 of the characters A-Z a-z 0-9 . _ : / # -")
    else:
        try:
            operation = str(uuid.UUID(row["operation"].strip().removeprefix("operations/")))
        except ValueError:
            raise Unreadable(number, "operation", "must be the id of an operation, a UUID") from None
    points = row["points"].strip()
    if not POINTS.fullmatch(points):
        raise Unreadable(number, "points", "must be whole points of at most 15 digits, with - before what was given back")
    program = row.get("program", "").strip().removeprefix("programs/")
    return Key(operation, reference, program), Sum(number, int(points), _amount(number, row, ours))


def _amount(number: int, row: Mapping[str, str], ours: bool) -> Fraction:
    text = f"{row['amount_numerator']}/{row['amount_denominator']}" if ours else row["amount"].strip()
    if not AMOUNT.fullmatch(text):
        column = "amount_numerator" if ours else "amount"
        raise Unreadable(number, column, "must be minor units: whole, decimal with a point (12.5) or a fraction (25/2)")
    return Fraction(text)


def _check_control(number: int, row: Mapping[str, str], totals: Totals) -> None:
    stated = {name: row[name] for name in ("items_count", "points", "amount_numerator", "amount_denominator")}
    counted = dict(zip(stated, (*totals[:2], totals.amount.numerator, totals.amount.denominator), strict=True))
    for name, value in stated.items():
        if value != str(counted[name]):
            raise Unreadable(number, name, f"must be the total of the rows before, which is {counted[name]}")
