"""Which customers a caller may find, and by what. On the service's own connection: row-level security would hide the index of
look-up keys, so each statement names the institution whose records count. Restricted customers are not found."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from chassis.database import Connection
from customer.store.restrictions import RESTRICTED

NO_CUSTOMER = UUID(int=0)
FEW_RELATIONSHIPS_MAX = 1000
"""Of a kind with fewer the related records are looked up one by one."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whose eyes search: an institution (None sees all), perhaps bound to one customer."""

    institution_id: str | None
    customer_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class KeyCondition:
    """Look-up keys that a record must all have, and of which it must have one (none: no such rule)."""

    all_of: Sequence[int]
    any_of: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Filters:
    """What listed customers must be; None and empty for no such rule.

    `any_key`: look-up keys, of which a record must have one. `related_to`: a customer they are in a relationship with.
    """

    institution_id: str | None = None
    any_key: Sequence[int] = ()
    changed_since: datetime | None = None
    relationship_kind: int = 0
    related_to: UUID | None = None


class _Statement:
    """A statement in the making: its conditions and their arguments."""

    def __init__(self, viewer: Viewer, after: UUID) -> None:
        self.arguments: list[object] = [after]
        self.conditions = ["r.customer_id > $1", _NOT_RESTRICTED]
        if viewer.institution_id is not None:
            self.conditions.append(f"r.institution_id = {self.argument(viewer.institution_id)}")
        if viewer.customer_id is not None:
            self.conditions.append(f"r.customer_id = {self.argument(viewer.customer_id)}")

    def argument(self, value: object) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    async def customer_ids(self, connection: Connection, limit: int) -> list[UUID]:
        text = (
            f"SELECT DISTINCT r.customer_id FROM records r WHERE {' AND '.join(self.conditions)}"
            f" ORDER BY r.customer_id LIMIT {self.argument(limit)}"
        )
        # Whether the index of the keys or that of the customers is the shorter way depends on how common the keys are: each
        # search is planned for its own.
        async with connection.transaction():
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            rows: list[asyncpg.Record] = await connection.fetch(text, *self.arguments)
        return [row[0] for row in rows]


# A scalar sub-query, because a join would read all customers before the first row of a page.
_NOT_RESTRICTED = f"""NOT {RESTRICTED}
    AND (SELECT c.restricted FROM customers c WHERE c.customer_id = r.customer_id) IS NOT TRUE"""


async def is_linked(connection: Connection, viewer: Viewer, customer_id: UUID) -> bool:
    """Whether a customer has a record of the viewer; restricted ones too."""
    if viewer.customer_id not in (None, customer_id):
        return False
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM records WHERE customer_id = $1 AND ($2::text IS NULL OR institution_id = $2))",
        customer_id, viewer.institution_id,
    )  # fmt: skip
    return found


async def by_keys(
    connection: Connection, viewer: Viewer, conditions: Sequence[KeyCondition], after: UUID, limit: int
) -> list[UUID]:
    """Customers with a record of the viewer that meets one of the conditions, by id."""
    statement = _Statement(viewer, after)
    texts = []
    for condition in conditions:
        parts = []
        if condition.all_of:
            parts.append(f"r.lookup_keys @> {statement.argument(list(condition.all_of))}::bigint[]")
        if condition.any_of:
            parts.append(f"r.lookup_keys && {statement.argument(list(condition.any_of))}::bigint[]")
        texts.append(f"({' AND '.join(parts)})")
    statement.conditions.append(f"({' OR '.join(texts)})")
    return await statement.customer_ids(connection, limit)


async def by_filters(connection: Connection, viewer: Viewer, filters: Filters, after: UUID, limit: int) -> list[UUID]:
    """Customers with a record of the viewer to which all filters apply, by id."""
    statement = _Statement(viewer, after)
    if filters.institution_id is not None:
        statement.conditions.append(f"r.institution_id = {statement.argument(filters.institution_id)}")
    if filters.any_key:
        statement.conditions.append(f"r.lookup_keys && {statement.argument(list(filters.any_key))}::bigint[]")
    if filters.changed_since is not None:
        statement.conditions.append(f"r.update_time >= {statement.argument(filters.changed_since)}")
    if filters.related_to is not None or filters.relationship_kind:
        await _related(connection, statement, viewer, filters)
    return await statement.customer_ids(connection, limit)


async def _related(connection: Connection, statement: _Statement, viewer: Viewer, filters: Filters) -> None:
    kind, whose = statement.argument(filters.relationship_kind), statement.argument(viewer.institution_id)
    if filters.related_to is not None:
        related = statement.argument(filters.related_to)
        statement.conditions.append(_RELATED_TO.format(kind=kind, related=related, whose=whose))
        return
    found = await connection.fetchval(_COUNT, filters.relationship_kind, viewer.institution_id, FEW_RELATIONSHIPS_MAX)
    few_or_many = _IN_FEW if found < FEW_RELATIONSHIPS_MAX else _IN_MANY
    statement.conditions.append(few_or_many.format(kind=kind, whose=whose))


# An array that is made first: the records are then found by their ids, and not all of them held against a list.
_RELATED_TO = """r.record_id = ANY (ARRAY(
    SELECT e.from_record_id FROM records other JOIN relationships e ON e.to_record_id = other.record_id
    WHERE other.customer_id = {related} AND e.status <> 4 AND ({kind}::int = 0 OR e.kind = {kind}::int)
        AND ({whose}::text IS NULL OR e.institution_id = {whose})
    UNION ALL
    SELECT e.to_record_id FROM records other JOIN relationships e ON e.from_record_id = other.record_id
    WHERE other.customer_id = {related} AND e.status <> 4 AND ({kind}::int = 0 OR e.kind = {kind}::int)
        AND ({whose}::text IS NULL OR e.institution_id = {whose})))"""
_OF_KIND = "e.kind = {kind}::int AND e.status <> 4 AND ({whose}::text IS NULL OR e.institution_id = {whose})"
_COUNT = f"""SELECT count(*) FROM (
    SELECT FROM relationships e WHERE {_OF_KIND.format(kind="$1", whose="$2")} LIMIT $3) AS found"""
_IN_FEW = f"""r.record_id = ANY (ARRAY(
    SELECT unnest(ARRAY[e.from_record_id, e.to_record_id]) FROM relationships e WHERE {_OF_KIND}))"""
# Of many, the customers are gone through by id until the page is full.
_IN_MANY = f"""(EXISTS (SELECT FROM relationships e WHERE e.from_record_id = r.record_id AND {_OF_KIND} OFFSET 0)
    OR EXISTS (SELECT FROM relationships e WHERE e.to_record_id = r.record_id AND {_OF_KIND} OFFSET 0))"""
