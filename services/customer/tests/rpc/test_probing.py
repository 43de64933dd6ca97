"""Institution B asks every method of the customer master for what is A's, as itself and about a customer they share."""

import re
import uuid

import grpc
import pytest
from google.api import annotations_pb2
from google.protobuf import json_format

from chassis import methods
from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.customer.v1 import customer_service_pb2 as customer_pb
from concord.customer.v1 import import_service_pb2 as import_pb
from concord.customer.v1 import kyc_service_pb2 as kyc_pb
from concord.customer.v1 import link_service_pb2 as link_pb
from concord.customer.v1 import privacy_service_pb2 as privacy_pb
from concord.customer.v1 import record_service_pb2 as record_pb
from concord.customer.v1 import relationship_service_pb2 as relationship_pb
from concord.customer.v1 import sharing_consent_service_pb2 as consent_pb
from concord.customer.v1 import staff_service_pb2 as staff_pb
from concord.customer.v1.attribute_pb2 import ATTRIBUTE_EMAIL, ATTRIBUTE_PHONE
from concord.customer.v1.import_service_pb2_grpc import ImportServiceStub
from concord.customer.v1.kyc_service_pb2_grpc import KycServiceStub
from concord.customer.v1.link_service_pb2_grpc import LinkServiceStub
from concord.customer.v1.privacy_service_pb2_grpc import PrivacyServiceStub
from concord.customer.v1.record_service_pb2_grpc import RecordServiceStub
from concord.customer.v1.relationship_service_pb2_grpc import RelationshipServiceStub
from concord.customer.v1.sharing_consent_service_pb2_grpc import SharingConsentServiceStub
from concord.customer.v1.staff_service_pb2_grpc import StaffServiceStub

POLICIES = "institutions/insurer/sourceSystems/policies"
PERSON = {"name": "Ada Nováková", "born": "1970-12-13", "national_id": "706213/0008"}
# What only A knows. None of it may come back to B, in an answer or in a refusal.
SECRETS = ("601123456", "secret-mail", "secret-key", "secret-maker", "secret-evidence", "secret-staff", "secret-department", "secret-street")  # fmt: skip # noqa: E501
MINE = {
    "phone": "+420601123456",
    "email": "secret-mail@bank.example",
    "occupation": "secret-maker",
    "postal_address": {"address_lines": ["secret-street 1"], "locality": "Praha", "country_code": "CZ"},
}
UUID_TEXT = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
KINDS = (PrincipalKind.STAFF, PrincipalKind.CHANNEL)


def staff(master, stub, institution="bank"):
    scopes = tuple(sorted({scope for method in every_method(master) for scope in method.scopes}))
    return stub(master.channel(institution, scopes, kind=PrincipalKind.STAFF))


def every_method(master):
    """The methods that are served."""
    for add, servicer in master.running.application.servicers:
        service = add.__name__.removeprefix("add_").removesuffix("Servicer_to_server")
        assert servicer is not None
        yield from methods.of_service(f"concord.customer.v1.{service}")


