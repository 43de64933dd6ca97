"""Departments, members of staff, and who looks after whom."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection

PRIMARY, SECONDARY = 1, 2
_NOTHING = UUID(int=0)


@dataclass(slots=True)
class Assignment:
    """That a member of staff looks after a customer through a record, with that record's live link.

    `version` orders the states of this member of staff with this record, over all their assignments.
    """

    assignment_id: UUID
    institution_id: str
    staff_id: str
    department_id: str
    record_id: UUID
    role: int
    version: int
    begin_time: datetime
    end_time: datetime | None
    customer_id: UUID
    link_version: int


@dataclass(frozen=True, slots=True)
class StaffRow:
    """A member of staff."""

    institution_id: str
    staff_id: str
    department_id: str
    active: bool
    customers_count: int


async def insert_department(
    connection: Connection, institution_id: str, department_id: str, display_name: str, now: datetime
) -> bool:
    """Makes a department; False when the id is taken."""
    made = await connection.fetchval(
        "INSERT INTO departments VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING true",
        institution_id, department_id, display_name, now,
    )  # fmt: skip
    return bool(made)


async def list_departments(connection: Connection, institution_id: str, after: str, limit: int) -> list[asyncpg.Record]:
    """Departments of an institution, by id."""
    rows: list[asyncpg.Record] = await connection.fetch(
        "SELECT department_id, display_name FROM departments WHERE institution_id = $1 AND department_id > $2"
        " ORDER BY department_id LIMIT $3",
        institution_id, after, limit,
    )  # fmt: skip
    return rows


async def department_exists(connection: Connection, institution_id: str, department_id: str) -> bool:
    """Whether there is this department."""
    found = await connection.fetchval(
        "SELECT true FROM departments WHERE institution_id = $1 AND department_id = $2", institution_id, department_id
    )
    return bool(found)


async def put_staff(
    connection: Connection, institution_id: str, staff_id: str, department_id: str, active: bool, now: datetime
) -> StaffRow:
    """Makes or changes a member of staff."""
    await connection.execute(_PUT_STAFF, institution_id, staff_id, department_id, active, now)
    found = await lock_staff(connection, institution_id, [staff_id])
    return found[staff_id]


async def lock_staff(connection: Connection, institution_id: str, staff_ids: Collection[str]) -> dict[str, StaffRow]:
    """Members of staff, locked in the order of their ids; those who do not exist are left out."""
    await connection.execute(_LOCK_STAFF, institution_id, list(staff_ids))
    rows = await connection.fetch(f"{_STAFF} AND s.staff_id = ANY($2::text[])", institution_id, list(staff_ids))
    return {row["staff_id"]: StaffRow(*row) for row in rows}


async def staff_exists(connection: Connection, institution_id: str, staff_id: str) -> bool:
    """Whether there is this member of staff."""
    found = await connection.fetchval(
        "SELECT true FROM staff_members WHERE institution_id = $1 AND staff_id = $2", institution_id, staff_id
    )
    return bool(found)


async def list_staff(connection: Connection, institution_id: str, department_id: str, after: str, limit: int) -> list[StaffRow]:
    """Members of staff of an institution or (not empty) one of its departments, by id."""
    rows = await connection.fetch(
        f"{_STAFF} AND s.staff_id > $2 AND ($3 = '' OR s.department_id = $3) ORDER BY s.staff_id LIMIT $4",
        institution_id, after, department_id, limit,
    )  # fmt: skip
    return [StaffRow(*row) for row in rows]


async def anchors(connection: Connection, institution_id: str, customer_ids: Collection[UUID]) -> dict[UUID, tuple[UUID, int]]:
    """The institution's oldest record of each customer, with its link's version: what an assignment hangs on."""
    rows = await connection.fetch(_ANCHORS, institution_id, list(customer_ids))
    return {row[0]: (row[1], row[2]) for row in rows}


async def live_of_customers(connection: Connection, institution_id: str, customer_ids: Collection[UUID]) -> list[Assignment]:
    """The assignments in force of customers at an institution, through whichever of their records."""
    rows = await connection.fetch(
        f"{_ASSIGNMENTS} WHERE r.customer_id = ANY($1::uuid[]) AND a.institution_id = $2 AND a.end_time IS NULL",
        list(customer_ids), institution_id,
    )  # fmt: skip
    return [Assignment(*row) for row in rows]


async def live_of_staff(connection: Connection, institution_id: str, staff_id: str, limit: int) -> list[Assignment]:
    """The assignments in force of a member of staff, by id."""
    rows = await connection.fetch(
        f"{_ASSIGNMENTS} WHERE a.institution_id = $1 AND a.staff_id = $2 AND a.end_time IS NULL"
        " ORDER BY a.assignment_id LIMIT $3",
        institution_id, staff_id, limit,
    )  # fmt: skip
    return [Assignment(*row) for row in rows]


async def of_staff(
    connection: Connection, institution_id: str, staff_id: str, with_ended: bool, after: UUID | None, limit: int
) -> list[Assignment]:
    """A member of staff's assignments, by id."""
    rows = await connection.fetch(
        f"{_ASSIGNMENTS} WHERE a.institution_id = $1 AND a.staff_id = $2 AND ($3 OR a.end_time IS NULL) AND a.assignment_id > $4"
        " ORDER BY a.assignment_id LIMIT $5",
        institution_id, staff_id, with_ended, after or _NOTHING, limit,
    )  # fmt: skip
    return [Assignment(*row) for row in rows]


