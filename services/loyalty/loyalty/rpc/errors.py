"""What this service refuses, in the words of the platform."""

from collections.abc import Mapping

import asyncpg

from chassis.errors import FailedPrecondition, NotFound


def account_not_found(account_id: object) -> NotFound:
    """No such account, or none that the caller may know of."""
    return NotFound(
        "ACCOUNT_NOT_FOUND", f"accounts/{account_id} does not exist, or your institution has no link with its customer"
    )


def account_merged(account_id: object, row: Mapping[str, object] | asyncpg.Record) -> FailedPrecondition:
    """The account stands under another: nothing is changed through it."""
    parent, winner = f"accounts/{row['parent_account_id']}", f"customers/{row['holder_customer_id']}"
    return FailedPrecondition(
        "CUSTOMER_MERGED",
        f"accounts/{account_id} stands under {parent}, because its customer was merged into {winner}; use that account",
        metadata={"account": parent, "winner": winner},
    )


def program_not_found(program_id: str) -> NotFound:
    """No such programme."""
    return NotFound("PROGRAM_NOT_FOUND", f"programs/{program_id} does not exist")


def institution_not_found(institution_id: str) -> NotFound:
    """No such institution in the alliance."""
    return NotFound("INSTITUTION_NOT_FOUND", f"institutions/{institution_id} does not exist")


def operation_not_found(operation_id: object) -> NotFound:
    """No such operation, or none that the caller may know of."""
    return NotFound(
        "OPERATION_NOT_FOUND", f"operations/{operation_id} does not exist, or your institution has no link with its customer"
    )


def hold_not_found(hold_id: object) -> NotFound:
    """No such hold, or none that the caller may know of."""
    return NotFound("HOLD_NOT_FOUND", f"holds/{hold_id} does not exist, or your institution has no link with its customer")


def account_closed(account_id: object) -> FailedPrecondition:
    """A closed account: nothing is changed on it."""
    return FailedPrecondition("ACCOUNT_CLOSED", f"accounts/{account_id} is closed; open it again by accounts:open")


def membership_not_found(account_id: object, institution_id: str) -> NotFound:
    """No link in force."""
    return NotFound("MEMBERSHIP_NOT_FOUND", f"accounts/{account_id} has no link with institutions/{institution_id}")
