"""A person's rights: disclosure with a reason, export, restriction, erasure; and what is kept of it in the audit trail."""

import asyncio
from datetime import timedelta

import grpc
import pytest
from customer_stewards import Steward

from chassis import clock
from chassis.answers import number_of
from chassis.identity import PrincipalKind
from chassis.ids import parse_id
from chassis.testing import reason
from concord.customer.v1 import audit_service_pb2 as audit_pb
from concord.customer.v1 import customer_service_pb2 as customer_pb
from concord.customer.v1 import holding_pb2
from concord.customer.v1 import intake_service_pb2 as intake_pb
from concord.customer.v1 import privacy_service_pb2 as pb
from concord.customer.v1.audit_service_pb2_grpc import AuditServiceStub
from concord.customer.v1.customer_events_pb2 import CustomerChanged, CustomerErased, HoldingChanged
from concord.customer.v1.privacy_service_pb2_grpc import PrivacyServiceStub
from customer import erasing, exporting

POLICIES = "institutions/insurer/sourceSystems/policies"
STAFF = ("customer.read", "personal.reveal", "personal.export", "personal.erase", "personal.restrict", "audit.read")
ADA = {"name": "Ada Nováková", "born": "1970-12-13", "national_id": "706213/0008", "phone": "+420601123456"}


def privacy(master, institution="bank", kind=PrincipalKind.STAFF, scopes=STAFF, **more):
    return PrivacyServiceStub(master.channel(institution, scopes, kind=kind, **more))


def operator(master):
    return privacy(master, None, PrincipalKind.OPERATOR)


def audits(master, institution=None, kind=PrincipalKind.OPERATOR):
    return AuditServiceStub(master.channel(institution, STAFF, kind=kind))


async def erase(master, customer, stub=None, basis="DATA_SUBJECT_REQUEST"):
    request = pb.EraseCustomerRequest(name=customer, legal_basis_code=basis, request_id=master.request_id())
    return await (stub or privacy(master)).EraseCustomer(request)


async def hold(master, key, holders, closed="", parent=None, opened="2010-01-01"):
    """Holders are source record keys."""
    parent = parent or master.core
    holding = intake_pb.SourceHolding(
        source_holding_key=key,
        observe_time=master.at(1 if closed else 0),
        kind=holding_pb2.HOLDING_KIND_DEPOSIT,
        open_date=opened,
        close_date=closed,
        holders=[
            intake_pb.SourceHolder(
                source_record_key=one, role=holding_pb2.HOLDER_ROLE_OWNER if place == 0 else holding_pb2.HOLDER_ROLE_AUTHORISED
            )
            for place, one in enumerate(holders)
        ],
    )
    answer = await master.intake(parent.split("/")[1]).BatchUpsertHoldings(
        intake_pb.BatchUpsertHoldingsRequest(parent=parent, source_holdings=[holding], request_id=master.request_id())
    )
    assert answer.results[0].outcome in (1, 2), answer


async def found_by_phone(master, institution="bank", **more):
    request = customer_pb.SearchCustomersRequest(phone=ADA["phone"])
    return [one.name for one in (await master.customers(institution, **more).SearchCustomers(request)).customers]


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return reason(error.value)


async def trail(master, **more):
    return list((await audits(master).ListAuditEntries(audit_pb.ListAuditEntriesRequest(**more))).audit_entries)


async def test_staff_see_masked_values_until_they_say_why(master):
    customer = (await master.ingest("k1", **ADA)).customer
    masked = await master.get(customer, "bank", scopes=("customer.read",), kind=PrincipalKind.STAFF)
    assert masked.phones[0].number == "***56"
    request = pb.RevealCustomerRequest(name=customer, reason_code="CUSTOMER_CALLED", reason_text="asked by Ada herself")
    revealed = await privacy(master, scopes=("personal.reveal",)).RevealCustomer(request)
    assert revealed.phones[0].number == ADA["phone"]
    [entry] = await trail(master, customer=customer)
    assert (entry.action, entry.reason_code, entry.institution, entry.subject) == (
        "REVEAL", "CUSTOMER_CALLED", "institutions/bank", "tester",
    )  # fmt: skip
    assert "Ada" not in str(entry)
    assert await refused(privacy(master, "insurer").RevealCustomer(request)) == "CUSTOMER_NOT_FOUND"
    assert await refused(privacy(master, scopes=("customer.read",)).RevealCustomer(request)) == "SCOPE_MISSING"
    nothing = pb.RevealCustomerRequest(name=customer, reason_code="CUSTOMER_CALLED")
    assert await refused(privacy(master).RevealCustomer(nothing)) == "FIELD_INVALID"
    assert len(await trail(master)) == 1, "what was refused is no disclosure"


