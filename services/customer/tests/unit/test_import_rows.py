"""Rows of bulk imports: any bytes are cut, read and accounted for; columns are named; parts are read anywhere."""

import csv
import io
import json
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chassis import clock
from customer.domain import import_rows
from customer.domain.golden import Ranks
from customer.domain.import_reading import RowReader
from customer.domain.import_rows import FIELDS, IGNORED, Unreadable, mapping, resolve
from customer.domain.imports import Format
from customer.domain.intake import Rejected
from customer.domain.row_splitter import ROW_BYTES_MAX, Place, Row, RowSplitter
from customer.import_parquet import PartsFile
from customer.import_parties import Defaults, source_record
from customer.import_preparer import Chunk, Reading, Ready, Refused, prepare_rows
from customer.standards import canonical
from customer.store.institutions import SourceSystem

HEADER = ("source_record_key", "full_name", "birth_date", "national_id", "phone", "observe_time", "ignore")
SOURCE = SourceSystem(1, "institutions/bank/sourceSystems/core", "bank", "core", "CZ", Ranks(10, {}))
DEFAULTS = Defaults(1_700_000_000, "CZ")


def reading(format: Format, delimiter: str = ",", codec: str = "utf-8") -> Reading:  # noqa: A002
    fields = HEADER if format == Format.CSV else ()
    return Reading(RowReader(format, codec, delimiter, fields, {}), DEFAULTS, SOURCE, b"k" * 32)


def rows(content: bytes, delimiter: str | None = ",", cuts: Any = (), place: Place = Place()) -> list[Row]:  # noqa: B008
    ends = [0, *sorted(cuts), len(content)]
    pieces = [content[first:last] for first, last in pairwise(ends)]
    return list(RowSplitter(place, delimiter).rows(pieces))


# Letters that matter to CSV and to checks, and any bytes at all.
_WORDS = [b'"', b",", b"\n", b"\r\n", b"\r", b'""', b"c-1", b"1990-01-01", "王伟".encode(), b"\xff", b"\0", b"+420601123456"]
_WORDS += [b"7103192745", b"x" * 400, b" ", b"{", b"}", b":", b"[", b"1"]
TELLING = st.lists(st.sampled_from(_WORDS), max_size=40).map(b"".join)
ANY = st.one_of(TELLING, st.binary(max_size=300))


@settings(max_examples=400, deadline=None)
@given(content=ANY, cuts=st.lists(st.integers(0, 300), max_size=4), kind=st.sampled_from(Format), gb=st.booleans())
@example(content=b'"' * 5000, cuts=[], kind=Format.CSV, gb=False)
@example(content=b'c,"' + b"\n" * 5000, cuts=[10], kind=Format.CSV, gb=False)
@example(content=b"[" * 100_000, cuts=[], kind=Format.JSON_LINES, gb=False)
@example(content=b'{"source_record_key": ' + b"9" * 5_000 + b"}", cuts=[], kind=Format.JSON_LINES, gb=False)
@example(content=b'{"source_record_key": "\\ud800"}', cuts=[], kind=Format.JSON_LINES, gb=False)
def test_any_bytes_become_rows_that_are_all_accounted_for(content: bytes, cuts: list[int], kind: Format, gb: bool) -> None:
    kind = Format.JSON_LINES if kind is Format.PARQUET else kind
    delimiter = "," if kind is Format.CSV else None
    found = rows(content, delimiter)
    assert rows(content, delimiter, [min(cut, len(content)) for cut in cuts]) == found, "where parts are cut does not matter"
    prepared = prepare_rows(reading(kind, codec="gb18030" if gb else "utf-8"), Chunk(1, found), clock.now())
    assert [one.row_number for one in prepared] == list(range(1, len(found) + 1))
    assert [one.line_number for one in prepared] == [row.line_number for row in found]
    for one in prepared:
        if isinstance(one, Refused):
            assert one.field
            assert one.reason.isupper()
            assert one.description


@settings(max_examples=300, deadline=None)
@given(content=ANY, chance=st.randoms(use_true_random=False))
def test_reading_goes_on_at_any_row(content: bytes, chance: random.Random) -> None:
    splitter = RowSplitter(Place(), ",")
    found, places = [], []
    for row in splitter.rows([content]):
        found.append(row)
        places.append(splitter.place)
    assert splitter.place.offset_bytes == len(content)
    if found:
        at = chance.randrange(len(found))
        rest = rows(content[places[at].offset_bytes :], place=places[at])
        assert rest == found[at + 1 :]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12), min_size=2, max_size=4)))
def test_what_a_csv_writer_writes_is_read(table: list[list[str]]) -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(table)
    found = [next(csv.reader([row.content.decode()], strict=True)) for row in rows(written.getvalue().encode())]
    assert found == [row for row in table if any(row) or len(row) > 1]


def test_a_broken_quote_costs_its_own_line_and_a_giant_row_only_itself() -> None:
    lines = [b"a,b", b'1,"open', *[b"2,fine"] * 500, b"3," + b"x" * ROW_BYTES_MAX, b'4,"two', b'lines"', b'5,"x"y', b"6,last"]
    found = rows(b"\n".join(lines))
    assert [row.line_number for row in found if row.reason == "QUOTE_NOT_CLOSED"] == [2]
    assert [row.line_number for row in found if row.reason == "ROW_TOO_LARGE"] == [503]
    assert len(found) == len(lines) - 1, "one field has a line end"
    assert found[-1].content == b"6,last"