async def objects_of_a(master):
    """One object of A in every collection, by the pattern of its name."""
    await master.create("hospital", "wards")
    shared = await master.ingest("secret-key", **PERSON, **MINE)
    other = await master.ingest("secret-key-2", name="Karel Dvořák", born="1950-01-01", phone="+420601123456")
    assert (await master.ingest("p1", POLICIES, **PERSON)).customer == shared.customer
    rid = master.request_id
    channel = master.channel()
    consent = await staff(master, SharingConsentServiceStub).GrantSharingConsent(
        consent_pb.GrantSharingConsentRequest(
            parent=shared.customer,
            to_institution="institutions/hospital",
            purpose_code="PROBE",
            attributes=[ATTRIBUTE_PHONE],
            evidence_reference="secret-evidence",
            request_id=rid(),
        )
    )
    gone = (await master.ingest("secret-key-3", name="Jan Malý", occupation="secret-maker")).customer
    erase = privacy_pb.EraseCustomerRequest(name=gone, legal_basis_code="DATA_SUBJECT_REQUEST", request_id=rid())
    erasure = await staff(master, PrivacyServiceStub).EraseCustomer(erase)
    reject = link_pb.RejectMatchRequest(left=shared.record, right=other.record, reason_code="PROBE", request_id=rid())
    rejection = await staff(master, LinkServiceStub).RejectMatch(reject)
    wanted = import_pb.BulkImport(
        format=import_pb.IMPORT_FORMAT_CSV, default_observe_time=master.at(0), display_name="secret-maker"
    )
    made = await ImportServiceStub(channel).CreateImport(
        import_pb.CreateImportRequest(parent=master.core, bulk_import=wanted, request_id=rid())
    )
    related = relationship_pb.SourceRelationship(
        source_relationship_key="secret-key",
        observe_time=master.at(0),
        kind=relationship_pb.RelationshipKind.ValueType(1),
        from_source_record_key="secret-key",
        to_source_record_key="secret-key-2",
    )
    stated = await staff(master, RelationshipServiceStub).BatchUpsertRelationships(
        relationship_pb.BatchUpsertRelationshipsRequest(parent=master.core, source_relationships=[related], request_id=rid())
    )
    assert stated.results[0].relationship, stated
    stub = staff(master, StaffServiceStub)
    department = staff_pb.CreateDepartmentRequest(
        parent="institutions/bank",
        department_id="secret-department",
        department=staff_pb.Department(display_name="secret"),
        request_id=rid(),
    )
    await stub.CreateDepartment(department)
    member = staff_pb.StaffMember(
        name="institutions/bank/staff/secret-staff", department="institutions/bank/departments/secret-department", active=True
    )
    await stub.PutStaffMember(staff_pb.PutStaffMemberRequest(staff_member=member, request_id=rid()))
    assign = staff_pb.BatchAssignCustomersRequest(
        parent=member.name, customers=[shared.customer], role=staff_pb.ASSIGNMENT_ROLE_PRIMARY, request_id=rid()
    )
    await stub.BatchAssignCustomers(assign)
    restrict = privacy_pb.RestrictCustomerRequest(name=other.customer, reason_code="PROBE", request_id=rid())
    restriction = await staff(master, PrivacyServiceStub).RestrictCustomer(restrict)
    case = await staff(master, KycServiceStub).OpenKycCase(kyc_pb.OpenKycCaseRequest(parent=shared.customer, request_id=rid()))
    screened = await staff(master, KycServiceStub).ScreenKycCase(kyc_pb.ScreenKycCaseRequest(name=case.name, request_id=rid()))
    assert not screened.hits
    review = next(iter(await rows(master, "SELECT review_item_id FROM review_items")), None)
    return {
        "customers/*": [shared.customer, other.customer, gone],
        "customers/*/quality": [f"{shared.customer}/quality"],
        "customers/*/sharingConsents/*": [consent.name],
        "customers/*/restrictions/*": [restriction.name],
        "erasures/*": [erasure.name],
        "matchRejections/*": [rejection.name],
        "reviewItems/*": [f"reviewItems/{review[0]}"] if review else [],
        "relationships/*": [stated.results[0].relationship],
        "institutions/*": ["institutions/bank"],
        "institutions/*/staff/*": [member.name],
        "institutions/*/sourceSystems/*": [master.core],
        "institutions/*/sourceSystems/*/records/*": [shared.record, other.record],
        "institutions/*/sourceSystems/*/imports/*": [made.name],
        "kycCases/*": [case.name],
        "kycCases/*/hits/*": [f"{case.name}/hits/{case.name.removeprefix('kycCases/')}"],
        "screeningLists/*": ["screeningLists/some-list"],
        "survivorshipPolicies/*": ["survivorshipPolicies/1"],
        "record": shared.record,
        "shared": shared.customer,
        "other": other.customer,
    }


