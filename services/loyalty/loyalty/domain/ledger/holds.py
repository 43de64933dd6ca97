"""Holds: reserve, capture in parts, release."""

from typing import Any

from loyalty.domain.ledger.books import Books
from loyalty.domain.ledger.commands import Capture, ExpireHold, Void
from loyalty.domain.ledger.commands import Hold as HoldCommand
from loyalty.domain.ledger.configuration import AgreementTerms
from loyalty.domain.ledger.spending import Place, Plan, pay, plan, priced, settled
from loyalty.domain.ledger.types import (
    AccountKind,
    Decided,
    Hold,
    HoldLine,
    HoldLot,
    HoldState,
    Outcome,
    SpendLine,
    Unknown,
)


def hold(command: HoldCommand, books: Books) -> Decided | Unknown:
    """Reserves the lots of all lines, or refuses."""
    planned = plan(command, books)
    if not isinstance(planned, Plan):
        return planned
    made = Hold(
        command.operation_id, planned.account.account_id, planned.institution_id, planned.target, HoldState.OPEN,
        planned.value_units, 0, books.now, command.expire_time, command.quote_id,
    )  # fmt: skip
    lots = []
    for position, (line, taken, terms) in enumerate(zip(planned.lines, planned.taken, planned.terms, strict=True)):
        made.lines.append(HoldLine(position, priced(line, terms)))
        for ordinal, (lot, points) in enumerate(taken):
            books.move_member(lot.account_id, AccountKind.MEMBER, line.program_id, -points)
            books.move_member(lot.account_id, AccountKind.HELD, line.program_id, points)
            books.reserve(lot, points)
            made.lots.append(HoldLot(position, ordinal, lot.lot_id, points))
            lots.append([lot.lot_id, points])
        if terms is not None:
            books.expose(terms, line.points)
    books.holds[made.hold_id] = books.new_holds[made.hold_id] = made
    return settled(command, books, planned, lots, {})


def _found(books: Books, held: Hold) -> Decided:
    program_id = held.target.program_id or (held.lines[0].line.program_id if len(held.lines) == 1 else None)
    account = books.accounts.get(held.account_id)
    balance, others = books.points_of(account, program_id) if account is not None and program_id is not None else (0, 0)
    return Decided(
        Outcome.HOLD_NOT_OPEN, program_id, held.amount_units - held.captured_units, balance, others,
        target_id=held.hold_id, account_id=held.account_id, institution_id=held.institution_id,
    )  # fmt: skip


def capture(command: Capture, books: Books) -> Decided | Unknown:
    """Spends part or all of what a hold reserves, line after line; the last capture, or a final one, releases the rest."""
    held = books.holds.get(command.hold_id)
    if held is None:
        return Unknown("HOLD_NOT_FOUND")
    left = held.amount_units - held.captured_units
    amount = left if command.amount_units is None else command.amount_units
    refused = _found(books, held)
    refused.amount_points = amount
    if held.state is not HoldState.OPEN:
        refused.outcome = Outcome.HOLD_EXPIRED if held.state is HoldState.EXPIRED else Outcome.HOLD_NOT_OPEN
        return refused
    if held.expire_time <= books.now or amount > left:
        refused.outcome = Outcome.HOLD_EXPIRED if held.expire_time <= books.now else Outcome.OVER_CAPTURE
        return refused
    lots: list[list[int]] = []
    residues: dict[str, Any] = {}
    rest = amount
    for line in held.lines:
        value = min(rest, line.line.value_units - line.captured_value_units)
        if value <= 0:
            continue
        rest -= value
        captured_value = line.captured_value_units + value
        captured_points = -(-captured_value * line.line.points // line.line.value_units)
        points, before_points = captured_points - line.captured_points, line.captured_points
        line.captured_points, line.captured_value_units = captured_points, captured_value
        lots += _take(books, held, line, points)
        place = Place(held.institution_id, held.target)
        pay(books, place, line.position, line.line, points, value, residues, before_points)
    held.captured_units += amount
    released: list[list[int]] = []
    if held.captured_units == held.amount_units:
        _close(books, held, HoldState.CAPTURED)
    elif command.final:
        released = _release(books, held)
        _close(books, held, HoldState.RELEASED)
    books.hold_changed(held)
    decided = _found(books, held)
    decided.outcome, decided.amount_points, decided.result = Outcome.POSTED, amount, {"lots": lots}
    if residues:
        decided.result["residues"] = residues
    if released:
        decided.result["released"] = released
    return decided


def _take(books: Books, held: Hold, line: HoldLine, points: int) -> list[list[int]]:
    """Uses points of the lots that a line reserves, in their order."""
    lots = []
    for reserved in held.lots:
        if reserved.position != line.position or not points:
            continue
        taken = min(points, reserved.points - reserved.captured_points)
        if taken:
            lot = books.lots[reserved.lot_id]
            reserved.captured_points += taken
            points -= taken
            books.move_member(lot.account_id, AccountKind.HELD, lot.program_id, -taken)
            lot.reserved_points -= taken
            books.use(lot, taken)
            lots.append([lot.lot_id, taken])
    return lots


def _release(books: Books, held: Hold) -> list[list[int]]:
    """Gives back what is reserved and not captured. What is past its end ends now: [lot, points, points that ended]."""
    released = []
    for reserved in held.lots:
        points = reserved.points - reserved.captured_points
        if not points:
            continue
        lot = books.lots[reserved.lot_id]
        books.move_member(lot.account_id, AccountKind.HELD, lot.program_id, -points)
        ended = lot.expire_time is not None and lot.expire_time <= books.now
        if ended:
            program = books.configuration.program(lot.program_id)
            assert program is not None
            lot.reserved_points -= points
            books.use(lot, points)
            books.move_issuer(program, points)
        else:
            books.move_member(lot.account_id, AccountKind.MEMBER, lot.program_id, points)
            books.reserve(lot, -points)
        released.append([lot.lot_id, points, points if ended else 0])
    for line in held.lines:
        terms = _terms(books, line.line)
        if terms is not None:
            books.expose(terms, line.captured_points - line.line.points)
    return released


def _terms(books: Books, line: SpendLine) -> AgreementTerms | None:
    if line.agreement_id is None or line.agreement_version is None:
        return None
    return books.configuration.agreement_version(line.agreement_id, line.agreement_version)


def _close(books: Books, held: Hold, state: HoldState) -> None:
    held.state, held.close_time = state, books.now


def void(command: Void, books: Books) -> Decided | Unknown:
    """Releases all that is left."""
    held = books.holds.get(command.hold_id)
    if held is None:
        return Unknown("HOLD_NOT_FOUND")
    return _end(books, held, HoldState.VOIDED)


def expire_hold(command: ExpireHold, books: Books) -> Decided | Unknown:
    """The same, where its time is over."""
    held = books.holds.get(command.hold_id)
    if held is None or (held.state is HoldState.OPEN and held.expire_time > books.now):
        return Unknown("HOLD_NOT_DUE" if held is not None else "HOLD_NOT_FOUND")
    return _end(books, held, HoldState.EXPIRED)


def _end(books: Books, held: Hold, state: HoldState) -> Decided:
    if held.state is not HoldState.OPEN:
        return _found(books, held)
    left = held.amount_units - held.captured_units
    released = _release(books, held)
    _close(books, held, state)
    books.hold_changed(held)
    decided = _found(books, held)
    decided.outcome, decided.amount_points, decided.result = Outcome.POSTED, left, {"released": released}
    return decided
