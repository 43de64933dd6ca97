"""Contacts follow the customer master: what is merged comes back when that is undone; the restricted are left alone."""

import itertools
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from chassis.identity import PrincipalKind
from chassis.ids import new_id
from chassis.testing import reason, received
from concord.common.v1.event_pb2 import RecordLink, StateVersion
from concord.contact.v1 import contact_service_pb2 as contacts_pb
from concord.contact.v1 import permission_service_pb2 as permissions_pb
from concord.contact.v1.contact_events_pb2 import ContactRecorded
from concord.contact.v1.contact_service_pb2_grpc import ContactServiceStub
from concord.contact.v1.permission_service_pb2_grpc import PermissionServiceStub
from concord.contact.v1.reservation_service_pb2 import ReserveItem
from concord.customer.v1.customer_events_pb2 import CustomerChanged, CustomerErased, RecordsMoved

UPDATED, MOVED, ERASED = (f"concord.customer.v1.customer.{name}" for name in ("updated", "records_moved", "erased"))
RESERVED, NO_PERMISSION, CAPPED, MERGED, RESTRICTED, REACHED = 1, 3, 4, 6, 7, 8
WAVE = "0190a0b0-0000-7000-8000-000000000001"


@dataclass
class Master:
    """Says what the customer master would say. Ids come from names."""

    world: Any
    versions: dict[str, int] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def id(self, name: str) -> str:
        return self.ids.setdefault(name, str(new_id()))

    def state(self, name: str) -> StateVersion:
        self.versions[name] = self.versions.get(name, 0) + 1
        return StateVersion(epoch=1, version=self.versions[name])

    def link(self, record: str, customer: str, institution: str = "northbank") -> RecordLink:
        return RecordLink(
            record_id=self.id(record),
            institution_id=institution,
            customer_id=self.id(customer),
            state_version=self.state(f"link {record}"),
        )

    def customer(self, customer: str, *links: RecordLink, merged_into: str = "", restricted: bool = False):
        message = CustomerChanged(
            customer_id=self.id(customer),
            state_version=self.state(customer),
            record_links=links,
            merged_into_customer_id=self.id(merged_into) if merged_into else "",
            restricted=restricted,
        )
        return received(UPDATED, message)

    def moved(self, why: str, source: str, target: str, *records: str):
        links = [self.link(record, target) for record in records]
        message = RecordsMoved(from_customer_id=self.id(source), to_customer_id=self.id(target), record_links=links, reason=why)
        return received(MOVED, message)

    def merge(self, loser: str, winner: str, *records: str):
        return [self.moved("MERGE", loser, winner, *records), self.customer(loser, merged_into=winner), self.customer(winner)]

    def unmerge(self, winner: str, loser: str, *records: str):
        return [self.moved("UNMERGE", winner, loser, *records), self.customer(loser), self.customer(winner)]

    async def say(self, *events) -> None:
        await self.world.running.deliver(*events)

    async def erase(self, customer: str, *records: str, whole: bool = True) -> None:
        ids = [self.id(record) for record in records]
        await self.say(received(ERASED, CustomerErased(customer_id=self.id(customer), record_ids=ids, whole=whole)))

    # ---- what the institutions do

    async def contact(self, customer: str, topic: str, hours_ago: int = 1, **changes):
        then = datetime.now(UTC) - timedelta(hours=hours_ago)
        request = self.world.record_request(self.id(customer), then, topic=topic, **changes)
        return await self.world.stub(ContactServiceStub, "northbank").RecordContact(request, timeout=10)

    async def permit(self, customer: str, state: int = 1, days_ago: int = 0):
        request = permissions_pb.BatchSetPermissionsRequest(parent="institutions/northbank", request_id=str(uuid.uuid4()))
        permission = request.permissions.add(customer=f"customers/{self.id(customer)}", channel=1, purpose=1, state=state)
        permission.state_time.FromDatetime(datetime.now(UTC) - timedelta(days=days_ago))
        [result] = (await self.world.stub(PermissionServiceStub, "northbank").BatchSetPermissions(request, timeout=10)).results
        return result

    async def reserve(self, customer: str, campaign: str | None = None) -> tuple[str, Any]:
        touch = str(new_id())
        item = ReserveItem(touch=self.world.touch_name(touch, campaign=campaign), customer=f"customers/{self.id(customer)}")
        request = self.world.reserve_request([])
        request.items.append(item)
        [result] = (await self.world.campaign.ReserveContacts(request, timeout=10)).results
        return touch, result

    async def view(self, customer: str) -> dict[str, Any]:
        """All that is told of a customer, with the names of others in place of ids."""
        parent, seen = f"customers/{self.id(customer)}", {"kind": PrincipalKind.OPERATOR}
        contacts = self.world.stub(ContactServiceStub, **seen)
        permissions = self.world.stub(PermissionServiceStub, **seen)
        answers = [
            await contacts.ListContacts(contacts_pb.ListContactsRequest(parent=parent), timeout=10),
            await contacts.ListInboxMessages(contacts_pb.ListInboxMessagesRequest(parent=parent), timeout=10),
            await permissions.ListPermissions(permissions_pb.ListPermissionsRequest(parent=parent), timeout=10),
        ]
        return {type(answer).__name__: MessageToDict(answer) for answer in answers}


