"""Spendings that take points of a pool: the account's own first, then the other members', what ends first first."""

from collections.abc import Sequence

from loyalty.domain.ledger.books import Books, Taken
from loyalty.domain.ledger.types import Account, SpendLine


def lots(books: Books, account: Account, lines: Sequence[SpendLine]) -> list[list[Taken]] | None:
    """The lots of each line; None when own and pool do not reach, or the member's limit does not. Changes nothing."""
    found = []
    for line in lines:
        taken = _line(books, account, line)
        if taken is None:
            return None
        found.append(taken)
    return found


def _line(books: Books, account: Account, line: SpendLine) -> list[Taken] | None:
    balance, _ = books.points_of(account, line.program_id)
    own = min(balance, line.points)
    taken = books.pick((account.account_id, *account.family), line.program_id, own) if own else []
    missing = line.points - sum(take.points for take in taken)
    if missing and account.pool is not None and account.pool.owners:
        drawn = account.pool.left(line.program_id, missing)
        taken = taken + (books.pick(account.pool.owners, line.program_id, drawn) if drawn else [])
        missing = line.points - sum(take.points for take in taken)
    return taken if not missing else None


def count(account: Account, taken: Sequence[Sequence[Taken]]) -> int:
    """Counts what a posted spending took of others. Returns how many points."""
    pool, points = account.pool, 0
    for lot, took in (take for line in taken for take in line):
        if pool is not None and lot.account_id in pool.owners:
            pool.drawn_points[lot.program_id] = pool.drawn_points.get(lot.program_id, 0) + took
            points += took
    return points
