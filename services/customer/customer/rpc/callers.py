"""Checks that several servicers make on their callers."""

from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from chassis.database import Connection, Database
from chassis.errors import DomainError, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from chassis.identity import Principal, require_institution
from chassis.ids import resource_segments
from customer.core import Core
from customer.domain.intake import SECONDS_MIN
from customer.store import customers, institutions, search
from customer.store.customers import CustomerRow
from customer.store.institutions import SourceSystem
from customer.store.search import Viewer

CLOCKS_DIFFER_SECONDS_MAX = 5
"""So far ahead of us a caller's "now" may be."""


def viewing_institution(principal: Principal) -> str | None:
    """Whose records the caller may see; None for all."""
    return None if principal.sees_all else principal.institution or ""


async def only_customer(connection: Connection, principal: Principal) -> UUID | None:
    """The only customer the caller may touch, if there is one: that of its token, or the one it was merged into."""
    return await customers.winner(connection, UUID(principal.customer)) if principal.customer else None


async def viewer_of(database: Database, principal: Principal) -> Viewer:
    """Whose eyes search."""
    institution_id = viewing_institution(principal)
    if principal.customer is None:
        return Viewer(institution_id)
    async with database.connection() as connection:
        return Viewer(institution_id, await only_customer(connection, principal))


async def require_own(database: Database, principal: Principal, customer_id: UUID) -> None:
    """A caller that acts for one customer reads that one only, by any of the ids that were merged into one.

    Raises:
        NotFound: CUSTOMER_NOT_FOUND.
    """
    if principal.customer is None or UUID(principal.customer) == customer_id:
        return
    async with database.connection() as connection:
        if await only_customer(connection, principal) != await customers.winner(connection, customer_id):
            raise customer_not_found(customer_id)


async def no_such_customer(connection: Connection, principal: Principal, customer_id: UUID) -> DomainError:
    """Why nothing can be written to a customer without visible records: merged into one that the caller knows, or not there."""
    winner = await customers.winner(connection, customer_id)
    viewer = Viewer(viewing_institution(principal))
    if winner == customer_id or not await search.is_linked(connection, viewer, winner):
        return customer_not_found(customer_id)
    name = f"customers/{winner}"
    return FailedPrecondition(
        "CUSTOMER_MERGED", f"customers/{customer_id} was merged into {name}; write to that one", metadata={"winner": name}
    )


def customer_not_found(customer_id: UUID) -> NotFound:
    """The refusal of a customer that does not exist for this caller."""
    return NotFound("CUSTOMER_NOT_FOUND", f"customers/{customer_id} does not exist, or your institution has no link with it")


async def require_linked(core: Core, principal: Principal, customer_id: UUID) -> UUID:
    """The customer that this one is now: itself, or the one at the end of its merges.

    Raises:
        NotFound: CUSTOMER_NOT_FOUND, the caller has no link with it.
    """
    await require_own(core.database, principal, customer_id)
    async with core.database.connection() as connection:
        winner = await customers.winner(connection, customer_id)
        if not await search.is_linked(connection, Viewer(viewing_institution(principal)), winner):
            raise customer_not_found(customer_id)
    return winner


def require_not_merged(row: CustomerRow, winner: UUID) -> None:
    """Nothing is written to a merged customer.

    Args:
        winner: at the end of the chain, see `customers.winner`.

    Raises:
        FailedPrecondition: CUSTOMER_MERGED, naming the winner.
    """
    if row.merged_into is not None:
        name = f"customers/{winner}"
        raise FailedPrecondition(
            "CUSTOMER_MERGED", f"customers/{row.customer_id} was merged into {name}; write to that one", metadata={"winner": name}
        )


def past(instant: Timestamp, field: str, now: datetime) -> datetime:
    """An instant that is not ahead of us.

    Raises:
        InvalidArgument: TIME_IN_FUTURE, TIME_OUT_OF_RANGE.
    """
    if instant.seconds > now.timestamp() + CLOCKS_DIFFER_SECONDS_MAX:
        rule = "must not lie in the future: what will be known is not known; leave it out for the present"
        raise InvalidArgument("TIME_IN_FUTURE", f"{field} {rule}", field_violations=[(field, rule)])
    if instant.seconds < SECONDS_MIN:
        rule = "must lie after the year 1850"
        raise InvalidArgument("TIME_OUT_OF_RANGE", f"{field} {rule}", field_violations=[(field, rule)])
    return datetime.fromtimestamp(instant.seconds, UTC).replace(microsecond=instant.nanos // 1000)


def require_unbound(principal: Principal) -> None:
    """A caller that acts for one customer does not feed source systems.

    Raises:
        PermissionDenied: CUSTOMER_BOUND.
    """
    if principal.customer is not None:
        raise PermissionDenied("CUSTOMER_BOUND", "a caller bound to one customer may not call this method")


async def require_source_systems(connection: Connection, principal: Principal, names: Iterable[str]) -> dict[str, SourceSystem]:
    """The source systems with these resource names.

    Raises:
        NotFound: for one that does not exist or is another institution's.
    """
    wanted = {name: resource_segments(name, "institutions", "sourceSystems") for name in names}
    for institution_id, _ in wanted.values():
        require_institution(principal, institution_id)
    found = await institutions.find_source_systems(connection, [(parts[0], parts[1]) for parts in wanted.values()])
    for name in wanted:
        if name not in found:
            raise unknown_source_system(name)
    return found


def unknown_source_system(name: str) -> NotFound:
    """The refusal of a source system that does not exist."""
    return NotFound("SOURCE_SYSTEM_NOT_FOUND", f"{name} does not exist; create it first")
