"""What this service refuses, in the words of the platform."""

import asyncpg

from chassis.errors import FailedPrecondition, NotFound
from loyalty.domain.ledger import Operation


def account_not_found(account_id: object) -> NotFound:
    """No such account, or none that the caller may know of."""
    return NotFound(
        "ACCOUNT_NOT_FOUND", f"accounts/{account_id} does not exist, or your institution has no link with its customer"
    )


def account_merged(account_id: object, row: asyncpg.Record) -> FailedPrecondition:
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


def insufficient_points(operation: Operation) -> FailedPrecondition:
    """The stored refusal of a redemption; the same request_id is always answered with it."""
    return FailedPrecondition(
        "INSUFFICIENT_POINTS",
        f"the account has {operation.balance_points} points of programs/{operation.program_id}, fewer than"
        f" {operation.amount_points}; ask for fewer under a new request_id",
        metadata={"operation": f"operations/{operation.operation_id}", "balance_points": str(operation.balance_points)},
        field_violations=[("amount_points", "is more than the account has")],
    )
