"""Relationships: stated, listed, decided, inferred; they follow their records."""

import pytest
from grpc.aio import AioRpcError

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.customer.v1 import customer_service_pb2 as customer_pb
from concord.customer.v1 import relationship_service_pb2 as pb
from concord.customer.v1.relationship_service_pb2_grpc import RelationshipServiceStub

SCOPES = ("customer.read", "record.write", "match.decide", "personal.read")


def stub(master, institution="bank", kind=PrincipalKind.STAFF, **more):
    return RelationshipServiceStub(master.channel(institution, scopes=SCOPES, kind=kind, **more))


async def refused(call):
    with pytest.raises(AioRpcError) as error:
        await call
    return reason(error.value)


def stated(master, key, first, second, kind, day=0, **fields):
    return pb.SourceRelationship(
        source_relationship_key=key,
        observe_time=master.at(day),
        kind=f"RELATIONSHIP_KIND_{kind}",  # type: ignore[arg-type]
        from_source_record_key=first,
        to_source_record_key=second,
        **fields,
    )


async def upsert(master, *relationships, parent=None):
    parent = parent or master.core
    request = pb.BatchUpsertRelationshipsRequest(
        parent=parent, source_relationships=relationships, request_id=master.request_id()
    )
    return (await stub(master, parent.split("/")[1]).BatchUpsertRelationships(request)).results


async def listed(master, customer, institution="bank", kind=PrincipalKind.STAFF, **filters):
    request = pb.ListRelationshipsRequest(parent=customer, **filters)
    return list((await stub(master, institution, kind).ListRelationships(request)).relationships)


async def test_relationships_have_outcomes_of_their_own(master):
    for key in ("child", "mother", "firm"):
        await master.ingest(key, name=key)
    results = await upsert(
        master,
        stated(master, "r1", "mother", "child", "GUARDIAN", legal_basis_code="PARENTAL_RESPONSIBILITY", begin_date="2026-11-01"),
        stated(master, "r2", "mother", "firm", "OWNER", share_basis_points=2550),
        stated(master, "r3", "mother", "child", "GUARDIAN"),
        stated(master, "r4", "mother", "child", "PARENT", legal_basis_code="BECAUSE"),
        stated(master, "r5", "mother", "nobody", "PARENT"),
        stated(master, "r6", "mother", "mother", "SPOUSE"),
        stated(master, "r7", "mother", "child", "PARENT", share_basis_points=1),
        stated(master, "r8", "mother", "child", "PARENT", begin_date="2020-01-02", end_date="2020-01-01"),
        stated(master, "r9", "mother", "child", "PARENT", begin_date="2020-02-30"),
        stated(master, "r2", "mother", "firm", "OWNER", share_basis_points=2550),
        stated(master, "r2", "mother", "firm", "OWNER", day=1, share_basis_points=2600),
        stated(master, "r2", "mother", "firm", "OWNER", day=0, share_basis_points=1),
    )
    assert [(result.outcome, result.error.reason) for result in results] == [
        (1, ""), (1, ""), (5, "LEGAL_BASIS_MISSING"), (5, "LEGAL_BASIS_UNKNOWN"), (5, "RECORD_UNKNOWN"), (5, "RELATED_TO_ITSELF"),
        (5, "SHARE_WITHOUT_OWNER"), (5, "END_BEFORE_BEGIN"), (5, "DATE_INVALID"), (3, ""), (2, ""), (4, ""),
    ]  # fmt: skip
    assert results[1].relationship == results[-2].relationship
    mother = (await master.ingest("mother", name="mother")).customer
    assert [(one.kind, one.share_basis_points, one.status) for one in await listed(master, mother)] == [(4, 0, 1), (7, 2600, 1)]
    assert [one.kind for one in await listed(master, mother, kind=PrincipalKind.STAFF)] == [4, 7]
    firm = (await master.ingest("firm", name="firm")).customer
    [owner] = await listed(master, firm)
    assert (owner.from_customer, owner.to_customer, owner.source_system) == (mother, firm, master.core)
    assert await refused(listed(master, firm, "insurer")) == "CUSTOMER_NOT_FOUND"
    related = await master.customers().ListCustomers(
        customer_pb.ListCustomersRequest(related_customer=mother, relationship_kind=7)  # type: ignore[arg-type]
    )
    assert [one.name for one in related.customers] == [firm]