@pytest.fixture
async def master(world) -> Master:
    made = Master(world)
    for name in ("anna", "anja"):
        await made.say(made.customer(name, made.link(f"{name} 1", name)))
    return made


def topics(view) -> list[str]:
    return [contact.get("topic", "") for contact in view["ListContactsResponse"].get("contacts", [])]


async def everything(world) -> dict[str, list[str]]:
    """All that is kept, but for who is who."""
    read = {}
    async with world.database.connection() as connection:
        for table in ("contacts", "inbox_messages", "permissions", "permission_events", "contact_messages"):
            read[table] = sorted(str(dict(row)) for row in await connection.fetch(f"SELECT * FROM {table}"))
    return read


async def test_a_merge_shows_both_and_undone_everything_is_as_before(world, master):
    await master.contact("anna", "loan", 3)
    await master.contact("anja", "card", 2)
    await master.permit("anna")
    await master.permit("anja", state=2, days_ago=3)
    touch, result = await master.reserve("anna")
    assert (result.outcome, result.record_id) == (RESERVED, master.id("anna 1"))
    await world.plan(touch, "")
    before, kept = {name: await master.view(name) for name in ("anna", "anja")}, await everything(world)

    await master.say(*master.merge("anja", "anna", "anja 1"))
    merged = await master.view("anna")
    assert topics(merged) == ["", "card", "loan"]
    assert merged == await master.view("anja"), "reads through the loser's id answer with the winner"
    assert master.id("anja") not in str(merged)
    [permission] = merged["ListPermissionsResponse"]["permissions"]
    assert permission["state"] == "PERMISSION_STATE_DENIED", "the stricter binds"
    assert (await master.reserve("anna"))[1].outcome == NO_PERMISSION

    await master.say(*master.unmerge("anna", "anja", "anja 1"))
    assert {name: await master.view(name) for name in ("anna", "anja")} == before
    assert await everything(world) == kept


async def test_writes_through_a_merged_customer_are_refused(master):
    await master.say(*master.merge("anja", "anna", "anja 1"))
    winner = f"customers/{master.id('anna')}"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await master.contact("anja", "loan")
    assert reason(refused.value) == "CUSTOMER_MERGED"
    assert winner in str(refused.value.details())
    said = await master.permit("anja")
    assert (said.outcome, said.winner) == (permissions_pb.SET_PERMISSION_OUTCOME_CUSTOMER_MERGED, winner)
    _, result = await master.reserve("anja")
    assert (result.outcome, result.winner) == (MERGED, winner)
    await master.say(*master.unmerge("anna", "anja", "anja 1"))
    assert (await master.permit("anja")).outcome == permissions_pb.SET_PERMISSION_OUTCOME_SET
    assert (await master.reserve("anja"))[1].outcome == RESERVED


async def test_caps_count_both_and_only_while_they_are_one(master):
    for name in ("anna", "anja"):
        await master.permit(name)
        for number in range(2):
            await master.contact(name, f"c{number}", number + 1)
    await master.say(*master.merge("anja", "anna", "anja 1"))
    assert (await master.reserve("anna"))[1].outcome == CAPPED, "four within a week, of both"
    await master.say(*master.unmerge("anna", "anja", "anja 1"))
    assert (await master.reserve("anna"))[1].outcome == RESERVED


async def test_one_record_that_moves_takes_its_contacts_along(master):
    await master.say(master.customer("anna", master.link("anna 2", "anna", "southbank")))
    await master.contact("anna", "loan")
    await master.say(master.moved("RELINK", "anna", "anja", "anna 1"))
    assert topics(await master.view("anja")) == ["loan"]
    assert topics(await master.view("anna")) == []


async def test_a_person_is_reached_once_in_a_wave_under_whichever_id(world, master):
    for name in ("anna", "anja"):
        await master.permit(name)
    first, _ = await master.reserve("anja", WAVE)
    await world.plan(first, "")
    await master.say(*master.merge("anja", "anna", "anja 1"))
    assert (await master.reserve("anna", WAVE))[1].outcome == REACHED
    assert (await master.reserve("anna"))[1].outcome == RESERVED, "of another wave"


