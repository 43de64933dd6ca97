"""What an institution sees of another's values: nothing, but what a consent covers."""

import asyncio
import random
from datetime import timedelta

import asyncpg
import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import clock
from chassis.ids import new_id
from chassis.testing import reason
from concord.customer.v1 import customer_service_pb2 as customer_pb
from concord.customer.v1 import sharing_consent_service_pb2 as pb
from concord.customer.v1.attribute_pb2 import Attribute
from concord.customer.v1.customer_events_pb2 import SharingConsentChanged
from concord.customer.v1.sharing_consent_service_pb2_grpc import SharingConsentServiceStub
from customer.messages import timestamp

POLICIES = "institutions/insurer/sourceSystems/policies"
SCOPES = ("customer.read", "personal.read", "consent.write", "record.write")
ADA = {"name": "Ada Nováková", "born": "1970-12-13", "national_id": "706213/0008"}


def consents(master, institution="bank", **more):
    return SharingConsentServiceStub(master.channel(institution, SCOPES, **more))


async def grant(master, customer, attributes, institution="bank", to="institutions/insurer", **more):
    return await consents(master, institution).GrantSharingConsent(
        pb.GrantSharingConsentRequest(
            parent=customer,
            to_institution=to,
            purpose_code="JOINT_OFFERS",
            attributes=[Attribute.Value(f"ATTRIBUTE_{name}") for name in attributes],
            evidence_reference="scans/1-a",
            request_id=master.request_id(),
            **more,
        )
    )


async def known_to_both(master):
    one = await master.ingest("k1", **ADA, phone="+420601123456", email="ada@bank.example", occupation="clockmaker")
    two = await master.ingest("p1", POLICIES, **ADA, phone="+420777000111")
    assert one.customer == two.customer
    return one.customer


def phones(customer):
    return {phone.number for phone in customer.phones}


async def test_a_consent_shows_what_it_names_and_only_while_it_lives(master):
    customer = await known_to_both(master)
    assert phones(await master.get(customer, "insurer")) == {"+420777000111"}
    before = await master.get(customer, "insurer")
    consent = await grant(master, customer, ["PHONE"])
    assert consent.evidence_reference == "scans/1-a"
    seen = await master.get(customer, "insurer")
    assert phones(seen) == {"+420601123456", "+420777000111"}
    assert not seen.emails
    assert not seen.occupation
    assert [record.record.split("/")[1] for record in seen.linked_records] == ["insurer"]
    assert seen.create_time == before.create_time
    assert seen.etag != before.etag
    assert {one.source_system for one in seen.provenances} == {POLICIES, master.core}
    assert phones(await master.get(customer, "bank")) == {"+420601123456"}, "the other way round nothing is shared"
    revoked = await consents(master).RevokeSharingConsent(
        pb.RevokeSharingConsentRequest(name=consent.name, reason_code="CUSTOMER_WITHDREW", request_id=master.request_id())
    )
    assert revoked.HasField("revoke_time")
    assert await master.get(customer, "insurer") == before
    events = [event.message(SharingConsentChanged) for event in await master.running.events("concord.customer.v1.sharing_consent.changed")]  # fmt: skip # noqa: E501
    assert [event.state_version.version for event in events] == [1, 2]
    assert [bool(event.end_time_seconds) for event in events] == [False, True]


async def test_a_consent_needs_its_time_its_receiver_and_a_link(master):
    customer = await known_to_both(master)
    await master.create("hospital", "wards")
    tomorrow = timestamp(clock.now() + timedelta(days=1))
    yesterday = timestamp(clock.now() - timedelta(days=1))
    await grant(master, customer, ["PHONE"], begin_time=tomorrow)
    await grant(master, customer, ["EMAIL"], begin_time=timestamp(clock.now() - timedelta(days=2)), end_time=yesterday)
    await grant(master, customer, ["OCCUPATION"], to="institutions/hospital")
    seen = await master.get(customer, "insurer")
    assert (phones(seen), list(seen.emails), seen.occupation) == ({"+420777000111"}, [], "")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await master.get(customer, "hospital")
    assert reason(refused.value) == "CUSTOMER_NOT_FOUND", "a consent makes no link"
    await grant(master, customer, ["EMAIL"], to="")
    assert (await master.get(customer, "insurer")).emails[0].address == "ada@bank.example"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"to_institution": "institutions/bank"}, "INSTITUTION_OWN"),
        ({"to_institution": "institutions/nobody"}, "INSTITUTION_UNKNOWN"),
        ({"attributes": []}, "FIELD_INVALID"),
        ({"attributes": [5, 5]}, "FIELD_INVALID"),
        ({"evidence_reference": ""}, "FIELD_INVALID"),
        ({"purpose_code": "joint offers"}, "FIELD_INVALID"),
        ({"begin_time": Timestamp(seconds=2_000_000_000), "end_time": Timestamp(seconds=1_999_999_999)}, "END_BEFORE_BEGIN"),
        ({"end_time": Timestamp(seconds=253_000_000_000)}, "TIME_OUT_OF_RANGE"),
        ({"parent": f"customers/{new_id()}"}, "CUSTOMER_NOT_FOUND"),
    ],
)
async def test_a_wrong_consent_is_refused_by_field(master, change, expected):
    customer = (await master.ingest("k1", **ADA)).customer
    right = {
        "parent": customer, "to_institution": "institutions/insurer", "purpose_code": "JOINT_OFFERS", "attributes": [5],
        "evidence_reference": "x", "request_id": master.request_id(),
    }  # fmt: skip
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await consents(master).GrantSharingConsent(pb.GrantSharingConsentRequest(**(right | change)))
    assert reason(refused.value) == expected


