"""The projection that says what became of a customer's id: merged into another's, restricted, erased.

Reads through the id of a merged customer answer with the one that took over, at the end of the chain; writes are refused.
Facts are not moved here: they hang on records (see `record_links`).
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg
from sqlalchemy import BigInteger, Boolean, Column, Index, MetaData, Table, Uuid, text

from chassis import answers
from chassis.database import Connection
from chassis.errors import FailedPrecondition
from chassis.identity import Principal
from chassis.record_links import ERASED_EPOCH, not_found
from concord.common.v1.event_pb2 import StateVersion

MERGES_MAX = 100
"""Steps of a chain of merges that are followed; a bound in case of a ring, which the owner never makes."""


@dataclass(frozen=True, slots=True)
class CustomerState:
    """What a state of a customer says of its id."""

    customer_id: uuid.UUID
    merged_into_customer_id: uuid.UUID | None
    restricted: bool
    version: StateVersion

    @property
    def order(self) -> tuple[int, int]:
        """Of two states the greater one holds."""
        return self.version.epoch, self.version.version


def table(metadata: MetaData) -> Table:
    """Adds the table to a service's metadata. It also needs the table of `record_links`."""
    states = Table(
        "customer_states",
        metadata,
        Column("customer_id", Uuid, primary_key=True),
        Column("merged_into_customer_id", Uuid),
        Column("restricted", Boolean, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("version", BigInteger, nullable=False),
    )
    Index(
        "customer_states_merged",
        states.c.merged_into_customer_id,
        postgresql_where=text("merged_into_customer_id IS NOT NULL"),
    )
    return states


async def fold(connection: Connection, states: Iterable[CustomerState]) -> list[asyncpg.Record]:
    """Applies states where they are newer.

    Returns:
        The customers for which something changed: customer_id, merged_into_customer_id, restricted, and what they were before
        (former_merged_into_customer_id, former_restricted). A new customer that is neither merged nor restricted is none.
    """
    newest: dict[uuid.UUID, CustomerState] = {}
    for state in states:
        known = newest.get(state.customer_id)
        if known is None or known.order < state.order:
            newest[state.customer_id] = state
    if not newest:
        return []
    ordered = [newest[customer_id] for customer_id in sorted(newest)]
    customer_ids = [state.customer_id for state in ordered]
    await connection.execute(_ADD_MISSING, customer_ids)
    rows = await connection.fetch(
        _APPLY,
        customer_ids,
        [state.merged_into_customer_id for state in ordered],
        [state.restricted for state in ordered],
        [state.version.epoch for state in ordered],
        [state.version.version for state in ordered],
    )
    return [
        row
        for row in rows
        if (row["merged_into_customer_id"], row["restricted"])
        != (row["former_merged_into_customer_id"], row["former_restricted"])
    ]


async def survivors(connection: Connection, customer_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID]:
    """Of each customer the one that it was merged into, at the end of the chain; itself when it was not merged."""
    rows = await connection.fetch(
        f"{_CHAIN} SELECT DISTINCT ON (asked_id) asked_id, customer_id {_ENDS}", list(set(customer_ids))
    )
    return {row["asked_id"]: row["customer_id"] for row in rows}


async def merged_into(connection: Connection, customer_ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """The customers, with all that were merged into them, also over several steps."""
    rows = await connection.fetch(f"{_FAMILY} SELECT DISTINCT customer_id FROM family", list(set(customer_ids)))
    return {row["customer_id"] for row in rows}


async def restricted(connection: Connection, customer_ids: Iterable[uuid.UUID]) -> frozenset[uuid.UUID]:
    """Those of the customers that are restricted. The stricter wins: one that took over a restricted customer is, too."""
    rows = await connection.fetch(
        f"{_FAMILY} SELECT DISTINCT asked_id FROM family JOIN customer_states USING (customer_id) WHERE restricted",
        list(set(customer_ids)),
    )
    return frozenset(row["asked_id"] for row in rows)


async def erase(connection: Connection, customer_id: uuid.UUID) -> set[uuid.UUID]:
    """Ends a customer for good, with all that were merged into it, and forgets the answers that name them. Returns them."""
    gone = await merged_into(connection, [customer_id])
    await connection.execute(_ERASE, sorted(gone), ERASED_EPOCH)
    await answers.forget(connection, gone)
    return gone


async def erased(connection: Connection, customer_ids: Iterable[uuid.UUID]) -> frozenset[uuid.UUID]:
    """Those of the customers that were erased. Known ones cannot be erased until the transaction ends."""
    rows = await connection.fetch(
        "SELECT customer_id, epoch FROM customer_states WHERE customer_id = ANY($1::uuid[]) ORDER BY customer_id FOR SHARE",
        list(set(customer_ids)),
    )
    return frozenset(row["customer_id"] for row in rows if row["epoch"] == ERASED_EPOCH)


async def readable(connection: Connection, principal: Principal, customer_id: uuid.UUID) -> uuid.UUID:
    """The customer to answer with: the one asked for, or the one that took it over.

    Raises:
        NotFound: CUSTOMER_NOT_FOUND, when the caller's institution has no link with it, or the caller is bound to another.
    """
    bound = uuid.UUID(principal.customer) if principal.customer is not None else customer_id
    rows = await connection.fetch(_READABLE, [customer_id, bound], principal.institution or "")
    ends = {row["asked_id"]: row for row in rows}
    survivor: uuid.UUID = ends[customer_id]["customer_id"]
    if ends[bound]["customer_id"] != survivor or not (principal.sees_all or ends[customer_id]["linked"]):
        raise not_found(customer_id)
    return survivor


async def writable(connection: Connection, principal: Principal, customer_id: uuid.UUID) -> None:
    """Refuses to change anything through the id of a merged customer.

    Raises:
        NotFound: as `readable`.
        FailedPrecondition: CUSTOMER_MERGED, naming the customer that took over.
    """
    survivor = await readable(connection, principal, customer_id)
    if survivor != customer_id:
        raise merged(customer_id, survivor)


def merged(customer_id: uuid.UUID, survivor: uuid.UUID) -> FailedPrecondition:
    """The refusal of a write through a merged customer's id."""
    return FailedPrecondition(
        "CUSTOMER_MERGED",
        f"customers/{customer_id} was merged into customers/{survivor}; use that one",
        metadata={"winner": f"customers/{survivor}"},
    )


# A row is first made with a version older than any, so that a new and a known one are locked alike, in id order.
_ADD_MISSING = """
INSERT INTO customer_states (customer_id, merged_into_customer_id, restricted, epoch, version)
SELECT customer_id, NULL, false, -1, -1 FROM unnest($1::uuid[]) AS told (customer_id) ORDER BY customer_id
ON CONFLICT DO NOTHING
"""
_APPLY = """
WITH before AS MATERIALIZED (
    SELECT customer_id, merged_into_customer_id, restricted FROM customer_states
    WHERE customer_id = ANY($1) ORDER BY customer_id FOR UPDATE
)
UPDATE customer_states AS t SET
    merged_into_customer_id = told.merged_into_customer_id, restricted = told.restricted,
    epoch = told.epoch, version = told.version
FROM unnest($1::uuid[], $2::uuid[], $3::boolean[], $4::bigint[], $5::bigint[])
        AS told (customer_id, merged_into_customer_id, restricted, epoch, version)
    JOIN before USING (customer_id)
WHERE t.customer_id = told.customer_id AND (t.epoch, t.version) < (told.epoch, told.version)
RETURNING t.customer_id, t.merged_into_customer_id, t.restricted,
    before.merged_into_customer_id AS former_merged_into_customer_id, before.restricted AS former_restricted
"""
_ERASE = """
INSERT INTO customer_states (customer_id, merged_into_customer_id, restricted, epoch, version)
SELECT customer_id, NULL, true, $2, 0 FROM unnest($1::uuid[]) AS gone (customer_id) ORDER BY customer_id
ON CONFLICT (customer_id) DO UPDATE SET
    merged_into_customer_id = NULL, restricted = true, epoch = excluded.epoch, version = excluded.version
"""
_CHAIN = f"""
WITH RECURSIVE chain (asked_id, customer_id, steps_count) AS (
    SELECT asked, asked, 0 FROM unnest($1::uuid[]) AS asked
    UNION ALL
    SELECT asked_id, merged_into_customer_id, steps_count + 1 FROM chain JOIN customer_states USING (customer_id)
    WHERE merged_into_customer_id IS NOT NULL AND steps_count < {MERGES_MAX}
)
"""
_ENDS = "FROM chain ORDER BY asked_id, steps_count DESC"
_FAMILY = """
WITH RECURSIVE family (asked_id, customer_id) AS (
    SELECT asked, asked FROM unnest($1::uuid[]) AS asked
    UNION
    SELECT asked_id, s.customer_id FROM family JOIN customer_states s ON s.merged_into_customer_id = family.customer_id
)
"""
_READABLE = f"""
{_CHAIN}
SELECT DISTINCT ON (asked_id) asked_id, customer_id,
    EXISTS (SELECT FROM record_links l WHERE l.customer_id = chain.customer_id AND l.institution_id = $2) AS linked
{_ENDS}
"""
