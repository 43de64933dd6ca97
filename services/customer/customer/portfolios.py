"""Who looks after whom: assigning, ending and handing over. The customers concerned are locked first, so that a customer has one
primary manager in a department, through whichever of its records."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from chassis.errors import FailedPrecondition, NotFound
from chassis.ids import new_id
from chassis.unit_of_work import UnitOfWork
from customer import published
from customer.rpc.callers import customer_not_found, require_not_merged
from customer.store import customers as customer_store
from customer.store import portfolios as store
from customer.store.portfolios import PRIMARY, SECONDARY, Assignment, StaffRow

TRANSFERRED_MAX = 5000
"""Customers handed over in one transaction."""


async def require_staff(unit: UnitOfWork, institution_id: str, staff_id: str, *, active: bool = False) -> StaffRow:
    """A member of staff, locked.

    Raises:
        NotFound: STAFF_NOT_FOUND.
        FailedPrecondition: STAFF_INACTIVE.
    """
    name = f"institutions/{institution_id}/staff/{staff_id}"
    found = (await store.lock_staff(unit.connection, institution_id, [staff_id])).get(staff_id)
    if found is None:
        raise NotFound("STAFF_NOT_FOUND", f"{name} does not exist")
    if active and not found.active:
        raise FailedPrecondition("STAFF_INACTIVE", f"{name} is not active and gets no customers")
    return found


async def assign(unit: UnitOfWork, staff: StaffRow, customer_ids: Sequence[UUID], role: int) -> list[Assignment]:
    """Gives customers to a member of staff; one assignment for each, in their order.

    Raises:
        NotFound: CUSTOMER_NOT_FOUND, the institution has no record of one.
        FailedPrecondition: CUSTOMER_MERGED, CUSTOMER_RESTRICTED.
    """
    await _lock(unit, customer_ids)
    anchors = await store.anchors(unit.connection, staff.institution_id, customer_ids)
    for customer_id in customer_ids:
        if customer_id not in anchors:
            raise customer_not_found(customer_id)
    live = await store.live_of_customers(unit.connection, staff.institution_id, customer_ids)
    same = {one.customer_id: one for one in live if one.staff_id == staff.staff_id and one.role == role}
    wanted = {customer_id: role for customer_id in customer_ids if customer_id not in same}
    await _end(unit, _displaced(live, staff, wanted))
    made = await _begin(unit, staff, [(customer_id, *anchors[customer_id]) for customer_id in wanted], role)
    by_customer = same | {one.customer_id: one for one in made}
    return [by_customer[customer_id] for customer_id in customer_ids]


async def unassign(unit: UnitOfWork, staff: StaffRow, customer_ids: Collection[UUID]) -> int:
    """Takes customers away from a member of staff; how many assignments ended."""
    await customer_store.lock(unit.connection, customer_ids)
    live = await store.live_of_customers(unit.connection, staff.institution_id, customer_ids)
    gone = [one for one in live if one.staff_id == staff.staff_id]
    await _end(unit, gone)
    return len(gone)


async def transfer(unit: UnitOfWork, giver: StaffRow, taker: StaffRow) -> int:
    """Hands over as many assignments as one transaction may; how many. Each keeps its role.

    Whom the taker looks after already stays with them, in the stronger of both roles.
    """
    found = await store.live_of_staff(unit.connection, giver.institution_id, giver.staff_id, TRANSFERRED_MAX)
    customers = {one.customer_id for one in found}
    await customer_store.lock(unit.connection, customers)
    # Some may have ended before the customers were locked.
    live = await store.live_of_customers(unit.connection, giver.institution_id, customers)
    given = [one for one in live if one.staff_id == giver.staff_id]
    wanted: dict[UUID, int] = {}
    for one in given:
        wanted[one.customer_id] = min(one.role, wanted.get(one.customer_id, one.role))
    for one in live:
        if one.staff_id == taker.staff_id and one.role <= wanted.get(one.customer_id, 0):
            del wanted[one.customer_id]
    ended = {one.assignment_id: one for one in (*given, *_displaced(live, taker, wanted))}
    await _end(unit, list(ended.values()))
    places = {one.customer_id: (one.customer_id, one.record_id, one.link_version) for one in given}
    for role in (PRIMARY, SECONDARY):
        await _begin(unit, taker, [places[customer_id] for customer_id in wanted if wanted[customer_id] == role], role)
    return len(given)


def _displaced(live: Iterable[Assignment], staff: StaffRow, wanted: Mapping[UUID, int]) -> list[Assignment]:
    """What ends when a member of staff gets customers in these roles: what they were to them before, and, of customers whose
    primary manager they become, the department's former one."""

    def is_displaced(one: Assignment) -> bool:
        if one.customer_id not in wanted:
            return False
        succeeds = wanted[one.customer_id] == PRIMARY == one.role and one.department_id == staff.department_id
        return one.staff_id == staff.staff_id or succeeds

    return [one for one in live if is_displaced(one)]


async def _lock(unit: UnitOfWork, customer_ids: Collection[UUID]) -> None:
    rows = await customer_store.lock(unit.connection, customer_ids)
    for customer_id, row in rows.items():
        if row.merged_into is not None:
            require_not_merged(row, await customer_store.winner(unit.connection, customer_id))
        if row.restricted:
            raise FailedPrecondition("CUSTOMER_RESTRICTED", f"customers/{customer_id} is restricted; nobody is assigned to it")


async def _end(unit: UnitOfWork, assignments: Sequence[Assignment]) -> None:
    for one in assignments:
        one.version += 1
        one.end_time = max(unit.now, one.begin_time)
    if assignments:
        await store.end(unit.connection, assignments)
        _publish(unit, assignments)


async def _begin(unit: UnitOfWork, staff: StaffRow, places: Sequence[tuple[UUID, UUID, int]], role: int) -> list[Assignment]:
    """New assignments of (customer, record, version of the record's link)."""
    if not places:
        return []
    versions = await store.last_versions(unit.connection, staff.institution_id, staff.staff_id, [place[1] for place in places])
    made = [
        Assignment(
            assignment_id=new_id(),
            institution_id=staff.institution_id,
            staff_id=staff.staff_id,
            department_id=staff.department_id,
            record_id=record_id,
            role=role,
            version=versions.get(record_id, 0) + 1,
            begin_time=unit.now,
            end_time=None,
            customer_id=customer_id,
            link_version=link_version,
        )
        for customer_id, record_id, link_version in places
    ]
    await store.insert(unit.connection, made)
    _publish(unit, made)
    return made


def _publish(unit: UnitOfWork, assignments: Iterable[Assignment]) -> None:
    for one in assignments:
        unit.publish(published.portfolio_changed(one, unit.epoch))