async def test_a_stewards_decision_holds_until_the_source_states_something_else(master):
    mother = (await master.ingest("mother", name="Eva")).customer
    await master.ingest("child", name="Jan")
    first = stated(master, "r1", "mother", "child", "PARENT")
    [made] = await upsert(master, first)
    request = pb.RejectRelationshipRequest(name=made.relationship, request_id=master.request_id())
    assert await refused(stub(master, "insurer").RejectRelationship(request)) == "RELATIONSHIP_NOT_FOUND"
    rejected = await stub(master).RejectRelationship(request)
    assert (rejected.status, rejected.decided_by != "", rejected.HasField("decide_time")) == (4, True, True)
    [again] = await upsert(master, stated(master, "r1", "mother", "child", "PARENT", day=2))
    assert again.outcome == 3
    assert await listed(master, mother) == []
    [still] = await listed(master, mother, with_rejected=True)
    assert (still.status, still.decided_by) == (4, rejected.decided_by)
    stale = pb.ConfirmRelationshipRequest(name=made.relationship, request_id=master.request_id(), etag=rejected.etag)
    assert await refused(stub(master).ConfirmRelationship(stale)) == "ETAG_MISMATCH"
    await upsert(master, stated(master, "r1", "mother", "child", "GUARDIAN", day=3, legal_basis_code="GUARDIANSHIP_ORDER"))
    [changed] = await listed(master, mother)
    assert (changed.status, changed.kind, changed.decided_by) == (1, 4, "")
    confirmed = await stub(master).ConfirmRelationship(
        pb.ConfirmRelationshipRequest(name=made.relationship, request_id=master.request_id(), etag=changed.etag)
    )
    assert confirmed.status == 3


async def test_a_relationship_follows_its_record(master):
    mother = await master.ingest("mother", name="Eva", born="1971-03-19", national_id="7153192749")
    child = await master.ingest("child", name="Jan", born="1999-01-01")
    await upsert(master, stated(master, "r1", "mother", "child", "PARENT"))
    other = await master.ingest("p1", master.policies, name="Eva", born="1971-03-19", national_id="7153192749")
    assert other.customer == mother.customer
    # The insurer sees the customer, but not what the bank states.
    assert await listed(master, mother.customer, "insurer") == []
    async with master.running.application.database.transaction() as connection:
        await connection.execute(
            "UPDATE records SET customer_id = $1 WHERE record_id = $2", mother.customer.split("/")[1], child.record.split("/")[-1]
        )
    # Both ends are one customer by now: nobody is related to themselves.
    assert await listed(master, mother.customer) == []


async def test_households_are_proposed_once(master):
    address = {"address_lines": ["Dlouhá 5"], "locality": "Praha", "postal_code": "11000", "country_code": "CZ"}
    names = {"k1": ("Jan", "Novák"), "k2": ("Eva", "Nováková"), "k3": ("Petr", "Novák"), "k4": ("Cizí", "Člověk")}
    customers = {}
    for key, (given, family) in names.items():
        party = {"party_name": {"given_name": given, "family_name": family}, "postal_address": address}
        phone = {"phone": "601123456"} if key in ("k1", "k2") else {}
        customers[key] = (await master.ingest(key, **party, **phone)).customer
    await master.ingest("k5", party_name={"given_name": "Ivo", "family_name": "Novák"}, phone="601123456")  # lives elsewhere

    async def infer(key):
        request = pb.InferHouseholdRequest(
            customer=customers[key], institution="institutions/bank", request_id=master.request_id()
        )
        return list((await stub(master).InferHousehold(request)).relationships)

    proposed = await infer("k1")
    others = {end for one in proposed for end in (one.from_customer, one.to_customer)} - {customers["k1"]}
    assert others == {customers["k2"], customers["k3"]}
    assert {(one.kind, one.status, one.source_system) for one in proposed} == {(1, 2, "")}
    assert {one.name for one in await infer("k1")} == {one.name for one in proposed}
    await stub(master).RejectRelationship(pb.RejectRelationshipRequest(name=proposed[0].name, request_id=master.request_id()))
    assert {one.name for one in await infer("k1")} == {proposed[1].name}
    assert await infer("k4") == []
    request = pb.InferHouseholdRequest(customer=customers["k1"], institution="institutions/insurer", request_id="x")
    assert await refused(stub(master).InferHousehold(request)) == "INSTITUTION_NOT_FOUND"
    assert await refused(stub(master, "insurer").InferHousehold(request)) == "CUSTOMER_NOT_FOUND"
