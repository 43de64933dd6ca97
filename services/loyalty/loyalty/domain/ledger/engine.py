"""Decides commands one after another on the books. Pure: the store locks, loads and writes."""

from collections.abc import Callable, Iterable
from typing import Any

from loyalty.domain.ledger import corrections, earning, exchange, holds, refunds, spending
from loyalty.domain.ledger.books import Books
from loyalty.domain.ledger.chain import canonical, chain_hash
from loyalty.domain.ledger.commands import AnyCommand
from loyalty.domain.ledger.types import Decided, Head, KeyReused, Operation, OperationKind, Outcome, Result, Unknown

RULES: dict[OperationKind, Callable[[Any, Books], Decided | Unknown]] = {
    OperationKind.EARN: earning.earn,
    OperationKind.CONFIRM: earning.confirm,
    OperationKind.CANCEL: earning.cancel,
    OperationKind.HOLD: holds.hold,
    OperationKind.CAPTURE: holds.capture,
    OperationKind.VOID: holds.void,
    OperationKind.HOLD_EXPIRE: holds.expire_hold,
    OperationKind.REDEEM: spending.redeem,
    OperationKind.REFUND: refunds.refund,
    OperationKind.CLAWBACK: corrections.clawback,
    OperationKind.ADJUST: corrections.adjust,
    OperationKind.TRANSFER: exchange.transfer,
    OperationKind.EXCHANGE: exchange.exchange,
    OperationKind.EXPIRE: corrections.expire_lots,
    OperationKind.REVERSE: corrections.reverse,
    OperationKind.SETTLE: exchange.settle,
}


def decide(commands: Iterable[AnyCommand], books: Books) -> list[Result]:
    """Decides commands in their order, each once for its key, and writes what they come to into the books.

    Returns:
        A result for each: its operation (of now, or of the first time its key came), or why there is none.

    Raises:
        LotsNeeded: when more lots have to be loaded; the books are of no use any more.
        ValueError: when a command is none that could be asked for: the caller's fault.
    """
    results: list[Result] = []
    for command in commands:
        earlier = books.known.get(command.key)
        if earlier is None:
            results.append(_decide(command, books))
        else:
            same = command.content_hash if earlier.command is not None else command.former_hash or command.content_hash
            results.append(earlier if earlier.content_hash == same else KeyReused(earlier))
    return results


def _decide(command: AnyCommand, books: Books) -> Operation | Unknown:
    asked = getattr(command, "amount_points", 1)
    if asked is not None and asked <= 0 and getattr(command, "quote_id", None) is None:
        raise ValueError("an operation is about more than zero points")
    books.begin()
    decided = RULES[command.kind](command, books)
    if isinstance(decided, Unknown):
        return decided
    entries = books.end() if decided.outcome is Outcome.POSTED else []
    operation = Operation(
        command.operation_id,
        command.key,
        command.kind,
        command.account_id or decided.account_id,
        decided.program_id,
        decided.institution_id or command.institution_id,
        decided.amount_points,
        command.effective_time,
        command.content_hash,
        command.reference,
        command.rule,
        books.sequence,
        decided.outcome,
        decided.balance_points,
        decided.shortfall_points,
        books.now,
        decided.others_points,
        decided.target_id,
        books.configuration.version,
        canonical(command.content()).decode(),
        decided.result,
    )
    operation.hash = chain_hash(books.head.hash, operation, entries)
    for entry in entries:
        books.entries.append((books.sequence, entry))
    books.posted.append(operation)
    books.known[command.key] = books.operations[operation.operation_id] = operation
    books.head = Head(books.sequence, operation.hash, books.head.configuration_version, books.head.ledger)
    books.sequence += 1
    return operation
