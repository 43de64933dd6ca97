"""Reading the Berka tables: every malformed row is named with its line, field and rule, and only it is left out."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concord_local import berka_tables
from concord_local.berka_tables import Malformed
from concord_local.system import Trouble

REAL = Path(__file__).parents[4] / "shared/data/berka"
GOOD = {
    "district.asc": ["A1;A2;A3", '1;"Praha";"Prague"'],
    "client.asc": ['"client_id";"birth_number";"district_id"', '1;"706213";1', '2;"450204";1'],
    "account.asc": ['"account_id";"district_id";"frequency";"date"', '1;1;"POPLATEK MESICNE";930101'],
    "disp.asc": ['"disp_id";"client_id";"account_id";"type"', '1;1;1;"OWNER"', '2;2;1;"DISPONENT"'],
    "card.asc": ['"card_id";"disp_id";"type";"issued"', '1;1;"gold";931107 00:00:00'],
    "loan.asc": [
        '"loan_id";"account_id";"date";"amount";"duration";"payments";"status"',
        '1;1;930705;96396;12;8033.00;"B"',
    ],
    "order.asc": ['"order_id";"account_id";"bank_to";"account_to";"amount";"k_symbol"', '1;1;"YZ";"1";2452.00;"SIPO"'],
    "trans.asc": [
        '"trans_id";"account_id";"date";"type";"operation";"amount";"balance";"k_symbol";"bank";"account"',
        '1;1;930101;"PRIJEM";"VKLAD";700.00;700.00;"";;',
        '2;1;930102;"VYDAJ";"VYBER";10.5;689.50;"";;',
    ],
}


def written(folder: Path, **changed: list[str]) -> Path:
    """A directory with the good tables, some of them changed: `client=[…lines…]`."""
    for name, lines in GOOD.items():
        (folder / name).write_text("\r\n".join(changed.get(name.removesuffix(".asc"), lines)) + "\r\n")
    return folder


def problems(bank: berka_tables.Bank) -> list[str]:
    return [line for tally in bank.tallies.values() for line in tally.problems()]


def test_good_tables_go_in_whole(tmp_path: Path) -> None:
    bank = berka_tables.read(written(tmp_path))
    assert problems(bank) == []
    assert bank.records[0]["party"]["birthDate"] == "1970-12-13"
    assert bank.records[0]["party"]["sex"] == "SEX_FEMALE"
    assert [len(bank.holdings[f"{kind}.asc"]) for kind in ("account", "card", "loan", "order")] == [1, 1, 1, 1]
    assert [a["detail"]["transaction"]["amount"]["minorUnits"] for a in bank.activities] == ["70000", "-1050"]
    assert bank.holdings["loan.asc"][0]["closeDate"] == "1994-07-05"


@pytest.mark.parametrize(
    ("file", "row", "field"),
    [
        ("client", '3;"701313";1', "birth_number"),  # month 13
        ("client", '3;"70621";1', "birth_number"),
        ("client", '3;"700230";1', "birth_number"),  # the 30th of February
        ("client", '3;"706213";9', "district_id"),
        ("client", '1;"706213";1', "client_id"),  # twice
        ("client", 'x;"706213";1', "client_id"),
        ("client", '3;"706213"', "row"),
        ("account", '2;1;"WEEKLY";930101', "frequency"),
        ("account", '2;1;"POPLATEK MESICNE";19930101', "date"),
        ("account", '2;1;"POPLATEK MESICNE";930101', "account_id"),  # nobody owns it
        ("disp", '3;7;1;"DISPONENT"', "client_id"),
        ("disp", '3;2;1;"OWNER"', "type"),  # a second owner
        ("card", '2;9;"gold";931107 00:00:00', "disp_id"),
        ("card", '2;1;"platinum";931107 00:00:00', "type"),
        ("loan", '2;1;930705;-5;12;8033.00;"B"', "amount"),
        ("loan", '2;1;930705;5;12;8033.00;"E"', "status"),
        ("order", '2;1;"YZ";"1";12.345;"SIPO"', "amount"),
        ("order", '2;8;"YZ";"1";12.34;"SIPO"', "account_id"),
        ("trans", '3;1;930101;"GIFT";"VKLAD";1;1;"";;', "type"),
        ("trans", '3;1;931301;"PRIJEM";"VKLAD";1;1;"";;', "date"),
    ],
)
def test_a_malformed_row_is_named_and_left_out(tmp_path: Path, file: str, row: str, field: str) -> None:
    lines = [*GOOD[f"{file}.asc"], row]
    bank = berka_tables.read(written(tmp_path, **{file: lines}))
    assert len(problems(bank)) == 1
    assert problems(bank)[0].startswith(f"{file}.asc:{len(lines)}: {field}: ")
    clean = berka_tables.read(written(tmp_path))
    assert (bank.records, bank.holdings, bank.activities) == (clean.records, clean.holdings, clean.activities)


def test_a_missing_table_and_a_wrong_header_say_what_to_do(tmp_path: Path) -> None:
    written(tmp_path, client=['"id";"birth"'])
    with pytest.raises(Trouble, match="lacks the columns client_id, birth_number, district_id"):
        berka_tables.read(tmp_path)
    (tmp_path / "client.asc").unlink()
    with pytest.raises(Trouble, match=r"client\.asc is missing"):
        berka_tables.read(tmp_path)


@given(st.dates(date(1901, 1, 1), date(1999, 12, 31)), st.integers(-50, 50))
def test_years_move_days_and_keep_their_order(day: date, years: int) -> None:
    moved = berka_tables.moved_by_years(day, years)
    assert moved.year == day.year + years
    assert (moved.month, moved.day) == (day.month, day.day) or (day.month, day.day, moved.day) == (2, 29, 28)


@given(st.integers(0, 10**12))
def test_amounts_are_exact(hellers: int) -> None:
    assert berka_tables.minor_units(f"{hellers // 100}.{hellers % 100:02d}", "amount") == hellers


@pytest.mark.parametrize("text", ["", "-1", "1.234", "1,5", "1.", "1e3", "٣"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        berka_tables.minor_units(text, "amount")


@pytest.mark.skipif(not REAL.is_dir(), reason="the Berka data is not beside the project")
def test_the_real_tables_have_no_malformed_row() -> None:
    bank = berka_tables.read(REAL)
    assert problems(bank) == []
    assert {name: tally.read for name, tally in bank.tallies.items()} == {
        "district.asc": 77,
        "client.asc": 5369,
        "account.asc": 4500,
        "disp.asc": 5369,
        "card.asc": 892,
        "loan.asc": 682,
        "order.asc": 6471,
        "trnx_1993_shifted_to_2016.csv": 28205,
    }
    assert len(bank.records) == 5369
    assert len(bank.activities) == 28205
    assert {a["detail"]["occurredAt"][:4] for a in bank.activities} <= {"1992", "1993"}
