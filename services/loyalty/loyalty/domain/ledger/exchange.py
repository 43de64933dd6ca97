"""Between members, between programmes, between institutions: transfers, exchanges, settlements."""

from typing import NamedTuple

from loyalty.domain.ledger.books import Books
from loyalty.domain.ledger.commands import Exchange, Settle, Transfer
from loyalty.domain.ledger.configuration import AgreementTerms, Basis, ProgramTerms, RateTerms
from loyalty.domain.ledger.earning import issue
from loyalty.domain.ledger.types import (
    LOTS_PER_OPERATION_MAX,
    Account,
    AccountKey,
    AccountKind,
    AccountStatus,
    Decided,
    Lot,
    LotState,
    Outcome,
    SpendLine,
    Unknown,
)

HOUSE = frozenset({AccountKind.ISSUER, AccountKind.PARTNER, AccountKind.LIQUIDITY, AccountKind.REDEEMED, AccountKind.ROUNDING})


def _giver(command: Transfer | Exchange, books: Books, program: ProgramTerms, account: Account) -> Decided:
    """What a giver's account says before anything is moved: POSTED where nothing is in the way."""
    balance, others = books.points_of(account, program.program_id)
    place = program.institution_id
    decided = Decided(Outcome.POSTED, program.program_id, command.amount_points, balance, others, institution_id=place)
    if account.status is not AccountStatus.OPEN:
        decided.outcome = Outcome.ACCOUNT_FROZEN if account.status is AccountStatus.FROZEN else Outcome.ACCOUNT_CLOSED
    elif balance < command.amount_points:
        decided.outcome = Outcome.INSUFFICIENT_POINTS
    return decided


def transfer(command: Transfer, books: Books) -> Decided | Unknown:
    """Moves points to another member: a lot for each lot they come from, with the same end."""
    program = books.configuration.program(command.program_id)
    account = books.accounts.get(command.account_id) if command.account_id is not None else None
    receiver = books.accounts.get(command.to_account_id)
    if program is None or account is None or receiver is None:
        return Unknown("PROGRAM_NOT_FOUND" if program is None else "ACCOUNT_NOT_FOUND")
    decided = _giver(command, books, program, account)
    family = (account.account_id, *account.family)
    if not program.transfers_allowed or receiver.account_id in family:
        decided.outcome = Outcome.TRANSFER_NOT_ALLOWED
    elif receiver.status is AccountStatus.CLOSED and decided.outcome is Outcome.POSTED:
        decided.outcome = Outcome.ACCOUNT_CLOSED
    lines = (SpendLine(program.program_id, command.amount_points, command.amount_points),)
    if decided.outcome is not Outcome.POSTED:
        return decided
    taken = books.pick(family, program.program_id, command.amount_points)
    if sum(take.points for take in taken) < command.amount_points:
        decided.outcome = Outcome.POINTS_EXPIRED
    elif len(taken) > LOTS_PER_OPERATION_MAX:
        decided.outcome = Outcome.TOO_MANY_LOTS
    else:
        books.limited(command, lines, decided)
    if decided.outcome is not Outcome.POSTED:
        return decided
    lots = []
    for lot, points in taken:
        books.move_member(lot.account_id, AccountKind.MEMBER, lot.program_id, -points)
        books.use(lot, points)
        made = Lot(
            books.next_lot_id(), receiver.account_id, lot.program_id, lot.institution_id, LotState.ACTIVE, points, points, 0,
            books.now, lot.expire_time, lot.origin_lot_id or lot.lot_id,
        )  # fmt: skip
        books.issue(made)
        lots.append([lot.lot_id, points, made.lot_id])
    books.move_member(receiver.account_id, AccountKind.MEMBER, program.program_id, command.amount_points)
    if books.limits is not None:
        books.limits.count(command, lines, books)
    decided.balance_points, decided.others_points = books.points_of(account, program.program_id)
    decided.result = {"lots": lots}
    return decided


class Conversion(NamedTuple):
    """An exchange that can be posted."""

    rate: RateTerms
    received_points: int
    residue_points: int
    terms: AgreementTerms | None


