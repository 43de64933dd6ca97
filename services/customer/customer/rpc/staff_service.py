"""StaffService: departments, members of staff and their portfolios."""

from typing import Any, cast

from chassis import pages
from chassis.database import Connection
from chassis.errors import AlreadyExists, InvalidArgument, NotFound
from chassis.identity import current_principal, require_institution
from chassis.ids import parse_id, resource_id
from chassis.unit_of_work import Commands, UnitOfWork
from concord.customer.v1 import staff_service_pb2 as pb
from concord.customer.v1.staff_service_pb2_grpc import StaffServiceServicer
from customer import portfolios
from customer.core import Core
from customer.messages import timestamp
from customer.portfolios import require_staff
from customer.rpc.callers import customer_not_found, require_own, require_unbound, viewing_institution
from customer.store import customers as customer_store
from customer.store import institutions, search
from customer.store import portfolios as store
from customer.store.portfolios import Assignment, StaffRow
from customer.store.search import Viewer


class StaffServicer(StaffServiceServicer):
    """Translates; the work is in `portfolios`."""

    def __init__(self, core: Core, commands: Commands) -> None:
        self._core = core
        self._database = core.database
        self._commands = commands

    async def CreateDepartment(self, request: pb.CreateDepartmentRequest, context: Any) -> pb.Department:
        institution_id = _institution(request.parent)

        async def handler(unit: UnitOfWork) -> pb.Department:
            await _require_institution(unit.connection, institution_id)
            name = f"{request.parent}/departments/{request.department_id}"
            display_name = request.department.display_name
            if not await store.insert_department(unit.connection, institution_id, request.department_id, display_name, unit.now):
                raise AlreadyExists("DEPARTMENT_EXISTS", f"{name} exists already")
            return pb.Department(name=name, display_name=display_name)

        return await self._commands.run(request, handler)

    async def ListDepartments(self, request: pb.ListDepartmentsRequest, context: Any) -> pb.ListDepartmentsResponse:
        institution_id = _institution(request.parent)
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        token = pages.decode(request.page_token, request)
        async with self._database.connection() as connection:
            await _require_institution(connection, institution_id)
            rows = await store.list_departments(connection, institution_id, token[0] if token else "", limit + 1)
        return pb.ListDepartmentsResponse(
            departments=[
                pb.Department(name=f"{request.parent}/departments/{row['department_id']}", display_name=row["display_name"])
                for row in rows[:limit]
            ],
            next_page_token=pages.encode([rows[limit - 1]["department_id"]], request) if len(rows) > limit else "",
        )

    async def PutStaffMember(self, request: pb.PutStaffMemberRequest, context: Any) -> pb.StaffMember:
        wanted = request.staff_member
        institution_id, staff_id = _staff(wanted.name)

        async def handler(unit: UnitOfWork) -> pb.StaffMember:
            await _require_institution(unit.connection, institution_id)
            _, owner, _, department_id = wanted.department.split("/")
            if owner != institution_id or not await store.department_exists(unit.connection, institution_id, department_id):
                rule = "must be a department of the same institution; create it first"
                raise InvalidArgument(
                    "DEPARTMENT_UNKNOWN", f"department {rule}", field_violations=[("staff_member.department", rule)]
                )
            return _member(
                await store.put_staff(unit.connection, institution_id, staff_id, department_id, wanted.active, unit.now)
            )

        return await self._commands.run(request, handler)

    async def ListStaffMembers(self, request: pb.ListStaffMembersRequest, context: Any) -> pb.ListStaffMembersResponse:
        institution_id = _institution(request.parent)
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        token = pages.decode(request.page_token, request)
        after = token[0] if token else ""
        async with self._database.connection() as connection:
            await _require_institution(connection, institution_id)
            rows = await store.list_staff(connection, institution_id, request.department_id, after, limit + 1)
        return pb.ListStaffMembersResponse(
            staff_members=[_member(row) for row in rows[:limit]],
            next_page_token=pages.encode([rows[limit - 1].staff_id], request) if len(rows) > limit else "",
        )

    async def BatchAssignCustomers(
        self, request: pb.BatchAssignCustomersRequest, context: Any
    ) -> pb.BatchAssignCustomersResponse:
        institution_id, staff_id = _staff(request.parent)
        customer_ids = [resource_id(name, "customers", f"customers[{place}]") for place, name in enumerate(request.customers)]

        async def handler(unit: UnitOfWork) -> pb.BatchAssignCustomersResponse:
            staff = await require_staff(unit, institution_id, staff_id, active=True)
            made = await portfolios.assign(unit, staff, customer_ids, request.role)
            return pb.BatchAssignCustomersResponse(assignments=[_assignment(one) for one in made])

        return await self._commands.run(request, handler)

    async def BatchUnassignCustomers(
        self, request: pb.BatchUnassignCustomersRequest, context: Any
    ) -> pb.BatchUnassignCustomersResponse:
        institution_id, staff_id = _staff(request.parent)
        customer_ids = [resource_id(name, "customers", f"customers[{place}]") for place, name in enumerate(request.customers)]

        async def handler(unit: UnitOfWork) -> pb.BatchUnassignCustomersResponse:
            staff = await require_staff(unit, institution_id, staff_id)
            return pb.BatchUnassignCustomersResponse(ended_count=await portfolios.unassign(unit, staff, customer_ids))

        return await self._commands.run(request, handler)

    async def TransferPortfolio(self, request: pb.TransferPortfolioRequest, context: Any) -> pb.TransferPortfolioResponse:
        institution_id, giver_id = _staff(request.parent)
        _, taker_institution, _, taker_id = request.to_staff_member.split("/")
        if taker_institution != institution_id or taker_id == giver_id:
            rule = "must be another member of staff of the same institution"
            raise InvalidArgument("STAFF_INVALID", f"to_staff_member {rule}", field_violations=[("to_staff_member", rule)])

        async def handler(unit: UnitOfWork) -> pb.TransferPortfolioResponse:
            # Both at once and in order, so that two hand-overs in opposite directions do not wait in a circle.
            await store.lock_staff(unit.connection, institution_id, [giver_id, taker_id])
            giver = await require_staff(unit, institution_id, giver_id)
            taker = await require_staff(unit, institution_id, taker_id, active=True)
            transferred_count = await portfolios.transfer(unit, giver, taker)
            remaining_count = giver.customers_count - transferred_count
            return pb.TransferPortfolioResponse(transferred_count=transferred_count, remaining_count=remaining_count)

        return await self._commands.run(request, handler)

    async def ListPortfolio(self, request: pb.ListPortfolioRequest, context: Any) -> pb.ListPortfolioResponse:
        institution_id, staff_id = _staff(request.parent)
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        token = pages.decode(request.page_token, request)
        after = parse_id(token[0], "page_token") if token else None
        async with self._database.connection() as connection:
            rows = await store.of_staff(connection, institution_id, staff_id, request.with_ended, after, limit + 1)
            if not rows and not await store.staff_exists(connection, institution_id, staff_id):
                raise NotFound("STAFF_NOT_FOUND", f"{request.parent} does not exist")
        return pb.ListPortfolioResponse(
            assignments=[_assignment(row) for row in rows[:limit]],
            next_page_token=pages.encode([str(rows[limit - 1].assignment_id)], request) if len(rows) > limit else "",
        )

    async def ListAssignments(self, request: pb.ListAssignmentsRequest, context: Any) -> pb.ListAssignmentsResponse:
        principal = current_principal()
        customer_id = resource_id(request.parent, "customers", "parent")
        await require_own(self._database, principal, customer_id)
        limit = pages.page_size(request.page_size, default=50, maximum=200)
        token = pages.decode(request.page_token, request)
        after = parse_id(token[0], "page_token") if token else None
        institution_id = viewing_institution(principal)
        async with self._database.connection() as connection:
            live_id = await customer_store.winner(connection, customer_id)
            if not await search.is_linked(connection, Viewer(viewing_institution(principal)), live_id):
                raise customer_not_found(customer_id)
            rows = await store.of_customer(connection, live_id, institution_id, request.with_ended, after, limit + 1)
        return pb.ListAssignmentsResponse(
            assignments=[_assignment(row) for row in rows[:limit]],
            next_page_token=pages.encode([str(rows[limit - 1].assignment_id)], request) if len(rows) > limit else "",
        )


