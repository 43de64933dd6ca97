"""Records in, golden customers out, over real sockets and a real PostgreSQL."""

import asyncio

import pytest
from grpc.aio import AioRpcError

from chassis.testing import reason
from concord.customer.v1 import customer_events_pb2 as events_pb
from concord.customer.v1 import intake_service_pb2 as pb

JAN = {"name": "Jan Novák", "born": "1970-12-13", "national_id": "701213/0015"}


async def ingest_many(master, records, institution="bank", parent=None):
    request = pb.BatchIngestRecordsRequest(parent=parent or master.core, source_records=records, request_id=master.request_id())
    return (await master.intake(institution).BatchIngestRecords(request)).results


async def count(master, table):
    async with master.running.application.database.connection() as connection:
        return await connection.fetchval(f"SELECT count(*) FROM {table}")


async def test_a_new_record_makes_a_customer(master):
    result = await master.ingest("k1", **JAN, phone="601 123 456", email="Jan@Example.com")
    assert (result.outcome, result.resolution_reason) == (pb.INGEST_OUTCOME_CREATED, pb.RESOLUTION_REASON_NEW_CUSTOMER)
    assert result.record.startswith(f"{master.core}/records/")
    customer = await master.get(result.customer)
    assert customer.party_name.full_name == "Jan Novák"
    assert customer.birth_date == "1970-12-13"
    assert [(one.value, one.valid) for one in customer.identifiers] == [("7012130015", True)]
    assert [(one.number, one.valid) for one in customer.phones] == [("+420601123456", True)]
    assert [(one.address, one.valid) for one in customer.emails] == [("Jan@example.com", True)]
    assert {one.field for one in customer.provenances} == {
        "party_kind", "party_name", "birth_date", "identifiers[0]", "phones[0]", "emails[0]",
    }  # fmt: skip
    assert all(one.record == result.record and one.source_system == master.core for one in customer.provenances)
    assert [one.resolution_reason for one in customer.linked_records] == ["NEW_CUSTOMER"]


async def test_same_content_is_unchanged_older_is_stale_newer_is_updated(master):
    first = await master.ingest("k1", day=5, **JAN)
    again = await master.ingest("k1", day=5, **JAN)
    older = await master.ingest("k1", day=4, **JAN | {"name": "Old Name"})
    newer = await master.ingest("k1", day=6, **JAN | {"name": "Jan Nový"})
    outcomes = [one.outcome for one in (first, again, older, newer)]
    assert outcomes == [1, 3, 4, 2]
    assert {one.customer for one in (first, again, older, newer)} == {first.customer}
    assert newer.resolution_reason == pb.RESOLUTION_REASON_SOURCE_KEY
    assert (await master.get(first.customer)).party_name.full_name == "Jan Nový"
    assert await count(master, "source_records") == 3
    assert (await master.ingest("k1", day=4, **JAN | {"name": "Old Name"})).outcome == pb.INGEST_OUTCOME_STALE
    assert await count(master, "source_records") == 3
    assert await count(master, "customers") == 1


async def test_content_is_canonical_before_it_is_compared(master):
    await master.ingest("k1", name="Jan Novák")
    spaced = await master.ingest("k1", name="  Jan   Nova\u0301k ")
    assert spaced.outcome == pb.INGEST_OUTCOME_UNCHANGED


async def test_seen_again_later_counts_as_recent(master):
    await master.ingest("k1", day=1, **JAN)
    again = await master.ingest("k1", day=9, **JAN)
    assert again.outcome == pb.INGEST_OUTCOME_UNCHANGED
    stale = await master.ingest("k1", day=5, **JAN | {"name": "Other"})
    assert stale.outcome == pb.INGEST_OUTCOME_STALE
    assert (await count(master, "source_records"), await count(master, "record_sightings")) == (2, 1)


