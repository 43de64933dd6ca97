"""The columns of a bulk import: which fields there are, which column is which, and what a text in one may be."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from difflib import get_close_matches

from customer.domain.intake import Rejected

IGNORED = "ignore"
"""The field of a column that is not read."""
COLUMNS_MAX = 200
KEY_CHARACTERS_MAX = 128


@dataclass(frozen=True, slots=True)
class Field:
    """What a column may hold."""

    name: str
    description: str
    example: str


FIELDS = (
    Field("source_record_key", "the source's own key of the record, 1 to 128 characters; required", "C-000042"),
    Field("observe_time", "when the source last saw or changed it: ISO 8601, UTC without an offset", "2026-10-31T09:30:00+08:00"),
    Field("party_kind", "person or organisation; empty: person", "person"),
    Field("full_name", "the whole name as written, in any script", "欧阳明"),
    Field("given_name", "given name, where kept apart", "明"),
    Field("family_name", "family name, where kept apart", "欧阳"),
    Field("latin_name", "the name in Latin letters", "Ouyang Ming"),
    Field("alias", "another spelling", "Auyeung Ming"),
    Field("birth_date", "ISO 8601 date", "1984-02-29"),
    Field("sex", "female, male or other; f, m, 女, 男", "female"),
    Field("national_id", "national number of a person", "11010519491231002X"),
    Field("national_id_country", "its country, two letters; empty: the import's default", "CN"),
    Field("passport", "passport number", "E12345678"),
    Field("passport_country", "its country", "CN"),
    Field("permit", "residence or travel permit", "810000199408230021"),
    Field("permit_country", "its country", "CN"),
    Field("driving_licence", "driving licence number", "SMITH801151J99XX"),
    Field("driving_licence_country", "its country", "GB"),
    Field("registration", "registration of an organisation: unified social credit code, company number", "91110000600037341L"),
    Field("registration_country", "its country", "CN"),
    Field("lei", "legal entity identifier, ISO 17442", "5493001KJTIIGC8Y1R12"),
    Field("tax_number", "tax number", "123456789"),
    Field("tax_number_country", "its country", "DE"),
    Field("phone", "telephone number; without a prefix, one of phone_country or the default country", "+86 138 1234 5678"),
    Field("phone_country", "country of numbers without a prefix", "CN"),
    Field("phone_2", "a second telephone number", "010-6552-9988"),
    Field("phone_3", "a third one", "+44 20 7946 0958"),
    Field("email", "e-mail address", "ming@example.org"),
    Field("email_2", "a second one", "ouyang@example.com"),
    Field("address_line_1", "street, house number, building", "东城区长安街1号"),
    Field("address_line_2", "second line", "3号楼"),
    Field("address_line_3", "third line", "501室"),
    Field("locality", "town or district", "东城区"),
    Field("administrative_area", "state, province or region", "北京市"),
    Field("postal_code", "postal code", "100006"),
    Field("country_code", "country of the address, ISO 3166-1 alpha-2", "CN"),
    Field("language", "BCP 47 language tag", "zh-CN"),
    Field("time_zone", "IANA time zone", "Asia/Shanghai"),
    Field("occupation", "occupation, in the source's words", "teacher"),
    Field("employer_name", "name of the employer", "Harbour School"),
    Field("job_title", "job title", "head teacher"),
    Field("occupation_code", "ISCO-08 code", "2341"),
    Field("industry_code", "ISIC Rev. 4 code", "8510"),
    Field("employment_status", "a code of the table employment_status", "EMPLOYED"),
    Field("marital_status", "a code of the table marital_status", "MARRIED"),
    Field("education_level", "a code of the table education_level", "6"),
    Field("nationality", "country, ISO 3166-1 alpha-2", "CN"),
    Field("dependants_count", "persons who depend on this one, 0 to 50", "2"),
    Field("role", "role at the institution: prospect, customer, guarantor, former_customer …", "customer"),
    Field("role_begin_date", "ISO 8601 date from which", "2019-05-01"),
)  # fmt: skip
NAMES = tuple(field.name for field in FIELDS)
_KNOWN = frozenset(NAMES)
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SEPARATORS = re.compile(r"[\s\-.]+")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
_DATE = re.compile(r"(\d{4})([-/.]?)(\d{2})\2(\d{2})")
_SEXES = {"f": 1, "female": 1, "女": 1, "m": 2, "male": 2, "男": 2, "other": 3, "o": 3, "x": 3}
_KINDS = {"": 1, "person": 1, "individual": 1, "organisation": 2, "organization": 2, "company": 2}


class Unreadable(Exception):
    """The file as a whole cannot be read.

    Args:
        field: what is wrong: a column, `header`, `parts`.
        reason: UPPER_SNAKE.
        description: what would be right; holds no value of a row.
    """

    def __init__(self, field: str, reason: str, description: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason
        self.description = description


def field_name(column: str) -> str:
    """A column's name as fields are written: `Source-Record Key` and `sourceRecordKey` are `source_record_key`."""
    return _SEPARATORS.sub("_", _WORD_STARTS.sub("_", column.strip())).casefold()


