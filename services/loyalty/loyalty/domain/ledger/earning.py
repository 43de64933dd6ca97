"""Points for members: earned at once or promised, confirmed, cancelled."""

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from loyalty.domain.ledger.books import Books
from loyalty.domain.ledger.commands import Cancel, Confirm, Earn
from loyalty.domain.ledger.configuration import AgreementTerms, Basis, ProgramTerms
from loyalty.domain.ledger.types import (
    LOTS_PER_OPERATION_MAX,
    AccountKind,
    AccountStatus,
    Decided,
    Lot,
    LotState,
    Operation,
    OperationKind,
    Outcome,
    SpendLine,
    Unknown,
)


def earn(command: Earn, books: Books) -> Decided | Unknown:
    """Issues a lot. Earned at another institution than the issuer, that one pays, as their agreement says."""
    program_id, points, place = command.program_id, command.amount_points, command.institution_id
    account, program = (
        books.accounts.get(command.account_id) if command.account_id else None,
        books.configuration.program(program_id),
    )
    if account is None:
        return Unknown("ACCOUNT_NOT_FOUND")
    if program is None:
        return Unknown("PROGRAM_NOT_FOUND")
    balance, others = books.points_of(account, program_id)
    refused = Decided(Outcome.ACCOUNT_CLOSED, program_id, points, balance, others)
    if account.status is AccountStatus.CLOSED:
        return refused
    terms = None
    if place != program.institution_id:
        terms = books.configuration.agreement(program.institution_id, place, Basis.AT_ISSUANCE, books.now)
        if terms is None or not books.within_cap(terms, points):
            refused.outcome = Outcome.NO_AGREEMENT if terms is None else Outcome.CAP_EXCEEDED
            return refused
    lines = (SpendLine(program_id, points, points),)
    if books.limited(command, lines, refused):
        return refused
    pending, active_time = _promise(command, program, books.now)
    lot = issue(books, program, account.account_id, place, points, pending, active_time, command.expire_time)
    result: dict[str, Any] = {"lot_id": lot.lot_id, "expire_time": lot.expire_time}
    if lot.remaining_points < points:
        result["debt_points"] = points - lot.remaining_points
    if terms is not None:
        result["agreement"] = [str(terms.agreement_id), terms.version]
        books.expose(terms, points)
        books.owe(place, program.institution_id, program_id, points, terms)
    if books.limits is not None:
        books.limits.count(command, lines, books)
    balance, others = books.points_of(account, program_id)
    return Decided(Outcome.POSTED, program_id, points, balance, others, result=result)


def _promise(command: Earn, program: ProgramTerms, now: datetime) -> tuple[bool, datetime | None]:
    """Whether the points are promised only, and until when."""
    if command.pending is not None:
        return command.pending, command.active_time
    if program.pending_days:
        return True, command.effective_time + timedelta(days=program.pending_days)
    return False, None


def issue(
    books: Books,
    program: ProgramTerms,
    account_id: uuid.UUID,
    institution_id: str,
    points: int,
    pending: bool = False,
    active_time: datetime | None = None,
    expire_time: datetime | None = None,
    pays_debt: bool = True,
) -> Lot:
    """Issues a lot to a member, and pays the member's debt of it first."""
    starts = active_time if pending and active_time is not None else books.now
    lot = Lot(
        books.next_lot_id(),
        account_id,
        program.program_id,
        institution_id,
        LotState.PENDING if pending else LotState.ACTIVE,
        points,
        points,
        0,
        active_time if pending else books.now,
        expire_time or program.expire_time(books.now, starts),
    )
    books.move_issuer(program, -points)
    if pending:
        books.move_member(account_id, AccountKind.PENDING, program.program_id, points)
        books.issue(lot)
        return lot
    debt = _pay_debt(books, lot) if pays_debt else 0
    books.move_member(account_id, AccountKind.MEMBER, program.program_id, points - debt)
    books.issue(lot)
    return lot


def _pay_debt(books: Books, lot: Lot) -> int:
    """What of a lot that becomes the member's goes into its debt."""
    debt = -books.points(lot.account_id, AccountKind.DEBT, lot.program_id)
    if debt <= 0:
        return 0
    paid = min(debt, lot.remaining_points)
    books.move_member(lot.account_id, AccountKind.DEBT, lot.program_id, paid)
    books.use(lot, paid)
    return paid