async def test_the_same_document_at_two_institutions_is_one_customer_and_each_sees_its_own(master):
    mine = await master.ingest("k1", **JAN, phone="601123456")
    theirs = await master.ingest("p9", master.policies, **JAN | {"name": "NOVAK JAN"}, email="jan@example.org")
    assert theirs.resolution_reason == pb.RESOLUTION_REASON_IDENTITY_DOCUMENT
    assert mine.customer == theirs.customer
    bank, insurer = await master.get(mine.customer), await master.get(mine.customer, "insurer")
    everything = await master.get(mine.customer, **master.operator)
    assert (bank.party_name.full_name, len(bank.phones), len(bank.emails)) == ("Jan Novák", 1, 0)
    assert (insurer.party_name.full_name, len(insurer.phones), len(insurer.emails)) == ("NOVAK JAN", 0, 1)
    assert (everything.party_name.full_name, len(everything.phones), len(everything.emails)) == ("Jan Novák", 1, 1)
    assert [len(one.linked_records) for one in (bank, insurer, everything)] == [1, 1, 2]
    name = next(one for one in everything.provenances if one.field == "party_name")
    assert (name.rule, name.rank, name.rivals_count) == (3, 10, 1)
    etag = bank.etag
    await master.ingest("p9", master.policies, day=3, **JAN | {"name": "Johann Novak"})
    assert (await master.get(mine.customer)).etag == etag
    assert (await master.get(mine.customer, "insurer")).etag != insurer.etag


@pytest.mark.parametrize(
    "other",
    [
        {"name": "Petr Malý", "born": "1985-06-01", "national_id": "701213/0015"},
        {"name": "Jan Novák", "born": "1970-12-13", "national_id": "710319/2745"},
        {"name": "Jan Novák", "national_id": "701213/0015", "party_kind": "PARTY_KIND_ORGANISATION"},
    ],
)
async def test_a_contradiction_makes_a_new_customer(master, other):
    one = await master.ingest("k1", **JAN, passport="98765431")
    two = await master.ingest("k2", **other)
    assert two.resolution_reason == pb.RESOLUTION_REASON_NEW_CUSTOMER
    assert one.customer != two.customer


async def test_an_invalid_document_is_kept_flagged_and_never_links(master):
    bad = {"national_id": "701213/0016"}
    one = await master.ingest("k1", name="Jan Novák", **bad)
    two = await master.ingest("k2", name="Petr Malý", **bad)
    assert one.customer != two.customer
    customer = await master.get(one.customer)
    assert [(identifier.value, identifier.valid) for identifier in customer.identifiers] == [("7012130016", False)]


async def test_a_changed_document_relinks_the_record(master):
    one = await master.ingest("k1", **JAN)
    stays = await master.ingest("k2", **JAN)
    other = await master.ingest("k3", name="Petr Malý", national_id="710319/2745")
    moved = await master.ingest("k2", day=1, name="Petr Malý", national_id="710319/2745")
    assert stays.customer == one.customer
    assert moved.customer == other.customer
    assert moved.resolution_reason == pb.RESOLUTION_REASON_IDENTITY_DOCUMENT
    (event,) = await master.running.events("concord.customer.v1.customer.records_moved")
    message = event.message(events_pb.RecordsMoved)
    assert message.reason == "RELINK"
    assert (f"customers/{message.from_customer_id}", f"customers/{message.to_customer_id}") == (one.customer, other.customer)
    assert [link.state_version.version for link in message.record_links] == [2]
    assert len((await master.get(one.customer)).linked_records) == 1
    assert len((await master.get(other.customer)).linked_records) == 2
    states = [
        event.message(events_pb.CustomerChanged) for event in await master.running.events("concord.customer.v1.customer.updated")
    ]
    last = {state.customer_id: state for state in states}
    assert sorted(len(state.record_links) for state in last.values()) == [1, 2]


async def test_a_contradicting_document_sends_the_record_to_a_new_customer(master):
    one = await master.ingest("k1", **JAN)
    await master.ingest("k2", **JAN)
    moved = await master.ingest("k2", day=1, name="Jan Novák", national_id="710319/2745")
    assert moved.customer != one.customer
    assert moved.resolution_reason == pb.RESOLUTION_REASON_NEW_CUSTOMER


async def test_a_batch_is_resolved_in_order_and_answers_each(master):
    results = await ingest_many(
        master,
        [
            master.source_record("a", **JAN),
            master.source_record("b", **JAN),
            master.source_record("a", day=1, **JAN | {"name": "Jan Novák ml."}),
            master.source_record("c", day=40_000, name="Too Late"),
            master.source_record("a", day=-1, **JAN),
        ],
    )
    assert [one.outcome for one in results] == [1, 1, 2, 5, 4]
    assert (results[3].error.field, results[3].error.reason) == ("observe_time", "TIME_OUT_OF_RANGE")
    assert len({one.customer for one in results if one.customer}) == 1
    assert (await master.get(results[0].customer)).party_name.full_name == "Jan Novák ml."
    assert len(await master.running.events("concord.customer.v1.customer.updated")) == 1