async def test_only_the_giver_and_the_receiver_know_of_a_consent(master):
    customer = await known_to_both(master)
    await master.create("hospital", "wards")
    hospital = await master.ingest("h1", "institutions/hospital/sourceSystems/wards", **ADA)
    assert hospital.customer == customer
    consent = await grant(master, customer, ["PHONE"])

    async def listed(institution, **more):
        answer = await consents(master, institution, **more).ListSharingConsents(pb.ListSharingConsentsRequest(parent=customer))
        return list(answer.sharing_consents)

    assert [one.evidence_reference for one in await listed("bank")] == ["scans/1-a"]
    assert [one.evidence_reference for one in await listed("insurer")] == [""]
    assert await listed("hospital") == []
    assert [one.evidence_reference for one in await listed(**master.operator)] == ["scans/1-a"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await consents(master, "insurer").RevokeSharingConsent(
            pb.RevokeSharingConsentRequest(name=consent.name, reason_code="NO_RIGHT", request_id=master.request_id())
        )
    assert reason(refused.value) == "SHARING_CONSENT_NOT_FOUND"


async def test_as_of_shows_no_more_than_the_consent_covered_then(master):
    await master.ingest("k1", day=0, **ADA, phone="+420601123456")
    customer = (await master.ingest("p1", POLICIES, day=0, **ADA)).customer
    await grant(master, customer, ["PHONE"], begin_time=master.at(10))

    async def phones_at(day, **more):
        request = customer_pb.GetCustomerRequest(name=customer, as_of=master.at(day), **more)
        return phones(await master.customers("insurer").GetCustomer(request))

    assert await phones_at(20) == {"+420601123456"}
    assert await phones_at(5) == set()


async def test_no_statement_of_a_viewer_shows_anothers_rows(master):
    """The second wall: without its WHERE a statement still shows nothing of others; without a viewer nothing at all."""
    customer = await known_to_both(master)
    viewers = master.running.application.servicers[2][1]._core.viewers
    async with viewers.connection("insurer") as connection:
        for table in ("records", "source_records", "links", "record_sightings"):
            rows = await connection.fetch(f"SELECT * FROM {table}")
            columns = {row.get("institution_id", "insurer") for row in rows}
            assert columns <= {"insurer"}, table
        assert len(await connection.fetch("SELECT * FROM records")) == 1
        assert len(await connection.fetch("SELECT * FROM links")) == 1
        for forbidden in ("SELECT * FROM blocking_keys", "SELECT * FROM audit_entries", "SELECT * FROM idempotency", "DELETE FROM records"):  # fmt: skip # noqa: E501
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)
        await connection.execute("RESET ROLE")
        assert len(await connection.fetch("SELECT * FROM records")) == 1
    await grant(master, customer, ["PHONE"])
    async with viewers.connection("insurer") as connection:
        assert len(await connection.fetch("SELECT * FROM records")) == 2
    async with viewers.connection("stranger") as connection:
        assert await connection.fetch("SELECT * FROM records") == []
    async with viewers._viewers.pool.acquire() as connection:
        await connection.execute("RESET concord.viewer")
        viewers._viewers._set.clear()
        assert await connection.fetch("SELECT * FROM records") == []


async def test_many_viewers_share_few_connections_and_never_each_others_rows(master):
    customer = await known_to_both(master)
    answers = await asyncio.gather(*(master.get(customer, ("bank", "insurer")[place % 2]) for place in range(60)))
    assert all(phones(answer) == {("+420601123456", "+420777000111")[place % 2]} for place, answer in enumerate(answers))


async def test_nothing_is_seen_that_was_not_stated_or_shared(master):
    """Random consents, revocations and records of three institutions against a model of what each may see."""
    chance = random.Random(7)
    institutions = ["bank", "insurer", "hospital"]
    await master.create("hospital", "wards")
    sources = {"bank": master.core, "insurer": POLICIES, "hospital": "institutions/hospital/sourceSystems/wards"}
    stated: dict[str, set[tuple[str, str]]] = {institution: set() for institution in institutions}
    live: dict[str, tuple[str, str, list[str]]] = {}
    for place, institution in enumerate(institutions):
        phone = f"+42060112345{place}"
        customer = (await master.ingest("k", sources[institution], **ADA, phone=phone, email=f"{institution}@x.example", occupation=f"at {institution}")).customer  # fmt: skip # noqa: E501
        stated[institution] = {("PHONE", phone), ("EMAIL", f"{institution}@x.example"), ("OCCUPATION", f"at {institution}")}
    for _ in range(25):
        if live and chance.random() < 0.4:
            name = chance.choice(sorted(live))
            giver = live.pop(name)[0]
            await consents(master, giver).RevokeSharingConsent(
                pb.RevokeSharingConsentRequest(name=name, reason_code="CUSTOMER_WITHDREW", request_id=master.request_id())
            )
        else:
            giver, taker = chance.sample(institutions, 2)
            attributes = chance.sample(["PHONE", "EMAIL", "OCCUPATION"], chance.randint(1, 2))
            to = f"institutions/{taker}" if chance.random() < 0.8 else ""
            consent = await grant(master, customer, attributes, giver, to=to)
            live[consent.name] = giver, to, attributes
        for viewer in institutions:
            allowed = set(stated[viewer])
            for giver, to, attributes in live.values():
                if to in ("", f"institutions/{viewer}"):
                    allowed |= {value for value in stated[giver] if value[0] in attributes}
            seen = await master.get(customer, viewer)
            shown = {("PHONE", one.number) for one in seen.phones} | {("EMAIL", one.address) for one in seen.emails}
            assert shown == {value for value in allowed if value[0] != "OCCUPATION"}
            assert ("OCCUPATION", seen.occupation) in allowed
