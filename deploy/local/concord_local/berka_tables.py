"""The tables of the Berka data set: read, checked row by row, and turned into what the gateway takes."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from concord_local.api import Outcomes
from concord_local.system import Trouble

BANK, SOURCE = "berka-bank", "core"
PRAGUE = ZoneInfo("Europe/Prague")
CENTURY = 1900
# The English file of 1993 has its dates 23 years late; here every table has the original dates, moved by --offset-years.
LATE_YEARS = 23
# When a client of whom nothing happened was seen: the data ends here.
LAST_DAY = date(1998, 12, 31)
WOMAN_MONTHS = 50

# Codes of the data, and ours.
FREQUENCIES = dict.fromkeys(("POPLATEK MESICNE", "POPLATEK TYDNE", "POPLATEK PO OBRATU"))
ROLES = {"OWNER": "HOLDER_ROLE_OWNER", "DISPONENT": "HOLDER_ROLE_AUTHORISED"}
CARDS = {code: code for code in ("classic", "junior", "gold")}
LOANS = {"A": ("FULFILLED", True), "B": ("DEFAULTED", True), "C": ("PERFORMING", False), "D": ("IN_ARREARS", False)}
ORDERS = {"SIPO": "household", "UVER": "loan-payment", "POJISTNE": "insurance", "LEASING": "leasing", "": ""}
SIGNS = {"PRIJEM": 1, "VYDAJ": -1, "VYBER": -1}
PURPOSES = {
    "SIPO": "household",
    "UVER": "loan-payment",
    "POJISTNE": "insurance",
    "DUCHOD": "pension",
    "UROK": "interest",
    "SLUZBY": "statement-fee",
    "SANKC. UROK": "sanction-interest",
    "": "",
}
OPERATIONS = {
    "VKLAD": "cash-deposit",
    "VYBER": "cash",
    "VYBER KARTOU": "card",
    "PREVOD Z UCTU": "transfer-in",
    "PREVOD NA UCET": "transfer-out",
    "": "",
}
ENGLISH_SIGNS = {"Credit": 1, "Withdrawal": -1}
ENGLISH_PURPOSES = {
    "Household": "household",
    "Loan Payment": "loan-payment",
    "Insurance Payment": "insurance",
    "Old-age Pension": "pension",
    "Interest Credited": "interest",
    "Payment on Statement": "statement-fee",
    "Sanction Interest": "sanction-interest",
    "": "",
}
ENGLISH_OPERATIONS = {
    "Credit in cash": "cash-deposit",
    "Withdrawal in cash": "cash",
    "Credit card withdrawal": "card",
    "Interest Credit": "interest",
    "Electronic funds transfer": "transfer-in",
    "Remittance to Another Bank": "transfer-out",
    "": "",
}
COUNTERPARTIES = {
    "interest": "INSTITUTION",
    "statement-fee": "INSTITUTION",
    "sanction-interest": "INSTITUTION",
    "cash": "SELF",
    "cash-deposit": "SELF",
}

Json = dict[str, Any]
Row = dict[str, str]


class Malformed(Exception):
    """A row that breaks a rule: the field, and the rule it breaks."""

    def __init__(self, field_name: str, rule: str) -> None:
        super().__init__(f"{field_name}: {rule}")
        self.field, self.rule = field_name, rule


@dataclass
class Tally:
    """What became of the rows of one file."""

    file: str
    read: int = 0
    outcomes: Outcomes = field(default_factory=Outcomes)
    malformed: list[tuple[int, str, str]] = field(default_factory=list)

    def refuse(self, line: int, error: Malformed) -> None:
        """Counts a malformed row."""
        self.malformed.append((line, error.field, error.rule))

    def problems(self) -> Iterator[str]:
        """A line for each row that did not go in."""
        for line, name, rule in self.malformed:
            yield f"{self.file}:{line}: {name}: {rule}"
        for key, error in self.outcomes.refused:
            yield f"{self.file}: item {key}: {error.get('field', '')}: {error.get('reason', '')}: {error.get('description', '')}"


@dataclass
class Bank:
    """The tables, read and turned into what the gateway takes."""

    offset_years: int
    tallies: dict[str, Tally] = field(default_factory=dict)
    records: list[Json] = field(default_factory=list)
    holdings: dict[str, list[Json]] = field(default_factory=dict)
    activities: list[Json] = field(default_factory=list)
    districts: dict[str, Row] = field(default_factory=dict)
    clients: set[str] = field(default_factory=set)
    opened: dict[str, date] = field(default_factory=dict)
    account_lines: dict[str, int] = field(default_factory=dict)
    holders: dict[str, list[Json]] = field(default_factory=dict)
    dispositions: dict[str, str] = field(default_factory=dict)
    seen: dict[str, date] = field(default_factory=dict)

    def see(self, holders: list[Json], day: date) -> None:
        """Keeps the last day on which something is known of each holder; the data itself does not say when it was taken."""
        for holder in holders:
            key = holder["sourceRecordKey"]
            self.seen[key] = max(day, self.seen.get(key, day))

    def instant(self, day: date) -> str:
        """Midnight in Prague of a day, moved by the offset."""
        moved = moved_by_years(day, self.offset_years)
        return datetime(moved.year, moved.month, moved.day, tzinfo=PRAGUE).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def day(self, day: date) -> str:
        """A day, moved by the offset."""
        return moved_by_years(day, self.offset_years).isoformat()


def moved_by_years(day: date, years: int) -> date:
    """The same day of another year; the 29th of February becomes the 28th where there is none."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return day.replace(year=day.year + years, day=28)