async def test_an_export_holds_everything_that_is_the_callers(master):
    await master.ingest("k1", **ADA, day=0)
    customer = (await master.ingest("k1", **(ADA | {"phone": "+420601999999"}), day=1)).customer
    await master.ingest("p1", POLICIES, **ADA)
    await hold(master, "account-1", ["k1"])

    async def exported(stub, **more):
        request = pb.ExportCustomerRequest(name=customer, reason_code="DATA_SUBJECT_REQUEST", **more)
        return await stub.ExportCustomer(request)

    mine = await exported(privacy(master))
    [record] = mine.records
    assert record.source_record_key == "k1"
    assert (record.institution_display_name, record.source_system_display_name) == ("bank", "core")
    assert [state.stated.phones[0].number for state in record.states] == [ADA["phone"], "+420601999999"]
    assert record.states[0].standardised.party_name.full_name == ADA["name"]
    assert [link.customer for link in record.links] == [customer]
    assert [holding.open_date for holding in record.holdings] == ["2010-01-01"]
    whole = await exported(operator(master))
    assert sorted(one.source_record_key for one in whole.records) == ["k1", "p1"]
    first = await exported(operator(master), page_size=1)
    second = await exported(operator(master), page_size=1, page_token=first.next_page_token)
    assert [*first.records, *second.records] == list(whole.records)
    assert not second.next_page_token
    assert [entry.action for entry in await trail(master)] == ["EXPORT"] * 4


async def test_an_export_holds_every_activity_and_says_what_is_held_elsewhere(master, monkeypatch):
    customer = (await master.ingest("k1", **ADA)).customer
    assert (await master.ingest("k2", **ADA)).customer == customer
    for source_key, count in (("k1", 7), ("k2", 2)):
        activities = [
            intake_pb.SourceActivity(
                source_system=master.core,
                source_activity_key=f"{source_key}-{number}",
                source_record_key=source_key,
                detail={"occurred_at": master.at(number % 3), "complaint": {"topic": f"topic-{number}"}},  # type: ignore[arg-type]
            )
            for number in range(count)
        ]
        request = intake_pb.RecordActivitiesRequest(activities=activities, request_id=master.request_id())
        await master.intake().RecordActivities(request)

    async def export():
        pages, token = [], ""
        while True:
            request = pb.ExportCustomerRequest(name=customer, reason_code="DATA_SUBJECT_REQUEST", page_token=token)
            pages.append(await privacy(master).ExportCustomer(request))
            if not (token := pages[-1].next_page_token):
                return pages

    [whole] = await export()
    first, second = sorted(whole.records, key=lambda record: record.source_record_key)
    assert [len(first.activities), len(second.activities)] == [first.activities_count, second.activities_count] == [7, 2]
    instants = [one.detail.occurred_at.seconds for one in first.activities]
    assert instants == sorted(instants)
    assert {one.detail.complaint.topic for one in first.activities} == {f"topic-{number}" for number in range(7)}
    assert f"/v1/{customer}/contacts" in [one.path for one in whole.held_elsewhere]
    for most in (1, 2, 7, 8, 9):
        monkeypatch.setattr(exporting, "ACTIVITIES_MAX", most)
        pages = await export()
        assert all(sum(len(record.activities) for record in page.records) <= most for page in pages)
        for record in whole.records:
            parts = [one for page in pages for one in page.records if one.record == record.record]
            assert [one.continued for one in parts] == [False] + [True] * (len(parts) - 1)
            assert [one for part in parts for one in part.activities] == list(record.activities)
            assert (parts[0].states, parts[0].links) == (record.states, record.links)
            assert not any(part.states or part.links for part in parts[1:])


async def test_a_restricted_customer_is_kept_but_found_by_no_search(master):
    customer = (await master.ingest("k1", **ADA)).customer
    await master.ingest("p1", POLICIES, **ADA)
    request = pb.RestrictCustomerRequest(name=customer, reason_code="ACCURACY_CONTESTED", request_id=master.request_id())
    restriction = await privacy(master).RestrictCustomer(request)
    assert restriction.institution == "institutions/bank"
    assert (await master.get(customer)).restricted
    assert not (await master.get(customer, "insurer")).restricted
    assert (await found_by_phone(master), await found_by_phone(master, "insurer")) == ([], [customer])

    async def published():
        events = await master.running.events("concord.customer.v1.customer.updated")
        return events[-1].message(CustomerChanged).restricted

    assert not await published(), "the insurer goes on"
    request.request_id = master.request_id()
    whole = await operator(master).RestrictCustomer(request)
    assert await published()
    assert (await found_by_phone(master, "insurer"), await found_by_phone(master, **master.operator)) == ([], [])

    async def lift(stub, name):
        return await stub.LiftRestriction(
            pb.LiftRestrictionRequest(name=name, reason_code="SETTLED", request_id=master.request_id())
        )

    assert await refused(lift(privacy(master), whole.name)) == "RESTRICTION_NOT_FOUND", "another's is not lifted"
    await lift(operator(master), whole.name)
    assert (await lift(privacy(master), restriction.name)).HasField("lift_time")
    assert await found_by_phone(master) == [customer]
    assert not await published()
    listed = await privacy(master).ListRestrictions(pb.ListRestrictionsRequest(parent=customer))
    assert not listed.restrictions


