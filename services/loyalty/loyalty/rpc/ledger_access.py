"""Who may ask for what: decided in the batch, on what it loaded, so that nobody's accounts change hands meanwhile."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chassis import customer_states
from chassis.database import Connection
from chassis.errors import DomainError, FailedPrecondition, NotFound
from chassis.identity import Principal
from loyalty.domain.ledger import commands as c
from loyalty.domain.ledger.books import Books
from loyalty.domain.ledger.types import Account, Operation, RequestKey
from loyalty.rpc.errors import (
    account_merged,
    account_not_found,
    hold_not_found,
    institution_not_found,
    operation_not_found,
    program_not_found,
)

GIVING = (c.Confirm, c.Cancel, c.Clawback, c.Reverse)


@dataclass(frozen=True, slots=True)
class Known:
    """What access stands on beside the books."""

    links: frozenset[tuple[uuid.UUID, str]]
    """(customer, institution) that are linked."""
    institutions: frozenset[str]
    survivors: Mapping[uuid.UUID, uuid.UUID]
    """Of customers that callers are bound to, who took them over."""


async def objections(
    connection: Connection, books: Books, commands: Sequence[c.AnyCommand], principals: Sequence[Principal]
) -> list[DomainError | None]:
    """For each command why its caller may not ask for it; None where it may.

    What does not exist, and what the caller may not know of, are told in the same words. What was answered once is answered
    again, even when the caller has lost its link since.
    """
    known = await _known(connection, books, commands, principals)
    return [
        None if command.key in books.known else _objection(books, command, principal, known)
        for command, principal in zip(commands, principals, strict=True)
    ]


async def _known(
    connection: Connection, books: Books, commands: Sequence[c.AnyCommand], principals: Sequence[Principal]
) -> Known:
    pairs, places = set[tuple[uuid.UUID, str]](), set[str]()
    bound = {uuid.UUID(principal.customer) for principal in principals if principal.customer is not None}
    for command, principal in zip(commands, principals, strict=True):
        account = _account(books, command)
        if account is not None and account.customer_id is not None and principal.institution is not None:
            pairs.add((account.customer_id, principal.institution))
        if command.institution_id:
            places.add(command.institution_id)
    links = await connection.fetch(_LINKS, *map(list, zip(*pairs, strict=True))) if pairs else []
    found = await connection.fetch(_INSTITUTIONS, list(places)) if places else []
    survivors = await customer_states.survivors(connection, bound) if bound else {}
    return Known(
        frozenset((row["customer_id"], row["institution_id"]) for row in links),
        frozenset(row["institution_id"] for row in found),
        survivors,
    )


def _target(books: Books, command: c.AnyCommand) -> Operation | None:
    for name in ("earning_id", "spending_id", "reversed_id"):
        target: uuid.UUID | None = getattr(command, name, None)
        if target is not None:
            return books.operations.get(target)
    return None


def _account(books: Books, command: c.AnyCommand) -> Account | None:
    account_id = command.account_id
    if isinstance(command, c.Capture | c.Void):
        hold = books.holds.get(command.hold_id)
        account_id = hold.account_id if hold is not None else None
    elif account_id is None:
        target = _target(books, command)
        account_id = target.account_id if target is not None else None
    return books.accounts.get(account_id) if account_id is not None else None


def _objection(books: Books, command: c.AnyCommand, principal: Principal, known: Known) -> DomainError | None:
    account = _account(books, command)
    hidden = _hidden(command)
    if account is None:
        return hidden
    seen = principal.sees_all or (account.customer_id, principal.institution) in known.links
    if account.customer_id is None and not _ends(command):
        seen = False
    if principal.customer is not None and known.survivors[uuid.UUID(principal.customer)] != account.customer_id:
        seen = False
    if isinstance(command, c.Capture | c.Void):
        return None if seen or books.holds[command.hold_id].institution_id == principal.institution else hidden
    target = _target(books, command)
    if target is not None:
        return _objection_to_target(books, command, principal, target, hidden)
    if not seen:
        return hidden
    if account.parent_account_id is not None:
        return _merged(account)
    return _objection_to_names(books, command, principal, known)


def _ends(command: c.AnyCommand) -> bool:
    return isinstance(command, c.Capture | c.Void | c.Refund | c.Clawback | c.Cancel)


def _hidden(command: c.AnyCommand) -> NotFound:
    if isinstance(command, c.Capture | c.Void):
        return hold_not_found(command.hold_id)
    for name in ("earning_id", "spending_id", "reversed_id"):
        target: uuid.UUID | None = getattr(command, name, None)
        if target is not None:
            return operation_not_found(target)
    return account_not_found(command.account_id)


def _objection_to_target(
    books: Books, command: c.AnyCommand, principal: Principal, target: Operation, hidden: NotFound
) -> DomainError | None:
    """An earning is the business of where it happened and of the issuer; a spending that of where it happened and of who asked
    for it; what is undone as a whole that of the issuer."""
    if principal.sees_all:
        return None
    may = set[str | None]()
    if isinstance(command, c.Refund):
        asked = target.key.caller.split("/", 1)[0] if isinstance(target.key, RequestKey) else None
        may = {target.institution_id, asked}
    elif isinstance(command, GIVING):
        program = books.configuration.program(target.program_id) if target.program_id is not None else None
        may = {program.institution_id if program is not None else None}
        if not isinstance(command, c.Reverse):
            may.add(target.institution_id)
    return None if principal.institution in may - {None} else hidden


def _objection_to_names(books: Books, command: c.AnyCommand, principal: Principal, known: Known) -> DomainError | None:
    for field in ("program_id", "to_program_id"):
        program_id = getattr(command, field, "")
        if program_id and books.configuration.program(program_id) is None:
            return program_not_found(program_id)
    if command.institution_id and command.institution_id not in known.institutions:
        return institution_not_found(command.institution_id)
    if isinstance(command, c.Earn) and not principal.sees_all and principal.institution != command.institution_id:
        return institution_not_found(command.institution_id)
    if isinstance(command, c.Transfer):
        receiver = books.accounts.get(command.to_account_id)
        if receiver is None or receiver.customer_id is None:
            return account_not_found(command.to_account_id)
        if receiver.parent_account_id is not None:
            return _merged(receiver)
    return None


def _merged(account: Account) -> FailedPrecondition:
    row = {"parent_account_id": account.parent_account_id, "holder_customer_id": account.customer_id}
    return account_merged(account.account_id, row)


def reused() -> FailedPrecondition:
    """The same request_id came with other input."""
    return FailedPrecondition(
        "REQUEST_ID_REUSED",
        "this request_id was used with other input; use a new one for a new request",
        field_violations=[("request_id", "was used with other input")],
    )


_LINKS = (
    "SELECT DISTINCT customer_id, institution_id FROM unnest($1::uuid[], $2::text[]) AS pair (customer_id, institution_id)"
    " JOIN record_links USING (customer_id, institution_id)"
)
_INSTITUTIONS = "SELECT institution_id FROM institutions WHERE institution_id = ANY($1::text[])"
