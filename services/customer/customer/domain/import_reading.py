"""Reads the rows of a bulk import: bytes of a CSV or JSON line, or values of Parquet, to texts by field."""

import csv
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from customer.domain.import_rows import IGNORED, Unreadable, plain, resolve
from customer.domain.imports import CODECS, Format
from customer.domain.intake import Rejected
from customer.domain.row_splitter import ROW_BYTES_MAX, Row

HEADS_CACHED_MAX = 100
_REPLACED = "\ufffd"
_REASONS = {
    "ROW_TOO_LARGE": f"a row may have {ROW_BYTES_MAX} bytes",
    "QUOTE_NOT_CLOSED": 'a field that begins with " must end with one; a " within it is written twice',
}
_MAGIC = {
    b"PAR1": "Parquet: create the import with that format",
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
    b"PK\x03\x04": "a spreadsheet or archive: export it as CSV in UTF-8",
    b"\x1f\x8b": "compressed: decompress it before",
    b"\x28\xb5\x2f\xfd": "compressed: decompress it before",
}

csv.field_size_limit(ROW_BYTES_MAX + 1)


@dataclass(frozen=True)
class RowReader:
    """Reads the rows of one file.

    Args:
        fields: of the columns, in order; for JSON Lines empty, because each line names its own.
        mapped: column to field, as the caller says; for JSON Lines.
    """

    format: int
    codec: str
    delimiter: str
    fields: tuple[str, ...]
    mapped: Mapping[str, str]
    _heads: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict, repr=False)

    def texts(self, row: Row | Sequence[Any]) -> dict[str, str]:
        """What the row says, by field; empty texts are left out.

        Raises:
            Rejected: naming the field, or `row`.
        """
        if not isinstance(row, Row):
            return _plain_texts(self.fields, [_text(value) for value in row])
        if row.reason:
            raise Rejected("row", row.reason, _REASONS[row.reason])
        if self.format == Format.JSON_LINES:
            return self._json_texts(row.content)
        return self._csv_texts(row.content)

    def _csv_texts(self, content: bytes) -> dict[str, str]:
        try:
            text = content.decode(self.codec)
            values = _fields(text, self.delimiter)
        except UnicodeDecodeError:
            values = _fields(content.decode(self.codec, "replace"), self.delimiter)
            broken = next((name for name, value in zip(self.fields, values, strict=False) if _REPLACED in value), "row")
            raise _encoding_wrong(broken, self.codec) from None
        if len(values) != len(self.fields):
            raise Rejected("row", "FIELDS_COUNT_WRONG", f"has {len(values)} fields, and the header has {len(self.fields)}")
        if _is_plain(text, self.delimiter):
            return {name: value for name, value in zip(self.fields, values, strict=True) if value and name != IGNORED}
        return _plain_texts(self.fields, values)

    def _json_texts(self, content: bytes) -> dict[str, str]:
        try:
            pairs = json.loads(content.decode(self.codec), object_pairs_hook=list, parse_constant=_no_constant)
        except UnicodeDecodeError:
            raise _encoding_wrong("row", self.codec) from None
        except (ValueError, RecursionError):
            raise Rejected(
                "row", "JSON_INVALID", 'must be one JSON object a line, such as {"source_record_key": "C-1"}'
            ) from None
        if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
            raise Rejected("row", "JSON_INVALID", "must be a JSON object")
        columns = tuple(column for column, _ in pairs)
        if columns not in self._heads:
            try:
                found = resolve(columns, {column: name for column, name in self.mapped.items() if column in columns})
            except Unreadable as wrong:
                raise Rejected(wrong.field, wrong.reason, wrong.description) from None
            if len(self._heads) >= HEADS_CACHED_MAX:
                self._heads.clear()
            self._heads[columns] = found
        fields = self._heads[columns]
        return _plain_texts(fields, [_json_text(name, value) for name, (_, value) in zip(fields, pairs, strict=True)])


def check_beginning(content: bytes, codec: str) -> None:
    """Refuses a text file whose first bytes say that it is something else.

    Raises:
        Unreadable: ENCODING_WRONG, FORMAT_WRONG.
    """
    for magic, what in _MAGIC.items():
        if content.startswith(magic) and not (codec != "utf-8" and what.startswith("UTF-16")):
            reason = "ENCODING_WRONG" if what.startswith("UTF-16") else "FORMAT_WRONG"
            raise Unreadable("file", reason, f"the file is {what}")
    if b"\0" in content[:4096]:
        raise Unreadable("file", "ENCODING_WRONG", "the file is no text: it must be UTF-8, or GB 18030 where the import says so")


def header(row: Row | None, encoding: int, delimiter: str, mapped: Mapping[str, str]) -> tuple[str, ...]:
    """The fields of a CSV file's columns, from its first row.

    Raises:
        Unreadable: no header, or one that cannot be used.
    """
    if row is None:
        raise Unreadable("file", "FILE_EMPTY", "the file is empty: it must begin with a header row that names the columns")
    codec = CODECS[encoding]
    if row.reason:
        raise Unreadable("header", row.reason, _REASONS[row.reason])
    try:
        text = row.content.decode(codec)
        if "\r" in text:
            raise Unreadable("header", "LINE_ENDS_WRONG", "lines must end with LF, or CR LF")
        return resolve(_fields(text, delimiter), mapped)
    except UnicodeDecodeError:
        raise Unreadable("header", "ENCODING_WRONG", _encoding_wrong("header", codec).description) from None
    except Rejected as rejected:
        raise Unreadable("header", rejected.reason, rejected.description) from None


def _fields(text: str, delimiter: str) -> list[str]:
    if '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        raise Rejected(
            "row", "CSV_INVALID", 'a field with a quote must stand in quotes, and a " within it be written twice'
        ) from None


def _is_plain(text: str, delimiter: str) -> bool:
    """Whether every value of a row is as `plain` would leave it. Most rows are, and to ask for all at once is cheap."""
    return (
        text.isprintable()  # nothing but the space is white then
        and "  " not in text
        and f"{delimiter} " not in text
        and f" {delimiter}" not in text
        and '"' not in text
        and text.strip() == text
        and unicodedata.is_normalized("NFC", text)
    )


def _plain_texts(fields: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    return {
        name: text
        for name, value in zip(fields, values, strict=True)
        if value and name != IGNORED and (text := plain(name, value))
    }


def _encoding_wrong(name: str, codec: str) -> Rejected:
    what = "UTF-8" if codec == "utf-8" else "GB 18030"
    return Rejected(name, "ENCODING_WRONG", f"must be {what}; the import's encoding may be UTF-8 or GB 18030")


def _no_constant(_: str) -> None:
    raise ValueError


def _json_text(name: str, value: Any) -> str:
    if isinstance(value, list | dict):
        raise Rejected(name, "VALUE_NOT_FLAT", "must be a text, a number or null")
    return _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date | datetime) else str(value)
