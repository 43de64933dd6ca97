"""Checks that several servicers make on their callers."""

from collections.abc import Iterable
from uuid import UUID

from chassis.database import Connection
from chassis.errors import NotFound, PermissionDenied
from chassis.identity import Principal, require_institution
from chassis.ids import resource_segments
from customer.store import institutions
from customer.store.institutions import SourceSystem


def viewing_institution(principal: Principal) -> str | None:
    """Whose records the caller may see; None for all."""
    return None if principal.sees_all else principal.institution or ""


def bound_customer(principal: Principal) -> UUID | None:
    """The only customer the caller may touch, if there is one."""
    return UUID(principal.customer) if principal.customer else None


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