async def test_two_slots_of_a_wave_that_turn_out_to_be_one_persons_send_one_message(world, master):
    touches = []
    for name in ("anna", "anja"):
        await master.permit(name)
        touches.append((await master.reserve(name, WAVE))[0])
    await master.say(*master.merge("anja", "anna", "anja 1"))
    await world.running.deliver(*(world.planned(touch, "") for touch in touches))
    states = [(await world.row(touch))["state_reason"] for touch in touches]
    assert sorted(states) == ["", "ALREADY_REACHED"]
    assert await world.value("SELECT count(*) FROM inbox_messages") == 1


async def test_restricted_customers_get_nothing_and_their_slots_are_given_back(world, master):
    await master.permit("anna")
    touch, _ = await master.reserve("anna")
    await master.say(master.customer("anna", restricted=True))
    row = await world.row(touch)
    assert (row["state"], row["state_reason"]) == (7, "CUSTOMER_RESTRICTED")
    events = await world.running.events("concord.contact.v1.contact.recorded")
    assert [event.message(ContactRecorded).state for event in events] == [7]
    assert (await master.reserve("anna"))[1].outcome == RESTRICTED
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await master.contact("anna", "loan")
    assert reason(refused.value) == "CUSTOMER_RESTRICTED"
    await master.contact("anna", "complaint", direction=contacts_pb.CONTACT_DIRECTION_INBOUND)
    await master.say(*master.merge("anna", "anja", "anna 1"))
    await master.say(master.customer("anna", merged_into="anja", restricted=True))
    assert (await master.reserve("anja"))[1].outcome == RESTRICTED, "who took over a restricted one is restricted"


async def test_an_erased_person_leaves_nothing_and_late_events_bring_nothing_back(world, master):
    for name in ("anna", "anja"):
        await master.permit(name)
        await master.contact(name, "loan")
        touch, _ = await master.reserve(name)
        await world.plan(touch, "")
    message = f"customers/{master.id('anja')}/inboxMessages/{touch}"
    request = contacts_pb.ReadInboxMessageRequest(name=message, request_id="r")
    await world.stub(ContactServiceStub, "northbank").ReadInboxMessage(request, timeout=10)
    slot, _ = await master.reserve("anja")
    late = master.customer("anja", master.link("anja 1", "anja"))
    others = await master.view("anna")
    await master.erase("anja", "anja 1")
    read = "SELECT count(*) FROM idempotency WHERE method LIKE '%/ReadInboxMessage'"
    for _ in range(2):
        assert all(master.id("anja 1") not in rows for rows in itertools.chain(*(await everything(world)).values()))
        assert await world.value(read) == 0
        assert (
            await world.value("SELECT count(*) FROM contact_subjects WHERE customer_id = $1", uuid.UUID(master.id("anja"))) == 0
        )
        await master.say(late)
        await world.plan(slot, master.id("anja"), record=master.id("anja 1"))
        assert (await master.permit("anja")).outcome == permissions_pb.SET_PERMISSION_OUTCOME_CUSTOMER_UNKNOWN
        await master.erase("anja", "anja 1")
    assert await master.view("anna") == others
    assert await world.value("SELECT count(*) FROM contact_messages") == 1, "anna heard it too"
    await master.erase("anna", "anna 1")
    assert not any((await everything(world)).values())


async def test_one_institutions_records_are_erased_and_the_customer_lives_on(master):
    await master.say(master.customer("anna", master.link("anna 2", "anna", "southbank")))
    await master.contact("anna", "loan")
    await master.erase("anna", "anna 1", whole=False)
    assert topics(await master.view("anna")) == []
    assert (await master.reserve("anna"))[1].outcome == 2  # CUSTOMER_UNKNOWN at that institution


async def test_any_order_of_the_same_events_gives_the_same(world, master):
    await master.contact("anna", "loan")
    story = [
        master.customer("anna", master.link("anna 2", "anna", "southbank")),
        *master.merge("anja", "anna", "anja 1"),
        *master.unmerge("anna", "anja", "anja 1"),
        master.moved("RELINK", "anna", "anja", "anna 1"),
    ]
    await master.say(*story)
    told = await master.view("anja")
    assert topics(told) == ["loan"]
    for index, order in enumerate(itertools.islice(itertools.permutations(story), 0, 5040, 501)):
        await world.execute("TRUNCATE record_links, customer_states, inbox")
        for event in (*order, order[index % len(order)]):
            await master.say(event)
        assert await master.view("anja") == told
