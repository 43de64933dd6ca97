"""ReservationService: who may call it, and what it refuses. How it counts: `store/test_reserving.py`."""

import uuid

import grpc
import pytest

from chassis.errors import from_rpc
from chassis.identity import PrincipalKind
from concord.contact.v1.reservation_service_pb2_grpc import ReservationServiceStub

RESERVED, CUSTOMER_UNKNOWN, NO_PERMISSION, CAPPED = 1, 2, 3, 4


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    error = from_rpc(refused.value)
    return refused.value.code(), error.reason, [field for field, _ in error.field_violations]


async def test_every_item_has_its_own_outcome(world):
    [anna, bo] = await world.customers(2)
    [shy] = await world.customers(1, permitted=False)
    [of_another] = await world.customers(1, institutions=["southbroker"])
    whose = [anna, str(uuid.uuid4()), shy, of_another, bo]
    touches = [world.new_touch() for _ in whose]
    results = await world.reserve(list(zip(touches, whose, strict=True)))
    assert [result.outcome for result in results] == [RESERVED, CUSTOMER_UNKNOWN, NO_PERMISSION, CUSTOMER_UNKNOWN, RESERVED]
    assert [result.touch for result in results] == [world.touch_name(touch) for touch in touches]
    assert await world.value("SELECT count(*) FROM contacts") == 2
    assert await world.value("SELECT count(*) FROM contact_subjects WHERE customer_id = $1", uuid.UUID(whose[1])) == 0


async def test_permission_given_to_another_institution_is_no_permission(world):
    [anna] = await world.customers(1, institutions=["northbank", "southbroker"], permitted=False)
    await world.permit("southbroker", [anna])
    [result] = await world.reserve([(world.new_touch(), anna)])
    assert result.outcome == NO_PERMISSION


async def test_the_same_request_gets_the_same_answer(world):
    [anna] = await world.customers(1)
    items = [(world.new_touch(), anna) for _ in range(6)]
    first = await world.reserve(items, request_id="wave-1")
    assert await world.reserve(items, request_id="wave-1") == first
    call = world.campaign.ReserveContacts(world.reserve_request(items[:1], request_id="wave-1"), timeout=5)
    assert await refusal(call) == (grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_ID_REUSED", ["request_id"])


async def test_staff_reserve_for_their_own_institution(world):
    [anna] = await world.customers(1, institutions=["northbank", "southbroker"])
    staff = world.stub(ReservationServiceStub, "northbank", kind=PrincipalKind.STAFF)
    [result] = await world.reserve([(world.new_touch(), anna)], stub=staff)
    assert result.outcome == RESERVED
    code, _, _ = await refusal(world.reserve([(world.new_touch(), anna)], institution="southbroker", stub=staff))
    assert code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("kind", "client", "institution"),
    [
        (PrincipalKind.SERVICE, "loyalty", None),
        (PrincipalKind.CHANNEL, "app", "northbank"),
        (PrincipalKind.OPERATOR, "console", None),
        (PrincipalKind.PARTNER, "shop", "northbank"),
    ],
)
async def test_nobody_else_reserves(world, kind, client, institution):
    [anna] = await world.customers(1)
    stub = world.stub(ReservationServiceStub, institution, kind=kind, client=client)
    code, _, _ = await refusal(world.reserve([(world.new_touch(), anna)], stub=stub))
    assert code is grpc.StatusCode.PERMISSION_DENIED


async def test_only_connected_channels(world):
    [anna] = await world.customers(1)
    answer = await refusal(world.reserve([(world.new_touch(), anna)], channel=4))
    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, "CHANNEL_NOT_CONNECTED", ["channel"])


async def test_touches_must_be_the_institutions_and_of_one_customer(world):
    [anna, bo] = await world.customers(2)
    good, touch = (world.new_touch(), anna), world.new_touch()
    request = world.reserve_request([good, (touch, anna)])
    request.items[1].touch = world.touch_name(touch, "southbroker")
    answer = await refusal(world.campaign.ReserveContacts(request, timeout=5))
    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, "TOUCH_INVALID", ["items[1].touch"])
    answer = await refusal(world.reserve([good, (touch, anna), (touch, bo)]))
    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, "TOUCH_INVALID", ["items[2].customer"])
    assert await world.value("SELECT count(*) FROM contacts") == 0


async def test_a_touch_id_of_another_institution_is_refused(world):
    [anna] = await world.customers(1, institutions=["northbank", "southbroker"])
    touch = world.new_touch()
    await world.reserve([(touch, anna)])
    answer = await refusal(world.reserve([(touch, anna)], institution="southbroker"))
    assert answer == (grpc.StatusCode.FAILED_PRECONDITION, "TOUCH_ID_REUSED", ["items[0].touch"])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (None, "purpose"),
        (None, "contact_message"),
        (None, "items"),
        ("institutions/North Bank", "parent"),
    ],
)
async def test_what_is_missing_is_named(world, wrong, field):
    [anna] = await world.customers(1)
    request = world.reserve_request([(world.new_touch(), anna)])
    request.ClearField(field)
    if wrong:
        setattr(request, field, wrong)
    code, _, fields = await refusal(world.campaign.ReserveContacts(request, timeout=5))
    assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