def read(directory: Path, offset_years: int = 0) -> Bank:
    """Reads all tables of a directory. Raises Trouble when a table is missing or is no table at all."""
    bank = Bank(offset_years)
    _table(bank, directory, "district.asc", ("A1", "A2", "A3"), _district)
    _table(bank, directory, "client.asc", ("client_id", "birth_number", "district_id"), _client)
    _table(bank, directory, "account.asc", ("account_id", "district_id", "frequency", "date"), _account)
    _table(bank, directory, "disp.asc", ("disp_id", "client_id", "account_id", "type"), _disposition)
    _accounts_become_holdings(bank)
    _table(bank, directory, "card.asc", ("card_id", "disp_id", "type", "issued"), _card)
    _table(bank, directory, "loan.asc", ("loan_id", "account_id", "date", "amount", "duration", "payments", "status"), _loan)
    _table(bank, directory, "order.asc", ("order_id", "account_id", "bank_to", "account_to", "amount", "k_symbol"), _order)
    if (directory / "trans.asc").exists():
        fields = ("trans_id", "account_id", "date", "type", "operation", "amount", "balance", "k_symbol", "bank", "account")
        _table(bank, directory, "trans.asc", fields, _transaction)
    elif (directory / "trnx_1993_shifted_to_2016.csv").exists():
        columns = ("trans_id", "account_id", "Date", "Type", "operation", "amount", "balance", "Purpose")
        _table(bank, directory, "trnx_1993_shifted_to_2016.csv", columns, _english_transaction)
    for record in bank.records:
        record["observeTime"] = bank.instant(bank.seen.get(record["sourceRecordKey"], LAST_DAY))
    return bank


def _table(bank: Bank, directory: Path, name: str, fields: tuple[str, ...], take: Callable[[Bank, Row, int], None]) -> None:
    tally = bank.tallies[name] = Tally(name)
    try:
        file = (directory / name).open(encoding="utf-8", errors="replace", newline="")
    except FileNotFoundError:
        raise Trouble(f"{name} is missing in {directory}: see `concord load berka --help` for the files it needs") from None
    seen: set[str] = set()
    with file:
        reader = csv.reader(file, delimiter="," if name.endswith(".csv") else ";")
        header = next(reader, [])
        if missing := [column for column in fields if column not in header]:
            raise Trouble(f"{directory / name}: the first line lacks the columns {', '.join(missing)}")
        for cells in reader:
            if not cells:
                continue
            tally.read += 1
            try:
                if len(cells) != len(header):
                    raise Malformed("row", f"has {len(cells)} columns, must have {len(header)}")
                row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
                if row[header[0]] in seen:
                    raise Malformed(header[0], "must be unique; an earlier line has it")
                take(bank, row, reader.line_num)
                seen.add(row[header[0]])
            except Malformed as error:
                tally.refuse(reader.line_num, error)


def _digits(text: str) -> bool:
    """Whether a text is ASCII digits; Python's own test admits those of every script."""
    return text.isascii() and text.isdecimal()


