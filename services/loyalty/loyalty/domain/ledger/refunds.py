"""Refunds: what was spent comes back, to the lots it came from."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from loyalty.domain.ledger.books import Books
from loyalty.domain.ledger.commands import Refund
from loyalty.domain.ledger.configuration import AgreementTerms
from loyalty.domain.ledger.spending import convert, to_redeemer
from loyalty.domain.ledger.types import (
    LOTS_PER_OPERATION_MAX,
    AccountKind,
    Decided,
    Lot,
    LotState,
    LotUse,
    Operation,
    OperationKind,
    Outcome,
    SpentLine,
    Unknown,
)


def refund(command: Refund, books: Books) -> Decided | Unknown:
    """Brings back an amount of a capture or redemption: its lines from the last to the first, of each line the lots likewise."""
    spending = books.operations.get(command.spending_id)
    if spending is None:
        return Unknown("OPERATION_NOT_FOUND")
    lines = books.spent.get(spending.sequence, [])
    left = sum(line.line.value_units - line.refunded_value_units for line in lines)
    amount = left if command.amount_units is None else command.amount_units
    decided = _found(books, spending, amount)
    posted = spending.outcome is Outcome.POSTED and spending.kind in {OperationKind.CAPTURE, OperationKind.REDEEM}
    if not posted or not lines:  # what was spent before there were lots has no lines
        return decided
    if amount > left or amount <= 0:
        decided.outcome = Outcome.OVER_REFUND
        return decided
    result: dict[str, Any] = {"lots": []}
    rest = amount
    for line in sorted(lines, key=lambda line: -line.position):
        value = min(rest, line.line.value_units - line.refunded_value_units)
        if value > 0:
            rest -= value
            _refund_line(books, spending, line, value, result)
    decided = _found(books, spending, amount)
    decided.outcome, decided.result = Outcome.POSTED, result
    return decided


def _found(books: Books, spending: Operation, amount: int) -> Decided:
    account = books.accounts.get(spending.account_id) if spending.account_id is not None else None
    balance, others = (0, 0)
    if account is not None and spending.program_id is not None:
        balance, others = books.points_of(account, spending.program_id)
    return Decided(
        Outcome.NOT_REFUNDABLE, spending.program_id, amount, balance, others,
        target_id=spending.operation_id, account_id=spending.account_id, institution_id=spending.institution_id,
    )  # fmt: skip


def _refund_line(books: Books, spending: Operation, line: SpentLine, value: int, result: dict[str, Any]) -> None:
    spent = line.line
    line.refunded_value_units += value
    kept = spent.value_units - line.refunded_value_units
    # As captures take: the least whole points for what stays spent, so in the end exactly all come back.
    points = spent.points - line.refunded_points - -(-kept * spent.points // spent.value_units)
    line.refunded_points += points
    if line.sequence <= books.head_at_start:
        books.changed_spent[line.sequence, line.position] = line
    program = books.configuration.program(spent.program_id)
    assert program is not None
    spent_count = len((spending.result or {}).get("lots", ()))  # the uses after these are points that a final capture let end
    uses = [
        use
        for use in books.uses[line.sequence]
        if use.ordinal < spent_count and books.lots[use.lot_id].program_id == spent.program_id
    ]
    give_back(books, uses, points, result)
    place = spending.institution_id
    if points:
        to_redeemer(books, program, place, spent, -points)
        terms = _terms(books, line)
        if terms is not None:
            books.expose(terms, -points)
    target = line.target.program_id
    if target is not None and target != spent.program_id:
        convert(books, place, target, -value, 0 if kept else -_residue(spending, line))


def _terms(books: Books, line: SpentLine) -> AgreementTerms | None:
    spent = line.line
    if spent.agreement_id is None or spent.agreement_version is None:
        return None
    return books.configuration.agreement_version(spent.agreement_id, spent.agreement_version)


def _residue(spending: Operation, line: SpentLine) -> int:
    """The whole points that were left over when the line was converted; they go back with its last part."""
    residue: int = (spending.result or {}).get("residues", {}).get(str(line.position), [0])[0]
    return residue


def give_back(books: Books, uses: Iterable[LotUse], points: int, result: dict[str, Any]) -> None:
    """Brings points of uses back to their lots, the last used first. Of lots past their end they live on for the programme's
    days of grace, or go back to the issuer.

    Adds to the result: `lots` ([lot, points]), of these `expired` ([lot, points]) and `grace` ([lot, points, new lot]).
    """
    for use in sorted(uses, key=lambda use: -use.ordinal):
        returned = min(points, use.points - use.returned_points)
        if returned <= 0:
            continue
        points -= returned
        lot = books.give_back(use, returned)
        result["lots"].append([lot.lot_id, returned])
        if lot.expire_time is None or lot.expire_time > books.now:
            books.move_member(lot.account_id, AccountKind.MEMBER, lot.program_id, returned)
            continue
        books.use(lot, returned)
        program = books.configuration.program(lot.program_id)
        assert program is not None
        if not program.refund_grace_days or books.lots_issued_count >= LOTS_PER_OPERATION_MAX:
            books.move_issuer(program, returned)
            result.setdefault("expired", []).append([lot.lot_id, returned])
            continue
        grace = Lot(
            books.next_lot_id(), lot.account_id, lot.program_id, lot.institution_id, LotState.ACTIVE, returned, returned, 0,
            books.now, books.now + timedelta(days=program.refund_grace_days), lot.origin_lot_id or lot.lot_id,
        )  # fmt: skip
        books.issue(grace)
        books.move_member(lot.account_id, AccountKind.MEMBER, lot.program_id, returned)
        result.setdefault("grace", []).append([lot.lot_id, returned, grace.lot_id])
    assert points == 0, "a spending's lots do not hold what its lines spent"
