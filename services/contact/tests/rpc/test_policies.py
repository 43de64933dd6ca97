"""ContactPolicyService."""

import asyncio
import uuid
from typing import Any

import grpc
import pytest

from chassis.errors import from_rpc
from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.contact.v1 import contact_policy_service_pb2 as pb
from concord.contact.v1.contact_policy_service_pb2_grpc import ContactPolicyServiceStub


def create(policy, *caps, request_id=None):
    version = pb.ContactPolicyVersion(contact_caps=[pb.ContactCap(**cap) for cap in caps or [CAP]])
    return pb.CreateContactPolicyVersionRequest(
        parent=f"contactPolicies/{policy}", contact_policy_version=version, request_id=request_id or str(uuid.uuid4())
    )


CAP: dict[str, Any] = {"contacts_max": 2, "window_hours": 24, "channel": 1, "purpose": 1}


@pytest.fixture
def staff(world):
    return world.stub(ContactPolicyServiceStub, "northbank", kind=PrincipalKind.STAFF)


@pytest.fixture
def operator(world):
    return world.stub(ContactPolicyServiceStub, kind=PrincipalKind.OPERATOR)


async def test_versions_are_added_and_listed_newest_first(world, staff, operator):
    first = await staff.CreateContactPolicyVersion(create("northbank"), timeout=5)
    assert first.name == "contactPolicies/northbank/versions/1"
    assert first.contact_caps == [pb.ContactCap(**CAP)]
    await asyncio.gather(*(operator.CreateContactPolicyVersion(create("northbank"), timeout=5) for _ in range(5)))
    listing = pb.ListContactPolicyVersionsRequest(parent="contactPolicies/northbank", page_size=4)
    page = await staff.ListContactPolicyVersions(listing, timeout=5)
    listing.page_token = page.next_page_token
    rest = await staff.ListContactPolicyVersions(listing, timeout=5)
    versions = [*page.contact_policy_versions, *rest.contact_policy_versions]
    assert [version.name.rsplit("/", 1)[1] for version in versions] == ["6", "5", "4", "3", "2", "1"]
    assert versions[-1] == first
    assert not rest.next_page_token


async def test_the_alliances_policy_is_seeded_read_by_all_and_written_by_the_operator(world, staff, operator):
    listing = pb.ListContactPolicyVersionsRequest(parent="contactPolicies/alliance")
    seeded = (await staff.ListContactPolicyVersions(listing, timeout=5)).contact_policy_versions
    assert [version.name for version in seeded] == ["contactPolicies/alliance/versions/1"]
    assert seeded[0].contact_caps == [pb.ContactCap(contacts_max=4, window_hours=168)]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await staff.CreateContactPolicyVersion(create("alliance"), timeout=5)
    assert (refused.value.code(), reason(refused.value)) == (grpc.StatusCode.PERMISSION_DENIED, "OPERATOR_NEEDED")
    second = await operator.CreateContactPolicyVersion(create("alliance"), timeout=5)
    assert second.name == "contactPolicies/alliance/versions/2"


async def test_another_institutions_policy_does_not_exist(world, staff):
    for call in (
        staff.CreateContactPolicyVersion(create("southbroker"), timeout=5),
        staff.ListContactPolicyVersions(pb.ListContactPolicyVersionsRequest(parent="contactPolicies/southbroker"), timeout=5),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("cap", "field"),
    [
        ({"purpose": 3}, "contact_policy_version.contact_caps[0].purpose"),
        ({"contacts_max": 0}, "contact_policy_version.contact_caps[0].contacts_max"),
        ({"window_hours": 8785}, "contact_policy_version.contact_caps[0].window_hours"),
        ({"channel": 99}, "contact_policy_version.contact_caps[0].channel"),
    ],
)
async def test_a_wrong_cap_is_named(world, staff, cap, field):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await staff.CreateContactPolicyVersion(create("northbank", CAP | cap), timeout=5)
    error = from_rpc(refused.value)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [name for name, _ in error.field_violations] == [field]


async def test_a_channel_may_not_read_or_write_policies(world):
    channel = world.stub(ContactPolicyServiceStub, "northbank")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.CreateContactPolicyVersion(create("northbank"), timeout=5)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