async def test_a_batch_twice_changes_nothing(master):
    records = [master.source_record(f"k{i}", name=f"Person {i}") for i in range(500)]
    first = await ingest_many(master, records)
    events = len(await master.running.events())
    second = await ingest_many(master, records)
    assert {one.outcome for one in first} == {1}
    assert {one.outcome for one in second} == {3}
    assert [one.customer for one in first] == [one.customer for one in second]
    assert len(await master.running.events()) == events


async def test_the_same_request_id_gives_the_same_answer_and_other_input_is_refused(master):
    request = pb.IngestRecordRequest(parent=master.core, source_record=master.source_record("k1", **JAN), request_id="same")
    one, two = await asyncio.gather(*(master.intake().IngestRecord(request) for _ in range(2)))
    assert one == two
    assert one.outcome == pb.INGEST_OUTCOME_CREATED
    request.source_record.party.occupation = "baker"
    with pytest.raises(AioRpcError) as refused:
        await master.intake().IngestRecord(request)
    assert reason(refused.value) == "REQUEST_ID_REUSED"


async def test_32_clients_on_two_replicas_make_one_customer(master, start):
    replica = type(master)(await start())
    passports = [f"P{1_000_000 + i}" for i in range(3)]

    async def send(i):
        where = master if i % 2 else replica
        parent = (master.core, master.policies)[i // 2 % 2]
        return await where.ingest(f"k{i}", parent, **JAN, phone=f"60112345{i % 10}", passport=passports[0])

    results = await asyncio.gather(*(send(i) for i in range(32)))
    assert {one.outcome for one in results} == {pb.INGEST_OUTCOME_CREATED}
    assert len({one.customer for one in results}) == 1
    assert await count(master, "customers") == 1
    assert len((await master.get(results[0].customer, **master.operator)).linked_records) == 32
    versions = [
        event.message(events_pb.CustomerChanged).state_version.version
        for event in await master.running.events("concord.customer.v1.customer.updated")
    ]
    assert sorted(versions) == list(range(1, len(versions) + 1))


async def test_concurrent_ingests_of_one_source_key_make_one_record(master, start):
    replica = type(master)(await start())
    results = await asyncio.gather(*((master if i % 2 else replica).ingest("same", day=i, name=f"Name {i}") for i in range(32)))
    assert len({one.record for one in results}) == 1
    assert [one.outcome for one in results].count(pb.INGEST_OUTCOME_CREATED) == 1
    assert (await master.get(results[0].customer)).party_name.full_name == "Name 31"
    assert await count(master, "customers") == 1


async def test_batches_in_opposite_order_do_not_wait_in_a_circle(master, start):
    replica = type(master)(await start())

    def feed(day, step):
        return [
            master.source_record(f"k{i}", day, name=f"Name {i} {day}", passport=f"AB{1_000_003 + (i + step) // 2}")
            for i in range(60)
        ]

    people, newer = feed(0, 0), feed(1, 1)
    await ingest_many(master, people[:20])
    batches = [people, people[::-1], newer, newer[::-1], people[::2], newer[1::2]]
    answers = await asyncio.gather(*(ingest_many((master, replica)[i % 2], batch) for i, batch in enumerate(batches * 2)))
    assert {result.outcome for answer in answers for result in answer} <= {1, 2, 3, 4}
    assert await count(master, "records") == 60
    async with master.running.application.database.connection() as connection:
        parties = await connection.fetch("SELECT record_id, customer_id, link_version FROM records")
    links = {str(row["record_id"]): (str(row["customer_id"]), row["link_version"]) for row in parties}
    published: dict[str, tuple[str, int]] = {}
    for event in await master.running.events("concord.customer.v1.customer.updated"):
        for link in event.message(events_pb.CustomerChanged).record_links:
            known = published.get(link.record_id, ("", 0))
            published[link.record_id] = max(known, (link.customer_id, link.state_version.version), key=lambda one: one[1])
    assert published == links


async def test_a_batch_whose_connection_is_killed_leaves_nothing_and_can_be_sent_again(master):
    one = await master.ingest("k1", **JAN)
    database = master.running.application.database
    request = pb.BatchIngestRecordsRequest(
        parent=master.core,
        source_records=[master.source_record("k0", name="New"), master.source_record("k1", day=1, **JAN | {"name": "Other"})],
        request_id="killed",
    )
    events = len(await master.running.events())
    async with database.transaction() as blocker, database.connection() as observer:
        await blocker.execute("SELECT FROM customers FOR UPDATE")
        call = asyncio.ensure_future(master.intake().BatchIngestRecords(request))
        killed = False
        while not killed:
            await asyncio.sleep(0.02)
            killed = await observer.fetchval(
                "SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
        with pytest.raises(AioRpcError) as refused:
            await call
        assert reason(refused.value) == "DATABASE_UNAVAILABLE"
        assert await count(master, "records") == 1
    assert len(await master.running.events()) == events
    answer = await master.intake().BatchIngestRecords(request)
    assert [result.outcome for result in answer.results] == [1, 2]
    assert (await master.get(one.customer)).party_name.full_name == "Other"


async def test_lookup_leaves_out_what_is_not_known(master):
    known = await master.ingest("k1", **JAN)
    request = pb.LookupRecordsRequest(parent=master.core, source_record_keys=["zz", "k1"])
    found = (await master.intake().LookupRecords(request)).records
    assert [(one.source_record_key, one.record, one.customer) for one in found] == [("k1", known.record, known.customer)]


async def test_another_institutions_source_system_does_not_exist(master):
    stub = master.intake("insurer")
    calls = [
        stub.IngestRecord(pb.IngestRecordRequest(parent=master.core, source_record=master.source_record("k"), request_id="1")),
        stub.BatchIngestRecords(
            pb.BatchIngestRecordsRequest(parent=master.core, source_records=[master.source_record("k")], request_id="2")
        ),
        stub.LookupRecords(pb.LookupRecordsRequest(parent=master.core, source_record_keys=["k"])),
    ]
    for call in calls:
        with pytest.raises(AioRpcError) as refused:
            await call
        assert reason(refused.value) == "INSTITUTION_NOT_FOUND"
    with pytest.raises(AioRpcError) as refused:
        await master.ingest("k", "institutions/bank/sourceSystems/nothing")
    assert reason(refused.value) == "SOURCE_SYSTEM_NOT_FOUND"


async def test_a_caller_bound_to_a_customer_feeds_no_records(master):
    known = await master.ingest("k1", **JAN)
    stub = master.intake(customer=known.customer.removeprefix("customers/"))
    with pytest.raises(AioRpcError) as refused:
        await stub.IngestRecord(
            pb.IngestRecordRequest(parent=master.core, source_record=master.source_record("k"), request_id="1")
        )
    assert reason(refused.value) == "CUSTOMER_BOUND"


async def test_no_personal_value_is_in_an_event_or_a_key_column(master):
    await master.ingest("secret-key-77", **JAN, phone="601123456", email="jan@example.com", occupation="baker")
    tables = ["records", "source_records", "links", "blocking_keys", "outbox", "customers"]
    async with master.running.application.database.connection() as connection:
        rows = [row for table in tables for row in await connection.fetch(f"SELECT * FROM {table}")]
    assert len(rows) >= len(tables)
    everything = b"\n".join(value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row)
    for marker in (b"secret-key", "Novák".encode(), b"7012130015", b"601123456", b"example.com", b"1970-12", b"baker"):
        assert marker not in everything


async def test_32_clients_with_a_new_person_without_documents_make_one_customer(master, start):
    replica = type(master)(await start())
    person = {"name": "Ludmila Kratochvílová", "born": "1983-02-17", "phone": "601999888", "email": "lida@kratochvilova.cz"}

    async def send(i):
        parent = (master.core, master.policies)[i // 2 % 2]
        return await (master if i % 2 else replica).ingest(f"k{i}", parent, **person)

    results = await asyncio.gather(*(send(i) for i in range(32)))
    assert len({one.customer for one in results}) == 1
    assert await count(master, "customers") == 1
    assert await count(master, "links") == 32


async def test_a_record_that_bridges_two_customers_makes_them_one(master):
    by_document = await master.ingest("k1", **JAN)
    by_phone = await master.ingest("k2", name="Jan Novák", born="1970-12-13", phone="601123456", email="jan@novakovi.cz")
    bridge = await master.ingest("p1", master.policies, **JAN, phone="601123456", email="jan@novakovi.cz")
    customers = {one.customer for one in (by_document, by_phone, bridge)}
    seen = await master.get(by_document.customer)
    assert len(seen.linked_records) == 2
    assert seen.name in customers
    for loser in customers - {seen.name}:
        assert (await master.get(loser)).name == seen.name
    if by_document.customer != by_phone.customer:
        [moved] = await master.running.events("concord.customer.v1.customer.records_moved")
        assert moved.message(events_pb.RecordsMoved).reason == "MERGE"
