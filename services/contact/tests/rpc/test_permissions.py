"""PermissionService."""

import uuid
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from chassis.errors import from_rpc
from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.contact.v1 import permission_service_pb2 as pb
from concord.contact.v1.contact_events_pb2 import PermissionChanged
from concord.contact.v1.permission_service_pb2_grpc import PermissionServiceStub

GRANTED, DENIED = 1, 2
SET, STALE, CUSTOMER_UNKNOWN = 1, 2, 3
NOW = datetime.now(UTC)


def request(world, *said, institution="northbank", request_id=None):
    """(customer, state, days ago[, purpose[, channel]]) each."""
    made = pb.BatchSetPermissionsRequest(parent=f"institutions/{institution}", request_id=request_id or str(uuid.uuid4()))
    for statement in said:
        customer, state, days, purpose, channel = (*statement, 1, 1)[:5]
        made.permissions.add(
            customer=f"customers/{customer}",
            state=state,
            purpose=purpose,
            channel=channel,
            state_time=world.at(NOW - timedelta(days=days)),
            evidence_reference="forms/2026/17",
        )
    return made


def outcomes(response):
    return [result.outcome for result in response.results]


@pytest.fixture
def stub(world):
    return world.stub(PermissionServiceStub, "northbank")


async def states(stub, customer):
    response = await stub.ListPermissions(pb.ListPermissionsRequest(parent=f"customers/{customer}"), timeout=5)
    return {(item.purpose, item.channel): item.state for item in response.permissions}


async def test_the_newest_statement_holds_in_whatever_order_they_come(world, stub):
    [anna] = await world.customers(1, permitted=False)
    assert outcomes(await stub.BatchSetPermissions(request(world, (anna, DENIED, 1)), timeout=5)) == [SET]
    assert outcomes(await stub.BatchSetPermissions(request(world, (anna, GRANTED, 2)), timeout=5)) == [STALE]
    assert await states(stub, anna) == {(1, 1): DENIED}
    batch = request(world, (anna, GRANTED, 0.5), (anna, DENIED, 0.6), (anna, GRANTED, 3, 2))
    assert outcomes(await stub.BatchSetPermissions(batch, timeout=5)) == [SET, STALE, SET]
    assert await states(stub, anna) == {(1, 1): GRANTED, (2, 1): GRANTED}
    assert await world.value("SELECT count(*) FROM permission_events") == 5
    events = [e.message(PermissionChanged) for e in await world.running.events("concord.contact.v1.permission.changed")]
    assert sorted((e.purpose, e.state_version.version, e.state) for e in events) == [
        (1, 1, DENIED),
        (1, 2, GRANTED),
        (2, 1, GRANTED),
    ]
    assert {(e.customer_id, e.institution_id, e.channel) for e in events} == {(anna, "northbank", 1)}


async def test_an_unknown_customer_is_an_outcome_and_the_others_are_set(world, stub):
    [anna] = await world.customers(1, permitted=False)
    [of_another] = await world.customers(1, institutions=["southbroker"], permitted=False)
    nobody = str(uuid.uuid4())
    batch = request(world, (nobody, GRANTED, 1), (anna, GRANTED, 1), (of_another, GRANTED, 1))
    response = await stub.BatchSetPermissions(batch, timeout=5)
    assert outcomes(response) == [CUSTOMER_UNKNOWN, SET, CUSTOMER_UNKNOWN]
    assert [result.customer for result in response.results] == [permission.customer for permission in batch.permissions]
    assert await world.value("SELECT count(*) FROM permission_events") == 1


async def test_a_channel_bound_to_a_customer_speaks_for_that_one_only(world):
    [anna, bo] = await world.customers(2, permitted=False)
    bound = world.stub(PermissionServiceStub, "northbank", customer=anna)
    assert outcomes(await bound.BatchSetPermissions(request(world, (anna, DENIED, 0), (bo, DENIED, 0)), timeout=5)) == [
        SET,
        CUSTOMER_UNKNOWN,
    ]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await states(bound, bo)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_same_request_twice_is_done_once(world, stub):
    [anna] = await world.customers(1, permitted=False)
    batch = request(world, (anna, GRANTED, 1), request_id="once")
    assert await stub.BatchSetPermissions(batch, timeout=5) == await stub.BatchSetPermissions(batch, timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.BatchSetPermissions(request(world, (anna, DENIED, 1), request_id="once"), timeout=5)
    assert reason(refused.value) == "REQUEST_ID_REUSED"
    again = request(world, (anna, GRANTED, 1))  # loaded again later: nothing new is said
    assert outcomes(await stub.BatchSetPermissions(again, timeout=5)) == [SET]
    assert await world.value("SELECT count(*) FROM permission_events") == 1
    assert len(await world.running.events()) == 1


async def test_what_is_refused_changes_nothing(world, stub):
    [anna] = await world.customers(1, permitted=False)
    tomorrow = request(world, (anna, GRANTED, 1), (anna, GRANTED, -1))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.BatchSetPermissions(tomorrow, timeout=5)
    error = from_rpc(refused.value)
    assert (refused.value.code(), error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TIME_INVALID")
    assert [field for field, _ in error.field_violations] == ["permissions[1].state_time"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.BatchSetPermissions(request(world, (anna, GRANTED, 1), institution="southbroker"), timeout=5)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    too_many = request(world, *[(anna, GRANTED, 1)] * 501)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.BatchSetPermissions(too_many, timeout=5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await world.value("SELECT count(*) FROM permission_events") == 0


async def test_permissions_are_listed_by_pages_and_to_their_institution_only(world, stub):
    [anna] = await world.customers(1, institutions=["northbank", "southbroker"], permitted=False)
    wanted = [(purpose, channel) for purpose in (1, 2, 3) for channel in (1, 2, 3)]
    await stub.BatchSetPermissions(request(world, *[(anna, GRANTED, 1, *pair) for pair in wanted[::-1]]), timeout=5)
    await world.permit("southbroker", [anna])
    found, listing = [], pb.ListPermissionsRequest(parent=f"customers/{anna}", page_size=4)
    while True:
        page = await stub.ListPermissions(listing, timeout=5)
        found += [(item.purpose, item.channel) for item in page.permissions]
        assert {item.institution for item in page.permissions} == {"institutions/northbank"}
        if not page.next_page_token:
            break
        listing.page_token = page.next_page_token
    assert found == wanted
    operator = world.stub(PermissionServiceStub, kind=PrincipalKind.OPERATOR)
    everything = await operator.ListPermissions(pb.ListPermissionsRequest(parent=f"customers/{anna}"), timeout=5)
    assert [item.institution for item in everything.permissions] == ["institutions/northbank"] * 9 + [
        "institutions/southbroker"
    ] * 2
    assert everything.permissions[0].evidence_reference == "forms/2026/17"


async def test_a_page_token_of_another_customer_is_refused(world, stub):
    [anna, bo] = await world.customers(2)
    page = await stub.ListPermissions(pb.ListPermissionsRequest(parent=f"customers/{anna}", page_size=1), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ListPermissions(
            pb.ListPermissionsRequest(parent=f"customers/{bo}", page_token=page.next_page_token), timeout=5
        )
    assert reason(refused.value) == "PAGE_TOKEN_INVALID"