def values(master, theirs):
    """What the fields of requests are filled with, by their names: A's objects, and whatever passes validation elsewhere."""
    record = master.source_record("secret-key", **PERSON, **MINE)
    holding = {
        "source_holding_key": "secret-key", "observe_time": "2026-01-01T00:00:00Z", "kind": 1, "open_date": "2026-01-01",
        "holders": [{"source_record_key": "secret-key", "role": 1}],
    }  # fmt: skip
    activity = {
        "source_system": master.core, "source_activity_key": "a", "source_record_key": "secret-key",
        "detail": {"occurred_at": "2026-01-01T00:00:00Z", "transaction": {"amount": {"currency_code": "CZK", "minor_units": -1}}},
    }  # fmt: skip
    person = json_format.MessageToDict(record)
    related = {
        "source_relationship_key": "secret-key", "observe_time": "2026-01-01T00:00:00Z", "kind": 1,
        "from_source_record_key": "secret-key", "to_source_record_key": "secret-key-2",
    }  # fmt: skip
    department = {"name": "institutions/bank/departments/secret-department", "display_name": "mine"}
    return {
        "customer": theirs["shared"], "related_customer": theirs["other"], "left": theirs["record"], "right": theirs["other"],
        "customers": [theirs["shared"], theirs["other"]], "institution": "institutions/bank", "record": theirs["record"],
        "chosen_record": theirs["record"], "to_staff_member": "institutions/bank/staff/secret-staff",
        "staff_member": {"name": "institutions/bank/staff/secret-staff", "department": department["name"], "active": False},
        "department": department, "department_id": "secret-department", "role": 1, "source_system_id": "core",
        "source_system": {"name": master.core, "display_name": "mine", "default_rank": 1}, "update_mask": "displayName",
        "source_record": person, "source_records": [person], "source_record_keys": ["secret-key"], "source_holdings": [holding],
        "activities": [activity], "source_relationships": [related], "party": person["party"],
        "identifier": PERSON["national_id"],
        "reason_code": "PROBE", "reason_text": "probing", "reason": "probing", "legal_basis_code": "DATA_SUBJECT_REQUEST",
        "purpose_code": "PROBE", "attributes": [5], "attribute": 5, "evidence_reference": "mine", "claim_number": 1,
        "decision": 3,
        "part_number": 1, "content": "eA==", "parts_count": 1, "days": 7, "step_id": "identity", "disposition": 1, "etag": '"x"',
        "bulk_import": {"format": 1, "default_observe_time": "2026-01-01T00:00:00Z"}, "show_ended": True, "with_ended": True,
        "with_rejected": True, "evidence": {"result": 1, "reference": "mine"}, "trigger": 1,
    }  # fmt: skip


def as_b(master, method, kind):
    """A method as the other institution calls it."""
    channel = master.channel("insurer", tuple(sorted(method.scopes | {"personal.read"})), kind=kind)
    return channel.unary_unary(
        method.path,
        request_serializer=method.request_class.SerializeToString,
        response_deserializer=method.response_class.FromString,
    )


def requests(master, method, theirs):
    """Requests of a method about each of A's objects that its path can name."""
    rule = method.descriptor.GetOptions().Extensions[annotations_pb2.http]
    template = getattr(rule, rule.WhichOneof("pattern"))
    named = re.search(r"\{(\w+)(?:\.\w+)?=([^}]+)\}", template)
    field, pattern = named.groups() if named else ("", "")
    known = values(master, theirs)
    fields = {one.name for one in method.descriptor.input_type.fields}
    for name in theirs.get(pattern, []) if named else [""]:
        body = {key: value for key, value in known.items() if key in fields}
        if name and field in ("name", "parent", "customer"):
            body[field] = name
        if "request_id" in fields:
            body["request_id"] = master.request_id()
        yield json_format.ParseDict(body, method.request_class())


async def rows(master, statement):
    async with master.running.application.database.connection() as connection:
        return await connection.fetch(statement)


async def state_of_a(master, theirs):
    """All that is A's, as A sees it, and its rows."""
    counted = ("records", "source_records", "links", "sharing_consents", "restrictions", "erasures", "relationships")
    owner = {"sharing_consents": "from_institution_id"}
    found = {}
    for table in counted:
        column = owner.get(table, "institution_id")
        where = "record_id IN (SELECT record_id FROM records WHERE institution_id = 'bank')" if table == "links" else f"{column} = 'bank'"  # fmt: skip # noqa: E501
        found[table] = [tuple(row.values()) for row in await rows(master, f"SELECT * FROM {table} WHERE {where} ORDER BY 1, 2")]
    return [await master.get(theirs["shared"]), await master.get(theirs["other"])], found


async def test_b_learns_and_changes_nothing_of_a(master):
    theirs = await objects_of_a(master)
    before = await state_of_a(master, theirs)
    served = [method for method in every_method(master) if {int(kind) for kind in KINDS} & method.kinds]
    served.sort(
        key=lambda method: method.path.endswith("/EraseCustomer")
    )  # B may erase its own part, and is no longer linked then
    asked: set[str] = set()
    refusals: dict[str, set[str]] = {}
    for method in served:
        for kind in KINDS:
            if int(kind) not in method.kinds:
                continue
            call = as_b(master, method, kind)
            for request in requests(master, method, theirs):
                asked.add(method.path)
                try:
                    said = str(await call(request, timeout=10))
                except grpc.aio.AioRpcError as error:
                    refusals.setdefault(error.code().name, set()).add(method.path)
                    said = f"{error.details()} {error.trailing_metadata()}"
                for secret in SECRETS:
                    assert secret not in without(said, request), (method.path, secret)
    assert {method.path for method in served} == asked
    assert {"NOT_FOUND", "FAILED_PRECONDITION"} >= refusals.keys(), "what is invalid or fails proves nothing"
    assert await state_of_a(master, theirs) == before


