"""Reserving, on a real database: nobody gets more than a cap allows, whoever asks at the same time."""

import asyncio
import random
import uuid
from datetime import timedelta

import pytest

from chassis.identity import PrincipalKind
from chassis.testing import acting_as, principal
from chassis.unit_of_work import Commands
from concord.contact.v1 import contact_policy_service_pb2 as policies_pb
from concord.contact.v1.contact_policy_service_pb2_grpc import ContactPolicyServiceStub
from contact.rpc.reservation_service import ReservationServicer

RESERVED, CUSTOMER_UNKNOWN, NO_PERMISSION, CAPPED, EXPIRED = 1, 2, 3, 4, 5
WEEK_HOURS = 168
RESERVE = "/concord.contact.v1.ReservationService/ReserveContacts"
CAMPAIGN = principal(PrincipalKind.SERVICE, client="campaign")


async def cap(world, contacts_max, policy="alliance", window_hours=WEEK_HOURS, **changes):
    stub = world.stub(ContactPolicyServiceStub, kind=PrincipalKind.OPERATOR)
    version = policies_pb.ContactPolicyVersion(
        contact_caps=[policies_pb.ContactCap(contacts_max=contacts_max, window_hours=window_hours, **changes)]
    )
    request = policies_pb.CreateContactPolicyVersionRequest(
        parent=f"contactPolicies/{policy}", contact_policy_version=version, request_id=str(uuid.uuid4())
    )
    return await stub.CreateContactPolicyVersion(request, timeout=5)


def outcomes(results):
    return [result.outcome for result in results]


async def most_contacts_of_a_customer(world):
    return await world.value("SELECT max(n) FROM (SELECT count(*) n FROM contacts WHERE state = 1 GROUP BY record_id) c")


@pytest.mark.timeout(300)
async def test_32_reservers_never_exceed_the_cap(world, start, make_world):
    """Two replicas, 32 at once, 4,000 touches for 200 customers, in batches that overlap in every order: exactly 2 each."""
    await cap(world, 2)
    customers = await world.customers(200)
    other = make_world(await start())
    chance = random.Random(20261123)
    touches = [(world.new_touch(), customer) for customer in customers for _ in range(20)]
    chance.shuffle(touches)
    batches = [touches[start : start + 25] for start in range(0, len(touches), 25)]
    seen = []

    async def reserver(number):
        replica = (world, other)[number % 2]
        servicer = ReservationServicer(Commands(replica.database))
        while batches:
            batch = batches.pop()
            with acting_as(CAMPAIGN, RESERVE):
                answer = await servicer.ReserveContacts(world.reserve_request(batch), None)
            seen.extend(outcomes(answer.results))

    await asyncio.gather(*(reserver(number) for number in range(32)))
    assert len(seen) == 4000
    assert seen.count(RESERVED) == 400  # no slot was lost either
    assert seen.count(CAPPED) == 3600
    assert await most_contacts_of_a_customer(world) == 2


async def test_a_batch_counts_its_own_items(world):
    await cap(world, 3)
    [anna, bo] = await world.customers(2)
    results = await world.reserve([(world.new_touch(), customer) for customer in [anna, bo, anna, anna, anna, bo]])
    assert outcomes(results) == [RESERVED, RESERVED, RESERVED, RESERVED, CAPPED, RESERVED]
    reserved_at = (await world.row(results[0].touch.rsplit("/", 1)[1]))["contact_time"]
    assert results[4].next_free_time.ToDatetime(tzinfo=reserved_at.tzinfo) == reserved_at + timedelta(days=7)
    assert not results[0].HasField("next_free_time")
    assert results[0].expire_time.ToDatetime(tzinfo=reserved_at.tzinfo) == reserved_at + timedelta(minutes=10)


async def test_the_next_free_time_is_when_the_oldest_that_counts_leaves_the_window(world):
    await cap(world, 2)
    [anna] = await world.customers(1)
    touches = [world.new_touch() for _ in range(2)]
    await world.reserve([(touch, anna) for touch in touches])
    await world.execute(
        "UPDATE contacts SET state = 3, contact_time = now() - interval '6 days 23 hours' WHERE contact_id = $1",
        uuid.UUID(touches[0]),
    )
    oldest = (await world.row(touches[0]))["contact_time"]
    [capped] = await world.reserve([(world.new_touch(), anna)])
    assert capped.outcome == CAPPED
    assert capped.next_free_time.ToDatetime(tzinfo=oldest.tzinfo) == oldest + timedelta(days=7)
    one_hour_later = "UPDATE contacts SET contact_time = contact_time - interval '1 hour' WHERE contact_id = $1"
    await world.execute(one_hour_later, uuid.UUID(touches[0]))
    assert outcomes(await world.reserve([(world.new_touch(), anna)])) == [RESERVED]


