"""ContactService: the timeline and the inbox."""

import uuid
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from chassis import pages
from chassis.errors import from_rpc
from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.contact.v1 import contact_service_pb2 as pb
from concord.contact.v1.contact_events_pb2 import ContactRecorded
from concord.contact.v1.contact_service_pb2_grpc import ContactServiceStub

RESERVED, DELIVERED, READ, CAPPED = 1, 3, 4, 4
RECORDED = "concord.contact.v1.contact.recorded"


def now():
    return datetime.now(UTC)


@pytest.fixture
def app(world):
    return world.stub(ContactServiceStub, "northbank")


@pytest.fixture
def operator(world):
    return world.stub(ContactServiceStub, kind=PrincipalKind.OPERATOR)


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    error = from_rpc(refused.value)
    return refused.value.code(), error.reason, [field for field, _ in error.field_violations]


async def sent(world, customer, institution="northbank"):
    touch = world.new_touch()
    [result] = await world.reserve([(touch, customer)], institution=institution)
    assert result.outcome == RESERVED
    await world.running.deliver(world.planned(touch, customer, institution=institution))
    return touch


async def contacts_of(stub, customer, page_size=0):
    found, listing = [], pb.ListContactsRequest(parent=f"customers/{customer}", page_size=page_size)
    while True:
        page = await stub.ListContacts(listing, timeout=5)
        found += page.contacts
        if not page.next_page_token:
            return found
        listing.page_token = page.next_page_token


def read(customer, touch):
    return pb.ReadInboxMessageRequest(name=f"customers/{customer}/inboxMessages/{touch}", request_id=str(uuid.uuid4()))


async def test_a_visit_is_recorded_and_told(world, app):
    [anna] = await world.customers(1)
    when = now() - timedelta(hours=3)
    request = world.record_request(anna, when, direction=1, channel=8, purpose=3, staff_id="teller-7", topic="lost-card")
    contact = await app.RecordContact(request, timeout=5)
    assert contact.name.startswith(f"customers/{anna}/contacts/")
    assert (contact.institution, contact.direction, contact.channel, contact.purpose, contact.state) == (
        "institutions/northbank", 1, 8, 3, DELIVERED,
    )  # fmt: skip
    assert (contact.staff_id, contact.topic, contact.touch) == ("teller-7", "lost-card", "")
    assert contact.contact_time == world.at(when)
    assert await app.RecordContact(request, timeout=5) == contact
    assert await contacts_of(app, anna) == [contact]
    [event] = [event.message(ContactRecorded) for event in await world.running.events(RECORDED)]
    assert (event.contact_id, event.touch_id, event.state) == (contact.name.split("/")[3], "", DELIVERED)


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"purpose": 2, "channel": 9}, True),
        ({"purpose": 3}, False),
        ({"direction": 1}, False),
        ({"days": 8}, False),
    ],
)
async def test_which_recorded_contacts_use_a_slot(world, app, changes, counts):
    [anna] = await world.customers(1)
    when = now() - timedelta(days=changes.pop("days", 1))
    for _ in range(4):
        await app.RecordContact(world.record_request(anna, when, **changes), timeout=5)
    [result] = await world.reserve([(world.new_touch(), anna)])
    assert result.outcome == (CAPPED if counts else RESERVED)
    if counts:
        assert result.next_free_time == world.at(when + timedelta(days=7))


async def test_the_future_has_not_taken_place(world, app):
    [anna] = await world.customers(1)
    answer = await refusal(app.RecordContact(world.record_request(anna, now() + timedelta(seconds=75)), timeout=5))
    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, "TIME_INVALID", ["contact_time"])
    await app.RecordContact(world.record_request(anna, now() + timedelta(seconds=30)), timeout=5)  # a clock may go ahead
    request = world.record_request(anna, now())
    request.contact_time.seconds = 10**15
    code, _, fields = await refusal(app.RecordContact(request, timeout=5))
    assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["contact_time"])
    assert len(await contacts_of(app, anna)) == 1


