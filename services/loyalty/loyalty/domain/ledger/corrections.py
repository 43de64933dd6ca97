"""Corrections: clawbacks with debts, adjustments, points that end, and operations undone as a whole."""

import uuid
from typing import Any

from loyalty.domain.ledger.books import Books, LotsNeeded, Taken
from loyalty.domain.ledger.commands import Adjust, Clawback, ExpireLots, Reverse
from loyalty.domain.ledger.configuration import ProgramTerms
from loyalty.domain.ledger.earning import agreement_of, issue, own_lot, take_back
from loyalty.domain.ledger.refunds import give_back
from loyalty.domain.ledger.types import (
    LOTS_PER_OPERATION_MAX,
    AccountKey,
    AccountKind,
    AccountStatus,
    Decided,
    Lot,
    LotState,
    Operation,
    OperationKind,
    Outcome,
    Unknown,
)


def clawback(command: Clawback, books: Books) -> Decided | Unknown:
    """Takes earned points back: of the earning's own lot, then of the member's others, and the rest becomes a debt."""
    earning = books.operations.get(command.earning_id)
    program = books.configuration.program(earning.program_id) if earning is not None and earning.program_id else None
    if earning is None or program is None or earning.account_id is None or earning.kind is not OperationKind.EARN:
        return Unknown("OPERATION_NOT_FOUND")
    account_id, program_id = earning.account_id, program.program_id
    left = earning.amount_points - books.taken_back.get(earning.operation_id, 0)
    asked = left if command.amount_points is None else command.amount_points
    decided = _about(books, earning, asked)
    if earning.outcome is not Outcome.POSTED or not 0 < asked <= left:
        decided.outcome = Outcome.OVER_CLAWBACK
        return decided
    own = own_lot(books, earning)
    promised = min(asked, own.remaining_points) if own is not None and own.state is LotState.PENDING else 0
    missing = asked - promised
    available = min(missing, books.points(account_id, AccountKind.MEMBER, program_id))
    first = own if own is not None and own.state is LotState.ACTIVE else None
    taken = books.pick((account_id,), program_id, available, first) if available else []
    if promised and own is not None:
        books.move_member(account_id, AccountKind.PENDING, program_id, -promised)
        books.use(own, promised)
    found = _use(books, taken, program)
    debt = missing - found
    if debt:
        books.move_member(account_id, AccountKind.DEBT, program_id, -debt)
    books.move_issuer(program, promised + debt)
    take_back(books, earning, program, asked)
    decided = _about(books, earning, asked)
    decided.outcome, decided.shortfall_points = Outcome.POSTED, debt
    decided.result = {"lots": ([[own.lot_id, promised]] if promised and own is not None else []) + _pairs(taken)}
    return decided


def _about(books: Books, operation: Operation, amount: int) -> Decided:
    balance = 0
    if operation.account_id is not None and operation.program_id is not None:
        balance = books.points(operation.account_id, AccountKind.MEMBER, operation.program_id)
    return Decided(
        Outcome.NOT_REVERSIBLE, operation.program_id, amount, balance, target_id=operation.operation_id,
        account_id=operation.account_id, institution_id=operation.institution_id,
    )  # fmt: skip


def _use(books: Books, taken: list[Taken], program: ProgramTerms) -> int:
    """Uses available points of lots, which go back to the issuer."""
    for lot, points in taken:
        books.move_member(lot.account_id, AccountKind.MEMBER, lot.program_id, -points)
        books.use(lot, points)
    found = sum(points for _, points in taken)
    books.move_issuer(program, found)
    return found


def _pairs(taken: list[Taken]) -> list[list[int]]:
    return [[lot.lot_id, points] for lot, points in taken]


def adjust(command: Adjust, books: Books) -> Decided | Unknown:
    """Gives points as a new lot, or takes them in the order of spending."""
    program = books.configuration.program(command.program_id)
    account = books.accounts.get(command.account_id) if command.account_id is not None else None
    if program is None or account is None:
        return Unknown("PROGRAM_NOT_FOUND" if program is None else "ACCOUNT_NOT_FOUND")
    account_id, points = account.account_id, abs(command.change_points)
    balance = books.points(account_id, AccountKind.MEMBER, program.program_id)
    decided = Decided(Outcome.INSUFFICIENT_POINTS, program.program_id, points, balance)
    if command.change_points > 0:
        if account.status is AccountStatus.CLOSED:
            decided.outcome = Outcome.ACCOUNT_CLOSED
            return decided
        lot = issue(books, program, account_id, command.institution_id, points, expire_time=command.expire_time)
        decided.result = {"lot_id": lot.lot_id, "expire_time": lot.expire_time}
    else:
        taken = books.pick((account_id,), program.program_id, points) if points <= balance else []
        if sum(take.points for take in taken) < points:
            decided.outcome = Outcome.POINTS_EXPIRED if points <= balance else Outcome.INSUFFICIENT_POINTS
            return decided
        _use(books, taken, program)
        decided.result = {"lots": _pairs(taken)}
    decided.outcome = Outcome.POSTED
    decided.balance_points = books.points(account_id, AccountKind.MEMBER, program.program_id)
    return decided


