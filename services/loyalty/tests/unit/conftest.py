import uuid
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest

from loyalty.domain.expiry import ExpiryKind, ExpiryPolicy
from loyalty.domain.ledger import commands
from loyalty.domain.ledger.books import Books
from loyalty.domain.ledger.chain import chain_hash
from loyalty.domain.ledger.configuration import AgreementTerms, Basis, Funding, PlainConfiguration, ProgramTerms, RateTerms
from loyalty.domain.ledger.engine import decide
from loyalty.domain.ledger.types import (
    HASH_OF_NOTHING,
    Account,
    AccountKind,
    AccountStatus,
    Head,
    HoldState,
    LotState,
    Outcome,
    Quote,
    RequestKey,
    SpendLine,
    Target,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ANA, BOB, CHILD = (uuid.UUID(int=n) for n in (1, 2, 3))
BANK_SHOP, BANK_AIR, AIR_BANK, BANK_CAFE = (uuid.UUID(int=n) for n in (11, 12, 13, 14))


def configuration(**changes):
    """A bank with points that live 100 days, an airline with miles that do not end, both spendable at each other; a shop that
    accepts the bank's points by an agreement with a cap, and a cafe that gives them out."""
    policy = ExpiryPolicy(1, START - DAY, ExpiryKind.DAYS, days=100)
    programs = [
        ProgramTerms("bank", "bank", (policy,), transfers_allowed=True),
        ProgramTerms("miles", "air", refund_grace_days=7),
        ProgramTerms("old", "bank", (policy,), refund_grace_days=7, pending_days=10),
    ]
    agreements = [
        AgreementTerms(BANK_SHOP, 1, "bank", "shop", Basis.AT_REDEMPTION, 7, 10, 100, "USD", limit_minor_units=700),
        AgreementTerms(BANK_AIR, 1, "bank", "air", Basis.AT_REDEMPTION, 1, 2, 0, "USD", Funding.PREPAID, 10**6, 10),
        AgreementTerms(AIR_BANK, 1, "air", "bank", Basis.AT_REDEMPTION, 3, 1, 0, "USD"),
        AgreementTerms(BANK_CAFE, 1, "bank", "cafe", Basis.AT_ISSUANCE, 1, 1, 0, "USD", limit_minor_units=5000),
    ]
    fields = {
        "programs": {terms.program_id: terms for terms in programs},
        "agreements": {(terms.agreement_id, terms.version): terms for terms in agreements},
        "rates": {("bank", "miles"): (RateTerms(3, 10, START),), ("miles", "bank"): (RateTerms(33, 10, START),)},
    }
    return PlainConfiguration(**fields | changes)


class World:
    """Books that go on and on, with a clock; each command gets a key of its own unless it is told one."""

    def __init__(self, **changes) -> None:
        accounts = {ANA: Account(ANA, family=(CHILD,)), BOB: Account(BOB), CHILD: Account(CHILD)}
        self.books = Books(Head(0, HASH_OF_NOTHING), configuration(**changes), START, accounts=accounts)
        self.numbers = 100

    @property
    def now(self) -> datetime:
        return self.books.now

    def later(self, **span) -> None:
        self.books.now += timedelta(**span)

    def command(self, kind, account_id=ANA, key=None, institution_id="bank", content_hash=b"", **fields):
        self.numbers += 1
        return getattr(commands, kind)(
            operation_id=uuid.UUID(int=self.numbers), key=RequestKey("bank/app", key or str(self.numbers)), account_id=account_id,
            institution_id=institution_id, effective_time=self.now, content_hash=content_hash, **fields,
        )  # fmt: skip

    def do(self, kind, *arguments, **fields):
        (result,) = decide([self.command(kind, *arguments, **fields)], self.books)
        return result

    def earn(self, points, account_id=ANA, program_id="bank", **fields):
        return self.do("Earn", account_id, program_id=program_id, amount_points=points, **fields)

    def redeem(self, points, account_id=ANA, program_id="bank", **fields):
        return self.do("Redeem", account_id, program_id=program_id, amount_points=points, **fields)

    def hold(self, points, account_id=ANA, program_id="bank", institution_id="bank", **fields):
        fields.setdefault("expire_time", self.now + DAY)
        return self.do("Hold", account_id, program_id=program_id, amount_points=points, institution_id=institution_id, **fields)

    def quote(self, lines, target, account_id=ANA, institution_id="air"):
        made = Quote(
            uuid.UUID(int=10**6 + self.numbers), account_id, institution_id, Target(*target),
            tuple(SpendLine(*line) for line in lines), self.now + timedelta(minutes=5),
        )  # fmt: skip
        self.numbers += 1
        self.books.quotes[made.quote_id] = made
        return made.quote_id

    def balance(self, owner, kind="MEMBER", program_id="bank"):
        for key, state in self.books.balances.items():
            if (key.owner, key.kind, key.program_id) == (str(owner), kind, program_id):
                return state.balance_points
        return 0

    def status(self, account_id, status: AccountStatus) -> None:
        self.books.accounts[account_id] = self.books.accounts[account_id]._replace(status=status)

    def problems(self) -> list[str]:
        """What is wrong with the books."""
        books, found = self.books, []
        sums, members = {}, {}
        for key, state in books.balances.items():
            sums[key.program_id] = sums.get(key.program_id, 0) + state.balance_points
            if key.kind in {AccountKind.MEMBER, AccountKind.PENDING, AccountKind.HELD}:
                members[key] = state.balance_points
                if state.balance_points < 0:
                    found.append(f"{key} below zero")
            if key.kind is AccountKind.DEBT and state.balance_points > 0:
                found.append(f"{key} above zero")
        found += [f"{program_id} does not sum to zero" for program_id, points in sums.items() if points]
        of_lots = dict.fromkeys(members, 0)
        for lot in books.lots.values():
            if not 0 <= lot.reserved_points <= lot.remaining_points <= lot.issued_points:
                found.append(f"{lot}")
            kind = AccountKind.PENDING if lot.state is LotState.PENDING else AccountKind.MEMBER
            for key, points in (
                (books.key(lot.account_id, kind, lot.program_id), lot.available_points),
                (books.key(lot.account_id, AccountKind.HELD, lot.program_id), lot.reserved_points),
            ):
                of_lots[key] = of_lots.get(key, 0) + points
        found += [f"{key} {points} is not what its lots have" for key, points in of_lots.items() if members.get(key, 0) != points]
        found += self._lots() + self._holds() + self._exposures() + self._chain()
        return found

    def _lots(self) -> list[str]:
        rest = {lot.lot_id: lot.issued_points for lot in self.books.lots.values()}
        for use in self.books.new_uses:
            rest[use.lot_id] -= use.points
        for back in self.books.returns:
            rest[back.lot_id] += back.points
        return [f"lot {lot_id}" for lot_id, points in rest.items() if self.books.lots[lot_id].remaining_points != points]

    def _holds(self) -> list[str]:
        reserved = dict.fromkeys(self.books.lots, 0)
        for hold in self.books.holds.values():
            if hold.state is HoldState.OPEN:
                for lot in hold.lots:
                    reserved[lot.lot_id] += lot.points - lot.captured_points
        return [f"held {id_}" for id_, points in reserved.items() if self.books.lots[id_].reserved_points != points]

    def _exposures(self) -> list[str]:
        sums: dict[uuid.UUID, Fraction] = {}
        owed = [(item.agreement_id, item.agreement_version, item.points) for item in self.books.items]
        for hold in self.books.holds.values():
            if hold.state is HoldState.OPEN:
                owed += [(m.line.agreement_id, m.line.agreement_version, m.line.points - m.captured_points) for m in hold.lines]
        for agreement_id, version, points in owed:
            if agreement_id is not None:
                terms = self.books.configuration.agreement_version(agreement_id, version)
                price = Fraction(terms.price_numerator, terms.price_denominator)
                sums[agreement_id] = sums.get(agreement_id, Fraction(0)) + points * price
        agreements = sums.keys() | self.books.exposures.keys()
        return [f"exposure {id_}" for id_ in agreements if sums.get(id_, 0) != self.books.exposures.get(id_, 0)]

    def _chain(self) -> list[str]:
        legs: dict[int, list] = {}
        for sequence, entry in self.books.entries:
            legs.setdefault(sequence, []).append(entry)
        found, previous = [], HASH_OF_NOTHING
        for sequence, operation in enumerate(self.books.posted, 1):
            entries = legs.get(operation.sequence, [])
            if operation.sequence != sequence or chain_hash(previous, operation, entries) != operation.hash:
                found.append(f"chain at {sequence}")
            if operation.outcome is not Outcome.POSTED and entries:
                found.append(f"refused {sequence} has legs")
            previous = operation.hash
        return found


@pytest.fixture
def world():
    return World()


@pytest.fixture(scope="session")
def new_world():
    """Makes further worlds, for tests by Hypothesis."""
    return World