def mapping(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Which field a column fills, as the caller says.

    Raises:
        Unreadable: FIELD_UNKNOWN, COLUMN_DUPLICATE.
    """
    mapped: dict[str, str] = {}
    for column, field in pairs:
        name = field_name(field)
        if name not in _KNOWN and name != IGNORED:
            raise Unreadable(field, "FIELD_UNKNOWN", f"is no field{_nearest(name)}; the fields are {', '.join(NAMES)}, {IGNORED}")
        if column.strip() in mapped:
            raise Unreadable(column, "COLUMN_DUPLICATE", "this column is mapped twice")
        mapped[column.strip()] = name
    return mapped


def resolve(columns: Sequence[str], mapped: Mapping[str, str]) -> tuple[str, ...]:
    """The field of each column of a file, IGNORED for one that is not read.

    Raises:
        Unreadable: a column that is no field, two columns for one field, no key, or a mapped column that is not there.
    """
    if len(columns) > COLUMNS_MAX:
        raise Unreadable("header", "COLUMNS_TOO_MANY", f"a file may have {COLUMNS_MAX} columns")
    fields: dict[str, str] = {}
    found = []
    for column in columns:
        name = mapped.get(column.strip()) or field_name(column)
        if name not in _KNOWN and name != IGNORED:
            raise Unreadable(
                _shown(column), "COLUMN_UNKNOWN",
                f"is no field{_nearest(name)}: map it (column to field, or to {IGNORED}); the fields are {', '.join(NAMES)}",
            )  # fmt: skip
        if name in fields:
            description = f"fills {name}, as column {_shown(fields[name])} does: map one of them to {IGNORED}"
            raise Unreadable(_shown(column), "FIELD_DUPLICATE", description)
        if name != IGNORED:
            fields[name] = column
        found.append(name)
    absent = sorted(mapped.keys() - {column.strip() for column in columns})
    if absent:
        raise Unreadable(absent[0], "COLUMN_MISSING", f"is mapped, and the file has no such column{_nearest(absent[0], columns)}")
    if "source_record_key" not in fields:
        description = "no column holds source_record_key, the source's own key of a record: name or map one"
        raise Unreadable("source_record_key", "KEY_COLUMN_MISSING", description)
    return tuple(found)


def _shown(column: str) -> str:
    # A file without a header has a person in its first row: what does not look like a name is not repeated.
    return column.strip() if re.fullmatch(r"[^\W\d][\w\s\-.]{0,63}", column.strip()) else "(a column name)"


def _nearest(name: str, names: Sequence[str] = NAMES) -> str:
    nearest = get_close_matches(name, names, 1)
    return f" (nearest: {nearest[0].strip()})" if nearest else ""


# ---- what a text in a column may be; each raises Rejected


def plain(field: str, text: str) -> str:
    """A text in composed letters with single spaces, as the intake keeps it.

    Raises:
        Rejected: CONTROL_CHARACTER.
    """
    text = " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).split())
    if not text.isprintable() and _CONTROL.search(text):
        raise Rejected(field, "CONTROL_CHARACTER", "must have no control characters and no broken letters")
    return text


def key(text: str) -> str:
    """The source's own key.

    Raises:
        Rejected: KEY_MISSING, KEY_TOO_LONG.
    """
    if not text:
        raise Rejected("source_record_key", "KEY_MISSING", "must be 1 to 128 characters, the source's own key of the record")
    if len(text) > KEY_CHARACTERS_MAX:
        raise Rejected("source_record_key", "KEY_TOO_LONG", f"must be 1 to {KEY_CHARACTERS_MAX} characters")
    return text


def day(field: str, text: str) -> str:
    """A date as ISO 8601; `19840229` and `1984/02/29` are read too.

    Raises:
        Rejected: DATE_INVALID.
    """
    found = _DATE.fullmatch(text)
    if found is None:
        raise Rejected(field, "DATE_INVALID", "must be a date in ISO 8601, such as 1984-02-29")
    year, _, month, of_month = found.groups()
    return f"{year}-{month}-{of_month}"


def instant(field: str, text: str) -> datetime:
    """An instant; a date is its first moment, and what has no offset is UTC.

    Raises:
        Rejected: TIME_INVALID.
    """
    try:
        if _DATE.fullmatch(text):
            return datetime.combine(date.fromisoformat(day(field, text)), datetime.min.time(), UTC)
        read = datetime.fromisoformat(text.replace(" UTC", "+00:00"))
        return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Rejected(field, "TIME_INVALID", "must be ISO 8601, such as 2026-10-31T09:30:00+08:00") from None


def party_kind(text: str) -> int:
    """The number of a kind of parties.

    Raises:
        Rejected: PARTY_KIND_UNKNOWN.
    """
    kind = _KINDS.get(text.casefold().removeprefix("party_kind_"))
    if kind is None:
        raise Rejected("party_kind", "PARTY_KIND_UNKNOWN", "must be person or organisation")
    return kind


def sex(text: str) -> int:
    """The number of a sex.

    Raises:
        Rejected: SEX_UNKNOWN.
    """
    number = _SEXES.get(text.casefold().removeprefix("sex_"))
    if number is None:
        raise Rejected("sex", "SEX_UNKNOWN", "must be female, male or other")
    return number


def country(field: str, text: str) -> str:
    """A country's two letters.

    Raises:
        Rejected: COUNTRY_INVALID.
    """
    code = text.upper()
    if len(code) != 2 or not ("A" <= code[0] <= "Z" and "A" <= code[1] <= "Z"):
        raise Rejected(field, "COUNTRY_INVALID", "must be two letters of ISO 3166-1, such as CN")
    return code


def count(field: str, text: str) -> int:
    """A small number.

    Raises:
        Rejected: COUNT_INVALID.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Rejected(field, "COUNT_INVALID", "must be a whole number, such as 2")
    return int(text)