async def of_customer(
    connection: Connection, customer_id: UUID, institution_id: str | None, with_ended: bool, after: UUID | None, limit: int
) -> list[Assignment]:
    """A customer's assignments at an institution (None: all), by id."""
    rows = await connection.fetch(
        f"{_ASSIGNMENTS} WHERE r.customer_id = $1 AND ($2::text IS NULL OR a.institution_id = $2)"
        " AND ($3 OR a.end_time IS NULL) AND a.assignment_id > $4 ORDER BY a.assignment_id LIMIT $5",
        customer_id, institution_id, with_ended, after or _NOTHING, limit,
    )  # fmt: skip
    return [Assignment(*row) for row in rows]


async def last_versions(
    connection: Connection, institution_id: str, staff_id: str, record_ids: Collection[UUID]
) -> dict[UUID, int]:
    """The last version of what was published of a member of staff, by record; nothing for none."""
    rows = await connection.fetch(
        "SELECT record_id, max(version) FROM portfolio_assignments"
        " WHERE institution_id = $1 AND staff_id = $2 AND record_id = ANY($3::uuid[]) GROUP BY record_id",
        institution_id, staff_id, list(record_ids),
    )  # fmt: skip
    return {row[0]: row[1] for row in rows}


async def end(connection: Connection, assignments: Sequence[Assignment]) -> None:
    """Writes the ends of assignments, each with its raised version."""
    await connection.execute(
        _END,
        [one.assignment_id for one in assignments],
        [one.version for one in assignments],
        [one.end_time for one in assignments],
    )


async def insert(connection: Connection, assignments: Sequence[Assignment]) -> None:
    """Writes new assignments."""
    await connection.execute(_INSERT, *([getattr(one, column) for one in assignments] for column in _COLUMNS))


async def page(connection: Connection, after: str, limit: int) -> list[Assignment]:
    """Assignments by id, for re-publication; the state of the last one of a member of staff with a record wins by its version."""
    rows = await connection.fetch(
        f"{_ASSIGNMENTS} WHERE a.assignment_id > $1 ORDER BY a.assignment_id LIMIT $2", UUID(after) if after else _NOTHING, limit
    )
    return [Assignment(*row) for row in rows]


async def forget(connection: Connection, record_ids: Collection[UUID]) -> None:
    """Deletes the assignments of erased records."""
    await connection.execute("DELETE FROM portfolio_assignments WHERE record_id = ANY($1::uuid[])", list(record_ids))


_COLUMNS = [
    "assignment_id", "institution_id", "staff_id", "department_id", "record_id", "role", "version", "begin_time", "end_time",
]  # fmt: skip
_ASSIGNMENTS = f"""
SELECT {", ".join(f"a.{column}" for column in _COLUMNS)}, r.customer_id, r.link_version
FROM portfolio_assignments a JOIN records r USING (record_id)
"""
_INSERT = f"""
INSERT INTO portfolio_assignments ({", ".join(_COLUMNS)})
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::smallint[], $7::bigint[], $8::timestamptz[],
    $9::timestamptz[])
"""
_END = """
UPDATE portfolio_assignments a SET end_time = ended.end_time, version = ended.version
FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) AS ended (assignment_id, version, end_time)
WHERE a.assignment_id = ended.assignment_id
"""
_PUT_STAFF = """
INSERT INTO staff_members (institution_id, staff_id, department_id, active, create_time, update_time)
VALUES ($1, $2, $3, $4, $5, $5)
ON CONFLICT (institution_id, staff_id) DO UPDATE SET
    department_id = excluded.department_id, active = excluded.active, update_time = excluded.update_time
"""
_LOCK_STAFF = """
SELECT FROM staff_members WHERE institution_id = $1 AND staff_id = ANY($2::text[]) ORDER BY staff_id FOR UPDATE
"""
_STAFF = """
SELECT s.institution_id, s.staff_id, s.department_id, s.active, (
    SELECT count(*) FROM portfolio_assignments a
    WHERE a.institution_id = s.institution_id AND a.staff_id = s.staff_id AND a.end_time IS NULL)
FROM staff_members s WHERE s.institution_id = $1
"""
_ANCHORS = """
SELECT DISTINCT ON (r.customer_id) r.customer_id, r.record_id, r.link_version
FROM unnest($2::uuid[]) AS wanted (customer_id)
    CROSS JOIN LATERAL (SELECT * FROM records WHERE customer_id = wanted.customer_id AND institution_id = $1 OFFSET 0) r
ORDER BY r.customer_id, r.record_id
"""