def test_every_field_can_be_filled_with_its_example() -> None:
    texts = {field.name: field.example for field in FIELDS}
    record = source_record(texts, DEFAULTS)
    party = record.party
    assert (len(party.identifiers), len(party.phones), len(party.emails)) == (7, 3, 2)
    assert party.postal_address.address_lines[:] == ["东城区长安街1号", "3号楼", "501室"]
    assert (party.demographics.dependants_count, party.roles[0].begin_date) == (2, "2019-05-01")
    assert record.observe_time.ToJsonString() == "2026-10-31T01:30:00Z"
    for field in FIELDS:
        alone = source_record({"source_record_key": "1", field.name: field.example}, DEFAULTS)
        needs_another = field.name.endswith("_country") or field.name in ("party_kind", "source_record_key", "role_begin_date")
        assert needs_another or alone != source_record({"source_record_key": "1"}, DEFAULTS), field.name


@pytest.mark.parametrize(
    ("texts", "field", "reason"),
    [
        ({"sex": "yes"}, "sex", "SEX_UNKNOWN"),
        ({"role": "boss"}, "role", "ROLE_UNKNOWN"),
        ({"party_kind": "dog"}, "party_kind", "PARTY_KIND_UNKNOWN"),
        ({"observe_time": "yesterday"}, "observe_time", "TIME_INVALID"),
        ({"observe_time": "0001-01-01T00:00:00+14:00"}, "observe_time", "TIME_INVALID"),
        ({"birth_date": "1984-2-9"}, "birth_date", "DATE_INVALID"),
        ({"dependants_count": "51"}, "dependants_count", "FIELD_INVALID"),
        ({"dependants_count": "many"}, "dependants_count", "COUNT_INVALID"),
        ({"phone_2": "1"}, "phone_2", "FIELD_INVALID"),
        ({"passport": "x" * 65}, "passport", "FIELD_INVALID"),
        ({"address_line_2": "x" * 201}, "address_line_2", "FIELD_INVALID"),
        ({"source_record_key": "x" * 129}, "source_record_key", "KEY_TOO_LONG"),
    ],
)
def test_what_a_text_must_not_be_is_named_by_its_column(texts: dict[str, str], field: str, reason: str) -> None:
    with pytest.raises(Rejected) as rejected:
        source_record({"source_record_key": "1"} | texts, DEFAULTS)
    assert (rejected.value.field, rejected.value.reason) == (field, reason)
    assert all(text not in rejected.value.description for text in texts.values() if len(text) > 3)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(import_rows.NAMES), st.text(max_size=30)))
def test_a_row_states_its_texts_as_the_intake_keeps_them(texts: dict[str, str]) -> None:
    try:
        plain = {name: text for name, value in texts.items() if (text := import_rows.plain(name, value))}
        party = source_record({"source_record_key": "1"} | plain, DEFAULTS).party
    except Rejected:
        return
    assert canonical(party) == party


def test_columns_are_known_by_many_writings_and_strangers_are_named() -> None:
    assert resolve(["Source-Record Key", "fullName", "BIRTH_DATE", "Postal Code"], {}) == (
        "source_record_key", "full_name", "birth_date", "postal_code",
    )  # fmt: skip
    assert resolve(["id", "memo"], mapping([("id", "sourceRecordKey"), ("memo", "ignore")])) == ("source_record_key", IGNORED)
    with pytest.raises(Unreadable) as wrong:
        resolve(["source_record_key", "e_mail"], {})
    assert (wrong.value.reason, "nearest: email" in wrong.value.description) == ("COLUMN_UNKNOWN", True)
    with pytest.raises(Unreadable) as wrong:
        resolve(["110105198402290025", "王伟@example.org"], {})
    assert "1101" not in wrong.value.field + wrong.value.description, "a file without header has a person in its first row"
    with pytest.raises(Unreadable) as wrong:
        resolve(["source_record_key"], {"colour": "ignore"})
    assert wrong.value.reason == "COLUMN_MISSING"
    assert len(set(import_rows.NAMES)) == len(FIELDS)


def test_a_prepared_row_is_the_same_as_one_that_came_by_call() -> None:
    line = json.dumps({"source_record_key": "c-1", "full_name": "Jan Novák", "national_id": "710319/2745"}).encode()
    [one] = prepare_rows(reading(Format.JSON_LINES), Chunk(7, [Row(3, line)]), clock.now())
    assert isinstance(one, Ready)
    assert (one.row_number, one.line_number, one.item.source.name) == (7, 3, SOURCE.name)
    assert one.item.blocking_keys
    assert one.item.lookup_keys


def test_a_file_in_parts_reads_like_a_whole() -> None:
    whole = bytes(range(256)) * 8
    sizes = [1, 700, 2, len(whole) - 703]
    parts = [whole[:1], whole[1:701], whole[701:703], whole[703:]]
    file = io.BufferedReader(PartsFile(sizes, lambda number: parts[number - 1]), 64)
    chance = random.Random(1)
    assert file.read() == whole
    for _ in range(200):
        place, count = chance.randrange(len(whole)), chance.randrange(900)
        file.seek(place)
        assert file.read(count) == whole[place : place + count]
    file.seek(-5, io.SEEK_END)
    assert file.read() == whole[-5:]
