"""Bulk imports through the service: parts, formats, bad files, rejected rows, resuming, cancelling."""

import asyncio
import csv
import io
import json
from dataclasses import dataclass
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chassis.testing import reason
from concord.customer.v1 import import_service_pb2 as pb
from concord.customer.v1.import_service_pb2_grpc import ImportServiceStub
from customer.store import imports as store

HEADER = "source_record_key,full_name,birth_date,national_id,national_id_country,phone,email,locality\n"
SECONDS_MAX = 30.0


@dataclass
class Imports:
    """Calls of the bank's application."""

    master: Any
    parent: str

    def stub(self, institution: str | None = "bank", **more: Any) -> Any:
        return ImportServiceStub(self.master.channel(institution, **more))

    async def create(self, **fields: Any) -> str:
        fields.setdefault("default_observe_time", self.master.at(0))
        wanted = pb.BulkImport(**{"format": "IMPORT_FORMAT_CSV"} | fields)
        request = pb.CreateImportRequest(parent=self.parent, bulk_import=wanted, request_id=self.master.request_id())
        return str((await self.stub().CreateImport(request)).name)

    async def upload(self, name: str, *parts: bytes, first: int = 1) -> int:
        count = 0
        for number, content in enumerate(parts, first):
            request = pb.UploadImportPartRequest(
                name=name, part_number=number, content=content, request_id=self.master.request_id()
            )
            count = (await self.stub().UploadImportPart(request)).contiguous_parts_count
        return count

    async def start(self, name: str, parts_count: int = 1) -> Any:
        request = pb.StartImportRequest(name=name, parts_count=parts_count, request_id=self.master.request_id())
        return await self.stub().StartImport(request)

    async def get(self, name: str) -> Any:
        return await self.stub().GetImport(pb.GetImportRequest(name=name))

    async def ended(self, name: str) -> Any:
        async with asyncio.timeout(SECONDS_MAX):
            while not (got := await self.get(name)).HasField("finish_time"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return got

    async def load(self, *parts: bytes | str, **fields: Any) -> Any:
        name = await self.create(**fields)
        await self.upload(name, *(part.encode() if isinstance(part, str) else part for part in parts))
        await self.start(name, len(parts))
        return await self.ended(name)

    async def rejections(self, name: str, **more: Any) -> list[dict[str, str]]:
        request = pb.DownloadImportRejectionsRequest(parent=name)
        return list(csv.DictReader(io.StringIO((await self.stub(**more).DownloadImportRejections(request)).csv)))


@pytest.fixture
def imports(master: Any) -> Imports:
    return Imports(master, master.core)


def counts(got: Any) -> tuple[int, ...]:
    """created, updated, unchanged, stale, rejected; they add up to the rows read."""
    each = (got.created_count, got.updated_count, got.unchanged_count, got.stale_count, got.rejected_count)
    assert sum(each) == got.rows_read_count
    return each


async def test_a_file_in_parts_becomes_customers(imports: Imports, master: Any) -> None:
    text = "\ufeff" + HEADER + 'c-1,欧阳明,1984-02-29,7103192745,CZ,+420 601 123 456,ming@example.org,"Praha, 1"\n'
    text += 'c-2,"Novák\nJan",1971-03-19,,,,,Brno\r\n\r\n'
    data = text.encode()
    name = await imports.create(display_name="clients.csv")
    assert (await imports.get(name)).state == pb.IMPORT_STATE_CREATED
    assert await imports.upload(name, data[40:90], data[90:], first=2) == 0
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await imports.start(name, 3)
    assert reason(refused.value) == "PARTS_MISSING"
    assert await imports.upload(name, data[:40]) == 3
    assert await imports.upload(name, data[:40]) == 3, "the same part may come again"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await imports.upload(name, b"other")
    assert reason(refused.value) == "PART_DIFFERS"
    await imports.start(name, 3)
    got = await imports.ended(name)
    assert (got.state, got.progress_percent, counts(got)) == (pb.IMPORT_STATE_SUCCEEDED, 100, (2, 0, 0, 0, 0))
    assert got.rows_per_second > 0
    stored = master.running.application.database
    async with stored.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM import_parts") == 0
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await imports.upload(name, b"more", first=4)
    assert reason(refused.value) == "IMPORT_STARTED"

    again = await imports.load(data)
    assert counts(again) == (0, 0, 2, 0, 0)
    changed = await imports.load((HEADER + "c-1,欧阳明,1984-02-29,7103192745,CZ,+420601123456,new@example.org,Praha\n").encode(),
                                 default_observe_time=master.at(1))  # fmt: skip
    assert counts(changed) == (0, 1, 0, 0, 0)
    listed = await imports.stub().ListImports(pb.ListImportsRequest(parent=imports.parent, page_size=2))
    assert [item.name for item in listed.bulk_imports] == [changed.name, again.name]
    rest = await imports.stub().ListImports(
        pb.ListImportsRequest(parent=imports.parent, page_size=2, page_token=listed.next_page_token)
    )
    assert [item.name for item in rest.bulk_imports] == [name]


async def test_bad_rows_are_named_and_the_good_ones_taken(imports: Imports, master: Any) -> None:
    rows = [
        b"c-1,Anna,1990-01-01,,,,,Praha",
        b"c-2,Bob,31.12.1990,,,,,Praha",
        b"c-3,Cyril,1990-01-01",
        b"c-4,\xff\xfe,1990-01-01,,,,,Praha",
        b",Dana,1990-01-01,,,,,Praha",
        b"c-6,Eva\x01,1990-01-01,,,,,Praha",
        b'c-7,"Filip,1990-01-01,,,,,Praha',
        b"c-8,Greta,1990-01-01,123,CZE,,,Praha",
        b"c-9," + b"x" * 400 + b",1990-01-01,,,,,Praha",
        b"c-10," + b"x" * 300_000 + b",1990-01-01,,,,,Praha",
        b'c-11,"Hana ""H""",1990-01-01,,,1,,Praha',
        b"c-12,Ivan,1990-01-01,,,,,Praha",
    ]
    got = await imports.load(HEADER.encode() + b"\n".join(rows))
    assert (got.state, counts(got)) == (pb.IMPORT_STATE_SUCCEEDED, (2, 0, 0, 0, 10))
    rejected = await imports.rejections(got.name)
    assert [(row["row"], row["line"], row["source_record_key"], row["field"], row["rule"]) for row in rejected] == [
        ("2", "3", "c-2", "birth_date", "DATE_INVALID"),
        ("3", "4", "", "row", "FIELDS_COUNT_WRONG"),
        ("4", "5", "", "full_name", "ENCODING_WRONG"),
        ("5", "6", "", "source_record_key", "KEY_MISSING"),
        ("6", "7", "", "full_name", "CONTROL_CHARACTER"),
        ("7", "8", "", "row", "QUOTE_NOT_CLOSED"),
        ("8", "9", "c-8", "national_id_country", "COUNTRY_INVALID"),
        ("9", "10", "c-9", "full_name", "FIELD_INVALID"),
        ("10", "11", "", "row", "ROW_TOO_LARGE"),
        ("11", "12", "c-11", "phone", "FIELD_INVALID"),
    ]
    assert all(row["description"] for row in rejected)
    unseen = await imports.rejections(got.name, scopes=("record.write",))
    assert {row["source_record_key"] for row in unseen} == {""}
    page = await imports.stub().ListImportRejections(pb.ListImportRejectionsRequest(parent=got.name, page_size=3))
    assert [item.row_number for item in page.rejections] == [2, 3, 4]
    page = await imports.stub().ListImportRejections(
        pb.ListImportRejectionsRequest(parent=got.name, page_size=3, page_token=page.next_page_token)
    )
    assert [item.row_number for item in page.rejections] == [5, 6, 7]

    database, index = master.running.application.database, master.running.application.servicers[-1][1]._index
    async with database.transaction() as connection:
        number = await connection.fetchval("SELECT min(source_system_number) FROM imports")
        await store.forget_rejections(connection, [(number, index.source_key(imports.parent, "c-8"))])
    assert "c-8" not in {row["source_record_key"] for row in await imports.rejections(got.name)}


@pytest.mark.parametrize(
    ("content", "expected", "words"),
    [
        (b"client_id,full_name\n1,A\n", "COLUMN_UNKNOWN", "the fields are source_record_key"),
        (b"source_record_key,ful_name\n1,A\n", "COLUMN_UNKNOWN", "nearest: full_name"),
        (b"full_name,birth_date\nA,1990-01-01\n", "KEY_COLUMN_MISSING", "source_record_key"),
        (b"source_record_key,email,email\n", "FIELD_DUPLICATE", "email"),
        ("source_record_key,full_name\n".encode("utf-16"), "ENCODING_WRONG", "UTF-8"),
        ("source_record_key,名字\n".encode("gb18030"), "ENCODING_WRONG", "UTF-8"),
        (b"source_record_key,full_name\r1,A\r2,B\r\n", "LINE_ENDS_WRONG", "LF"),
        (b"PK\x03\x04rest", "FORMAT_WRONG", "spreadsheet"),
        (b"PAR1rest", "FORMAT_WRONG", "Parquet"),
        (b'"source_record_key,full_name\n' * 300, "QUOTE_NOT_CLOSED", '"'),
    ],
)
async def test_a_file_that_cannot_be_read_is_refused_with_its_first_part(
    imports: Imports, content: bytes, expected: str, words: str
) -> None:
    name = await imports.create()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await imports.upload(name, content)
    assert reason(refused.value) == expected
    assert words in (refused.value.details() or "")


async def test_what_is_wrong_with_a_whole_file_ends_the_import(imports: Imports) -> None:
    empty = await imports.load(b"\n\n")
    assert (empty.state, empty.error.reason) == (pb.IMPORT_STATE_FAILED, "FILE_EMPTY")
    late = await imports.load(b"source_record", b"_key,oops\n1,2\n")
    assert (late.error.field, late.error.reason) == ("oops", "COLUMN_UNKNOWN")
    header_only = await imports.load(HEADER)
    assert (header_only.state, counts(header_only)) == (pb.IMPORT_STATE_SUCCEEDED, (0, 0, 0, 0, 0))
    parquet = await imports.load(b"PAR1 is not all", format="IMPORT_FORMAT_PARQUET")
    assert parquet.error.reason == "FORMAT_WRONG"
    wrong_type = pa.table({"source_record_key": ["a"], "birth_date": [1.5]})
    assert (await imports.load(parquet_bytes(wrong_type), format="IMPORT_FORMAT_PARQUET")).error.reason == "COLUMN_TYPE_WRONG"


async def test_columns_are_mapped_and_encodings_read(imports: Imports, master: Any) -> None:
    columns = [pb.ImportColumn(column="客户号", field="source_record_key"), pb.ImportColumn(column="姓名", field="fullName")]
    columns += [pb.ImportColumn(column="备注", field="ignore"), pb.ImportColumn(column="性别", field="sex")]
    text = "客户号;姓名;备注;性别;BirthDate\n一;王伟;不重要;男;19840229\n二;李娜;;女;1990/12/31\n"
    got = await imports.load(
        text.encode("gb18030"), columns=columns, encoding=pb.IMPORT_ENCODING_GB_18030, delimiter=";", default_country_code="CN"
    )
    assert counts(got) == (2, 0, 0, 0, 0)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await imports.create(columns=[pb.ImportColumn(column="x", field="nationalid")])
    assert "nearest: national_id" in (refused.value.details() or "")


def parquet_bytes(table: Any, rows: int = 2) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=rows)
    return buffer.getvalue()


