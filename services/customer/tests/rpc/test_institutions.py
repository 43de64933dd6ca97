from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc.aio import AioRpcError

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.customer.v1 import customer_events_pb2 as events_pb
from concord.customer.v1 import institution_service_pb2 as pb
from concord.customer.v1.attribute_pb2 import ATTRIBUTE_EMAIL, ATTRIBUTE_NAME


def wanted(**changes):
    fields: dict[str, Any] = {"display_name": "A Bank", "kind": 1, "time_zone": "Asia/Shanghai", "country_code": "CN"}
    return pb.Institution(**fields | changes)


async def refused(call):
    with pytest.raises(AioRpcError) as error:
        await call
    return reason(error.value)


async def test_an_institution_is_registered_read_listed_and_published(master):
    stub = master.institutions(**master.operator)
    request = pb.CreateInstitutionRequest(institution_id="abank", institution=wanted(), request_id="1")
    made = await stub.CreateInstitution(request)
    assert (made.name, made.display_name, made.etag) == ("institutions/abank", "A Bank", '"1"')
    assert await stub.CreateInstitution(request) == made
    assert await master.institutions("insurer").GetInstitution(pb.GetInstitutionRequest(name=made.name)) == made
    events = await master.running.events("concord.customer.v1.institution.changed")
    state = events[-1].message(events_pb.InstitutionChanged)
    assert (state.institution_id, state.time_zone, state.state_version.version) == ("abank", "Asia/Shanghai", 1)

    listed, token = [], ""
    while True:
        page = await stub.ListInstitutions(pb.ListInstitutionsRequest(page_size=2, page_token=token))
        listed += [one.name for one in page.institutions]
        token = page.next_page_token
        if not token:
            break
    assert listed == ["institutions/abank", "institutions/bank", "institutions/insurer"]


@pytest.mark.parametrize(
    ("institution_id", "changes", "expected"),
    [
        ("bank", {}, "INSTITUTION_EXISTS"),
        ("alliance", {}, "ID_RESERVED"),
        ("new-one", {"time_zone": "Mars/Olympus"}, "TIME_ZONE_UNKNOWN"),
        ("new-one", {"display_name": "  "}, "DISPLAY_NAME_MISSING"),
        ("new-one", {"country_code": "Czechia"}, "FIELD_INVALID"),
        ("NEW", {}, "FIELD_INVALID"),
    ],
)
async def test_a_wrong_institution_is_refused(master, institution_id, changes, expected):
    request = pb.CreateInstitutionRequest(institution_id=institution_id, institution=wanted(**changes), request_id="1")
    assert await refused(master.institutions(**master.operator).CreateInstitution(request)) == expected


async def test_only_the_operator_registers_institutions(master):
    request = pb.CreateInstitutionRequest(institution_id="abank", institution=wanted(), request_id="1")
    assert await refused(master.institutions("bank").CreateInstitution(request)) == "KIND_NOT_ADMITTED"


