"""What two persons decide together, and whose programme it is."""

from collections.abc import Iterable

import asyncpg

from chassis.database import Connection
from chassis.errors import DomainError, FailedPrecondition, InvalidArgument
from chassis.identity import Principal, require_institution
from loyalty.rpc.errors import program_not_found
from loyalty.store import programs

PAGE_DEFAULT = 50
PAGE_MAX = 200


async def require_own_program(
    connection: Connection, principal: Principal, program_id: str, *, lock: bool = False
) -> asyncpg.Record:
    """The programme, where it is the caller's institution's.

    Raises:
        NotFound: PROGRAM_NOT_FOUND, also of others': the answer does not tell which.
    """
    program = await programs.get(connection, program_id, lock=lock)
    if program is None:
        raise program_not_found(program_id)
    try:
        require_institution(principal, program["institution_id"])
    except DomainError:
        raise program_not_found(program_id) from None
    return program


def require_draft(row: asyncpg.Record, what: str) -> None:
    """Refuses what was decided before.

    Raises:
        FailedPrecondition: NOT_A_DRAFT.
    """
    if row["state"] != "DRAFT":
        raise FailedPrecondition("NOT_A_DRAFT", f"the {what} is {row['state'].lower()} already; draft another")


def require_another(drafted_by: str, principal: Principal) -> None:
    """Refuses who wrote it.

    Raises:
        FailedPrecondition: APPROVAL_BY_SAME_PERSON.
    """
    if drafted_by == principal.subject:
        raise FailedPrecondition("APPROVAL_BY_SAME_PERSON", "who wrote it cannot approve it; another person must")


def invalid(wrong: Iterable[tuple[str, str]], reason: str, prefix: str) -> InvalidArgument:
    """The refusal of fields below a prefix."""
    named = [(f"{prefix}.{field}", rule) for field, rule in wrong]
    return InvalidArgument(reason, "; ".join(f"{field} {rule}" for field, rule in named), field_violations=named)