def number(row: Row, name: str) -> str:
    """An id: digits, without leading zeros."""
    if not _digits(row[name]):
        raise Malformed(name, "must be a whole number")
    return str(int(row[name]))


def compact_day(text: str, name: str) -> date:
    """A day written YYMMDD, of the twentieth century."""
    if len(text) != 6 or not _digits(text):
        raise Malformed(name, "must be a date written YYMMDD, such as 930101")
    try:
        return date(CENTURY + int(text[:2]), int(text[2:4]), int(text[4:]))
    except ValueError:
        raise Malformed(name, "must be a day that exists, written YYMMDD") from None


def minor_units(text: str, name: str) -> int:
    """An amount of crowns with at most two decimals, as hellers; exact, so no float."""
    whole, point, decimals = text.partition(".")
    if not (_digits(whole) and (_digits(decimals) if point else True) and len(decimals) <= 2):
        raise Malformed(name, "must be an amount with at most two decimals, such as 2452.00")
    return int(whole) * 100 + int((decimals + "00")[:2])


def birth(text: str) -> tuple[date, str]:
    """Birth date and sex in a Czech birth number YYMMDD; a woman's month has 50 added."""
    if len(text) != 6 or not _digits(text):
        raise Malformed("birth_number", "must be six digits YYMMDD, a woman's month with 50 added")
    month = int(text[2:4])
    woman = month > WOMAN_MONTHS
    return compact_day(f"{text[:2]}{month - WOMAN_MONTHS if woman else month:02d}{text[4:]}", "birth_number"), (
        "SEX_FEMALE" if woman else "SEX_MALE"
    )


def _known(row: Row, name: str, there: Any, what: str) -> str:
    key = number(row, name)
    if key not in there:
        raise Malformed(name, f"must be {what} that went in")
    return key


def _choice(row: Row, name: str, codes: dict[str, Any]) -> Any:
    if row[name] not in codes:
        raise Malformed(name, f"must be one of {', '.join(repr(code) for code in codes)}")
    return codes[row[name]]


# ---- turning rows into what the gateway takes


def _district(bank: Bank, row: Row, _line: int) -> None:
    bank.districts[number(row, "A1")] = row


def _client(bank: Bank, row: Row, _line: int) -> None:
    client = number(row, "client_id")
    born, sex = birth(row["birth_number"])
    district = bank.districts[_known(row, "district_id", bank.districts, "a district")]
    party = {
        "partyKind": "PARTY_KIND_PERSON",
        "birthDate": bank.day(born),
        "sex": sex,
        "languageCode": "cs-CZ",
        "timeZone": PRAGUE.key,
        "postalAddress": {"locality": district["A2"], "administrativeArea": district["A3"], "countryCode": "CZ"},
    }
    bank.clients.add(client)
    bank.records.append({"sourceRecordKey": f"client-{client}", "party": party})


def _account(bank: Bank, row: Row, line: int) -> None:
    account = number(row, "account_id")
    _known(row, "district_id", bank.districts, "a district")
    _choice(row, "frequency", FREQUENCIES)
    bank.opened[account] = compact_day(row["date"], "date")
    bank.account_lines[account] = line


def _disposition(bank: Bank, row: Row, _line: int) -> None:
    client, account = _known(row, "client_id", bank.clients, "a client"), _known(row, "account_id", bank.opened, "an account")
    role = _choice(row, "type", ROLES)
    holders = bank.holders.setdefault(account, [])
    if role == "HOLDER_ROLE_OWNER" and any(holder["role"] == role for holder in holders):
        raise Malformed("type", "must not be a second OWNER of one account")
    holders.append({"sourceRecordKey": f"client-{client}", "role": role})
    bank.dispositions[number(row, "disp_id")] = client


def _accounts_become_holdings(bank: Bank) -> None:
    """An account is a holding once its holders are known; one without an owner is named and left out."""
    for account, opened in bank.opened.items():
        if _owner(bank, account) is None:
            bank.tallies["account.asc"].refuse(
                bank.account_lines[account], Malformed("account_id", "must have an OWNER in disp.asc")
            )
        else:
            _hold(bank, "account.asc", f"account-{account}", "DEPOSIT", opened, bank.holders[account])
    bank.opened = {account: day for account, day in bank.opened.items() if _owner(bank, account)}