def exchange(command: Exchange, books: Books) -> Decided | Unknown:
    """Changes s points into t = floor(s × rate) of another programme. What of s does not make a point stays as a residue."""
    program = books.configuration.program(command.program_id)
    into = books.configuration.program(command.to_program_id)
    account = books.accounts.get(command.account_id) if command.account_id is not None else None
    if program is None or into is None or account is None:
        return Unknown("ACCOUNT_NOT_FOUND" if account is None else "PROGRAM_NOT_FOUND")
    decided = _giver(command, books, program, account)
    conversion = _conversion(command.amount_points, program, into, books)
    if isinstance(conversion, Outcome):
        decided.outcome = conversion
        return decided
    rate, received, residue, terms = conversion
    lines = (SpendLine(program.program_id, command.amount_points, received, rate.numerator, rate.denominator),)
    if decided.outcome is Outcome.POSTED:
        books.limited(command, lines, decided)
    if decided.outcome is not Outcome.POSTED:
        return decided
    taken = books.pick((account.account_id, *account.family), program.program_id, command.amount_points)
    if sum(take.points for take in taken) < command.amount_points:
        decided.outcome = Outcome.POINTS_EXPIRED
        return decided
    for lot, used in taken:
        books.move_member(lot.account_id, AccountKind.MEMBER, lot.program_id, -used)
        books.use(lot, used)
    payee, points = into.institution_id, command.amount_points - residue
    if terms is None:
        books.move_issuer(program, points)
    else:
        books.move(AccountKey(payee, AccountKind.PARTNER, program.program_id), points)
        books.owe(program.institution_id, payee, program.program_id, points, terms)
        books.expose(terms, points)
    books.move(AccountKey(program.institution_id, AccountKind.ROUNDING, program.program_id), residue)
    lot = issue(books, into, account.account_id, payee, received, pays_debt=False)
    if books.limits is not None:
        books.limits.count(command, lines, books)
    decided.balance_points, decided.others_points = books.points_of(account, program.program_id)
    decided.result = {
        "lots": [[take.lot.lot_id, take.points] for take in taken],
        "received_points": received,
        "lot_id": lot.lot_id,
        "residue_points": residue,
        "rate": [rate.numerator, rate.denominator],
        "payee": payee,
    }
    if terms is not None:
        decided.result["agreement"] = [str(terms.agreement_id), terms.version]
    return decided


def _conversion(points: int, program: ProgramTerms, into: ProgramTerms, books: Books) -> Conversion | Outcome:
    """What points come to, and by which agreement the one issuer pays the other; or why not."""
    rate = books.configuration.rate(program.program_id, into.program_id, books.now)
    if rate is None or program.sandbox is not into.sandbox or program is into:
        return Outcome.NO_RATE
    received = points * rate.numerator // rate.denominator
    if received <= 0:
        return Outcome.AMOUNT_TOO_SMALL
    residue = points - -(-received * rate.denominator // rate.numerator)
    terms = None
    if into.institution_id != program.institution_id:
        terms = books.configuration.agreement(program.institution_id, into.institution_id, Basis.AT_REDEMPTION, books.now)
        if terms is None:
            return Outcome.NO_AGREEMENT
        if not books.within_cap(terms, points - residue):
            return Outcome.CAP_EXCEEDED
    return Conversion(rate, received, residue, terms)


def settle(command: Settle, books: Books) -> Decided | Unknown:
    """Moves what was settled between house accounts, and lowers exposures.

    Raises:
        ValueError: when legs are not the house's, or do not sum to zero in each programme: the caller's fault.
    """
    sums: dict[str, int] = {}
    for key, points in command.legs:
        if key.kind not in HOUSE:
            raise ValueError("a settlement moves house accounts only")
        sums[key.program_id] = sums.get(key.program_id, 0) + points
    if any(sums.values()):
        raise ValueError("the legs of a settlement sum to zero in each programme")
    for key, points in command.legs:
        books.move(key, points)
    for agreement_id, numerator, denominator in command.exposures:
        books.lower(agreement_id, numerator, denominator)
    amount = sum(points for _, points in command.legs if points > 0)
    return Decided(Outcome.POSTED, next(iter(sums)) if len(sums) == 1 else None, amount)