async def test_the_timeline_is_paged_newest_first_without_gaps_or_repeats(world, app):
    [anna] = await world.customers(1)
    start = now() - timedelta(days=30)
    times = [start + timedelta(hours=number // 3) for number in range(20)]  # three at the same instant each
    for instant in times:
        await app.RecordContact(world.record_request(anna, instant, direction=1), timeout=5)
    found = await contacts_of(app, anna, page_size=4)
    assert len({contact.name for contact in found}) == 20
    assert [contact.contact_time for contact in found] == [world.at(instant) for instant in times[::-1]]


async def test_an_institution_sees_its_own_contacts_and_the_operator_all(world, app, operator):
    [anna] = await world.customers(1, institutions=["northbank", "southbroker"])
    mine, other = await sent(world, anna), await sent(world, anna, "southbroker")
    assert [contact.touch for contact in await contacts_of(app, anna)] == [world.touch_name(mine)]
    assert [contact.touch for contact in await contacts_of(operator, anna)] == [
        world.touch_name(other, "southbroker"),
        world.touch_name(mine),
    ]
    listing = pb.ListInboxMessagesRequest(parent=f"customers/{anna}")
    assert [m.name.split("/")[3] for m in (await app.ListInboxMessages(listing, timeout=5)).inbox_messages] == [mine]
    assert [m.name.split("/")[3] for m in (await operator.ListInboxMessages(listing, timeout=5)).inbox_messages] == [other, mine]


async def test_a_customer_without_a_link_does_not_exist(world, app):
    [of_another] = await world.customers(1, institutions=["southbroker"])
    for customer in (of_another, str(uuid.uuid4())):
        for call in (
            app.RecordContact(world.record_request(customer, now()), timeout=5),
            app.ListContacts(pb.ListContactsRequest(parent=f"customers/{customer}"), timeout=5),
            app.ListInboxMessages(pb.ListInboxMessagesRequest(parent=f"customers/{customer}"), timeout=5),
            app.ReadInboxMessage(read(customer, uuid.uuid4()), timeout=5),
        ):
            assert (await refusal(call))[:2] == (grpc.StatusCode.NOT_FOUND, "CUSTOMER_NOT_FOUND")


async def test_the_inbox_is_listed_by_pages_and_read(world, app):
    [anna] = await world.customers(1)
    touches = [await sent(world, anna) for _ in range(3)]
    listing = pb.ListInboxMessagesRequest(parent=f"customers/{anna}", page_size=2)
    first = await app.ListInboxMessages(listing, timeout=5)
    listing.page_token = first.next_page_token
    second = await app.ListInboxMessages(listing, timeout=5)
    messages = [*first.inbox_messages, *second.inbox_messages]
    assert [message.name.split("/")[3] for message in messages] == touches[::-1]
    assert {(message.title, message.HasField("read_time")) for message in messages} == {("A better rate", False)}

    message = await app.ReadInboxMessage(read(anna, touches[0]), timeout=5)
    assert message.HasField("read_time")
    assert await app.ReadInboxMessage(read(anna, touches[0]), timeout=5) == message  # reading again is not news
    row = await world.row(touches[0])
    assert (row["state"], row["version"]) == (READ, 3)
    states = [event.message(ContactRecorded) for event in await world.running.events(RECORDED)]
    assert [event.state for event in states if event.contact_id == touches[0]] == [DELIVERED, READ]
    assert (await app.ListInboxMessages(listing, timeout=5)).inbox_messages == [message]


async def test_who_may_not_read_a_message(world, app, operator):
    [anna, bo] = await world.customers(2, institutions=["northbank", "southbroker"])
    touch = await sent(world, anna)
    missing: tuple[grpc.StatusCode, str, list[str]] = (grpc.StatusCode.NOT_FOUND, "INBOX_MESSAGE_NOT_FOUND", [])
    other = world.stub(ContactServiceStub, "southbroker")
    assert await refusal(other.ReadInboxMessage(read(anna, touch), timeout=5)) == missing
    assert await refusal(app.ReadInboxMessage(read(bo, touch), timeout=5)) == missing  # not in that inbox
    assert await refusal(app.ReadInboxMessage(read(anna, uuid.uuid4()), timeout=5)) == missing
    bound_to_bo = world.stub(ContactServiceStub, "northbank", customer=bo)
    assert (await refusal(bound_to_bo.ReadInboxMessage(read(anna, touch), timeout=5)))[0] is grpc.StatusCode.NOT_FOUND
    for kind, institution in ((PrincipalKind.STAFF, "northbank"), (PrincipalKind.OPERATOR, None)):
        stub = world.stub(ContactServiceStub, institution, kind=kind)
        assert (await refusal(stub.ReadInboxMessage(read(anna, touch), timeout=5)))[0] is grpc.StatusCode.PERMISSION_DENIED
    assert (await world.row(touch))["state"] == DELIVERED
    bound_to_anna = world.stub(ContactServiceStub, "northbank", customer=anna)
    assert (await bound_to_anna.ReadInboxMessage(read(anna, touch), timeout=5)).HasField("read_time")


async def test_a_page_token_that_is_not_ours(world, app):
    [anna] = await world.customers(1)
    request = pb.ListContactsRequest(parent=f"customers/{anna}")
    for token in ("nonsense", pages.encode(["yesterday", str(uuid.uuid4())], request), pages.encode(["2026-01-01"], request)):
        request.page_token = token
        assert await refusal(app.ListContacts(request, timeout=5)) == (
            grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID", ["page_token"],
        )  # fmt: skip
        request.page_token = ""
    request.page_size = -1
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await app.ListContacts(request, timeout=5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(refused.value)
