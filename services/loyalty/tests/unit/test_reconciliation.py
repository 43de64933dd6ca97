"""Files of institutions: what agrees, what is missing on either side, and what is wrong with a file, by line and column."""

from datetime import UTC, datetime
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty.domain import settlement_file
from loyalty.domain.reconciliation import Result, Unreadable, compare, ours_by_key, parse
from loyalty.domain.settlement import Group as ItemGroup
from loyalty.domain.settlement import Terms, lines_of, pairs_of, positions_of
from loyalty.domain.settlement_file import Item, Totals

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def item(number: int, points: int, program: str = "p", numerator: int = 1, denominator: int = 3) -> Item:
    terms = Terms("bank", "shop", UUID(int=1), 1, program, numerator, denominator, 0)
    return Item(terms, UUID(int=number), number, 0, points, NOON, None, number)


def operation(number: int) -> str:
    return str(UUID(int=number))


def results(text: str, *items: Item, references=None):
    parsed = parse(text.encode())
    return [(row.result, row.line_number) for row in compare(parsed, ours_by_key(items, parsed, references or {}))]


def test_the_simple_file():
    text = (
        "operation,program,points,amount\r\n"
        f"{operation(1)},p,30,10\r\n{operation(2)},p,30,10.0\r\n{operation(3)},p,31,31/3\r\n{operation(9)},p,1,1/3\r\n"
    )
    assert results(text, item(1, 30), item(2, 31), item(3, 31), item(4, 5)) == [
        (Result.MATCHED, 2), (Result.DIFFERENT, 3), (Result.MATCHED, 4), (Result.MISSING_HERE, 5), (Result.MISSING_THERE, 0),
    ]  # fmt: skip


def test_programmes_count_together_where_the_file_has_none_and_rows_of_one_key_do():
    text = f"amount,operation,points\n5,operations/{operation(1)},15\n5,{operation(1)},15\n"
    assert results(text, item(1, 10), item(1, 20, "q")) == [(Result.MATCHED, 2)]


def test_references_are_the_institutions_own():
    assert results("reference,points,amount\nA-1,3,1\nB,3,1\n", item(1, 3), item(2, 3), references={1: "A-1"}) == [
        (Result.MATCHED, 2), (Result.MISSING_HERE, 3), (Result.MISSING_THERE, 0),
    ]  # fmt: skip


def our_file(items: list[Item]) -> str:
    lines = lines_of([ItemGroup(one.terms, 1, one.points) for one in items])
    pairs = pairs_of(lines)
    rows = list(settlement_file.item_rows(items, "EUR"))
    position = positions_of(pairs).get("bank", 0)
    rows += settlement_file.summary_rows(lines, pairs, position, Totals().plus(items), "bank", "EUR", 9, b"\1")
    return settlement_file.header() + settlement_file.text_of(rows)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(-99, 99), st.sampled_from("pq")), max_size=12))
def test_our_own_file_matches_itself(drawn):
    items = [item(*one) for one in drawn]
    text = our_file(items)
    assert {result for result, _ in results(text, *items)} <= {Result.MATCHED}
    parsed = parse(text.encode())
    assert parsed.totals == Totals().plus(items)
    assert all(len(line.split(",")) == len(settlement_file.HEADER) for line in text.split("\r\n")[:-1])


def test_lines_and_residues_of_the_file_sum_to_its_pairs():
    text = our_file([item(1, 100), item(2, 1, numerator=1, denominator=7)])
    rows = [dict(zip(settlement_file.HEADER, line.split(","), strict=True)) for line in text.split("\r\n")[1:-1]]

    def total(*records: str) -> Fraction:
        chosen = [row for row in rows if row["record"] in records]
        return sum((Fraction(int(row["amount_numerator"]), int(row["amount_denominator"])) for row in chosen), Fraction(0))

    [pair] = [row for row in rows if row["record"] == "PAIR"]
    assert total("ITEM") == total("PRINCIPAL") == total("CONTROL") == Fraction(100, 3) + Fraction(1, 7)
    assert total("PRINCIPAL", "RESIDUE") == int(pair["minor_units"]) == 33


@pytest.mark.parametrize(
    ("content", "line", "column"),
    [
        (b"", 1, "header"),
        (b"operation,points\n", 1, "header"),
        (b"operation,reference,points,amount\n", 1, "header"),
        (b"points,amount\n", 1, "header"),
        (b"operation,points,amount,name\n", 1, "header"),
        (b"operation,points,points,amount\n", 1, "header"),
        (b"reference,points,amount\nA,1,1\n\nB,x,1\n", 4, "points"),
        (b"reference,points,amount\nA,1.5,1\n", 2, "points"),
        (b"reference,points,amount\nA,1,1e5\n", 2, "amount"),
        (b"reference,points,amount\nA,1,1/0\n", 2, "amount"),
        (b"reference,points,amount\nA,1," + b"9" * 31 + b"\n", 2, "amount"),
        (b"reference,points,amount\nMary Smith,1,1\n", 2, "reference"),
        (b"reference,points,amount\n=1+1,1,1\n", 2, "reference"),
        (b"operation,points,amount\nx,1,1\n", 2, "operation"),
        (b"reference,points,amount\nA,1\n", 2, "row"),
        (b'reference,points,amount\n"A"x,1,1\n', 2, "row"),
        (b'reference,points,amount\nA,1,1\n"A,1,1\n', 3, "row"),
        (b"reference,points,amount\nA,1,1\n\xff,1,1\n", 3, "row"),
        (b"reference,points,amount\nA,1,\0\n", 2, "row"),
    ],
)
def test_a_bad_file_is_refused_by_line_and_column(content, line, column):
    with pytest.raises(Unreadable) as refused:
        parse(content)
    assert (refused.value.line_number, refused.value.column) == (line, column)


def test_a_file_of_ours_whose_totals_are_wrong_is_refused():
    text = our_file([item(1, 30), item(2, 30)])
    with pytest.raises(Unreadable) as refused:
        parse("\r\n".join(line for line in text.split("\r\n") if operation(2) not in line).encode())
    assert refused.value.column == "items_count"


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused_by_line(content):
    try:
        parsed = parse(b"reference,points,amount\n" + content)
    except Unreadable as refused:
        line = refused.line_number
    else:
        line = 1 + len(parsed.rows)
    assert 1 <= line <= content.count(b"\n") + content.count(b"\r") + 3
