"""KYC cases through the contract: evidence, screening, four eyes, reviews that come due."""

from datetime import timedelta
from typing import Any

import grpc
import pytest

from chassis import clock
from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.customer.v1 import customer_events_pb2 as events
from concord.customer.v1 import customer_service_pb2 as customer_pb
from concord.customer.v1 import kyc_service_pb2 as pb
from concord.customer.v1 import screening_list_service_pb2 as lists_pb
from concord.customer.v1.attribute_pb2 import Attribute
from concord.customer.v1.kyc_service_pb2_grpc import KycServiceStub
from concord.customer.v1.screening_list_service_pb2_grpc import ScreeningListServiceStub
from customer.kyc import Reviews

STAFF = {"kind": PrincipalKind.STAFF}
SCOPES = ("kyc.read", "kyc.write", "kyc.decide", "personal.read")


def staff(master: Any, person: str, institution: str = "bank") -> Any:
    return KycServiceStub(master.running.channel(institution=institution, scopes=SCOPES, client=person, subject=person, **STAFF))


async def refused(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return reason(error.value)


async def activate(
    master: Any, version: str, *entries: lists_pb.ScreeningEntry, topic=lists_pb.SCREENING_TOPIC_SANCTIONS
) -> None:
    stub = ScreeningListServiceStub(
        master.running.channel(institution=None, kind=PrincipalKind.OPERATOR, scopes=["screening.write"])
    )
    name = f"screeningLists/un-list/versions/{version}"
    await stub.CreateScreeningListVersion(
        lists_pb.CreateScreeningListVersionRequest(
            parent="screeningLists/un-list", version=version, topic=topic, request_id=master.request_id()
        )
    )
    assert (
        await refused(
            stub.ActivateScreeningListVersion(
                lists_pb.ActivateScreeningListVersionRequest(name=name, request_id=master.request_id())
            )
        )
        == "LIST_VERSION_EMPTY"
    )
    await stub.AddScreeningEntries(
        lists_pb.AddScreeningEntriesRequest(name=name, entries=entries, request_id=master.request_id())
    )
    await stub.ActivateScreeningListVersion(
        lists_pb.ActivateScreeningListVersionRequest(name=name, request_id=master.request_id())
    )


async def gathered(master: Any, stub: Any, case: pb.KycCase, result: Any = pb.KYC_STEP_RESULT_PASSED, **more: Any) -> pb.KycCase:
    for step in case.steps:
        evidence = pb.KycEvidence(result=result, reference=f"archive/{step.step_id}", note="seen", **more)
        case = await stub.RecordKycEvidence(
            pb.RecordKycEvidenceRequest(name=case.name, step_id=step.step_id, evidence=evidence, request_id=master.request_id())
        )
    return case


async def approved(master: Any, analyst: Any, chief: Any, customer: str, **evidence: Any) -> pb.KycCase:
    case = await analyst.OpenKycCase(pb.OpenKycCaseRequest(parent=customer, request_id=master.request_id()))
    await gathered(master, analyst, case, **evidence)
    case = await analyst.ScreenKycCase(pb.ScreenKycCaseRequest(name=case.name, request_id=master.request_id()))
    for hit in case.hits:
        case = await analyst.DisposeScreeningHit(
            pb.DisposeScreeningHitRequest(
                name=hit.name, disposition=pb.HIT_DISPOSITION_FALSE_POSITIVE, reason="another man", request_id=master.request_id()
            )
        )
    case = await analyst.SubmitKycCase(pb.SubmitKycCaseRequest(name=case.name, request_id=master.request_id()))
    return await chief.DecideKycCase(  # type: ignore[no-any-return]
        pb.DecideKycCaseRequest(name=case.name, approve=True, reason="all fine", etag=case.etag, request_id=master.request_id())
    )


async def test_a_case_from_opening_to_the_second_persons_decision(master):
    wang = (await master.ingest("k-1", name="王伟", born="1970-12-13", national_id="706213/6401")).customer
    await activate(master, "1", lists_pb.ScreeningEntry(entry_id="qd-1", names=["WANG Wei"], birth_dates=["1950"]))
    analyst, chief = staff(master, "analyst"), staff(master, "chief")
    case = await analyst.OpenKycCase(pb.OpenKycCaseRequest(parent=wang, product_codes=["fund"], request_id=master.request_id()))
    assert [step.step_id for step in case.steps] == ["identity-document", "address-proof", "purpose", "suitability"]
    assert await refused(analyst.OpenKycCase(pb.OpenKycCaseRequest(parent=wang, request_id=master.request_id()))) == "CASE_OPEN"
    assert await refused(staff(master, "x", "insurer").GetKycCase(pb.GetKycCaseRequest(name=case.name))) == "CASE_NOT_FOUND"

    submit = pb.SubmitKycCaseRequest(name=case.name, request_id=master.request_id())
    assert await refused(analyst.SubmitKycCase(submit)) == "CASE_INCOMPLETE"
    waive = pb.KycEvidence(result=pb.KYC_STEP_RESULT_WAIVED, note="known for years")
    wrong = pb.RecordKycEvidenceRequest(name=case.name, step_id="purpose", evidence=waive, request_id=master.request_id())
    assert await refused(analyst.RecordKycEvidence(wrong)) == "STEP_NOT_WAIVABLE"
    await gathered(master, analyst, case)
    case = await analyst.ScreenKycCase(pb.ScreenKycCaseRequest(name=case.name, request_id=master.request_id()))
    [hit] = case.hits
    assert (hit.entry_id, hit.name_form, hit.birth_year_check, hit.score_percent) == ("qd-1", "PINYIN", "DIFFER", 80)
    assert await refused(analyst.SubmitKycCase(submit)) == "CASE_INCOMPLETE", "a hit is open"
    case = await analyst.DisposeScreeningHit(
        pb.DisposeScreeningHitRequest(
            name=hit.name,
            disposition=pb.HIT_DISPOSITION_FALSE_POSITIVE,
            reason="born 20 years later",
            request_id=master.request_id(),
        )
    )
    case = await analyst.SubmitKycCase(submit)
    decide = pb.DecideKycCaseRequest(name=case.name, approve=True, reason="fine", etag=case.etag, request_id=master.request_id())
    assert await refused(analyst.DecideKycCase(decide)) == "SECOND_PERSON_NEEDED"
    case = await chief.DecideKycCase(decide)
    assert case.state == pb.KYC_STATE_APPROVED
    assert case.decision_reason == "fine"
    assert case.steps[0].evidence[0].reference == "archive/identity-document"
    [decided] = [event.message(events.KycDecided) for event in await master.running.events("concord.customer.v1.kyc.decided")]
    assert (decided.approved, decided.risk_level, decided.record_link.institution_id) == (True, "LOW", "bank")

    # The same content does not come back: neither in a new case, nor by another version of the list that says the same.
    await activate(master, "2", lists_pb.ScreeningEntry(entry_id="qd-1", names=["WANG Wei"], birth_dates=["1950"]))
    await sweep(master)
    assert not (await analyst.ListKycCases(pb.ListKycCasesRequest(customer=wang, state=pb.KYC_STATE_OPEN))).kyc_cases
    # A changed entry does, by itself.
    await activate(master, "3", lists_pb.ScreeningEntry(entry_id="qd-1", names=["WANG Wei"], birth_dates=["1970"]))
    await sweep(master)
    [again] = (await analyst.ListKycCases(pb.ListKycCasesRequest(customer=wang, state=pb.KYC_STATE_OPEN))).kyc_cases
    assert again.trigger == pb.KYC_TRIGGER_LIST_UPDATE
    again = await analyst.ScreenKycCase(pb.ScreenKycCaseRequest(name=again.name, request_id=master.request_id()))
    again = await analyst.DisposeScreeningHit(
        pb.DisposeScreeningHitRequest(
            name=again.hits[0].name, disposition=pb.HIT_DISPOSITION_TRUE_MATCH, reason="it is he", request_id=master.request_id()
        )
    )
    assert again.risk_level == pb.KYC_RISK_LEVEL_PROHIBITED
    await gathered(master, analyst, again)
    again = await analyst.SubmitKycCase(pb.SubmitKycCaseRequest(name=again.name, request_id=master.request_id()))
    no = pb.DecideKycCaseRequest(name=again.name, approve=True, reason="please", etag=again.etag, request_id=master.request_id())
    assert await refused(chief.DecideKycCase(no)) == "APPROVAL_REFUSED"


async def test_evidence_is_unreadable_in_the_database(master):
    customer = (await master.ingest("k-2", name="Jana Malá", born="1980-02-02")).customer
    analyst = staff(master, "analyst")
    case = await analyst.OpenKycCase(pb.OpenKycCaseRequest(parent=customer, request_id=master.request_id()))
    await gathered(master, analyst, case)
    async with master.running.application.database.connection() as connection:
        rows = await connection.fetch("SELECT content FROM kyc_evidence")
    assert rows
    assert not any(b"archive" in row["content"] or b"seen" in row["content"] for row in rows)


async def sweep(master: Any) -> None:
    [reviews] = [run.__self__ for run in master.running.application.background if isinstance(run.__self__, Reviews)]
    while await reviews.sweep():
        pass


async def test_reviews_come_due_by_themselves(master):
    customer = (await master.ingest("k-3", name="Petr Nový", born="1980-02-02")).customer
    analyst, chief = staff(master, "analyst"), staff(master, "chief")
    today = clock.now().date()
    expired = (today - timedelta(days=1)).isoformat()
    await approved(master, analyst, chief, customer, expire_date=expired)
    await sweep(master)
    [opened] = (await analyst.ListKycCases(pb.ListKycCasesRequest(customer=customer, state=pb.KYC_STATE_OPEN))).kyc_cases
    assert opened.trigger == pb.KYC_TRIGGER_DOCUMENT_EXPIRY
    await analyst.CancelKycCase(pb.CancelKycCaseRequest(name=opened.name, request_id=master.request_id()))
    await approved(master, analyst, chief, customer)
    await sweep(master)
    assert not (await analyst.ListKycCases(pb.ListKycCasesRequest(customer=customer, state=pb.KYC_STATE_OPEN))).kyc_cases
    async with master.running.application.database.transaction() as connection:
        await connection.execute("UPDATE kyc_cases SET next_review_date = $1 WHERE state = 3", today)
    await sweep(master)
    [opened] = (await analyst.ListKycCases(pb.ListKycCasesRequest(customer=customer, state=pb.KYC_STATE_OPEN))).kyc_cases
    assert opened.trigger == pb.KYC_TRIGGER_PERIODIC_REVIEW


def origin(customer: Any, field: str) -> Any:
    return next(one for one in customer.provenances if one.field == field)


async def test_what_an_approved_case_verified_outranks_a_better_source(master):
    await master.create("shop", "crm", rank=1)
    crm = "institutions/shop/sourceSystems/crm"
    said = {"name": "Jana Malá", "national_id": "706213/6401"}
    bank = await master.ingest("k-4", born="1970-12-13", **said)
    shop = await master.ingest("s-4", crm, born="1970-12-14", **said)
    assert shop.customer == bank.customer
    customer = bank.customer
    before = await master.get(customer, **master.operator)
    assert before.birth_date == "1970-12-14"  # of the better rank
    asked = clock.now()
    await approved(master, staff(master, "analyst"), staff(master, "chief"), customer)
    seen = await master.get(customer, **master.operator)
    assert seen.birth_date == "1970-12-13"
    assert customer_pb.SurvivorshipRule.Name(origin(seen, "birth_date").rule) == "SURVIVORSHIP_RULE_VERIFIED"
    full = customer_pb.GetCustomerRequest(name=customer, view=customer_pb.CUSTOMER_VIEW_FULL)
    explained = await master.customers(**master.operator).GetCustomer(full)
    assert origin(explained, "birth_date").verify_date == clock.now().date().isoformat()
    full.known_at.FromDatetime(asked)
    earlier = await master.customers(**master.operator).GetCustomer(full)
    assert earlier.birth_date == "1970-12-14", "what was not verified yet was not believed for it"
    published = [
        event.message(events.CustomerChanged) for event in await master.running.events("concord.customer.v1.customer.updated")
    ]
    assert len(published) == 3, "once more for the decision"

    # Another value of the source is not the one that was verified; when it comes back, it is again.
    await master.ingest("k-4", day=1, born="1970-11-13", **said)
    assert (await master.get(customer, **master.operator)).birth_date == "1970-12-14"
    await master.ingest("k-4", day=2, born="1970-12-13", **said)
    assert (await master.get(customer, **master.operator)).birth_date == "1970-12-13"


async def test_evidence_that_fails_takes_the_verification_back(master):
    await master.create("shop", "crm", rank=1)
    said = {"name": "Jana Malá", "national_id": "706213/6401"}
    customer = (await master.ingest("k-5", born="1970-12-13", **said)).customer
    await master.ingest("s-5", "institutions/shop/sourceSystems/crm", born="1970-12-14", **said)
    analyst, chief = staff(master, "analyst"), staff(master, "chief")
    await approved(master, analyst, chief, customer)
    assert (await master.get(customer, **master.operator)).birth_date == "1970-12-13"
    case = await analyst.OpenKycCase(pb.OpenKycCaseRequest(parent=customer, request_id=master.request_id()))
    await gathered(master, analyst, case, pb.KYC_STEP_RESULT_FAILED)
    await analyst.ScreenKycCase(pb.ScreenKycCaseRequest(name=case.name, request_id=master.request_id()))
    case = await analyst.SubmitKycCase(pb.SubmitKycCaseRequest(name=case.name, request_id=master.request_id()))
    await chief.DecideKycCase(
        pb.DecideKycCaseRequest(name=case.name, approve=False, reason="forged", etag=case.etag, request_id=master.request_id())
    )
    assert (await master.get(customer, **master.operator)).birth_date == "1970-12-14"


async def test_the_standard_says_what_a_step_verifies(master):
    standard = await staff(master, "analyst").GetKycStandard(pb.GetKycStandardRequest())
    steps = {step.step_id: [Attribute.Name(one) for one in step.verifies_attributes] for step in standard.steps}
    assert steps["identity-document"] == ["ATTRIBUTE_NAME", "ATTRIBUTE_BIRTH_DATE", "ATTRIBUTE_SEX", "ATTRIBUTE_IDENTIFIER"]
    assert (steps["address-proof"], steps["purpose"]) == (["ATTRIBUTE_ADDRESS"], [])
