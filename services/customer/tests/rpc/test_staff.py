"""Staff and portfolios: one primary manager in a department, dated, handed over, published."""

import pytest
from grpc.aio import AioRpcError

from chassis.identity import PrincipalKind
from chassis.testing import reason
from concord.customer.v1 import staff_service_pb2 as pb
from concord.customer.v1.customer_events_pb2 import PortfolioChanged
from concord.customer.v1.staff_service_pb2_grpc import StaffServiceStub
from customer import portfolios
from customer.events.republish import portfolio_pages

SCOPES = ("staff.read", "staff.write")
PRIMARY, SECONDARY = pb.ASSIGNMENT_ROLE_PRIMARY, pb.ASSIGNMENT_ROLE_SECONDARY


async def refused(call):
    with pytest.raises(AioRpcError) as error:
        await call
    return reason(error.value)


class Staff:
    """A bank's staff, by short names."""

    def __init__(self, master):
        self.master = master

    def stub(self, institution="bank", kind=PrincipalKind.STAFF):
        return StaffServiceStub(self.master.channel(institution, scopes=SCOPES, kind=kind))

    async def department(self, department):
        request = pb.CreateDepartmentRequest(
            parent="institutions/bank",
            department_id=department,
            department=pb.Department(display_name=department.title()),
            request_id=self.master.request_id(),
        )
        return await self.stub().CreateDepartment(request)

    async def put(self, staff, department="retail", active=True):
        member = pb.StaffMember(
            name=f"institutions/bank/staff/{staff}", department=f"institutions/bank/departments/{department}", active=active
        )
        return await self.stub().PutStaffMember(
            pb.PutStaffMemberRequest(staff_member=member, request_id=self.master.request_id())
        )

    async def assign(self, staff, *customers, role=PRIMARY, institution="bank"):
        request = pb.BatchAssignCustomersRequest(
            parent=f"institutions/{institution}/staff/{staff}",
            customers=customers,
            role=role,
            request_id=self.master.request_id(),
        )
        return (await self.stub().BatchAssignCustomers(request)).assignments

    async def unassign(self, staff, *customers):
        request = pb.BatchUnassignCustomersRequest(
            parent=f"institutions/bank/staff/{staff}", customers=customers, request_id=self.master.request_id()
        )
        return (await self.stub().BatchUnassignCustomers(request)).ended_count

    async def transfer(self, giver, taker):
        request = pb.TransferPortfolioRequest(
            parent=f"institutions/bank/staff/{giver}",
            to_staff_member=f"institutions/bank/staff/{taker}",
            request_id=self.master.request_id(),
        )
        answer = await self.stub().TransferPortfolio(request)
        return answer.transferred_count, answer.remaining_count

    async def portfolio(self, staff, **more):
        request = pb.ListPortfolioRequest(parent=f"institutions/bank/staff/{staff}", **more)
        return {(one.customer, one.role) for one in (await self.stub().ListPortfolio(request)).assignments}

    async def managers(self, customer, **more):
        answer = await self.stub().ListAssignments(pb.ListAssignmentsRequest(parent=customer, **more))
        return [(one.staff_member.split("/")[-1], one.role, one.HasField("end_time")) for one in answer.assignments]


@pytest.fixture
async def staff(master):
    made = Staff(master)
    await made.department("retail")
    await made.department("private")
    for one in ("ann", "bob"):
        await made.put(one)
    await made.put("zoe", "private")
    return made