def without(said, request):
    """An answer without what the request itself held in names of objects."""
    for name in re.findall(r"institutions/[^\"\s]+", str(request)):
        said = said.replace(name, "")
    return said


@pytest.mark.parametrize("criterion", [{"phone": MINE["phone"]}, {"email": MINE["email"]}, {"person_name": "Dvořák"}])
async def test_nobody_is_found_by_what_only_the_other_knows(master, criterion):
    theirs = await objects_of_a(master)
    request = customer_pb.SearchCustomersRequest(**criterion)
    assert not (await master.customers("insurer").SearchCustomers(request)).customers
    consent = consent_pb.GrantSharingConsentRequest(
        parent=theirs["shared"],
        purpose_code="PROBE",
        attributes=[ATTRIBUTE_PHONE, ATTRIBUTE_EMAIL],
        evidence_reference="x",
        request_id=master.request_id(),
    )
    await staff(master, SharingConsentServiceStub).GrantSharingConsent(consent)
    assert not (await master.customers("insurer").SearchCustomers(request)).customers, "what is shared is shown, not searched"


@pytest.mark.parametrize("scopes", [("customer.read",), ("customer.read", "personal.read")])
async def test_a_record_of_the_other_is_not_there_even_by_its_name(master, scopes):
    theirs = await objects_of_a(master)
    stub = RecordServiceStub(master.channel("insurer", scopes))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetRecord(record_pb.GetRecordRequest(name=theirs["record"]))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    forged = theirs["record"].replace("bank", "insurer").replace("core", "policies")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetRecord(record_pb.GetRecordRequest(name=forged))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    listed = await stub.ListRecords(record_pb.ListRecordsRequest(parent=theirs["shared"]))
    assert [record.name.split("/")[1] for record in listed.records] == ["insurer"]
    history = await stub.ListLinkHistory(record_pb.ListLinkHistoryRequest(parent=theirs["shared"]))
    assert {link.record.split("/")[1] for link in history.links} == {"insurer"}


def nowhere(request, shared):
    """The same request about objects that do not exist: other ids, and other words for what A named."""
    text = json_format.MessageToJson(request)
    swapped = {one: str(uuid.uuid4()) for one in set(UUID_TEXT.findall(text)) if one not in shared}
    swapped["institutions/bank"] = "institutions/nobody"
    swapped |= {"secret-staff": "nobody-staff", "secret-department": "nobody-department", "secret-key": "nobody-key"}
    for known, unknown in swapped.items():
        text = text.replace(known, unknown)
    return json_format.Parse(text, type(request)()), {unknown: known for known, unknown in swapped.items()}


async def answer(call, request):
    """What a call says, without ids that are made anew and without times."""
    try:
        said = str(await call(request, timeout=10))
    except grpc.aio.AioRpcError as error:
        said = f"{error.code().name} {reason(error)} {error.details()}"
    return re.sub(r"(seconds|nanos): \d+", "", said)


async def test_a_refusal_does_not_tell_b_whether_something_of_a_exists(master):
    """What is only A's is refused with the very words with which what nobody has is refused."""
    theirs = await objects_of_a(master)
    shared = theirs["shared"].removeprefix("customers/")
    differing = []
    for method in every_method(master):
        if method.path.endswith("/GetInstitution"):
            continue  # who takes part is no secret
        for kind in KINDS:
            if int(kind) not in method.kinds:
                continue
            call = as_b(master, method, kind)
            for request in requests(master, method, theirs):
                unknown, back = nowhere(request, {shared})
                if unknown == request:
                    continue  # about nothing of A's alone
                if "request_id" in request.DESCRIPTOR.fields_by_name:
                    unknown.request_id = master.request_id()
                told, told_nothing = await answer(call, request), await answer(call, unknown)
                for other, one in back.items():
                    told_nothing = told_nothing.replace(other, one)
                if told != told_nothing:
                    differing.append((method.path.rsplit("/", 1)[1], kind.name, told[:300], told_nothing[:300]))
    assert not differing, "\n".join(map(str, differing))