def expire_lots(command: ExpireLots, books: Books) -> Decided | Unknown:
    """Ends what is past its time; what holds reserve stays with them. Lots that have nothing to end are left out."""
    program = books.configuration.program(command.program_id)
    if program is None:
        return Unknown("PROGRAM_NOT_FOUND")
    if command.account_id is not None and not command.lot_ids:
        lots = _all_lots(books, command.account_id, program.program_id)
    else:
        due = (books.lots.get(lot_id) for lot_id in dict.fromkeys(command.lot_ids))
        lots = [lot for lot in due if lot is not None and lot.expire_time is not None and lot.expire_time <= books.now]
    ended = [(lot, points) for lot in lots if lot.program_id == program.program_id and (points := lot.available_points) > 0]
    if not ended:
        return Unknown("NOTHING_TO_EXPIRE")
    for lot, points in ended:
        kind = AccountKind.PENDING if lot.state is LotState.PENDING else AccountKind.MEMBER
        books.move_member(lot.account_id, kind, program.program_id, -points)
        books.use(lot, points)
    total = sum(points for _, points in ended)
    books.move_issuer(program, total)
    decided = Decided(Outcome.POSTED, program.program_id, total, result={"lots": [[lot.lot_id, points] for lot, points in ended]})
    if command.account_id is not None:
        decided.balance_points = books.points(command.account_id, AccountKind.MEMBER, program.program_id)
    return decided


def _all_lots(books: Books, account_id: uuid.UUID, program_id: str) -> list[Lot]:
    owner = account_id, program_id
    if not books.shelf(owner).complete:
        raise LotsNeeded([owner])
    return sorted((lot for lot in books.lots.values() if (lot.account_id, lot.program_id) == owner), key=lambda lot: lot.order)


REVERSIBLE = {OperationKind.ADJUST, OperationKind.TRANSFER, OperationKind.EXCHANGE, OperationKind.EARN}


def reverse(command: Reverse, books: Books) -> Decided | Unknown:
    """Undoes an operation where the lots that it issued are whole: they end, and what it used comes back."""
    operation = books.operations.get(command.reversed_id)
    if operation is None:
        return Unknown("OPERATION_NOT_FOUND")
    decided = _about(books, operation, operation.amount_points)
    first = operation.sequence * LOTS_PER_OPERATION_MAX
    issued = [books.lots[lot_id] for lot_id in sorted(books.lots) if first <= lot_id < first + LOTS_PER_OPERATION_MAX]
    uses = books.uses.get(operation.sequence, [])
    undoable = (
        operation.kind in REVERSIBLE
        and operation.outcome is Outcome.POSTED
        and operation.operation_id not in books.reversed_ids
        and (issued or uses)
        and all(_whole(lot, books) for lot in issued)
    )
    if not undoable:
        return decided
    result: dict[str, Any] = {"lots": [], "ended": [[lot.lot_id, lot.remaining_points] for lot in issued]}
    if operation.kind is OperationKind.TRANSFER:
        _empty(books, issued)
    else:
        for lot in issued:
            program = books.configuration.program(lot.program_id)
            assert program is not None
            books.move_issuer(program, lot.remaining_points)
        _empty(books, issued)
        _undo_house(books, operation)
    give_back(books, uses, sum(use.points - use.returned_points for use in uses), result)
    books.reversed_ids.add(operation.operation_id)
    decided = _about(books, operation, operation.amount_points)
    decided.outcome, decided.result = Outcome.POSTED, result
    return decided


def _whole(lot: Lot, books: Books) -> bool:
    ended = lot.expire_time is not None and lot.expire_time <= books.now
    return lot.remaining_points == lot.issued_points and lot.reserved_points == 0 and not ended


def _empty(books: Books, lots: list[Lot]) -> None:
    for lot in lots:
        kind = AccountKind.PENDING if lot.state is LotState.PENDING else AccountKind.MEMBER
        books.move_member(lot.account_id, kind, lot.program_id, -lot.remaining_points)
        books.use(lot, lot.remaining_points)


def _undo_house(books: Books, operation: Operation) -> None:
    """The house's side of what is undone."""
    assert operation.program_id is not None
    program = books.configuration.program(operation.program_id)
    assert program is not None
    result = operation.result or {}
    if operation.kind is OperationKind.EARN:
        take_back(books, operation, program, operation.amount_points)
    elif operation.kind is OperationKind.ADJUST and "lots" in result:
        books.move_issuer(program, -operation.amount_points)
    elif operation.kind is OperationKind.EXCHANGE:
        payee, residue = result["payee"], result["residue_points"]
        points = operation.amount_points - residue
        if payee == program.institution_id:
            books.move_issuer(program, -points)
        else:
            books.move(AccountKey(payee, AccountKind.PARTNER, program.program_id), -points)
            terms = agreement_of(books, operation)
            if terms is not None:
                books.expose(terms, -points)
            books.owe(program.institution_id, payee, program.program_id, -points, terms)
        books.move(AccountKey(program.institution_id, AccountKind.ROUNDING, program.program_id), -residue)