async def test_one_primary_manager_in_a_department(master, staff):
    one, two = [(await master.ingest(key, name=key)).customer for key in ("k1", "k2")]
    made = await staff.assign("ann", two, one)
    assert [assignment.customer for assignment in made] == [two, one]
    again = await staff.assign("ann", one)
    assert again[0].assignment_id == made[1].assignment_id
    await staff.assign("zoe", one)
    await staff.assign("bob", two, role=SECONDARY)
    assert await staff.portfolio("ann") == {(one, PRIMARY), (two, PRIMARY)}
    await staff.assign("bob", two)  # from secondary to primary: ann's ends
    assert await staff.portfolio("ann") == {(one, PRIMARY)}
    assert await staff.portfolio("ann", with_ended=True) == {(one, PRIMARY), (two, PRIMARY)}
    assert await staff.managers(two) == [("bob", PRIMARY, False)]
    assert await staff.managers(two, with_ended=True) == [
        ("ann", PRIMARY, True),
        ("bob", SECONDARY, True),
        ("bob", PRIMARY, False),
    ]
    assert sorted(await staff.managers(one)) == [("ann", PRIMARY, False), ("zoe", PRIMARY, False)]
    assert await staff.unassign("ann", one, two) == 1
    assert await staff.managers(one) == [("zoe", PRIMARY, False)]
    events = [event.message(PortfolioChanged) for event in await master.running.events("concord.customer.v1.portfolio.changed")]
    record = next(event.record_link.record_id for event in events if event.record_link.customer_id == one.split("/")[1])
    ann = [
        (event.state_version.version, event.assigned)
        for event in events
        if (event.staff_id, event.record_link.record_id) == ("ann", record)
    ]
    assert ann == [(1, True), (2, False)]
    async with master.running.application.database.connection() as connection:
        said, cursor = await portfolio_pages(connection, "", 100)
    assert (len(said), cursor) == (5, None)
    latest = {}
    for event in events:
        latest[event.staff_id, event.record_link.record_id] = (event.state_version.version, event.assigned)
    republished = {}  # type: ignore[var-annotated]
    for event in said:
        key = event.message.staff_id, event.message.record_link.record_id  # type: ignore[attr-defined]
        republished[key] = max(republished.get(key, (0, False)), (event.message.state_version.version, event.message.assigned))  # type: ignore[attr-defined]
    assert republished == latest


async def test_a_portfolio_is_handed_over_in_parts(master, staff, monkeypatch):
    monkeypatch.setattr(portfolios, "TRANSFERRED_MAX", 2)
    customers = [(await master.ingest(f"k{place}", name=f"P {place}")).customer for place in range(4)]
    await staff.assign("ann", *customers[:3])
    await staff.assign("ann", customers[3], role=SECONDARY)
    await staff.assign("bob", customers[3])  # primary already: stays so
    await staff.assign("bob", customers[0], role=SECONDARY)  # becomes primary
    assert await staff.transfer("ann", "bob") == (2, 2)
    assert await staff.transfer("ann", "bob") == (2, 0)
    assert await staff.transfer("ann", "bob") == (0, 0)
    assert await staff.portfolio("bob") == {(customer, PRIMARY) for customer in customers}
    assert await staff.portfolio("ann") == set()
    await staff.assign("zoe", customers[0])
    await staff.transfer("bob", "zoe")
    assert await staff.managers(customers[0]) == [("zoe", PRIMARY, False)]


async def test_what_cannot_be(master, staff):
    mine = (await master.ingest("k1", name="Jan")).customer
    theirs = (await master.ingest("p1", master.policies, name="Eva")).customer
    assert await refused(staff.assign("ann", theirs)) == "CUSTOMER_NOT_FOUND"
    assert await refused(staff.assign("nobody", mine)) == "STAFF_NOT_FOUND"
    assert await refused(staff.assign("ann", mine, institution="insurer")) == "INSTITUTION_NOT_FOUND"
    assert await refused(staff.put("new", "nowhere")) == "DEPARTMENT_UNKNOWN"
    assert await refused(staff.department("retail")) == "DEPARTMENT_EXISTS"
    assert await refused(staff.transfer("ann", "ann")) == "STAFF_INVALID"
    assert await refused(staff.managers(theirs)) == "CUSTOMER_NOT_FOUND"
    assert await refused(staff.portfolio("nobody")) == "STAFF_NOT_FOUND"
    await staff.put("ann", active=False)
    assert await refused(staff.assign("ann", mine)) == "STAFF_INACTIVE"
    assert await refused(staff.transfer("bob", "ann")) == "STAFF_INACTIVE"
    listed = (await staff.stub().ListStaffMembers(pb.ListStaffMembersRequest(parent="institutions/bank"))).staff_members
    assert [(one.name.split("/")[-1], one.active) for one in listed] == [("ann", False), ("bob", True), ("zoe", True)]
    names = (await staff.stub().ListDepartments(pb.ListDepartmentsRequest(parent="institutions/bank"))).departments
    assert [one.display_name for one in names] == ["Private", "Retail"]


async def test_an_assignment_follows_its_record(master, staff):
    one = await master.ingest("k1", name="Jan", born="1971-03-19", national_id="7103192745")
    other = await master.ingest("k2", name="Petr")
    await staff.assign("ann", one.customer)
    async with master.running.application.database.transaction() as connection:
        await connection.execute(
            "UPDATE records SET customer_id = $1 WHERE record_id = $2", other.customer.split("/")[1], one.record.split("/")[-1]
        )
    assert await staff.managers(other.customer) == [("ann", PRIMARY, False)]
    # The customer has a primary manager through another record: it is the same customer.
    await staff.assign("bob", other.customer)
    assert await staff.managers(other.customer) == [("bob", PRIMARY, False)]