async def test_source_systems(master):
    stub = master.institutions("bank", kind=PrincipalKind.STAFF)
    system = pb.SourceSystem(
        display_name="CRM", default_rank=30, attribute_ranks=[pb.AttributeRank(attribute=ATTRIBUTE_EMAIL, rank=1)]
    )
    request = pb.CreateSourceSystemRequest(
        parent="institutions/bank", source_system_id="crm", source_system=system, request_id="1"
    )
    made = await stub.CreateSourceSystem(request)
    assert made.name == "institutions/bank/sourceSystems/crm"
    assert [(one.attribute, one.rank) for one in made.attribute_ranks] == [(6, 1)]
    assert await stub.GetSourceSystem(pb.GetSourceSystemRequest(name=made.name)) == made
    page = await stub.ListSourceSystems(pb.ListSourceSystemsRequest(parent="institutions/bank", page_size=1))
    rest = await stub.ListSourceSystems(
        pb.ListSourceSystemsRequest(parent="institutions/bank", page_size=1, page_token=page.next_page_token)
    )
    names = [one.name.rpartition("/")[2] for one in (*page.source_systems, *rest.source_systems)]
    assert (names, rest.next_page_token) == (["core", "crm"], "")
    request.request_id = "2"
    assert await refused(stub.CreateSourceSystem(request)) == "SOURCE_SYSTEM_EXISTS"
    other = master.institutions("insurer", kind=PrincipalKind.STAFF)
    request.request_id = "3"
    assert await refused(other.CreateSourceSystem(request)) == "INSTITUTION_NOT_FOUND"
    assert await refused(other.GetSourceSystem(pb.GetSourceSystemRequest(name=made.name))) == "INSTITUTION_NOT_FOUND"
    listing = pb.ListSourceSystemsRequest(parent="institutions/bank")
    assert await refused(other.ListSourceSystems(listing)) == "INSTITUTION_NOT_FOUND"
    assert await refused(stub.ListSourceSystems(pb.ListSourceSystemsRequest(parent="institutions/bank", page_token="x"))) == (
        "PAGE_TOKEN_INVALID"
    )


async def test_an_update_takes_the_fields_of_its_mask_and_minds_the_etag(master):
    stub = master.institutions("bank", kind=PrincipalKind.STAFF)
    before = await stub.GetSourceSystem(pb.GetSourceSystemRequest(name=master.core))
    request = pb.UpdateSourceSystemRequest(
        source_system=pb.SourceSystem(name=master.core, display_name="New name", default_rank=77),
        update_mask=FieldMask(paths=["display_name"]),
        etag=before.etag,
        request_id="1",
    )
    after = await stub.UpdateSourceSystem(request)
    assert (after.display_name, after.default_rank) == ("New name", before.default_rank)
    assert after.etag != before.etag
    request.request_id = "2"
    assert await refused(stub.UpdateSourceSystem(request)) == "ETAG_MISMATCH"
    request.request_id, request.etag = "3", ""
    request.update_mask.paths[:] = ["name"]
    assert await refused(stub.UpdateSourceSystem(request)) == "UPDATE_MASK_INVALID"
    request.update_mask.Clear()
    request.request_id, request.source_system.display_name = "4", ""
    assert (await stub.UpdateSourceSystem(request)).default_rank == 77
    request.request_id, request.source_system.name = "5", "institutions/bank/sourceSystems/nothing"
    assert await refused(stub.UpdateSourceSystem(request)) == "SOURCE_SYSTEM_NOT_FOUND"
    ranks = [pb.AttributeRank(attribute=ATTRIBUTE_NAME, rank=1), pb.AttributeRank(attribute=ATTRIBUTE_NAME, rank=2)]
    twice = pb.UpdateSourceSystemRequest(source_system=pb.SourceSystem(name=master.core, attribute_ranks=ranks), request_id="6")
    assert await refused(stub.UpdateSourceSystem(twice)) == "ATTRIBUTE_DUPLICATE"


async def test_new_ranks_change_the_golden_record_at_its_next_read(master):
    await master.create("bank", "crm", rank=20)
    crm = "institutions/bank/sourceSystems/crm"
    one = await master.ingest("k1", name="Core Name", national_id="7103192745")
    await master.ingest("c1", crm, name="CRM Name", national_id="7103192745")
    before = await master.get(one.customer)
    stub = master.institutions("bank", kind=PrincipalKind.STAFF)
    ranks = [pb.AttributeRank(attribute=ATTRIBUTE_NAME, rank=1)]
    await stub.UpdateSourceSystem(
        pb.UpdateSourceSystemRequest(source_system=pb.SourceSystem(name=crm, attribute_ranks=ranks), request_id="1")
    )
    after = await master.get(one.customer)
    assert (before.party_name.full_name, after.party_name.full_name) == ("Core Name", "CRM Name")
    assert before.etag != after.etag
