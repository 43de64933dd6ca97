"""What was known when, and of when: states, links, merged customers."""

import asyncio
import random

import pytest
from grpc.aio import AioRpcError

from chassis import clock
from chassis.testing import reason
from concord.customer.v1 import customer_service_pb2 as customer_pb
from concord.customer.v1 import intake_service_pb2 as intake_pb
from concord.customer.v1 import record_service_pb2 as pb
from concord.customer.v1.record_service_pb2_grpc import RecordServiceStub
from customer.messages import timestamp
from customer.store.record_writes import SIGHTINGS_EXACT_MAX, SIGHTINGS_PERIOD_DAYS

JAN = {"name": "Jan Novák", "born": "1970-12-13", "national_id": "701213/0015"}
PETR = {"name": "Petr Malý", "born": "1971-03-19", "national_id": "710319/2745"}


async def as_it_was(master, name, as_of=None, known_at=None, institution="bank", **more):
    request = customer_pb.GetCustomerRequest(name=name, as_of=as_of, known_at=known_at and timestamp(known_at))
    return await master.customers(institution, **more).GetCustomer(request)


def records(master, institution="bank", **more):
    return RecordServiceStub(master.channel(institution, **more))


async def now():
    """An instant after everything that was done, and before everything that will be."""
    await asyncio.sleep(0.002)
    instant = clock.now()
    await asyncio.sleep(0.002)
    return instant


def said(arrivals, as_of):
    """The model: of what arrived, the state observed last; of several at one instant the one that came last."""
    statements = []
    for content, day in arrivals:
        if (content, day) not in statements:
            statements.append((content, day))
    fitting = [(day, place, content) for place, (content, day) in enumerate(statements) if day <= as_of]
    return max(fitting)[2] if fitting else None


async def test_states_are_what_was_known_of_each_day_whatever_the_order_of_arrival(master):
    chance = random.Random(20261124)
    for example in range(12):
        arrivals, instants, name = [], [], ""
        for _ in range(chance.randint(2, 7)):
            content, day = chance.choice(["Alfa", "Beta", "Gama"]), chance.randint(0, 4)
            result = await master.ingest(f"k{example}", day=day, name=content)
            name = result.customer
            arrivals.append((content, day))
            instants.append(await now())
        for _ in range(8):
            count, as_of = chance.randint(1, len(arrivals)), chance.randint(0, 4)
            expected = said(arrivals[:count], as_of)
            if expected is None:
                with pytest.raises(AioRpcError) as refused:
                    await as_it_was(master, name, master.at(as_of), instants[count - 1])
                assert reason(refused.value) == "CUSTOMER_NOT_FOUND"
            else:
                seen = await as_it_was(master, name, master.at(as_of), instants[count - 1])
                assert seen.party_name.full_name == expected, (arrivals, count, as_of)
        present = await master.get(name)
        assert present.party_name.full_name == said(arrivals, 9), arrivals
        assert await as_it_was(master, name, known_at=await now()) == present


async def test_links_are_what_was_known_then_and_a_merged_id_answers_with_the_winner(master):
    one = await master.ingest("k1", **JAN)
    await master.ingest("k2", **JAN)
    other = await master.ingest("k3", **PETR)
    before = await now()
    await master.ingest("k2", day=1, **PETR)
    after = await now()
    await master.ingest("k1", day=2, **PETR)  # its last record: the customer is merged into the other
    assert [len((await as_it_was(master, one.customer, known_at=at)).linked_records) for at in (before, after)] == [2, 1]
    assert [len((await as_it_was(master, other.customer, known_at=at)).linked_records) for at in (before, after)] == [1, 2]
    merged = await master.get(one.customer)
    assert (merged.name, len(merged.linked_records)) == (other.customer, 3)
    assert (await as_it_was(master, one.customer, known_at=await now())) == await master.get(other.customer)
    answer = await records(master).ListRecords(pb.ListRecordsRequest(parent=one.customer))
    assert answer.customer == other.customer
    assert sorted(record.source_record_key for record in answer.records) == ["k1", "k2", "k3"]
    history = (await records(master).ListLinkHistory(pb.ListLinkHistoryRequest(parent=one.customer))).links
    assert [(link.link_version, link.HasField("supersede_time")) for link in history] == [(1, True)] * 2
    [moved] = [link.link for link in answer.records if link.source_record_key == "k2"]
    assert (moved.link_version, moved.origin, moved.customer) == (2, pb.LINK_ORIGIN_AUTO, other.customer)
    assert moved.weight_bits > 0
    assert {score.attribute for score in moved.scores} >= {"prior", "name"}