def _institution(name: str) -> str:
    """The caller's own institution, named in the request; a caller bound to one customer has nothing to do with staff."""
    principal = current_principal()
    require_unbound(principal)
    institution_id = name.split("/")[1]
    require_institution(principal, institution_id)
    return institution_id


def _staff(name: str) -> tuple[str, str]:
    """Institution and staff id of a resource name."""
    return _institution(name), name.split("/")[3]


async def _require_institution(connection: Connection, institution_id: str) -> None:
    if await institutions.get_institution(connection, institution_id) is None:
        raise NotFound("INSTITUTION_NOT_FOUND", f"institutions/{institution_id} does not exist")


def _member(row: StaffRow) -> pb.StaffMember:
    return pb.StaffMember(
        name=f"institutions/{row.institution_id}/staff/{row.staff_id}",
        department=f"institutions/{row.institution_id}/departments/{row.department_id}",
        active=row.active,
        customers_count=row.customers_count,
    )


def _assignment(row: Assignment) -> pb.Assignment:
    return pb.Assignment(
        assignment_id=str(row.assignment_id),
        staff_member=f"institutions/{row.institution_id}/staff/{row.staff_id}",
        department=f"institutions/{row.institution_id}/departments/{row.department_id}",
        customer=f"customers/{row.customer_id}",
        role=cast(Any, row.role),
        begin_time=timestamp(row.begin_time),
        end_time=timestamp(row.end_time) if row.end_time else None,
    )