async def test_the_alliances_cap_counts_all_institutions_and_an_institutions_its_own(world):
    await cap(world, 3)
    await cap(world, 1, policy="northbank")
    [anna] = await world.customers(1, institutions=["northbank", "southbroker"])

    async def reserve(institution):
        [result] = await world.reserve([(world.new_touch(), anna)], institution=institution)
        return result.outcome

    assert [await reserve("northbank"), await reserve("northbank")] == [RESERVED, CAPPED]  # northbank's own cap
    assert [await reserve("southbroker"), await reserve("southbroker")] == [RESERVED, RESERVED]
    assert await reserve("southbroker") == CAPPED  # the alliance's


async def test_a_cap_of_one_purpose_and_channel_counts_only_those(world):
    await cap(world, 1, purpose=world.SALES, channel=1)
    [anna] = await world.customers(1)
    reserve = [await world.reserve([(world.new_touch(), anna)], purpose=purpose) for purpose in (2, 1, 1, 2, 3)]
    assert [outcomes(results) for results in reserve] == [[RESERVED], [RESERVED], [RESERVED], [CAPPED], [RESERVED]]


@pytest.mark.parametrize(("state", "counts"), [(1, True), (2, True), (3, True), (4, True), (5, False), (6, True), (7, False)])
async def test_which_states_use_a_slot(world, state, counts):
    await cap(world, 1)
    [anna] = await world.customers(1)
    touch = world.new_touch()
    await world.reserve([(touch, anna)])
    await world.execute("UPDATE contacts SET state = $2 WHERE contact_id = $1", uuid.UUID(touch), state)
    assert outcomes(await world.reserve([(world.new_touch(), anna)])) == [CAPPED if counts else RESERVED]


async def test_a_slot_that_is_over_is_free_although_nobody_swept(world):
    await cap(world, 1)
    [anna] = await world.customers(1)
    touch = world.new_touch()
    await world.reserve([(touch, anna)])
    assert outcomes(await world.reserve([(world.new_touch(), anna)])) == [CAPPED]
    await world.execute("UPDATE contacts SET expires_at = now() WHERE contact_id = $1", uuid.UUID(touch))
    assert outcomes(await world.reserve([(world.new_touch(), anna)])) == [RESERVED]
    assert outcomes(await world.reserve([(touch, anna)])) == [EXPIRED]


async def test_a_touch_that_asks_again_gets_the_same_answer(world):
    await cap(world, 1)
    [anna] = await world.customers(1)
    touch = world.new_touch()
    [first] = await world.reserve([(touch, anna)])
    assert list(await world.reserve([(touch, anna)])) == [first]
    [twice, again] = await world.reserve([(touch, anna), (touch, anna)])
    assert (twice, again) == (first, first)
    await world.plan(touch, anna)
    assert list(await world.reserve([(touch, anna)])) == [first]  # carried out: still the same
    assert await world.value("SELECT count(*) FROM contacts") == 1


async def test_the_same_touch_reserved_by_many_at_once_holds_one_slot(world):
    [anna] = await world.customers(1)
    touch = world.new_touch()
    answers = await asyncio.gather(*(world.reserve([(touch, anna)]) for _ in range(16)))
    assert len({answer[0].SerializeToString() for answer in answers}) == 1
    assert await world.value("SELECT count(*) FROM contacts") == 1


async def test_what_is_said_is_kept_once(world):
    customers = await world.customers(50)
    await world.reserve([(world.new_touch(), customer) for customer in customers])
    await world.reserve([(world.new_touch(), customer) for customer in customers])
    assert await world.value("SELECT count(*) FROM contact_messages") == 1
    assert await world.value("SELECT count(*) FROM contacts WHERE content_hash IS NOT NULL") == 100


async def test_the_seeded_policy_of_the_alliance(world):
    [anna] = await world.customers(1)
    results = await world.reserve([(world.new_touch(), anna) for _ in range(5)])
    assert outcomes(results) == [RESERVED] * 4 + [CAPPED]