async def test_a_prospect_is_erased_at_once_and_nothing_of_it_is_left(master):
    kept = await master.ingest("k0", name="Karel Dvořák", phone="+420601777888")
    customer = (await master.ingest("k1", **ADA)).customer
    await master.ingest("k1", **(ADA | {"occupation": "clockmaker"}), day=1)
    record_ids = [row["record_id"] for row in await rows(master, "SELECT record_id FROM records WHERE customer_id = $1::uuid", customer)]  # fmt: skip # noqa: E501
    erasure = await erase(master, customer)
    assert (erasure.state, erasure.records_count) == (pb.ERASURE_STATE_ERASED, 1)
    for table in ("records", "source_records", "links", "record_sightings", "blocking_keys", "holders", "activities"):
        assert not await rows(master, f"SELECT * FROM {table} WHERE record_id = ANY($1)", record_ids), table
    assert not await master.running.application.servicers[2][1]._core.vault.keys(record_ids)
    assert await refused(master.get(customer)) == "CUSTOMER_NOT_FOUND"
    assert await found_by_phone(master) == []
    assert (await master.get(kept.customer)).name == kept.customer
    [event] = await master.running.events("concord.customer.v1.customer.erased")
    erased = event.message(CustomerErased)
    assert (erased.customer_id, erased.whole) == (customer.rpartition("/")[2], True)
    assert list(erased.record_ids) == [str(record_id) for record_id in record_ids]
    [last] = (await master.running.events("concord.customer.v1.customer.updated"))[-1:]
    assert not last.message(CustomerChanged).record_links