async def test_parquet_and_json_lines(imports: Imports, master: Any) -> None:
    table = pa.table(
        {
            "source_record_key": pa.array([101, 102, 103, 104, 105]),
            "full_name": pa.array(["Anna", "Bob", None, "Dana", "Eva"]).dictionary_encode(),
            "birth_date": pa.array(["1990-01-01", None, "1991-01-01", "never", "1992-01-01"]),
            "observe_time": pa.array([1_700_000_000_000_000] * 5, pa.timestamp("us", tz="UTC")),
        }
    )
    data = parquet_bytes(table)
    got = await imports.load(data[:100], data[100:700], data[700:], format="IMPORT_FORMAT_PARQUET")
    assert (got.state, counts(got)) == (pb.IMPORT_STATE_SUCCEEDED, (4, 0, 0, 0, 1))
    [row] = await imports.rejections(got.name)
    assert (row["row"], row["line"], row["source_record_key"], row["rule"]) == ("4", "", "104", "DATE_INVALID")

    lines = [
        {"sourceRecordKey": 101, "full_name": "Anna", "birth_date": "1990-01-01"},
        {"source_record_key": "201", "fullName": "Zoe", "dependants_count": 2, "phone": None},
        {"source_record_key": "202", "phones": ["1"]},
        {"source_record_key": "203", "phone": ["1"]},
        ["a list"],
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"source_record_key": "204", \n{"source_record_key": "205"}\n'
    got = await imports.load(text, format="IMPORT_FORMAT_JSON_LINES", default_observe_time=master.at(0))
    assert counts(got) == (2, 0, 1, 0, 4)
    rejected = [(row["row"], row["field"], row["rule"]) for row in await imports.rejections(got.name)]
    assert rejected == [
        ("3", "phones", "COLUMN_UNKNOWN"),
        ("4", "phone", "VALUE_NOT_FLAT"),
        ("5", "row", "JSON_INVALID"),
        ("6", "row", "JSON_INVALID"),
    ]


async def test_others_do_not_see_an_import(imports: Imports) -> None:
    name = await imports.create()
    other = imports.stub("insurer")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await other.GetImport(pb.GetImportRequest(name=name))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    fields = await other.ListImportFields(pb.ListImportFieldsRequest())
    assert fields.fields[0].field == "source_record_key"


async def test_a_cancelled_import_stops_and_leaves_no_part(imports: Imports, master: Any) -> None:
    name = await imports.create()
    await imports.upload(name, (HEADER + "".join(f"c-{i},N{i},1990-01-01,,,,,Praha\n" for i in range(20_000))).encode())
    await imports.start(name)
    cancelled = await imports.stub().CancelImport(pb.CancelImportRequest(name=name, request_id=master.request_id()))
    assert cancelled.state == pb.IMPORT_STATE_CANCELLED
    again = await imports.stub().CancelImport(pb.CancelImportRequest(name=name, request_id=master.request_id()))
    assert (again.state, again.finish_time) == (cancelled.state, cancelled.finish_time)
    database = master.running.application.database
    async with asyncio.timeout(SECONDS_MAX), database.connection() as connection:
        while await connection.fetchval("SELECT count(*) FROM import_parts"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert counts(await imports.get(name))[0] < 20_000
    assert (await imports.load(HEADER + "c-1,A,,,,,,\n")).state == pb.IMPORT_STATE_SUCCEEDED, "the worker goes on"