def _owner(bank: Bank, account: str) -> Json | None:
    return next((holder for holder in bank.holders.get(account, ()) if holder["role"] == "HOLDER_ROLE_OWNER"), None)


def _hold(bank: Bank, file: str, key: str, kind: str, opened: date, holders: list[Json], **more: Any) -> None:
    bank.see(holders, opened)
    bank.holdings.setdefault(file, []).append(
        {
            "sourceHoldingKey": key,
            "observeTime": bank.instant(opened),
            "kind": f"HOLDING_KIND_{kind}",
            "openDate": bank.day(opened),
            "holders": holders,
            **more,
        }
    )


def _card(bank: Bank, row: Row, _line: int) -> None:
    client = bank.dispositions[_known(row, "disp_id", bank.dispositions, "a disposition")]
    product = _choice(row, "type", CARDS)
    holder = {"sourceRecordKey": f"client-{client}", "role": "HOLDER_ROLE_OWNER"}
    issued = compact_day(row["issued"].partition(" ")[0], "issued")
    _hold(bank, "card.asc", f"card-{number(row, 'card_id')}", "CARD", issued, [holder], productCode=product)


def _loan(bank: Bank, row: Row, _line: int) -> None:
    account, granted = _known(row, "account_id", bank.opened, "an account with an owner"), compact_day(row["date"], "date")
    standing, ended = _choice(row, "status", LOANS)
    months = int(number(row, "duration"))
    more: Json = {"amount": _money(minor_units(row["amount"], "amount")), "standing": f"HOLDING_STANDING_{standing}"}
    if ended:
        year, month = divmod(granted.year * 12 + granted.month - 1 + months, 12)
        more["closeDate"] = bank.day(date(year, month + 1, min(granted.day, 28)))
    _hold(bank, "loan.asc", f"loan-{number(row, 'loan_id')}", "LOAN", granted, [_owner(bank, account) or {}], **more)


def _order(bank: Bank, row: Row, _line: int) -> None:
    account = _known(row, "account_id", bank.opened, "an account with an owner")
    more = {"amount": _money(minor_units(row["amount"], "amount")), "productCode": _choice(row, "k_symbol", ORDERS)}
    # Orders have no date: they are as old as the account they are on.
    _hold(bank, "order.asc", f"order-{number(row, 'order_id')}", "STANDING_ORDER", bank.opened[account], [_owner(bank, account) or {}], **more)  # fmt: skip # noqa: E501


def _transaction(bank: Bank, row: Row, _line: int) -> None:
    category = _choice(row, "k_symbol", PURPOSES) or _choice(row, "operation", OPERATIONS)
    _move(bank, row, compact_day(row["date"], "date"), _choice(row, "type", SIGNS), category)


def _english_transaction(bank: Bank, row: Row, _line: int) -> None:
    category = _choice(row, "Purpose", ENGLISH_PURPOSES) or _choice(row, "operation", ENGLISH_OPERATIONS)
    try:
        day = moved_by_years(date.fromisoformat(row["Date"]), -LATE_YEARS)
    except ValueError:
        raise Malformed("Date", "must be a day that exists, written YYYY-MM-DD") from None
    _move(bank, row, day, _choice(row, "Type", ENGLISH_SIGNS), category)


def _move(bank: Bank, row: Row, day: date, sign: int, category: str) -> None:
    account = _known(row, "account_id", bank.opened, "an account with an owner")
    owner = _owner(bank, account) or {}
    bank.see([owner], day)
    transaction = {
        "amount": _money(sign * minor_units(row["amount"], "amount")),
        "category": category or "other",
        "counterpartyKind": f"COUNTERPARTY_KIND_{COUNTERPARTIES.get(category, 'UNSPECIFIED')}",
    }
    bank.activities.append(
        {
            "sourceSystem": f"institutions/{BANK}/sourceSystems/{SOURCE}",
            "sourceActivityKey": f"trans-{number(row, 'trans_id')}",
            "sourceRecordKey": owner["sourceRecordKey"],
            "sourceHoldingKey": f"account-{account}",
            "detail": {"occurredAt": bank.instant(day), "transaction": transaction},
        }
    )


def _money(hellers: int) -> Json:
    return {"currencyCode": "CZK", "minorUnits": str(hellers)}