async def test_records_states_and_links_are_read_page_by_page_and_only_ones_own(master):
    mine = await master.ingest("k1", day=3, **JAN, phone="601123456")
    await master.ingest("k1", day=5, **JAN, phone="601123456")
    await master.ingest("k1", day=9, **JAN, phone="601999888")
    await master.ingest("k1", day=1, **JAN, phone="601000111")
    await master.ingest("p1", master.policies, **JAN)
    stub = records(master)
    first = await stub.ListRecordStates(pb.ListRecordStatesRequest(parent=mine.record, page_size=2))
    rest = await stub.ListRecordStates(
        pb.ListRecordStatesRequest(parent=mine.record, page_size=2, page_token=first.next_page_token)
    )
    states = [*first.states, *rest.states]
    assert [(one.state_number, one.present) for one in states] == [(3, True), (1, False), (4, False)]
    assert [one.observe_time for one in states] == [master.at(9), master.at(3), master.at(1)]
    assert states[1].last_observe_time == master.at(5)
    assert [one.stated_party.phones[0].number for one in states] == ["601999888", "601123456", "601000111"]
    assert [one.party.phones[0].number for one in states] == ["+420601999888", "+420601123456", "+420601000111"]
    assert rest.next_page_token == ""
    record = await stub.GetRecord(pb.GetRecordRequest(name=mine.record))
    assert (record.source_record_key, record.party.phones[0].number, record.customer) == ("k1", "+420601999888", mine.customer)
    assert len((await stub.ListRecords(pb.ListRecordsRequest(parent=mine.customer))).records) == 1
    everything = await records(master, **master.operator).ListRecords(pb.ListRecordsRequest(parent=mine.customer))
    assert len(everything.records) == 2
    masked = await records(master, scopes=("customer.read",)).GetRecord(pb.GetRecordRequest(name=mine.record))
    assert "601999888" not in str(masked)
    assert "Novák" not in str(masked)
    for call in (
        records(master, "insurer").GetRecord(pb.GetRecordRequest(name=mine.record)),
        records(master, "insurer").ListRecordStates(pb.ListRecordStatesRequest(parent=mine.record)),
    ):
        with pytest.raises(AioRpcError) as refused:
            await call
        assert refused.value.code().name == "NOT_FOUND"


async def test_the_future_is_not_known(master):
    mine = await master.ingest("k1", **JAN)
    for field in ("as_of", "known_at"):
        request = customer_pb.GetCustomerRequest(name=mine.customer)
        getattr(request, field).FromSeconds(int(clock.now().timestamp()) + 3600)
        with pytest.raises(AioRpcError) as refused:
            await master.customers().GetCustomer(request)
        assert reason(refused.value) == "TIME_IN_FUTURE"
        assert field in (refused.value.details() or "")


async def sightings_count(master):
    async with master.running.application.database.connection() as connection:
        return await connection.fetchval("SELECT count(*) FROM record_sightings")


async def test_what_is_fed_again_and_again_is_kept_a_bounded_number_of_times(master):
    days = 200
    for day in range(days):
        result = await master.ingest("k1", day=day, **JAN)
    assert await sightings_count(master) <= SIGHTINGS_EXACT_MAX + days // SIGHTINGS_PERIOD_DAYS + 2
    present = await master.get(result.customer)
    assert present.linked_records[0].observe_time == master.at(days - 1), "recency is exact"
    early = await as_it_was(master, result.customer, as_of=master.at(100))
    seen = early.linked_records[0].observe_time.seconds
    assert 0 <= master.at(100).seconds - seen < SIGHTINGS_PERIOD_DAYS * 86_400
    assert (await master.ingest("k1", day=57, **JAN)).outcome == intake_pb.INGEST_OUTCOME_UNCHANGED
    assert await sightings_count(master) <= SIGHTINGS_EXACT_MAX + days // SIGHTINGS_PERIOD_DAYS + 2


async def test_thinned_sightings_change_no_answer_of_what_was_said(master):
    chance = random.Random(7)
    arrivals, instants = [], []
    for day in sorted(chance.sample(range(91), 70)):
        content = chance.choice(["Alfa"] * 8 + ["Beta", "Gama"])
        name = (await master.ingest("k1", day=day, name=content)).customer
        arrivals.append((content, day))
        instants.append(await now())
    async with master.running.application.database.connection() as connection:
        kept = await connection.fetchval("SELECT (SELECT count(*) FROM record_sightings) + (SELECT count(*) FROM source_records)")
    assert kept < len(arrivals), "some were thinned"
    for _ in range(60):
        count, as_of = chance.randint(1, len(arrivals)), chance.randint(0, 90)
        expected = said(arrivals[:count], as_of)
        if expected is not None:
            seen = await as_it_was(master, name, master.at(as_of), instants[count - 1])
            assert seen.party_name.full_name == expected
