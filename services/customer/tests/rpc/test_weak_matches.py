"""What weighs enough and is not enough: the same by single records, in a batch, and in a bulk import."""

import asyncio

import pytest

from concord.customer.v1 import import_service_pb2 as import_pb
from concord.customer.v1 import intake_service_pb2 as intake_pb
from concord.customer.v1.import_service_pb2_grpc import ImportServiceStub

PEOPLE = [{"name": f"Person {number}", "phone": f"+42060112300{number}"} for number in range(5)]
COUPLE = [{"name": name, "phone": "+420605123456"} for name in ("Karel Dvořák", "Eva Dvořák")]
SAME = [{"name": "Aurora Gigney", "phone": "+420607123456"}] * 2
CUSTOMERS_COUNT = len(PEOPLE) + len(COUPLE) + 1


async def one_by_one(master, rows):
    for number, row in enumerate(rows):
        await master.ingest(f"k{number}", **row)


async def batch(master, rows):
    records = [master.source_record(f"k{number}", **row) for number, row in enumerate(rows)]
    request = intake_pb.BatchIngestRecordsRequest(parent=master.core, source_records=records, request_id=master.request_id())
    await master.intake().BatchIngestRecords(request)


async def bulk_import(master, rows):
    stub, rid = ImportServiceStub(master.channel()), master.request_id
    lines = [f"k{number},{row['name']},{row['phone']}\n" for number, row in enumerate(rows)]
    content = "source_record_key,full_name,phone\n" + "".join(lines)
    wanted = import_pb.BulkImport(format=import_pb.IMPORT_FORMAT_CSV, default_observe_time=master.at(0))
    name = (await stub.CreateImport(import_pb.CreateImportRequest(parent=master.core, bulk_import=wanted, request_id=rid()))).name
    part = import_pb.UploadImportPartRequest(name=name, part_number=1, content=content.encode(), request_id=rid())
    await stub.UploadImportPart(part)
    await stub.StartImport(import_pb.StartImportRequest(name=name, parts_count=1, request_id=rid()))
    async with asyncio.timeout(30):
        while not (got := await stub.GetImport(import_pb.GetImportRequest(name=name))).HasField("finish_time"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert got.created_count == len(rows), got


@pytest.mark.parametrize("way", [one_by_one, batch, bulk_import])
async def test_neighbouring_numbers_and_a_couple_are_no_one_and_stewards_are_asked(master, way):
    await way(master, [*PEOPLE, *COUPLE, *SAME])
    async with master.running.application.database.connection() as connection:
        people = await connection.fetchval("SELECT count(DISTINCT customer_id) FROM records")
        asked = await connection.fetchval("SELECT count(*) FROM review_items WHERE kind = 1 AND state = 1")
    assert people == CUSTOMERS_COUNT
    assert asked >= 1