def own_lot(books: Books, earning: Operation) -> Lot | None:
    """The lot that an earning issued; None of an earning from before there were lots."""
    return books.lots.get(earning.sequence * LOTS_PER_OPERATION_MAX)


def confirm(command: Confirm, books: Books) -> Decided | Unknown:
    """Promised points become the member's, and pay its debt. Lots that are not promised any more are left out."""
    if command.earning_id is None:
        program_id, account_id = command.program_id, command.account_id
        lots: Iterable[Lot | None] = [books.lots.get(lot_id) for lot_id in dict.fromkeys(command.lot_ids)]
        asked, institution_id = 0, None
    else:
        earning = books.operations.get(command.earning_id)
        if earning is None or earning.kind is not OperationKind.EARN or earning.program_id is None:
            return Unknown("OPERATION_NOT_FOUND")
        program_id, account_id, lots = earning.program_id, earning.account_id, [own_lot(books, earning)]
        asked, institution_id = earning.amount_points, earning.institution_id
    promised = [
        lot
        for lot in lots
        if lot is not None and lot.program_id == program_id and lot.state is LotState.PENDING and lot.remaining_points > 0
    ]
    decided = Decided(
        Outcome.LOT_NOT_PENDING, program_id, asked, target_id=command.earning_id, account_id=account_id,
        institution_id=institution_id,
    )  # fmt: skip
    if not promised:
        return decided
    decided.outcome = Outcome.POSTED
    decided.amount_points = sum(lot.remaining_points for lot in promised)
    decided.result = {"lots": [[lot.lot_id, lot.remaining_points] for lot in promised]}
    debts = 0
    for lot in promised:
        books.move_member(lot.account_id, AccountKind.PENDING, program_id, -lot.remaining_points)
        debt = _pay_debt(books, lot)
        debts += debt
        books.move_member(lot.account_id, AccountKind.MEMBER, program_id, lot.remaining_points)
        books.activate(lot)
    if debts:
        decided.result["debt_points"] = debts
    if account_id is not None:
        decided.balance_points = books.points(account_id, AccountKind.MEMBER, program_id)
    return decided


def cancel(command: Cancel, books: Books) -> Decided | Unknown:
    """What remains of a promise goes back to the issuer."""
    earning = books.operations.get(command.earning_id)
    program = books.configuration.program(earning.program_id) if earning is not None and earning.program_id else None
    if earning is None or earning.kind is not OperationKind.EARN or program is None or earning.account_id is None:
        return Unknown("OPERATION_NOT_FOUND")
    lot = own_lot(books, earning)
    account_id = earning.account_id
    decided = Decided(
        Outcome.LOT_NOT_PENDING, program.program_id, earning.amount_points,
        books.points(account_id, AccountKind.MEMBER, program.program_id), target_id=earning.operation_id, account_id=account_id,
        institution_id=earning.institution_id,
    )  # fmt: skip
    if lot is None or lot.state is not LotState.PENDING or not lot.remaining_points:
        return decided
    points = lot.remaining_points
    decided.outcome, decided.amount_points, decided.result = Outcome.POSTED, points, {"lots": [[lot.lot_id, points]]}
    books.move_member(account_id, AccountKind.PENDING, program.program_id, -points)
    books.move_issuer(program, points)
    books.use(lot, points)
    take_back(books, earning, program, points)
    return decided


def take_back(books: Books, earning: Operation, program: ProgramTerms, points: int) -> None:
    """Points of an earning went back: no more than was earned can, and who paid for their issue gets it back."""
    books.taken_back[earning.operation_id] = books.taken_back.get(earning.operation_id, 0) + points
    terms = agreement_of(books, earning)
    if terms is not None:
        books.expose(terms, -points)
        books.owe(earning.institution_id, program.institution_id, program.program_id, -points, terms)


def agreement_of(books: Books, operation: Operation) -> AgreementTerms | None:
    """The version of an agreement that an operation was decided by."""
    named = (operation.result or {}).get("agreement")
    return books.configuration.agreement_version(uuid.UUID(named[0]), named[1]) if named else None
