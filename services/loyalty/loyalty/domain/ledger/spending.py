"""What spendings have in common, and redemptions: lines by agreement, lots taken, house legs, clearing."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from loyalty.domain.ledger import pooling
from loyalty.domain.ledger.books import Books, Taken
from loyalty.domain.ledger.commands import Hold, Redeem, Spend
from loyalty.domain.ledger.configuration import AgreementTerms, Basis, ProgramTerms
from loyalty.domain.ledger.types import (
    Account,
    AccountKey,
    AccountKind,
    AccountStatus,
    Decided,
    Outcome,
    Quote,
    SpendLine,
    SpentLine,
    Target,
    Unknown,
)


class Plan(NamedTuple):
    """A spending that can be posted: its lines, which lots each line takes, and the agreement of each."""

    account: Account
    institution_id: str
    target: Target
    lines: Sequence[SpendLine]
    taken: list[list[Taken]]
    terms: list[AgreementTerms | None]
    quote: Quote | None

    @property
    def value_units(self) -> int:
        """What it pays."""
        return sum(line.value_units for line in self.lines)


def plan(command: Spend, books: Books) -> Plan | Decided | Unknown:
    """Decides a spending without changing anything: what it would take, or why it is refused."""
    account = books.accounts.get(command.account_id) if command.account_id is not None else None
    if account is None:
        return Unknown("ACCOUNT_NOT_FOUND")
    quote = None
    if command.quote_id is not None:
        quote = books.quotes.get(command.quote_id)
        if quote is None or quote.account_id != account.account_id:
            return Unknown("QUOTE_NOT_FOUND")
        place, target, lines = quote.institution_id, quote.target, quote.lines
    else:
        place, target = command.institution_id, Target(command.program_id)
        lines = (SpendLine(command.program_id, command.amount_points, command.amount_points),)
    for line in lines:
        if books.configuration.program(line.program_id) is None:
            return Unknown("PROGRAM_NOT_FOUND")
    outcome = _not_now(account, quote, books)
    terms = _agreements(books, place, lines) if outcome is None else None
    if terms is None:
        return _refused(books, account, place, target, lines, outcome or Outcome.NO_AGREEMENT)
    pooled = pooling.lots(books, account, lines) if command.use_pool else None
    taken = pooled if pooled is not None else _lots(books, account, place, target, lines)
    if isinstance(taken, Decided):
        return taken
    if not _within_caps(books, lines, terms):
        return _refused(books, account, place, target, lines, Outcome.CAP_EXCEEDED)
    if books.limits is not None:
        refused = _refused(books, account, place, target, lines, Outcome.LIMIT_EXCEEDED)
        if books.limited(command, lines, refused):
            return refused
    return Plan(account, place, target, lines, taken, terms, quote)


def _not_now(account: Account, quote: Quote | None, books: Books) -> Outcome | None:
    """What account and quote say against it."""
    if account.status is not AccountStatus.OPEN:
        return Outcome.ACCOUNT_FROZEN if account.status is AccountStatus.FROZEN else Outcome.ACCOUNT_CLOSED
    if quote is not None and quote.used_by_operation_id is not None:
        return Outcome.QUOTE_USED
    if quote is not None and quote.expire_time <= books.now:
        return Outcome.QUOTE_EXPIRED
    return None


def _refused(books: Books, account: Account, place: str, target: Target, lines: Sequence[SpendLine], outcome: Outcome) -> Decided:
    program_id = target.program_id or (lines[0].program_id if len(lines) == 1 else None)
    balance, others = books.points_of(account, program_id) if program_id is not None else (0, 0)
    amount = lines[0].value_units if len(lines) == 1 else sum(line.value_units for line in lines)
    return Decided(outcome, program_id, amount, balance, others, institution_id=place)


def _agreements(books: Books, place: str, lines: Sequence[SpendLine]) -> list[AgreementTerms | None] | None:
    """By which agreement each line is paid; None when one is missing. A quote promises the version it names, as long as the
    agreement is active."""
    found: list[AgreementTerms | None] = []
    for line in lines:
        program = books.configuration.program(line.program_id)
        assert program is not None
        if program.institution_id == place:
            found.append(None)
            continue
        terms = books.configuration.agreement(program.institution_id, place, Basis.AT_REDEMPTION, books.now)
        if line.agreement_id is not None and line.agreement_version is not None:
            if terms is None or terms.agreement_id != line.agreement_id:
                return None
            terms = books.configuration.agreement_version(line.agreement_id, line.agreement_version)
        if terms is None and books.configuration.agreement_required:
            return None
        found.append(terms)
    return found


def _lots(books: Books, account: Account, place: str, target: Target, lines: Sequence[SpendLine]) -> list[list[Taken]] | Decided:
    """The lots of each line, all or nothing."""
    owners = (account.account_id, *account.family)
    taken = []
    for line in lines:
        balance, others = books.points_of(account, line.program_id)
        picked = books.pick(owners, line.program_id, line.points) if balance >= line.points else []
        found = sum([take.points for take in picked])
        if found < line.points:
            enough = balance >= line.points
            outcome = Outcome.POINTS_EXPIRED if enough else Outcome.INSUFFICIENT_POINTS
            refused = _refused(books, account, place, target, lines, outcome)
            refused.balance_points, refused.others_points = (found, 0) if enough else (balance, others)
            if len(lines) == 1:
                refused.program_id = line.program_id
            else:
                refused.result = {"program_id": line.program_id, "points": line.points}
            return refused
        taken.append(picked)
    return taken


def _within_caps(books: Books, lines: Sequence[SpendLine], terms: Sequence[AgreementTerms | None]) -> bool:
    """Whether every agreement bears what the lines add to its exposure."""
    points: dict[object, int] = {}
    for line, agreement in zip(lines, terms, strict=True):
        if agreement is not None:
            key = agreement.agreement_id
            points[key] = points.get(key, 0) + line.points
            if not books.within_cap(agreement, points[key]):
                return False
    return True


def redeem(command: Redeem, books: Books) -> Decided | Unknown:
    """Hold and capture in one: takes the lots, pays the redeemer, writes what the issuers owe."""
    planned = plan(command, books)
    if not isinstance(planned, Plan):
        return planned
    lots: list[list[int]] = []
    residues: dict[str, list[Any]] = {}
    for position, (line, taken, terms) in enumerate(zip(planned.lines, planned.taken, planned.terms, strict=True)):
        for lot, points in taken:
            books.move_member(lot.account_id, AccountKind.MEMBER, line.program_id, -points)
            books.use(lot, points)
            lots.append([lot.lot_id, points])
        spent = priced(line, terms)
        if terms is not None:
            books.expose(terms, line.points)
        pay(books, planned, position, spent, line.points, line.value_units, residues)
    return settled(command, books, planned, lots, residues)


def settled(command: Spend, books: Books, planned: Plan, lots: list[list[int]], residues: dict[str, Any]) -> Decided:
    """The answer to a spending, and the quote is used."""
    if planned.quote is not None:
        planned.quote.used_by_operation_id = command.operation_id
        books.used_quotes[planned.quote.quote_id] = command.operation_id
    if books.limits is not None:
        books.limits.count(command, planned.lines, books)
    result: dict[str, Any] = {"lots": lots}
    decided = _refused(books, planned.account, planned.institution_id, planned.target, planned.lines, Outcome.POSTED)
    decided.result = result
    if planned.quote is not None:
        decided.target_id = planned.quote.quote_id if isinstance(command, Hold) else None
        result |= described(planned.target, [priced(*pair) for pair in zip(planned.lines, planned.terms, strict=True)])
    if residues:
        result["residues"] = residues
    if command.use_pool:
        result["pool_points"] = pooling.count(planned.account, planned.taken)
    return decided


def priced(line: SpendLine, terms: AgreementTerms | None) -> SpendLine:
    """The line with the agreement that pays it, also where no quote named it."""
    if terms is not None and line.agreement_id is None:
        return SpendLine(
            line.program_id, line.points, line.value_units, line.numerator, line.denominator, terms.agreement_id, terms.version
        )
    return line


def described(target: Target, lines: Sequence[SpendLine]) -> dict[str, Any]:
    """Price and lines as they stand in a result."""
    price = {"currency_code": target.currency_code} if target.currency_code else {"program_id": target.program_id}
    return {"target": price, "lines": [line.content() for line in lines]}


class Place(NamedTuple):
    """Where points are spent, and in what the price is."""

    institution_id: str
    target: Target


def pay(
    books: Books,
    place: "Plan | Place",
    position: int,
    line: SpendLine,
    points: int,
    value_units: int,
    residues: dict[str, Any],
    before_points: int = 0,
) -> None:
    """Posts what happens beyond the member when points of a line are spent: to the issuer or the partner, the clearing item, and
    the conversion into the target's programme. Writes the line.

    Args:
        books: the books.
        place: where, and in what the price is.
        position: of the line.
        line: whole, as it was quoted.
        points: how many are spent now.
        value_units: what they pay now.
        residues: gets, by position, [whole points left over now, numerator, denominator of the fraction left over in all].
        before_points: of the line, captured before.
    """
    program = books.configuration.program(line.program_id)
    assert program is not None
    spent = SpendLine(
        line.program_id, points, value_units, line.numerator, line.denominator, line.agreement_id, line.agreement_version
    )
    made = SpentLine(books.sequence, position, spent, place.target)
    books.new_spent.append(made)
    books.spent.setdefault(books.sequence, []).append(made)
    if points:
        to_redeemer(books, program, place.institution_id, line, points)
    target = place.target.program_id
    if target is None or target == line.program_id:
        return
    worth = (before_points + points) * line.numerator
    residue = worth // line.denominator - before_points * line.numerator // line.denominator - value_units
    convert(books, place.institution_id, target, value_units, residue)
    fraction = Fraction(worth % line.denominator, line.denominator)
    residues[str(position)] = [residue, str(fraction.numerator), str(fraction.denominator)]


def to_redeemer(books: Books, program: ProgramTerms, place: str, line: SpendLine, points: int) -> None:
    """Points go to who accepted them, or (below zero) come back from there; the issuer itself takes its own back."""
    if program.institution_id == place:
        books.move_issuer(program, points)
        return
    books.move(AccountKey(place, AccountKind.PARTNER, program.program_id), points)
    terms = None
    if line.agreement_id is not None and line.agreement_version is not None:
        terms = books.configuration.agreement_version(line.agreement_id, line.agreement_version)
    books.owe(program.institution_id, place, program.program_id, points, terms)


def convert(books: Books, place: str, program_id: str, value_points: int, residue_points: int) -> None:
    """The notional legs of a conversion: what the points are worth leaves the liquidity, buys, and leaves a residue."""
    program = books.configuration.program(program_id)
    assert program is not None
    books.move(AccountKey(place, AccountKind.LIQUIDITY, program_id), -value_points - residue_points)
    books.move(AccountKey(place, AccountKind.REDEEMED, program_id), value_points)
    books.move(AccountKey(program.institution_id, AccountKind.ROUNDING, program_id), residue_points)