async def test_what_was_observed_before_the_erasure_comes_back_by_no_message(master):
    customer = (await master.ingest("k1", **ADA)).customer
    await erase(master, customer)
    late = await master.ingest("k1", **ADA, day=5)
    assert (late.outcome, late.error.reason, late.error.field) == (intake_pb.INGEST_OUTCOME_REJECTED, "ERASED", "observe_time")
    batch = intake_pb.BatchIngestRecordsRequest(
        parent=master.core,
        source_records=[master.source_record("k1", day=3, **ADA), master.source_record("k2", name="Eva Malá")],
        request_id=master.request_id(),
    )
    answer = await master.intake().BatchIngestRecords(batch)
    assert [one.outcome for one in answer.results] == [intake_pb.INGEST_OUTCOME_REJECTED, intake_pb.INGEST_OUTCOME_CREATED]
    today = int((clock.now() - clock.now().fromtimestamp(1_700_000_000, clock.now().tzinfo)).total_seconds() // 86_400) + 1
    again = await master.ingest("k1", **ADA, day=today)
    assert again.outcome == intake_pb.INGEST_OUTCOME_CREATED
    assert again.customer != customer, "who comes back is a new customer"
    old = await master.ingest("k1", **(ADA | {"occupation": "before"}), day=6)
    assert old.error.reason == "ERASED", "nor does it become history of the new record"


async def test_what_was_answered_before_an_erasure_is_answered_to_nobody(master):
    first = intake_pb.IngestRecordRequest(
        parent=master.core, source_record=master.source_record("k1", **ADA), request_id=master.request_id()
    )
    jan, eva = [(await master.ingest(key, name=name)).customer for key, name in (("k2", "Jan Malý"), ("k3", "Eva Horká"))]
    ada = (await master.intake().IngestRecord(first)).customer
    steward = Steward(master)
    await steward.merge(ada, jan)
    assert (await master.get(ada)).name == jan, "what is answered about him may now tell of her"
    await master.ingest("k2", name="Jan Malý", occupation="told while they were one", day=1)
    await steward.unmerge(ada)
    assert (await master.intake().IngestRecord(first)).customer == ada
    assert {one: set(await answered(master, one)) for one in (ada, jan, eva)} == {
        ada: {"IngestRecord", "MergeCustomers", "UnmergeCustomer"},
        jan: {"IngestRecord", "MergeCustomers", "UnmergeCustomer"},
        eva: {"IngestRecord"},
    }
    request = pb.EraseCustomerRequest(name=ada, legal_basis_code="DATA_SUBJECT_REQUEST", request_id=master.request_id())
    erasure = await privacy(master).EraseCustomer(request)
    assert [await answered(master, one) for one in (ada, jan, eva)] == [["EraseCustomer"], [], ["IngestRecord"]]
    assert (await master.intake().IngestRecord(first)).error.reason == "ERASED", "decided anew"
    assert await privacy(master).EraseCustomer(request) == erasure, "who asked for it may ask again"


async def answered(master, customer):
    """The methods whose kept answers name a customer."""
    statement = "SELECT split_part(method, '/', 3) FROM idempotency WHERE $1::bigint = ANY(named_numbers) ORDER BY 1"
    return [row[0] for row in await rows(master, statement, number_of(parse_id(customer.rpartition("/")[2], "")))]


async def test_an_institution_erases_its_own_records_only(master):
    customer = (await master.ingest("k1", **ADA)).customer
    await master.ingest("p1", POLICIES, **ADA)
    await master.ingest("p2", POLICIES, name="Jan Malý")
    await hold(master, "joint", ["p2", "p1"], closed="2012-01-01", parent=POLICIES)
    erasure = await erase(master, customer)
    assert erasure.institution == "institutions/bank"
    assert await refused(master.get(customer)) == "CUSTOMER_NOT_FOUND"
    assert (await master.get(customer, "insurer")).phones
    [event] = await master.running.events("concord.customer.v1.customer.erased")
    assert not event.message(CustomerErased).whole
    assert await refused(privacy(master, "insurer").GetErasure(pb.GetErasureRequest(name=erasure.name))) == "ERASURE_NOT_FOUND"
    listed = await operator(master).ListErasures(pb.ListErasuresRequest())
    assert [one.name for one in listed.erasures] == [erasure.name]


async def test_retention_comes_first_and_the_sweep_erases_when_it_ends(master, monkeypatch):
    customer = (await master.ingest("k1", **ADA)).customer
    await master.ingest("k2", name="Jan Malý")
    await hold(master, "account-1", ["k2", "k1"])
    assert await refused(erase(master, customer)) == "RELATIONSHIP_OPEN"
    closed = clock.now().date() - timedelta(days=30)
    await hold(master, "account-1", ["k2", "k1"], closed=closed.isoformat())
    erasure = await erase(master, customer)
    assert erasure.state == pb.ERASURE_STATE_RETAINED
    assert erasure.due_date == closed.replace(year=closed.year + 10).isoformat()
    assert list(erasure.retention_rules) == ["CZ_AML", "EU_AMLD"]
    assert (await master.get(customer)).restricted
    assert await found_by_phone(master) == []
    [restriction] = (await privacy(master).ListRestrictions(pb.ListRestrictionsRequest(parent=customer))).restrictions
    assert (restriction.until_date, restriction.erasure) == (erasure.due_date, erasure.name)
    lift = pb.LiftRestrictionRequest(name=restriction.name, reason_code="SETTLED", request_id=master.request_id())
    assert await refused(privacy(master).LiftRestriction(lift)) == "ERASURE_WAITS"
    cancel = pb.CancelErasureRequest(name=erasure.name, reason_code="WITHDRAWN", request_id=master.request_id())
    assert (await privacy(master).CancelErasure(cancel)).state == pb.ERASURE_STATE_CANCELLED
    assert await found_by_phone(master) == [customer]
    erasure = await erase(master, customer)
    application = master.running.application
    core = application.servicers[2][1]._core
    await erasing.Sweep(application.commands, core).once()
    assert (await master.get(customer)).restricted, "not before its day"
    later = clock.now() + timedelta(days=3660)
    monkeypatch.setattr(application.commands, "_clock", lambda: later)
    await erasing.Sweep(application.commands, core, lambda: later).once()
    got = await privacy(master).GetErasure(pb.GetErasureRequest(name=erasure.name))
    assert got.state == pb.ERASURE_STATE_ERASED
    assert await refused(master.get(customer)) == "CUSTOMER_NOT_FOUND"
    assert not await rows(master, "SELECT * FROM restrictions WHERE lifted_at IS NULL")
    [held] = await rows(master, "SELECT holding_id FROM holdings")
    last = [event for event in await master.running.events("concord.customer.v1.holding.changed") if event.aggregate_id == str(held[0])][-1]  # fmt: skip # noqa: E501
    assert len(last.message(HoldingChanged).holders) == 1, "the other holder keeps it"


async def test_a_kill_between_deleting_and_shredding_is_finished_by_the_sweep(master, monkeypatch):
    customer = (await master.ingest("k1", **ADA)).customer
    application = master.running.application
    core = application.servicers[2][1]._core
    [record] = await rows(master, "SELECT record_id FROM records")

    async def killed(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(type(core.vault), "shred", killed)
        assert await refused(erase(master, customer)) == "DATABASE_UNAVAILABLE"
    assert await refused(master.get(customer)) == "CUSTOMER_NOT_FOUND"
    assert await core.vault.keys([record[0]])
    await erasing.Sweep(application.commands, core).once()
    assert not await core.vault.keys([record[0]])
    listed = await operator(master).ListErasures(pb.ListErasuresRequest(state=pb.ERASURE_STATE_ERASED))
    assert len(listed.erasures) == 1


async def test_the_trail_is_one_chain_in_commit_order_and_names_what_was_tampered_with(master):
    customer = (await master.ingest("k1", **ADA)).customer
    request = pb.RevealCustomerRequest(name=customer, reason_code="CUSTOMER_CALLED", reason_text="asked")
    await asyncio.gather(*(privacy(master).RevealCustomer(request) for _ in range(20)))
    entries = (await audits(master).ListAuditEntries(audit_pb.ListAuditEntriesRequest(page_size=200))).audit_entries
    assert [entry.name for entry in entries] == [f"auditEntries/{number}" for number in range(20, 0, -1)]
    mine = await audits(master, "insurer", PrincipalKind.STAFF).ListAuditEntries(audit_pb.ListAuditEntriesRequest())
    assert not mine.audit_entries, "another institution's doings are not shown"

    async def verify(**known):
        return await audits(master).VerifyAuditTrail(audit_pb.VerifyAuditTrailRequest(**known))

    whole = await verify()
    assert (whole.intact, whole.entries_count, whole.first_broken_entry) == (True, 20, "")
    known = {"known_entries_count": whole.entries_count, "known_head_hash": whole.head_hash}
    assert (await verify(**known)).intact
    tampering = [
        ("UPDATE audit_entries SET subject = 'somebody' WHERE entry_number = 7", 7, "ENTRY_CHANGED"),
        ("UPDATE audit_entries SET record_ids = customer_ids WHERE entry_number = 3", 3, "ENTRY_CHANGED"),
        ("DELETE FROM audit_entries WHERE entry_number = 11", 11, "ENTRY_MISSING"),
        ("DELETE FROM audit_entries WHERE entry_number > 15", 16, "ENTRY_MISSING"),
        ("UPDATE audit_head SET entry_number = 18", 19, "ENTRY_BEYOND_HEAD"),
        ("INSERT INTO audit_entries SELECT entry_number + 1, recorded_at, institution_id, client, subject, action, reason_code, customer_ids, record_ids, resource, sealed_text, chain_hash FROM audit_entries WHERE entry_number = 20", 21, "ENTRY_CHANGED"),  # noqa: E501
    ]  # fmt: skip
    for statement, number, why in tampering:
        async with master.running.application.database.pool.acquire() as connection:
            await connection.execute("CREATE TEMP TABLE kept_entries AS TABLE audit_entries")
            await connection.execute("CREATE TEMP TABLE kept_head AS TABLE audit_head")
            await connection.execute(statement)
            answer = await verify()
            assert (answer.intact, answer.first_broken_entry, answer.reason) == (False, f"auditEntries/{number}", why)
            for table, kept in (("audit_entries", "kept_entries"), ("audit_head", "kept_head")):
                await connection.execute(f"TRUNCATE {table}")
                await connection.execute(f"INSERT INTO {table} TABLE {kept}")
                await connection.execute(f"DROP TABLE {kept}")
    assert (await verify()).intact
    await rows(master, "DELETE FROM audit_entries WHERE entry_number > 15")
    await rows(
        master,
        "UPDATE audit_head SET entry_number = 15, chain_hash = (SELECT chain_hash FROM audit_entries WHERE entry_number = 15)",
    )
    assert (await verify()).intact, "the end cut off together with the head cannot be seen from inside"
    cut = await verify(**known)
    assert (cut.intact, cut.first_broken_entry, cut.reason) == (False, "auditEntries/16", "ENTRY_MISSING")


async def rows(master, statement, *arguments):
    values = [argument.rpartition("/")[2] if isinstance(argument, str) else argument for argument in arguments]
    async with master.running.application.database.connection() as connection:
        return await connection.fetch(statement, *values)
